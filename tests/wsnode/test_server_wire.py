"""What workers say to each other, cut anywhere."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsnode.lean import BINARY, TEXT
from wsnode.server.interest import BUCKETS, Interest, bucket
from wsnode.server.wire import BARRIER, LONGEST_NAME_BYTES, Decoder, Record, WireError, encode

MOST = 5000
RECORDS = st.one_of(
    st.builds(
        Record,
        st.binary(min_size=1, max_size=64),
        st.sampled_from([TEXT, BINARY]),
        st.one_of(st.binary(max_size=200), st.integers(0, MOST).map(lambda size: b"p" * size)),
    ),
    st.just(Record(b"", 0, b"")),
)


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


@settings(deadline=None)
@given(sent=st.lists(RECORDS, max_size=12), places=st.lists(st.integers(0, 20_000), max_size=20))
def test_records_come_out_as_they_went_in_wherever_the_stream_is_cut(sent, places):
    decoder = Decoder(MOST)
    data = b"".join(encode(*record) for record in sent)
    assert [record for piece in pieces(data, places) for record in decoder.feed(piece)] == sent
    assert decoder.feed(b"") == []


@settings(deadline=None)
@given(sent=st.lists(RECORDS, min_size=1, max_size=4), missing=st.integers(1, 6))
def test_a_record_that_is_not_whole_does_not_come_out(sent, missing):
    data = b"".join(encode(*record) for record in sent)[:-missing]
    assert Decoder(MOST).feed(data) == sent[: len(Decoder(MOST).feed(data))] != sent


@settings(deadline=None)
@given(data=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=5))
def test_whatever_comes_is_a_record_of_ours_or_refused(data, places):
    decoder = Decoder(MOST)
    with contextlib.suppress(WireError):
        for piece in pieces(data, places):
            for record in decoder.feed(piece):
                assert record.first in (TEXT, BINARY) or record == (b"", 0, b"")
                assert data.find(encode(*record)) >= 0


@pytest.mark.parametrize(
    "head",
    [
        encode(b"room", TEXT, b"p" * (MOST + LONGEST_NAME_BYTES))[:6],
        b"\x00\x00\x00\x02" + bytes((TEXT, 3)),
        b"\x00\x00\x00\x02" + bytes((0x83, 1)),
        b"\x00\x00\x00\x01" + bytes((0, 1)),
        b"\xff\xff\xff\xff" + bytes((BINARY, 4)),
    ],
)
def test_a_head_that_no_worker_writes_is_refused_before_anything_behind_it_is_awaited(head):
    with pytest.raises(WireError):
        Decoder(MOST).feed(BARRIER + head)


@settings(deadline=None)
@given(names=st.lists(st.sampled_from("abcdefgh"), max_size=30), order=st.randoms(use_true_random=False))
def test_a_row_shows_a_bucket_while_any_of_its_rooms_has_subscribers(names, order):
    """Buckets are drawn from 8 instead of 65,536, so that rooms share them."""
    interest = Interest.create(2)
    interest.take(1, 4242)
    places = [bucket(name.encode()) % 8 for name in names]
    left = list(places)
    for at in places:
        interest.add(1, at)
    order.shuffle(left)
    while left:
        assert bytes(interest.row(1)) == bytes(at in left for at in range(8)).ljust(BUCKETS, b"\0")
        interest.remove(1, left.pop())
    assert not any(interest.row(1))
    assert not any(interest.row(0))
    assert (interest.owner(0), interest.owner(1)) == (0, 4242)
    interest.add(1, 5)
    interest.clear(1)
    assert (interest.owner(1), any(interest.row(1))) == (0, False)

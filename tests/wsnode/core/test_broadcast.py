"""Rooms, publishers, and the account of deliveries against a plain one that remembers everything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.wsnode.core.runs import Load
from wsnode.core.broadcast import (
    HEAD_BYTES,
    MOST_SLICES,
    Layout,
    Publishers,
    Room,
    broken_rooms,
    merge_rooms,
    slice_length_s,
)
from wsnode.core.judge import judge
from wsnode.core.merge import merge
from wsnode.core.result import NO_BROADCAST
from wsnode.core.scenario import Scenario
from wsnode.core.summary import HostRun, summarise

BROADCAST: dict[str, Any] = {
    "behaviour": "broadcast", "clients": 10, "publishers": "2", "ramp_up_s": 1, "rate_per_s": 10, "duration_s": 4,
}  # fmt: skip
ROOM = Room(
    room=0, published={1: 10, 2: 10, 3: 10}, begun={1: 3}, ended={3: 1, 4: 2}, received=79, gaps=1, edges=-80
)  # fmt: skip
"""Three connections from slice 1 on, one until before slice 3: 20 + 2 · 30 deliveries, one of which is missing."""


@pytest.mark.parametrize(
    ("text", "clients", "publishers"),
    [("all", 7, 7), ("5", 200, 5), ("2%", 200, 4), ("2 %", 200, 4), ("0.1%", 200, 1), ("100%", 3, 3)],
)
def test_publishers_are_all_a_number_or_a_share(text: str, clients: int, publishers: int) -> None:
    assert Publishers.parse(text).of(clients) == publishers
    assert Publishers.parse(Publishers.parse(text).text) == Publishers.parse(text)


@pytest.mark.parametrize("text", ["", "none", "0", "1.5", "-1", "0%", "101%", "5 clients", "%", "1e3"])
def test_other_words_for_publishers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"publishers {text!r}: expected"):
        Publishers.parse(text)


@given(st.integers(1, 60), st.data())
def test_rooms_and_publishers_are_even(clients: int, data: st.DataObject) -> None:
    rooms = data.draw(st.integers(1, clients))
    publishers = data.draw(st.integers(1, clients))
    layout = Layout(clients, rooms, publishers)
    members = [[client for client in range(clients) if layout.room_of(client) == room] for room in range(rooms)]
    publishing = [sum(layout.publishes(client) for client in room) for room in members]
    assert max(map(len, members)) - min(map(len, members)) <= 1
    assert sum(publishing) == len(layout.publishing()) == publishers
    assert max(publishing) - min(publishing) <= 1


@given(st.integers(1, 1000), st.integers(1, 604_800))
def test_slices_are_so_long_that_all_rooms_have_few_enough(rooms: int, duration_s: int) -> None:
    length = slice_length_s(rooms, duration_s)
    assert rooms * (duration_s // length) <= MOST_SLICES
    assert length == 1 or rooms * duration_s > MOST_SLICES


def test_what_is_expected_and_lost_is_told_by_slices_and_sequences() -> None:
    assert (ROOM.expected(), ROOM.lost()) == (80, 1)
    assert broken_rooms([ROOM]) == []


@given(st.data())
def test_the_account_is_that_of_a_ledger_that_remembers_every_delivery(data: st.DataObject) -> None:
    """Each connection's stretch and each message's fate drawn; what a room counts of it, over two workers."""
    slices = 6
    counts = st.lists(st.integers(0, 3), min_size=slices, max_size=slices)
    published = data.draw(st.lists(counts, min_size=1, max_size=3))
    messages = [
        [(slice_, sequence) for sequence, slice_ in enumerate((s for s, n in enumerate(of) for _ in range(n)), 1)]
        for of in published
    ]
    expected = lost = 0
    parts = [Room(room=0, published={s: sum(of[s] for of in published) for s in range(slices)})]
    for _ in range(data.draw(st.integers(0, 4))):
        begin = data.draw(st.integers(0, slices))
        end = data.draw(st.integers(begin, slices))
        if begin == end:
            continue
        received = gaps = edges = 0
        for of in messages:
            due = [sequence for slice_, sequence in of if begin <= slice_ < end]
            came = sorted(data.draw(st.sets(st.sampled_from(due)))) if due else []
            expected += len(due)
            lost += len(due) - len(came)
            received += len(came)
            if came:
                gaps += came[-1] - came[0] + 1 - len(came)
                edges += came[0] - 1 - came[-1]
        parts.append(Room(room=0, begun={begin: 1}, ended={end: 1}, received=received, gaps=gaps, edges=edges))
    [room] = merge_rooms(parts)
    assert (room.expected(), room.lost()) == (expected, lost)
    assert broken_rooms([room]) == []


def test_rooms_of_workers_and_hosts_add_up_whatever_the_order() -> None:
    other = ROOM.model_copy(update={"published": {2: 1, 9: 4}, "late": 3})
    third = Room(room=1, indeterminate=5)
    assert merge_rooms([third, ROOM, other]) == merge_rooms([other, third, ROOM])
    both, alone = merge_rooms([third, ROOM, other])
    assert both.published == {1: 10, 2: 11, 3: 10, 9: 4}
    assert (both.late, both.received, alone) == (3, 158, third)


def _run(room: Room | None, **changes: Any) -> HostRun:
    load = Load("load-1").tick(connects=10, due=20, no_reply=20, deliveries=100, seconds=4)
    run = load.run()
    assert run.result.final is not None
    final = run.result.final.model_copy(update={"rooms": None if room is None else (room,)})
    return HostRun(run.name, run.series, run.result.model_copy(update={"final": final}))


def _judge(room: Room | None, *thresholds: str, behaviour: str = "broadcast") -> Any:
    scenario = Scenario(**{**BROADCAST, "behaviour": behaviour}, thresholds=thresholds)
    runs = [_run(room)]
    summary = summarise(scenario, runs)
    assert summary is not None
    return judge("r-1", summary, runs)


def test_a_result_has_the_account_and_thresholds_are_judged_by_it() -> None:
    result = _judge(ROOM, "delivery_loss_ratio <= 1.25%", "deliveries_per_s >= 101/s")
    assert result.broadcast.model_dump() == {
        "expected": 80, "received": 79, "lost": 1, "duplicate": 0, "out_of_order": 0, "late": 0, "indeterminate": 0,
        "deliveries_per_s": 100, "delivery_loss_ratio": 1 / 80,
    }  # fmt: skip
    assert [judged.passed for judged in result.thresholds] == [True, False]
    assert not any("add up" in reason for reason in result.reasons)


@pytest.mark.parametrize("change", [{"received": 80}, {"gaps": 0}, {"edges": -81}, {"received": 81, "gaps": -1}])
def test_an_account_that_does_not_hold_makes_the_run_invalid(change: dict[str, int]) -> None:
    result = _judge(ROOM.model_copy(update=change))
    assert result.validity == "invalid"
    assert any("accounts of the broadcast do not add up: expected deliveries 80 of room 0" in r for r in result.reasons)


def test_without_every_load_generators_word_there_is_no_account_and_a_reason() -> None:
    result = _judge(None, "delivery_loss_ratio <= 1%")
    assert result.broadcast is None
    assert result.nulls["broadcast"].startswith("a load generator was lost")
    assert [judged.passed for judged in result.thresholds] == [None]


def test_of_an_echo_nothing_is_judged_that_is_of_broadcasts_alone() -> None:
    result = _judge(None, "delivery_loss_ratio <= 1%", "one_way.p99 < 1ms", behaviour="echo")
    assert "broadcast" not in result.nulls
    assert [judged.passed for judged in result.thresholds] == [None, None]
    assert sum(NO_BROADCAST in note for note in result.notes) == 2


def test_a_part_without_rooms_leaves_the_whole_without() -> None:
    final = _run(ROOM).result.final
    assert final is not None
    assert merge([final, final]).rooms == merge_rooms([ROOM, ROOM])
    assert merge([final, final.model_copy(update={"rooms": None})]).rooms is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size_bytes": HEAD_BYTES - 1}, "size_bytes is 39: a broadcast's messages need 40 bytes"),
        ({"rooms": 11}, "11 rooms for 10 clients"),
        ({"publishers": "11"}, "publishers '11' of 10 clients"),
        ({"max_in_flight": 5}, "max_in_flight bounds awaited replies"),
    ],
)
def test_a_broadcast_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Scenario(**{**BROADCAST, **fields})

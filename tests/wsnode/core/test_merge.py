"""Merging and differences of cumulative seconds."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wsnode.core.runs import second
from wsnode.core.merge import broken_identities, merge, since
from wsnode.core.protocol import HISTOGRAMS, Counters, ErrorKind, Second, UnsentReason

counts = st.integers(0, 1000)
eighths = st.integers(0, 800).map(lambda n: n / 8)
"""Sums of eighths are exact, so that equality can be asked for."""


@st.composite
def seconds(draw: st.DrawFn, workers: int = 2) -> Second:
    values = st.lists(st.integers(0, 1 << 43), max_size=6)
    return second(
        5,
        errors=draw(st.dictionaries(st.sampled_from(get_args(ErrorKind)), counts, max_size=3)),
        unsent=draw(st.dictionaries(st.sampled_from(get_args(UnsentReason)), counts, max_size=3)),
        histograms=draw(st.dictionaries(st.sampled_from(HISTOGRAMS), values, max_size=3)),
        cpu_s=draw(st.lists(eighths, min_size=workers, max_size=workers)),
        steal_s=draw(eighths),
        throttled_s=draw(eighths),
        core_s=draw(eighths),
        **{name: draw(counts) for name in Counters.model_fields},
    )


few = settings(max_examples=30)


def figures(line: Second) -> Any:
    """A second without what a difference can't keep: the exact extremes, the order of the workers, and empty counts."""
    return (
        line.second,
        line.counters,
        {kind: n for kind, n in line.errors.items() if n},
        {why: n for why, n in line.unsent.items() if n},
        {name: (h.count, h.sum_ns, h.overflow, h.buckets) for name, h in line.histograms.items() if h.count},
        sorted(line.host.worker_cpu_s),
        (line.host.steal_s, line.host.throttled_s, line.host.core_s),
    )


@few
@given(seconds(), seconds(), seconds())
def test_merging_is_associative_and_commutative(a: Second, b: Second, c: Second) -> None:
    assert merge([merge([a, b]), c]) == merge([a, merge([b, c])]) == merge([a, b, c])
    assert figures(merge([a, b, c])) == figures(merge([c, a, b]))


@few
@given(seconds(), seconds())
def test_merging_adds_every_counter_and_pools_every_histogram(a: Second, b: Second) -> None:
    merged = merge([a, b])
    for name in Counters.model_fields:
        assert getattr(merged.counters, name) == getattr(a.counters, name) + getattr(b.counters, name)
    for name in HISTOGRAMS:
        pooled = a.histogram(name).since(second(0).histogram(name))
        pooled.add(b.histogram(name))
        assert merged.histogram(name) == pooled
    for kind in get_args(ErrorKind):
        assert merged.errors.get(kind, 0) == a.errors.get(kind, 0) + b.errors.get(kind, 0)
    assert merged.host.worker_cpu_s == a.host.worker_cpu_s + b.host.worker_cpu_s
    assert merged.host.core_s == a.host.core_s + b.host.core_s


@few
@given(seconds())
def test_merging_one_changes_no_figure(line: Second) -> None:
    assert figures(merge([line])) == figures(line)


@few
@given(seconds(), seconds(), seconds(), seconds())
def test_since_and_merge_commute(a: Second, gained_a: Second, b: Second, gained_b: Second) -> None:
    def later(earlier: Second, gained: Second) -> Second:
        added = merge([earlier, gained])
        cpu = tuple(x + y for x, y in zip(earlier.host.worker_cpu_s, gained.host.worker_cpu_s, strict=True))
        return added.model_copy(update={"second": 9, "host": added.host.model_copy(update={"worker_cpu_s": cpu})})

    later_a, later_b = later(a, gained_a), later(b, gained_b)
    apart = merge([since(later_a, a), since(later_b, b)])
    together = since(merge([later_a, later_b]), merge([a, b]))
    assert figures(apart) == figures(together)


def test_since_is_what_was_gained_and_gauges_keep_their_later_value() -> None:
    earlier = second(
        3,
        connections_attempted=10,
        connections_opened=10,
        connections_open=10,
        connections_pending=4,
        messages_due=100,
        messages_in_flight=1,
        errors={"reset": 2},
        unsent={"not_open": 1},
        histograms={"response_time": [5, 5, 9]},
        cpu_s=(1.0, 2.0),
        steal_s=0.25,
        throttled_s=1,
        core_s=6,
    )
    later = second(
        7,
        connections_attempted=12,
        connections_opened=12,
        connections_open=9,
        connections_closed=3,
        messages_due=180,
        messages_in_flight=3,
        errors={"reset": 2, "connect_refused": 1},
        unsent={"not_open": 4},
        histograms={"response_time": [5, 5, 9, 7, 9], "handshake": [1]},
        cpu_s=(1.5, 4.0),
        steal_s=0.75,
        throttled_s=1.5,
        core_s=14,
    )
    gained = since(later, earlier)
    assert gained == second(
        7,
        connections_attempted=2,
        connections_opened=2,
        connections_open=9,
        connections_closed=3,
        messages_due=80,
        messages_in_flight=2,
        errors={"connect_refused": 1},
        unsent={"not_open": 3},
        histograms={"response_time": [7, 9], "handshake": [1]},
        cpu_s=(0.5, 2.0),
        steal_s=0.5,
        throttled_s=0.5,
        core_s=8,
    )
    assert since(later, None) == later


@pytest.mark.parametrize(
    ("later", "earlier"),
    [
        (second(3), second(4)),
        (second(4, messages_due=5), second(3, messages_due=6)),
        (second(4), second(3, errors={"reset": 1})),
        (second(4, unsent={"not_open": 1}), second(3, unsent={"not_open": 2})),
        (second(4, cpu_s=(1.0, 1.0)), second(3, cpu_s=(1.0,))),
    ],
)
def test_since_another_load_is_refused(later: Second, earlier: Second) -> None:
    with pytest.raises(ValueError, match=f"second {earlier.second} is not an earlier one of the load at second"):
        since(later, earlier)


def test_since_a_histogram_that_held_more_is_refused() -> None:
    with pytest.raises(ValueError, match="not an earlier state of the same histogram"):
        since(second(4), second(3, histograms={"handshake": [1]}))
    assert since(second(4), second(3, histograms={"handshake": []})) == second(4)


def test_different_seconds_and_nothing_are_not_merged() -> None:
    with pytest.raises(ValueError, match=r"got \[3, 4\]"):
        merge([second(3), second(4)])
    with pytest.raises(ValueError, match=r"got \[\]"):
        merge([])


def test_counts_add_up_by_key_in_order_of_name() -> None:
    parts = [{"reset": 1}, {"connect_failed": 2, "reset": 3}, {}]
    merged = merge([Second(second=1, counters=Counters(), errors=errors) for errors in parts])
    assert list(merged.errors.items()) == [("connect_failed", 2), ("reset", 4)]


HEALTHY = {
    "messages_due": 10,
    "messages_sent": 8,
    "messages_unsent": 2,
    "messages_received": 3,
    "messages_lost": 2,
    "messages_in_flight": 2,
    "messages_no_reply": 1,
    "messages_unexpected": 99,
    "connections_attempted": 7,
    "connections_opened": 4,
    "connections_failed": 2,
    "connections_pending": 1,
    "connections_closed": 3,
    "connections_open": 1,
}


def test_accounts_that_add_up_break_no_identity() -> None:
    assert broken_identities(Counters(**HEALTHY)) == []
    assert broken_identities(Counters()) == []


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("messages_due", ["messages_due 11 is not sent + unsent 10"]),
        ("messages_unsent", ["messages_due 10 is not sent + unsent 11"]),
        (
            "messages_sent",
            [
                "messages_due 10 is not sent + unsent 11",
                "messages_sent 9 is not received + lost + in_flight + no_reply 8",
            ],
        ),
        ("messages_received", ["messages_sent 8 is not received + lost + in_flight + no_reply 9"]),
        ("messages_lost", ["messages_sent 8 is not received + lost + in_flight + no_reply 9"]),
        ("messages_in_flight", ["messages_sent 8 is not received + lost + in_flight + no_reply 9"]),
        ("messages_no_reply", ["messages_sent 8 is not received + lost + in_flight + no_reply 9"]),
        ("messages_unexpected", []),
        ("connections_attempted", ["connections_attempted 8 is not opened + failed + pending 7"]),
        ("connections_failed", ["connections_attempted 7 is not opened + failed + pending 8"]),
        ("connections_pending", ["connections_attempted 7 is not opened + failed + pending 8"]),
        (
            "connections_opened",
            [
                "connections_attempted 7 is not opened + failed + pending 8",
                "connections_opened 5 is not closed + open 4",
            ],
        ),
        ("connections_closed", ["connections_opened 4 is not closed + open 5"]),
        ("connections_open", ["connections_opened 4 is not closed + open 5"]),
    ],
)
def test_each_broken_identity_is_named_with_its_numbers(name: str, broken: list[str]) -> None:
    assert broken_identities(Counters(**HEALTHY | {name: HEALTHY[name] + 1})) == broken


@few
@given(seconds(), seconds())
def test_identities_that_hold_for_parts_hold_for_their_sum(a: Second, b: Second) -> None:
    def balanced(line: Second) -> Second:
        c = line.counters
        sent = c.messages_received + c.messages_lost + c.messages_in_flight + c.messages_no_reply
        opened = c.connections_closed + c.connections_open
        return line.model_copy(
            update={
                "counters": c.model_copy(
                    update={
                        "messages_sent": sent,
                        "messages_due": sent + c.messages_unsent,
                        "connections_opened": opened,
                        "connections_attempted": opened + c.connections_failed + c.connections_pending,
                    }
                )
            }
        )

    assert broken_identities(merge([balanced(a), balanced(b)]).counters) == []

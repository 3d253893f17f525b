"""The closed pace against real servers: the next message on a reply, and no more than that."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from tests.wsnode.loads import carry_out
from tests.wsnode.peers import peer
from tests.wsnode.serving import serving
from wsnode.core.merge import broken_identities
from wsnode.core.scenario import Scenario, error_lines

SMALL = {"pace": "closed", "clients": 10, "ramp_up_s": 0, "rate_per_s": 1000, "duration_s": 3}


def test_each_reply_lets_the_next_message_go_and_nothing_is_due_before_it_is_sent() -> None:
    with serving("--workers", "1") as server:
        done = carry_out(server.url(), workers=2, in_flight=3, **SMALL)
    counters, result = done.result.counters, done.result
    assert counters.messages_due == counters.messages_sent == counters.messages_received > 3000
    assert counters.messages_unsent == counters.messages_lost == counters.messages_in_flight == 0
    assert counters.bytes_sent == counters.bytes_received == 64 * counters.messages_sent
    assert broken_identities(done.summary.total.counters) == []
    assert result.latency_s.service_time.p50 is not None
    assert result.latency_s.response_time.p50 is None
    assert result.nulls["latency_s.response_time.p50"] == "closed pace"
    assert result.nulls["latency_s.scheduler_lag.p99"] == "closed pace"
    assert result.rates.offered_per_s is None
    assert result.nulls["rates.offered_per_s"] == "closed pace"
    assert result.rates.received_per_s is not None
    # Little's law: what is in flight is throughput times time.
    assert result.latency_s.service_time.mean is not None
    assert result.rates.received_per_s * result.latency_s.service_time.mean == pytest.approx(30, rel=0.1)
    assert not [reason for reason in result.reasons if "lag" in reason]
    assert any(note.startswith("closed pace, 3 in flight a connection") for note in result.notes)


def test_a_slow_server_sets_the_pace() -> None:
    # Each reply takes 200 ms: 10 connections with 2 in flight do 100 a second, and not one more.
    with peer("delay", 0.2) as server:
        done = carry_out(server.url, in_flight=2, **SMALL)
    added = [b.counters.messages_due - a.counters.messages_due for a, b in itertools.pairwise(done.series)]
    assert all(60 <= n <= 100 for n in added), added
    assert done.result.latency_s.service_time.p50 == pytest.approx(0.2, abs=0.05)


def test_think_times_bound_what_is_sent() -> None:
    with serving("--workers", "1") as server:
        done = carry_out(server.url(), think="uniform 100ms..300ms", sizes="uniform 24..200", **SMALL)
    counters = done.result.counters
    # 10 clients, a message each 200 ms and its reply: at most 50 a second.
    assert 100 < counters.messages_sent <= 160
    assert counters.messages_received == counters.messages_sent
    assert counters.bytes_received == counters.bytes_sent > 24 * counters.messages_sent


def test_a_reply_that_never_comes_frees_its_place_after_the_timeout() -> None:
    with peer("faulty") as server:  # drops each 100th, doubles each 50th
        done = carry_out(server.url, reply_timeout_s=0.5, drain_s=1, **SMALL)
    counters = done.result.counters
    assert counters.messages_lost == counters.messages_sent // 100 > 10
    assert counters.messages_due == counters.messages_sent
    assert broken_identities(done.summary.total.counters) == []
    # Each connection goes on after its loss: the last second still has some.
    last = done.series[-1].counters.messages_due - done.series[-2].counters.messages_due
    assert last > 100


def test_stages_and_a_closed_pace_go_together() -> None:
    with serving("--workers", "1") as server:
        done = carry_out(server.url(), pace="closed", stages=("step to 4", "hold 1s", "step to 2", "hold 1s"))
    counters = done.result.counters
    assert counters.messages_received == counters.messages_sent == counters.messages_due > 100
    assert done.series[3].counters.connections_open == 2
    assert [held.clients for held in done.result.stages] == [4, 2]
    assert [held.rates.offered_per_s for held in done.result.stages] == [None, None]
    assert done.result.nulls["stages.0.rates.offered_per_s"] == "closed pace"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"in_flight": 2}, "in_flight is 2 but pace is open: leave in_flight empty"),
        ({"pace": "closed", "match": "none"}, "match is 'none' but pace is closed"),
        ({"pace": "closed", "max_in_flight": 5}, "max_in_flight is 5 but pace is closed"),
        ({"pace": "closed", "while_down": "queue"}, "while_down is 'queue' but pace is closed"),
        ({"pace": "closed", "interval_ms": 100}, "interval_ms is 100 but by pace closed it is 0: leave interval_ms"),
        (
            {"pace": "closed", "thresholds": ["response_time.p99 < 5ms"]},
            "thresholds: 'response_time.p99 < 5ms' does not exist with pace closed",
        ),
        ({"pace": "closed", "primary_metric": "scheduler_lag.p99"}, "primary_metric: 'scheduler_lag.p99' does not"),
        ({"pace": "shut"}, "pace: 'shut' is refused: Input should be 'open' or 'closed'"),
    ],
)
def test_what_a_pace_does_not_have_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario.model_validate(fields)
    assert message in "\n".join(error_lines(caught.value))


def test_what_decides_a_comparison_is_the_throughput() -> None:
    scenario = Scenario(pace="closed", think="exp 500ms", in_flight=2, clients=10)
    assert scenario.effective_primary_metric == "received_per_s"
    assert scenario.offered_per_s == 40
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    assert Scenario(pace="closed").interval_ms == 0
    assert Scenario(pace="closed", thresholds=["service_time.p99 < 5ms"]).sends

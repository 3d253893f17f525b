"""The parts of a load worker against their references."""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from wsnode.core.histogram import LIMIT_NS, Histogram
from wsnode.core.metrics import for_job
from wsnode.core.pacing import Pacing, Share
from wsnode.core.scenario import Plan, Scenario
from wsnode.load.load import workers_for
from wsnode.load.recorder import Recorder, Tally
from wsnode.load.schedule import NEVER, Schedule, connect_order
from wsnode.load.timer import Timer
from wsnode.telemetry import Layout

MS = 1_000_000


class Numbered(NamedTuple):
    number: int


@given(st.lists(st.integers(0, LIMIT_NS + 1000), max_size=300))
def test_a_tally_is_the_histogram_of_its_values_and_starts_over(values: list[int]) -> None:
    tally = Tally()
    for half in (values[: len(values) // 2], values[len(values) // 2 :]):
        for value in half:
            tally.add(value)
        assert tally.take() == Histogram.of(half)
    assert tally.take() == Histogram()
    assert not any(tally.counts)


@settings(deadline=None)
@given(
    clients=st.integers(1, 40),
    interval_ms=st.integers(1, 500),
    ramp_ms=st.integers(0, 3000),
    end_ms=st.integers(1, 3000),
    parts=st.integers(1, 3),
    phase=st.sampled_from(["spread", "random", "aligned"]),
)
def test_the_schedule_walks_the_timetable(
    clients: int, interval_ms: int, ramp_ms: int, end_ms: int, parts: int, phase: str
) -> None:
    pacing = Pacing(clients, interval_ms * MS, ramp_ms * MS, end_ms * MS, phase, 7)  # type: ignore[arg-type]
    for share in Share(clients, 0, clients).split(parts):
        members = [Numbered(number) for number in share.clients()]
        if not members:
            continue
        schedule = Schedule(pacing, members)
        walked = []
        while schedule.due != NEVER:
            walked.append((schedule.due, schedule.client.number))
            schedule.step()
        assert walked == list(pacing.timetable(share))
        assert len(walked) == pacing.offered(share, end_ms * MS)


def test_a_stopped_schedule_ends_at_that_moment() -> None:
    pacing = Pacing(1, 100 * MS, 0, 1000 * MS)
    schedule = Schedule(pacing, [Numbered(0)])
    schedule.stop(250 * MS)
    dues = []
    while schedule.due != NEVER:
        dues.append(schedule.due)
        schedule.step()
    assert dues == [0, 100 * MS, 200 * MS]


def test_connects_after_the_end_are_not_planned() -> None:
    pacing = Pacing(10, MS, 1000 * MS, 500 * MS)
    share = Share(10, 0, 5)
    soon = [client for client in share.clients() if client < 5]
    assert connect_order(pacing, share) == [(client * 100 * MS, place) for place, client in enumerate(soon)]
    assert 0 < len(soon) < 5


def test_the_timer_never_fires_early_and_a_past_moment_fires_at_once() -> None:
    async def run() -> list[int]:
        late: list[int] = []
        fired = asyncio.Event()
        timer = Timer(fired.set)
        for ahead in (5 * MS, 300_000, 0, -MS):
            fired.clear()
            at = monotonic_ns() + ahead
            timer.set(at)
            await asyncio.wait_for(fired.wait(), 1)
            late.append(monotonic_ns() - max(at, at - ahead))
        timer.close()
        return late

    late = asyncio.run(run())
    assert all(ns >= 0 for ns in late)


def _recorder() -> Recorder:
    return Recorder(Layout(for_job("wsnode-agent")).counters())


def test_a_second_is_told_only_when_nothing_of_it_is_awaited_and_in_order() -> None:
    recorder = _recorder()
    first = recorder.second(1)
    first.lags.append(1000)
    recorder.sent(first, 500, 64)
    second = recorder.second(2)
    second.lags.append(1000)
    recorder.sent(second, 500, 64)
    recorder.reply(second, 2000, 2500)
    recorder.second(3)
    recorder.snapshot(1, 0, 1, 0.1)
    recorder.snapshot(2, 0, 1, 0.2)
    assert recorder.settled_lines() == []  # second 1 still awaits its reply, and 2 comes after it
    assert recorder.awaited == 1
    recorder.lost(first)
    lines = recorder.settled_lines()
    assert [line["second"] for line in lines] == [1, 2]
    assert lines[0]["counters"]["messages_lost"] == 1
    assert lines[0]["counters"]["messages_received"] == 0
    assert (
        lines[1]["counters"] | {"messages_due": 2, "messages_sent": 2, "messages_received": 1} == lines[1]["counters"]
    )
    assert "response_time" not in lines[0]["histograms"]
    assert Histogram.from_wire(lines[1]["histograms"]["response_time"]) == Histogram.of([2500])


def test_the_final_line_holds_what_never_settled() -> None:
    recorder = _recorder()
    first = recorder.second(1)
    for _ in range(3):
        first.lags.append(0)
    recorder.sent(first, 10, 64)
    recorder.unsent(first, "write_blocked")
    recorder.never_reached(first, 2)
    recorder.handshake.add(700)
    recorder.snapshot(1, 0, 1, 0.1)
    recorder.handshake.add(800)
    recorder.unsent(first, "generator_late")
    final = recorder.final_line(1, pending=4, opened_now=2, in_flight=1, cpu_s=1.5)
    counters = final["counters"]
    assert counters["messages_due"] == 5
    assert counters["messages_sent"] == counters["messages_in_flight"] == 1
    assert counters["messages_unsent"] == 4
    assert final["unsent"] == {"write_blocked": 1, "generator_late": 3}
    assert (counters["connections_pending"], counters["connections_open"], final["cpu_s"]) == (4, 2, 1.5)
    assert Histogram.from_wire(final["histograms"]["handshake"]) == Histogram.of([700, 800])


def test_there_are_never_more_workers_than_clients() -> None:
    def workers(clients: int, cores: int, limit: int) -> int:
        scenario = Scenario(clients=clients)
        return workers_for(Plan.whole(scenario, "ws://x/"), cores, limit)

    assert workers(1, 8, 20_000) == 1
    assert workers(1000, 8, 20_000) == 8
    assert workers(100_000, 2, 20_000) == 6  # 100,000 / (0.9 × 19,936) = 5.6

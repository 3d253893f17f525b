"""Stages against references that walk through every moment, and what is said of those that can't be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.wsnode.core.test_pacing import deviation
from wsnode.core.pacing import Share
from wsnode.core.protocol import Counters, HostResult, Second
from wsnode.core.scenario import NoWindow, Plan, Scenario, error_lines
from wsnode.core.stages import NS, parse_stages
from wsnode.core.summary import HostRun, summarise
from wsnode.load.schedule import NEVER, connect_order, leave_order, schedule_of

STEPS = ("up to 10 in 2s", "hold 3s", "step to 20", "hold 2s", "down to 0 in 2s")


class Numbered:
    def __init__(self, number: int) -> None:
        self.number = number


@st.composite
def lines(draw: st.DrawFn, most: int = 9) -> list[str]:
    """Any stages of up to `most` clients."""
    found: list[str] = []
    now = 0
    for _ in range(draw(st.integers(1, 6))):
        target, seconds = draw(st.integers(0, most)), draw(st.integers(1, 3))
        if not found:
            target = max(1, target)
        if target == now:
            found.append(f"hold {seconds}s")
        elif draw(st.booleans()):
            found.append(f"step to {target}")
        else:
            found.append(f"{'up' if target > now else 'down'} to {target} in {seconds}s")
        now = target
    return found


def wanted(text: list[str]) -> Iterator[tuple[int, int, int, int]]:
    """(begin ns, end ns, clients before, clients after), read in another way."""
    at = clients = 0
    for line in text:
        words = line.split()
        seconds = 1 if words[0] == "step" else int(words[-1][:-1])
        target = clients if words[0] == "hold" else int(words[2])
        yield at * NS, (at + seconds) * NS, clients, target
        at, clients = at + seconds, target


@given(lines())
def test_at_every_moment_as_many_are_connected_as_the_stages_say(text: list[str]) -> None:
    pacing = Scenario(stages=tuple(text)).pacing()
    spans = [pacing.presences(client) for client in range(pacing.clients)]
    for begin, end, before, after in wanted(text):
        for at in range(begin, end, NS // 20):
            there = sum(any(comes <= at < leaves for comes, leaves in found) for found in spans)
            on_the_way = before + (after - before) * (at - begin) / (end - begin)
            assert abs(there - on_the_way) <= 1
        # The last of them has come, or gone, by the end.
        assert sum(any(comes < end <= leaves for comes, leaves in found) for found in spans) == after or after < before
        assert sum(any(comes <= end - 1 < leaves for comes, leaves in found) for found in spans) == after
    for found in spans:
        flat = [moment for span in found for moment in span]
        assert flat == sorted(set(flat)), "nobody comes again before it has left"
        assert flat[-1] <= pacing.end_ns


@given(lines(), st.integers(1, 4), st.sampled_from((7, 130, 999, 2500)))
def test_what_is_due_is_a_function_of_the_plan_over_any_split(text: list[str], parts: int, interval_ms: int) -> None:
    scenario = Scenario(stages=tuple(text), interval_ms=interval_ms)
    pacing = scenario.pacing()
    whole = Share(pacing.clients, 0, pacing.clients)
    reference = sorted(
        (due, client)
        for client in range(pacing.clients)
        for k in range(pacing.end_ns // pacing.interval_ns + 1)
        for comes, leaves in pacing.presences(client)
        if comes <= (due := pacing.message_due(client, k)) < leaves
    )
    assert list(pacing.timetable(whole)) == reference
    for before in (0, NS // 3, NS, pacing.end_ns // 2, pacing.end_ns, pacing.end_ns + NS):
        assert pacing.offered(whole, before) == sum(due < before for due, _ in reference)
    walked, connects, leaves_ = [], 0, 0
    for share in whole.split(parts):
        if not share.size:
            continue
        schedule = schedule_of(pacing, [Numbered(number) for number in share.clients()])
        while schedule.due != NEVER:
            walked.append((schedule.due, schedule.client.number))
            schedule.step()
        order = connect_order(pacing, share)
        assert order == sorted(order)
        connects += len(order)
        leaves_ += len(leave_order(pacing, share))
    assert sorted(walked) == reference
    assert connects == pacing.connects_due(pacing.end_ns) == sum(len(pacing.presences(c)) for c in whole.clients())
    assert leaves_ == sum(leaves < pacing.end_ns for c in whole.clients() for _, leaves in pacing.presences(c))


@given(lines(), st.integers(0, 12 * NS))
def test_the_connects_due_before_a_moment_are_counted(text: list[str], before: int) -> None:
    pacing = Scenario(stages=tuple(text)).pacing()
    moments = [comes for client in range(pacing.clients) for comes, _ in pacing.presences(client)]
    assert pacing.connects_due(before) == sum(comes < min(before, pacing.end_ns) for comes in moments)


@pytest.mark.parametrize("connected", [1, 10, 137, 1000, 1999, 2000])
def test_the_load_of_a_hold_is_flat_however_many_are_there(connected: int) -> None:
    pacing = Scenario(stages=("up to 2000 in 20s", f"step to {connected}", "hold 5s")[: 3 if connected < 2000 else 1],
                      interval_ms=1000).pacing()  # fmt: skip
    there = [c for c in range(2000) if any(leaves == pacing.end_ns for _, leaves in pacing.presences(c))]
    assert len(there) == connected
    assert deviation(sorted(pacing.phase_of(client) for client in there), NS) <= 3


def test_the_other_fields_follow_and_may_say_the_same() -> None:
    scenario = Scenario(stages=STEPS)
    assert (scenario.clients, scenario.ramp_up_s, scenario.duration_s, scenario.rate_per_s) == (20, 2, 10, 10)
    assert (scenario.window_open_s, scenario.window_s, scenario.due_in_window) == (2, 8, 105)
    assert scenario.holds_until(10) == [(2, 5, 10), (6, 8, 20)]
    assert scenario.holds_until(7) == [(2, 5, 10), (6, 7, 20)]
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    assert Scenario.model_validate({"stages": STEPS, "clients": "", "duration_s": None}) == scenario
    assert Scenario(stages=("  up  to 010 in 2s ",)).stages == ("up to 10 in 2s",)
    assert [(s.begin_s, s.end_s) for s in parse_stages(["up to 3 in 2m", "hold 1h"])] == [(0, 120), (120, 3720)]
    with pytest.raises(NoWindow, match="let the stages go on, such as with 'hold 60s'"):
        Scenario(stages=("up to 10 in 5s",)).check_window()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": ["up to 10 in 2s", "stay 3s"]}, "stage 2, 'stay 3s': expected 'up to N in Ds', 'hold Ds'"),
        ({"stages": ["hold 3s"]}, "stage 1, 'hold 3s': nobody is connected yet, so the first stage is 'up to N in Ds'"),
        ({"stages": ["step to 0"]}, "stage 1, 'step to 0': 0 are connected by then; expected another number"),
        ({"stages": ["up to 5 in 0s"]}, "stage 1, 'up to 5 in 0s': it takes no time; expected 1s or more"),
        ({"stages": ["up to 5 in 1s", "up to 5 in 2s"]}, "stage 2, 'up to 5 in 2s': 5 are connected by then; expected"),
        ({"stages": ["up to 5 in 1s", "down to 6 in 2s"]}, "stage 2, 'down to 6 in 2s': 5 are connected by then"),
        ({"stages": ["step to 100001"]}, "stage 1, 'step to 100001': 100,001 clients a second; at most 100,000"),
        ({"stages": ["up to 1000001 in 60s"]}, "1,000,001 clients; at most 1,000,000"),
        ({"stages": ["up to 5 in 169h"]}, "stage 1, 'up to 5 in 169h': it ends after 608,400 s; all stages may take"),
        ({"stages": ["step to 5"], "clients": 6}, "clients is 6 but by stages it is 5: leave clients empty, or let it"),
        ({"stages": ["step to 5"], "duration_s": 6}, "duration_s is 6 but by stages it is 1"),
        ({"stages": ["step to 5"], "clients": True}, "clients is True but by stages it is 5"),
        ({"stages": "step to 5"}, "stages: 'step to 5' is refused: Input should be a valid tuple"),
    ],
)
def test_what_cannot_be_is_refused_with_line_value_and_what_is_wanted(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario.model_validate(fields)
    assert message in "\n".join(error_lines(caught.value))


def test_a_hold_is_the_exact_difference_of_the_seconds_at_its_ends() -> None:
    scenario = Scenario(stages=STEPS, interval_ms=100)
    pacing = scenario.pacing()

    def host(name: str, plan: Plan, last: int) -> HostRun:
        series = [
            Second(second=s, counters=Counters(messages_due=n, messages_sent=n, messages_received=n))
            for s in range(1, last + 1)
            for n in [pacing.offered(plan.share, s * NS)]
        ]
        result = HostResult(run_id="r", host=name, state="finished", seconds=last, final=series[-1], workers=1,
                            start_at_ns=0,
                            first_connect_due_ns=None, first_connect_begun_ns=None, environment_begin={},
                            environment_end={})  # fmt: skip
        return HostRun(name, series, result)

    plans = Plan.divide(scenario, "ws://x", 3)
    summary = summarise(scenario, [host(str(n), plan, 10) for n, plan in enumerate(plans)])
    assert summary is not None
    stages, nulls = summary.stages()
    assert [(held.from_s, held.to_s, held.clients, held.messages_due) for held in stages] == [
        (2, 5, 10, 300),
        (6, 8, 20, 400),
    ]
    assert [held.rates.received_per_s for held in stages] == [100, 200]
    assert [held.error_ratio for held in stages] == [0, 0]
    assert nulls["stages.1.latency_s.response_time.p99"] == "more than 1 % unanswered"  # none was recorded here
    # One of them was stopped within the second hold: it is given as far as all have it.
    cut = summarise(scenario, [host(str(n), plan, 7 if n else 10) for n, plan in enumerate(plans)])
    assert cut is not None
    assert [(hold.from_s, hold.to_s) for hold in cut.holds] == [(2, 5), (6, 7)]

"""Think times: an open model whose moments are drawn, exact over any split, flat from the first moment on."""

from __future__ import annotations

import itertools
from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.wsnode.core.test_stages import Numbered
from wsnode.core.pacing import Share
from wsnode.core.scenario import Scenario, error_lines
from wsnode.core.stages import NS
from wsnode.core.think import Think
from wsnode.load.schedule import NEVER, schedule_of

MS = 1_000_000
STAGES = ("up to 7 in 1s", "hold 1s", "down to 3 in 1s", "step to 9")


@settings(max_examples=30)
@given(
    st.sampled_from(("exp 20ms", "uniform 5ms..60ms", "exp 0.7s")),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.booleans(),
)
def test_what_is_due_is_the_same_over_any_split(text: str, seed: int, parts: int, staged: bool) -> None:
    shape = {"stages": STAGES} if staged else {"clients": 9, "ramp_up_s": 1, "duration_s": 3, "rate_per_s": 100}
    pacing = Scenario(think=text, seed=seed, **shape).pacing()
    whole = Share(pacing.clients, 0, pacing.clients)
    table = list(pacing.timetable(whole))
    assert table == sorted(table)
    for due, client in table:
        assert any(comes <= due < leaves for comes, leaves in pacing.presences(client))
    for before in (0, NS // 2, 2 * NS + 1, 99 * NS):
        assert pacing.offered(whole, before) == sum(due < before for due, _ in table)
    walked = []
    for share in whole.split(parts):
        schedule = schedule_of(pacing, [Numbered(number) for number in share.clients()])
        while schedule.due != NEVER:
            walked.append((schedule.due, schedule.client.number))
            schedule.step()
    assert sorted(walked) == table


def test_a_schedule_that_is_stopped_has_nothing_due_any_more() -> None:
    pacing = Scenario(think="exp 20ms", clients=3, ramp_up_s=0, duration_s=5, rate_per_s=100).pacing()
    schedule = schedule_of(pacing, [Numbered(number) for number in range(3)])
    schedule.stop(NS)
    found = 0
    while schedule.due != NEVER:
        assert schedule.due < NS
        found += 1
        schedule.step()
    assert found == pacing.offered(Share(3, 0, 3), NS)


@pytest.mark.parametrize("text", ["exp 100ms", "uniform 20ms..180ms"])
def test_the_gaps_have_their_distribution_and_the_load_its_mean_from_the_first_moment_on(text: str) -> None:
    clients = 4000
    pacing = Scenario(think=text, clients=clients, ramp_up_s=0, duration_s=1, rate_per_s=100_000, seed=5).pacing()
    # From each one's connect on, in 25 ms steps: 1,000 messages are expected in each, ± 4 standard deviations.
    counts = [0] * 12
    gaps: list[int] = []
    for client in range(clients):
        comes, dues = pacing.connect_due(client), list(pacing.dues(client))
        gaps += [later - earlier for earlier, later in itertools.pairwise(dues)]
        for due in dues:
            if due - comes < 300 * MS:
                counts[(due - comes) // (25 * MS)] += 1
    assert all(abs(n - 1000) < 127 for n in counts), counts
    short = sum(gap < 60 * MS for gap in gaps) / len(gaps)
    # Of gaps within a second the long ones are seen a little more rarely, hence the margin.
    expected = 1 - exp(-0.6) if text.startswith("exp") else 0.25
    assert abs(short - expected) < 0.04
    if text.startswith("uniform"):
        assert min(gaps) >= 20 * MS
        assert max(gaps) <= 180 * MS


def test_the_interval_follows_and_fixed_changes_nothing() -> None:
    scenario = Scenario(think=" exp  1.5s ", clients=30)
    assert (scenario.think, scenario.interval_ms, scenario.offered_per_s) == ("exp 1.5s", 1500, 20)
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    odd = Scenario(think="uniform 1ms..2ms", clients=30)
    assert (odd.interval_ms, odd.offered_per_s) == (2, 20_000)
    assert Scenario(think="fixed", interval_ms=70).pacing() == Scenario(interval_ms=70).pacing()
    assert Think.parse("fixed") is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"think": "exp 5"}, "think: think 'exp 5': expected 'fixed', 'exp T' or 'uniform T..T'"),
        ({"think": "uniform 9ms..9ms"}, "think 'uniform 9ms..9ms': 9ms is not below 9ms"),
        ({"think": "exp 0.5ms"}, "expected 'fixed', 'exp T'"),
        ({"think": "uniform 1s..4000s"}, "from 1ms to 3600s"),
        ({"think": "exp 500ms", "interval_ms": 1000}, "interval_ms is 1000 but by think it is 500: leave interval_ms"),
        ({"think": 5}, "think: 5 is refused: Input should be a valid string"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario.model_validate(fields)
    assert message in "\n".join(error_lines(caught.value))

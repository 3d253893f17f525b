"""When clients leave and come back: a function of the plan alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wsnode.core.churn import Session, Storm
from wsnode.core.scenario import Plan, Scenario

NS = 1_000_000_000
SMALL: dict[str, Any] = {"clients": 20, "ramp_up_s": 1, "rate_per_s": 20, "duration_s": 30, "reconnect_delay_s": 0.5}


@pytest.mark.parametrize("text", ["", "5s", "fixed", "exp 0s", "fixed 99ms", "normal 5s", "fixed 5h", "fixed -5s"])
def test_other_words_for_a_session_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 'fixed 5s' or 'exp 5s'"):
        Session.parse(text)


@pytest.mark.parametrize("text", ["", "30s", "at 0s", "0% at 3s", "101% at 3s", "at 30", "at -3s", "all at 3s"])
def test_other_words_for_a_storm_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 'at 30s', or '50% at 30s'"):
        Storm.parse(text)


def test_fixed_sessions_and_a_storm_are_as_worked_out_by_hand() -> None:
    pacing = Scenario(**SMALL, session="fixed 10s", storms=("at 15s",)).pacing()
    s = NS // 2
    # Client 10 comes at 0.5 s, leaves 10 s later, is caught by the storm at 15 s, and the end cuts its third session.
    assert pacing.presences(10) == [(s, 21 * s), (22 * s, 30 * s), (31 * s, 51 * s), (52 * s, 60 * s)]
    assert pacing.connects_due(16 * NS) == 20 * 3
    assert pacing.connects_due(30 * NS) == 20 * 4


@given(st.integers(0, 1 << 32), st.sampled_from(["exp 2s", "fixed 3s", None]), st.floats(0, 2))
def test_presences_are_apart_by_the_delay_and_the_same_over_any_split(seed: int, session: str, jitter: float) -> None:
    scenario = Scenario(
        **SMALL, seed=seed % (1 << 32), session=session, storms=("50% at 12s",), reconnect_jitter=jitter
    )
    pacing = scenario.pacing()
    whole = Plan.whole(scenario, "ws://x").share
    for client in whole.clients():
        presences = pacing.presences(client)
        assert presences == scenario.pacing().presences(client)
        assert presences[0][0] == pacing.connect_due(client)
        assert all(came < left <= 30 * NS for came, left in presences)
        for (_, left), (came, _) in pairwise(presences):
            assert NS // 2 <= came - left <= NS // 2 * (1 + jitter) + 1
    parts = Plan.divide(scenario, "ws://x", [1, 2])
    assert sum(pacing.offered(plan.share, 30 * NS) for plan in parts) == pacing.offered(whole, 30 * NS)


def test_drawn_sessions_have_their_mean_and_a_share_of_a_storm_its_size() -> None:
    scenario = Scenario(clients=2000, ramp_up_s=1, rate_per_s=2000, duration_s=100, session="exp 5s", seed=7)
    pacing = scenario.pacing()
    lengths = [left - came for client in range(2000) for came, left in pacing.presences(client) if left < 100 * NS]
    assert 4.6 < sum(lengths) / len(lengths) / NS < 5.2  # long ones are cut by the end more often
    half = Scenario(clients=2000, ramp_up_s=1, rate_per_s=2000, duration_s=100, storms=("25% at 50s",)).pacing()
    assert 430 < sum(len(half.presences(client)) == 2 for client in range(2000)) < 570


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="do not go with stages"):
        Scenario(stages=("up to 10 in 10s", "hold 20s"), storms=("at 15s",))
    with pytest.raises(ValidationError, match="connections would come and go"):
        Scenario(clients=1_000_000, duration_s=604_800, rate_per_s=100_000, session="fixed 1s")

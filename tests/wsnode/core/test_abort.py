"""Rules that end a load: how they are written, and at which second they come true."""

from __future__ import annotations

import pytest

from tests.wsnode.core.runs import MS, SCENARIO, Load
from wsnode.core.abort import AbortRule
from wsnode.core.judge import judge
from wsnode.core.merge import since
from wsnode.core.result import Aborted
from wsnode.core.summary import summarise
from wsnode.core.watch import AbortWatch, reached, told


def ended_at(load: Load, *rules: str) -> Aborted | None:
    """The abort, and that it was told exactly once."""
    watch = AbortWatch(rules)
    told_at = [aborted for line in load.lines if (aborted := watch.look(line)) is not None]
    assert told_at == ([] if watch.aborted is None else [watch.aborted])
    return watch.aborted


@pytest.mark.parametrize(
    ("text", "for_s", "after_s", "written"),
    [
        ("error_ratio > 50% for 10s after 20s", 10, 20, "error_ratio > 50% for 10s after 20s"),
        ("  response_time.p99>2s   for 5 s", 5, 0, "response_time.p99 > 2s for 5s"),
        ("connect_error_ratio > 20%", 1, 0, "connect_error_ratio > 20%"),
        ("received_per_s < 100/s after 30s", 1, 30, "received_per_s < 100/s after 30s"),
        ("error_ratio > 1% for 1s", 1, 0, "error_ratio > 1%"),
    ],
)
def test_a_rule_is_a_condition_with_a_length_and_a_grace(text: str, for_s: int, after_s: int, written: str) -> None:
    rule = AbortRule.parse(text)
    assert (rule.for_s, rule.after_s, rule.text) == (for_s, after_s, written)
    assert AbortRule.parse(written) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("errors > 5", "no metric 'errors'"),
        ("response_time.p99 > 2 for 5s", "unit ''"),
        ("error_ratio > 5% for 0s", "'for' takes 1 to 86,400 s"),
        ("error_ratio > 5% after 86401s", "'after' at most 86,400 s"),
        ("error_ratio > 5% after 3s for 5s", "such as"),
        ("error_ratio > 5% for ten seconds", "such as"),
        ("", "such as"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_may_stand_there(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^rule ") as refused:
        AbortRule.parse(text)
    assert message in str(refused.value)


def test_a_scenario_keeps_rules_as_they_are_written_and_refuses_others() -> None:
    assert SCENARIO.model_validate(SCENARIO.model_dump() | {"abort_on": ["error_ratio>5%  for 3s"]}).abort_on == (
        "error_ratio > 5% for 3s",
    )
    with pytest.raises(ValueError, match="abort_on"):
        SCENARIO.model_validate(SCENARIO.model_dump() | {"abort_on": ["error_ratio"]})


def test_one_bad_second_among_good_ones_ends_nothing_that_is_to_last() -> None:
    load = Load().tick(due=100)
    for _ in range(4):
        load.tick(due=100, lost=90).tick(due=100)
    assert ended_at(load, "error_ratio > 50% for 2s") is None
    found = ended_at(load, "error_ratio > 50%")
    assert found is not None
    assert (found.second, found.value) == (2, 0.9)


def test_the_last_of_the_bad_seconds_ends_the_load() -> None:
    load = Load().tick(due=100, seconds=3).tick(due=100, lost=60, seconds=7)
    assert ended_at(load, "error_ratio > 50% for 5s") == Aborted(expr="error_ratio > 50% for 5s", second=8, value=0.6)


def test_grace_counts_from_the_loads_begin_and_bad_seconds_after_it() -> None:
    load = Load().tick(due=100, lost=60, seconds=12)
    found = ended_at(load, "error_ratio > 50% for 3s after 5s")
    assert found is not None
    assert found.second == 8


def test_a_second_in_which_nothing_was_due_is_not_bad() -> None:
    load = Load().tick(due=10, lost=10, seconds=2).tick().tick(due=10, lost=10, seconds=2)
    assert ended_at(load, "error_ratio > 50% for 3s") is None
    assert ended_at(Load().tick(seconds=9), "response_time.p99 > 1ms", "connect_error_ratio > 0%") is None


def test_a_percentile_that_was_never_answered_is_beyond_any_limit() -> None:
    load = Load().tick(due=100, response_ns=3 * MS).tick(due=100, lost=2)
    found = ended_at(load, "response_time.p99 > 600s")
    assert found == Aborted(expr="response_time.p99 > 600s", second=2, value=None)
    # 1 of 100 is just not enough.
    assert ended_at(Load().tick(due=100, lost=1), "response_time.p99 > 600s") is None


def test_each_metric_is_of_one_second() -> None:
    load = (
        Load()
        .tick(connects=50, failed=5, due=10)
        .tick(connects=10, failed=10, due=100, lost=7, unsent={"connection_down": 3}, response_ns=8 * MS, closed=2)
    )
    gained = since(load.lines[1], load.lines[0])
    assert reached("error_ratio", gained) == 0.1
    assert reached("connect_error_ratio", gained) == 1.0
    assert reached("offered_per_s", gained) == 100
    assert reached("received_per_s", gained) == 90
    assert reached("response_time.max", gained) == pytest.approx(0.008, rel=0.01)
    assert reached("response_time.p50", gained) == pytest.approx(0.008, rel=0.01)
    assert reached("connections_peak", gained) == load.lines[1].counters.connections_open


def test_an_aborted_run_has_failed_with_its_window_cut_short() -> None:
    load = Load().tick(connects=50, due=100, seconds=2).tick(due=100, lost=80, seconds=5)
    scenario = SCENARIO.model_copy(update={"abort_on": ("error_ratio > 50% for 5s",)})
    aborted = ended_at(load, *scenario.abort_on)
    assert aborted is not None
    runs = [load.run("stopped", reason=told(aborted))]
    summary = summarise(scenario, runs)
    assert summary is not None
    result = judge("r-1", summary, runs, aborted=aborted)
    assert (result.state, result.verdict, result.aborted) == ("finished", "failed", aborted)
    assert summary.window == (2, 7)
    assert (
        "the load of load-1 was stopped after 7 of 12 s: abort_on error_ratio > 50% for 5s: it was so at second 7"
        in (result.notes)
    )


def test_a_run_aborted_in_its_ramp_up_has_failed_too() -> None:
    load = Load().tick(connects=50, failed=40)
    aborted = ended_at(load, "connect_error_ratio > 20%")
    assert aborted is not None
    runs = [load.run("stopped", reason=told(aborted))]
    summary = summarise(SCENARIO, runs)
    assert summary is not None
    result = judge("r-1", summary, runs, aborted=aborted)
    assert (summary.window, result.verdict) == (None, "failed")

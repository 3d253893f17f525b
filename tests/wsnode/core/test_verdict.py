"""Verdicts: which thresholds pass, fail, or cannot be judged."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wsnode.core.runs import MS, SCENARIO, Load, steady
from wsnode.core.judge import judge, verdict
from wsnode.core.result import Judged
from wsnode.core.summary import HostRun, summarise


def judged(run: HostRun, *thresholds: str, **changes: Any) -> tuple[str, list[Judged], list[str]]:
    summary = summarise(SCENARIO.model_copy(update={"thresholds": thresholds} | changes), [run])
    assert summary is not None
    return verdict(summary)


def outcome(run: HostRun, threshold: str, **changes: Any) -> tuple[float | None, bool | None]:
    _, [only], _ = judged(run, threshold, **changes)
    assert only.expr == threshold
    return only.value, only.passed


@pytest.mark.parametrize(
    ("threshold", "value", "passed"),
    [
        ("response_time.mean <= 5ms", 0.005, True),
        ("response_time.mean < 5ms", 0.005, False),
        ("write_wait.mean < 0.2ms", 0.0001, True),
        ("service_time.mean > 4.9ms", 0.0049, False),
        ("scheduler_lag.mean < 1ms", 0.0001, True),
        ("handshake.p90 < 3ms", 0.002, True),
        ("error_ratio <= 1%", 0.01, True),
        ("error_ratio < 1%", 0.01, False),
        ("connect_error_ratio <= 0", 0, True),
        ("offered_per_s >= 1000/s", 1000, True),
        ("sent_per_s >= 1000/s", 1000, True),
        ("received_per_s > 990/s", 990, False),
        ("connect_per_s >= 50/s", 50, True),
        ("connections_peak >= 100", 100, True),
        ("connections_peak > 100", 100, False),
    ],
)
def test_every_kind_of_threshold_is_judged_by_its_exact_value(threshold: str, value: float, passed: bool) -> None:
    assert outcome(steady(lost=10).run(), threshold) == (value, passed)


def test_all_must_pass() -> None:
    run = steady().run()
    assert judged(run, "response_time.p99 < 6ms", "error_ratio < 1%")[0] == "passed"
    assert judged(run, "response_time.p99 < 4ms", "error_ratio < 1%")[0] == "failed"


def test_without_thresholds_there_is_no_verdict() -> None:
    assert judged(steady().run()) == ("none", [], [])


def test_a_threshold_on_a_null_fails_if_unanswered_messages_caused_it() -> None:
    overall, [only], notes = judged(steady(lost=11).run(), "response_time.p99 < 50ms")
    assert (overall, only.value, only.passed) == ("failed", None, False)
    assert notes == ["threshold response_time.p99 < 50ms: failed, more than 1 % unanswered"]


@pytest.mark.parametrize("statistic", ["min", "mean", "p50", "p99", "p999", "max"])
def test_a_server_that_answers_nothing_fails_whatever_is_demanded(statistic: str) -> None:
    run = steady(lost=1000).run()
    assert outcome(run, f"response_time.{statistic} < 50ms") == (None, False)
    assert outcome(run, f"response_time.{statistic} > 0ms") == (None, False)


def test_a_server_that_answers_nothing_fails_also_in_a_small_run() -> None:
    run = Load().tick(connects=50, seconds=2).tick(seconds=10, due=4, lost=4).run()
    assert outcome(run, "response_time.p99 < 50ms") == (None, False)


def test_a_threshold_is_not_judged_where_samples_are_too_few() -> None:
    run = Load().tick(connects=50, seconds=2).tick(seconds=10, due=99).run()
    overall, [only], notes = judged(run, "response_time.p99 < 1ms")
    assert (overall, only.value, only.passed) == ("none", None, None)
    assert notes == ["threshold response_time.p99 < 1ms: not judged, too few samples"]
    assert outcome(Load().tick(connects=50, seconds=2).tick(seconds=10, due=100).run(), "response_time.p99 < 1ms") == (
        pytest.approx(0.005, rel=1 / 256),
        False,
    )


def test_what_cannot_be_judged_leaves_the_verdict_to_the_others() -> None:
    run = Load().tick(connects=50, seconds=2).tick(seconds=10, due=99).run()
    assert judged(run, "response_time.p999 < 1ms", "error_ratio < 1%")[0] == "passed"
    assert judged(run, "response_time.p999 < 1ms", "error_ratio > 1%")[0] == "failed"


def test_an_idle_run_is_not_judged_by_messages() -> None:
    run = Load().tick(connects=50, seconds=2).tick(seconds=10).run()
    overall, rows, notes = judged(run, "response_time.max < 1s", "error_ratio < 1%", interval_ms=0)
    assert overall == "none"
    assert [row.passed for row in rows] == [None, None]
    assert notes == [
        "threshold response_time.max < 1s: not judged, nothing was due",
        "threshold error_ratio < 1%: not judged, no messages were due",
    ]
    assert judged(run, "connections_peak >= 100", "connect_error_ratio < 1%", interval_ms=0)[0] == "passed"


def test_without_awaited_replies_response_time_is_not_judged() -> None:
    run = Load().tick(connects=50, seconds=2).tick(seconds=10, due=1000, no_reply=1000).run()
    overall, [only], notes = judged(run, "response_time.p99 < 1s", match="none")
    assert (overall, only.passed) == ("none", None)
    assert notes == ["threshold response_time.p99 < 1s: not judged, no reply is awaited"]


def test_failed_handshakes_are_unanswered_ones() -> None:
    run = Load().tick(connects=50, failed=10).tick(connects=50).tick(seconds=10).run()
    assert outcome(run, "handshake.p95 < 1s") == (None, False)
    assert outcome(run, "handshake.p50 < 1s") == (0.002, True)


def test_a_ramp_up_only_run_is_not_judged_at_all() -> None:
    run = Load().tick(connects=50, due=1000, lost=1000, seconds=2).run("stopped")
    overall, [only], notes = judged(run, "response_time.p99 < 1ms")
    assert (overall, only.value, only.passed, notes) == ("none", None, None, [])


@pytest.mark.parametrize("state", ["failed", "cancelled", "lost"])
def test_a_run_that_did_not_finish_has_no_verdict(state: Any) -> None:
    run = steady(response_ns=MS).run()
    summary = summarise(SCENARIO.model_copy(update={"thresholds": ("response_time.p99 < 50ms",)}), [run])
    assert summary is not None
    assert judge("r-1", summary, [run]).verdict == "passed"
    result = judge("r-1", summary, [run], state=state, state_reason="somebody said so")
    assert result.verdict == "none"
    assert result.state == state
    assert result.reasons == [f"{state}: somebody said so"]

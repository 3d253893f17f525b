"""Runs whose figures are given rather than counted: many of them, at once, for comparisons and history."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from portal.accounts.models import User
from portal.runs.models import Environment, Run, RunGroup, Summary
from portal.runs.states import State
from tests.portal.factories import NOW, SMOKE, STABLE, make_result, make_run
from wsnode.core.result import Result
from wsnode.core.scenario import Scenario

DIGEST = "d" * 64
_places = itertools.count(1)


@cache
def _counted() -> Result:
    """One result for all, whose figures are replaced."""
    return make_result()


def result_of(
    run_id: str,
    p99_ms: float | None,
    scenario: Scenario = SMOKE,
    *,
    null: str = "more than 1 % unanswered",
    **figures: float | None,
) -> Result:
    """A result with this p99 (its median, mean and tail in proportion), and other figures by their name in `Result`:
    `error_ratio`, or of a rate or latency `received_per_s`, `response_time__p50`."""
    result = _counted().model_copy(deep=True)
    times = result.latency_s.response_time
    for name, share in (("p50", 0.5), ("p90", 0.7), ("p95", 0.8), ("p99", 1.0), ("mean", 0.55), ("max", 2.0)):
        setattr(times, name, None if p99_ms is None else p99_ms * share / 1e3)
    result.nulls = {key: why for key, why in result.nulls.items() if key != "latency_s.response_time.p99"}
    if p99_ms is None:
        result.nulls |= {
            f"latency_s.response_time.{name}": null for name in ("p50", "p90", "p95", "p99", "mean", "max")
        }
    for name, value in figures.items():
        latency, _, statistic = name.partition("__")
        if statistic:
            setattr(getattr(result.latency_s, latency), statistic, value)
        else:
            setattr(result.rates if name.endswith("_per_s") else result, name, value)
    return result.model_copy(update={"run_id": run_id, "scenario": scenario})


def quick_run(
    user: User,
    p99_ms: float | None,
    scenario: Scenario = SMOKE,
    *,
    version: str = "1.0",
    validity: str = "valid",
    stable: dict[str, Any] | None = None,
    figures: dict[str, Any] | None = None,
    **fields: Any,
) -> Run:
    """A finished run with this p99 and without an archive; each a minute after the one before unless said otherwise."""
    fields.setdefault("created_at", NOW + timedelta(minutes=next(_places)))
    fields.setdefault("environment_digest", DIGEST)
    fields.setdefault("subject_name", "echo")
    run = make_run(
        user, State.FINISHED, scenario, subject_version=version, verdict="passed", validity=validity, **fields
    )
    result = result_of(run.pk, p99_ms, scenario, **(figures or {}))
    reasons = [] if validity == "valid" else [f"{validity}: scheduler lag p99 60 ms, above 50 ms"]
    Summary.of(run, result.model_copy(update={"validity": validity, "reasons": reasons})).save()
    Environment.objects.create(
        run=run, host="server", role="server", begin={"stable": {**STABLE, **(stable or {})}, "volatile": {}}
    )
    return run


def quick_group(user: User, title: str, p99s_ms: Sequence[float | None], **of_each: Any) -> RunGroup:
    """A group of such runs."""
    group = RunGroup.objects.create(title=title, kind="repeat", created_by=user, created_at=NOW)
    for place, p99_ms in enumerate(p99s_ms, 1):
        quick_run(user, p99_ms, group=group, group_place=place, **of_each)
    return group

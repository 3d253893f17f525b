"""Runs as rows of a table: what they were, and every figure that a threshold can name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from portal.runs.models import Run
from wsnode.core.threshold import COUNTS, DELIVERIES, LATENCIES, RATES, RATIOS, STATISTICS

FIGURES = (
    *(f"{name}.{statistic}" for name in LATENCIES for statistic in STATISTICS),
    *RATIOS,
    *RATES,
    *COUNTS,
    *DELIVERIES,
)
"""In base units: seconds, shares of 1, per second, counts."""
FACTS = (
    "run_id", "url", "state", "verdict", "validity", "scenario", "scenario_version", "subject", "subject_version",
    "engine", "reason", "tags", "group", "baseline", "starred", "origin", "machine", "environment", "created_at",
    "started_at", "finished_at", "created_by",
)  # fmt: skip
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r")


def row(run: Run) -> dict[str, Any]:
    """One run; a figure that there is not is None."""
    summary = getattr(run, "summary", None)
    facts = {
        "run_id": run.pk,
        "url": run.url,
        "state": run.state,
        "verdict": run.verdict,
        "validity": run.validity,
        "scenario": run.scenario_name,
        "scenario_version": run.scenario_version.number if run.scenario_version else None,
        "subject": run.subject_name,
        "subject_version": run.subject_version,
        "engine": run.engine,
        "reason": run.reason,
        "tags": [tag.name for tag in run.tags.all()],
        "group": run.group_id,
        "baseline": run.baseline_id,
        "starred": run.starred,
        "origin": run.origin,
        "machine": run.machine,
        "environment": run.environment_digest,
        "created_at": run.created_at.isoformat(),
        "started_at": run.running_at and run.running_at.isoformat(),
        "finished_at": run.finished_at and run.finished_at.isoformat(),
        "created_by": run.created_by.username,
    }
    figures = summary.figures if summary is not None else {}
    return facts | {name: figures.get(name) for name in FIGURES}


def as_csv(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Lines with a head; what a spreadsheet would take for a formula has a quote before it."""
    head = [*FACTS, *FIGURES]
    yield _line(head)
    for one in rows:
        yield _line([_cell(one[name]) for name in head])


def as_json(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One array."""
    yield "["
    for n, one in enumerate(rows):
        yield (",\n" if n else "\n") + json.dumps(one)
    yield "\n]\n"


def _cell(value: object) -> object:
    if isinstance(value, list):
        value = " ".join(value)
    if isinstance(value, str) and value.startswith(_DANGEROUS):
        return f"'{value}"
    return "" if value is None else value


def _line(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()

"""A stretch of a run that is kept, cut exactly out of its seconds, and judged as the measured window is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from portal.runs.archive import Opened
from portal.runs.columns import Columns
from wsnode.core.judge import judge, validity
from wsnode.core.merge import merge
from wsnode.core.protocol import Counters, HostResult, HostSecond, Second
from wsnode.core.result import Result
from wsnode.core.scenario import Scenario
from wsnode.core.summary import Hold, HostRun, Summary

Window = tuple[int, int]
"""(from_s, to_s), whole seconds from the run's origin: what was due after the first and up to the second."""


def stretch(scenario: Scenario, columns: Columns, window: Window) -> Summary:
    """What was due in some seconds. Its `total` is of these seconds, too: it says nothing of the whole run.

    Raises:
        ValueError: there are no such seconds.
    """
    gained = Second.model_validate(columns.stretch(*window))
    opened = [n for second, n in zip(columns.numbers, columns.opened(), strict=True) if window[0] < second <= window[1]]
    return Summary(scenario, [], gained, window, gained, max(opened, default=None))


def total(found: Opened) -> Second | None:
    """The whole load, drain included, by its hosts' last words; None where one of them has none."""
    results = [host["result"] for host in found.head["hosts"] if host["role"] == "load_generator"]
    finals = [result["final"] for result in results if result and result["final"]]
    if not finals or len(finals) < len(results):
        return None
    last = max(final["second"] for final in finals)
    return merge(Second.model_validate({**final, "second": last}) for final in finals)


def summary(scenario: Scenario, found: Opened, window: Window | None) -> Summary | None:
    """A run as `wsnode.core.summary.summarise` had it from its hosts, with a window of one's own; None where no second
    was counted.

    Raises:
        ValueError: there are no such seconds.
    """
    columns = found.columns
    if not columns.last:
        return None
    whole = total(found) or Second.model_validate(columns.stretch(0, columns.last))
    measured = whole if window is None else Second.model_validate(columns.stretch(*window))
    peak = max(columns.opened(), default=None)
    holds = tuple(
        Hold(begin, end, clients, Second.model_validate(columns.stretch(begin, end)))
        for begin, end, clients in scenario.holds_until(columns.last)
    )
    return Summary(scenario, _cumulative(columns), whole, window, measured, peak, holds)


def _cumulative(columns: Columns) -> list[Second]:
    """Each second's counters since the begin, without histograms."""
    sums = dict.fromkeys(Counters.model_fields, 0)
    lines = []
    for place, second in enumerate(columns.numbers):
        for key, column in columns.sums["counters"].items():
            sums[key] += column[place]
        lines.append(Second.model_construct(second=second, counters=Counters.model_construct(None, **sums)))
    return lines


def host_runs(found: Opened) -> list[HostRun]:
    """Each load generator's part, as far as validity looks at it: its processors by second, and its result."""
    runs = []
    for host in found.head["hosts"]:
        if host["result"] is None:
            continue
        series = [
            Second(second=second, counters=Counters(), host=HostSecond.model_validate(line))
            for second, line in enumerate(found.machine.get(host["name"], []), 1)
        ]
        runs.append(HostRun(host["name"], series, HostResult.model_validate(host["result"])))
    return runs


def judged(first: Result, found: Opened, window: Window) -> Result:
    """The result that the run would have had with this window.

    Latencies, rates, thresholds and validity are of the window. What is of the whole run, and what was known of the
    lab around it, is that of the first judgement: its scrapes, clocks and environments were looked at once.

    Raises:
        ValueError: there are no such seconds.
    """
    scenario, hosts = first.scenario, host_runs(found)
    before = (first.window.from_s, first.window.to_s) if first.window else None
    as_it_was, now = summary(scenario, found, before), summary(scenario, found, window)
    if as_it_was is None or now is None:
        raise ValueError("no second of this run was counted")
    known = {_nameless(reason) for reason in validity(as_it_was, hosts)[1]}
    around = [reason for reason in first.reasons if _nameless(reason) not in known]
    begun = found.head["start_at_ns"]
    fresh = judge(
        first.run_id,
        now,
        hosts,
        state=first.state,
        subject=first.subject,
        started=None if begun is None else datetime.fromtimestamp(begun / 1e9, UTC),
        host_rows=first.hosts,
        aborted=first.aborted,
        url=first.url,
    )
    levels = [level for level in ("invalid", "suspect") if any(r.startswith(f"{level}: ") for r in around)]
    fixed: dict[str, Any] = {
        "counters": first.counters,
        "connect_error_ratio": first.connect_error_ratio,
        "reasons": sorted([*fresh.reasons, *around], key=lambda reason: not reason.startswith("invalid: ")),
        "notes": list(dict.fromkeys([*fresh.notes, *_of_the_lab(first)])),
    }
    if levels and fresh.validity != "invalid":
        fixed["validity"] = levels[0]
    return fresh.model_copy(update=fixed)


def _nameless(reason: str) -> str:
    """A reason without the hosts that it names in the end: whose schedule it was, the merged seconds cannot tell."""
    return re.sub(r" \([^()]*\)$", "", reason)


def _of_the_lab(first: Result) -> list[str]:
    return [note for note in first.notes if not note.startswith(("threshold ", "ramp-up only: ", "below "))]

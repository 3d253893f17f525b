"""A load that is carried out and judged on the spot, with nobody to report to: what a host tries itself by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wsnode.core.judge import judge
from wsnode.core.protocol import HostResult, Live, Second
from wsnode.core.result import Result
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.summary import HostRun, Summary, summarise
from wsnode.load.load import Load, LoadEnd, LoadError

LEAD_S = 0.1
"""From the order to begin to the origin."""


@dataclass
class Trial:
    """A load that has ended."""

    end: LoadEnd
    series: list[Second]
    lives: list[Live]
    summary: Summary
    result: Result


async def trial(
    scenario: Scenario,
    url: str,
    *,
    workers: int = 1,
    on_go: Callable[[], object] | None = None,
    interrupt: Callable[[Load], Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    ca_file: str | None = None,
) -> Trial:
    """Carry a scenario out against a URL. `on_go` is called at the origin, `interrupt` awaited beside the load.

    Raises:
        LoadError: the load could not be prepared, or ended before its first second.
    """
    series: list[Second] = []
    lives: list[Live] = []
    load = Load(
        Plan.whole(scenario, url),
        workers,
        secrets=secrets,
        ca_file=ca_file,
        on_second=series.append,
        on_live=lives.append,
    )
    await load.prepare()
    try:
        load.go(time.monotonic_ns() + round(LEAD_S * 1e9))
        await asyncio.sleep(LEAD_S)
        if on_go is not None:
            on_go()
        task = asyncio.create_task(interrupt(load)) if interrupt is not None else None
        end = await load.wait()
        if task is not None:
            await task
    finally:
        await load.kill()
    outcome = HostResult(
        run_id="trial",
        host="here",
        state="interrupted" if end.interrupted else "stopped" if end.stopped else "finished",
        reason=end.interrupted or end.stopped,
        seconds=end.seconds,
        final=end.final,
        workers=workers,
        start_at_ns=0,
        first_connect_due_ns=end.first_connect_due_ns,
        first_connect_begun_ns=end.first_connect_begun_ns,
        environment_begin={},
        environment_end={},
    )
    hosts = [HostRun("here", series, outcome)]
    summary = summarise(scenario, hosts)
    if summary is None:
        raise LoadError(f"the load ended before its first second: {outcome.reason}")
    return Trial(end, series, lives, summary, judge("trial", summary, hosts))

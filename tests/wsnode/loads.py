"""Carrying out a load in a test: real worker processes, the summary and judgement as a run has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wsnode.core.judge import judge
from wsnode.core.protocol import HostResult, Live, Second
from wsnode.core.result import Result
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.summary import HostRun, Summary, summarise
from wsnode.load.load import Load, LoadEnd


@dataclass
class Done:
    """A load that has ended."""

    end: LoadEnd
    series: list[Second]
    lives: list[Live]
    summary: Summary
    result: Result
    marks: dict[str, float] = field(default_factory=dict)


def carry_out(
    url: str,
    *,
    workers: int = 1,
    on_go: Callable[[], object] | None = None,
    interrupt: Callable[[Load], Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    **fields: Any,
) -> Done:
    """Run a scenario of these fields against a URL. `on_go` is called at the origin."""
    scenario = Scenario(**fields)
    series: list[Second] = []
    lives: list[Live] = []

    async def run() -> LoadEnd:
        load = Load(
            Plan.whole(scenario, url),
            workers,
            secrets=secrets,
            on_second=series.append,
            on_live=lives.append,
        )
        await load.prepare()
        try:
            load.go(time.monotonic_ns() + 100_000_000)
            await asyncio.sleep(0.1)
            if on_go is not None:
                on_go()
            if interrupt is not None:
                task = asyncio.create_task(interrupt(load))
            end = await load.wait()
            if interrupt is not None:
                await task
            return end
        finally:
            await load.kill()

    end = asyncio.run(run())
    outcome = HostResult(
        run_id="test",
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
    assert summary is not None
    return Done(end, series, lives, summary, judge("test", summary, hosts))


def undisturbed(run: Callable[[], Done], attempts: int = 3) -> Done:
    """A load during which this machine had time for its generator; tried again where other programs took it.

    Only other programs delay a schedule this small: what a server does can't (the tests' very claim), so that a wrong
    generator fails every attempt.
    """
    for _ in range(attempts):
        done = run()
        lag = done.result.latency_s.scheduler_lag.p99 or done.result.latency_s.scheduler_lag.max
        if lag is not None and lag < 0.005:
            break
    return done

"""Carrying out a load in a test: real worker processes, the summary and judgement as a run has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from wsnode.core.scenario import Scenario
from wsnode.load.load import Load
from wsnode.load.trial import Trial, trial

Done = Trial


def carry_out(
    url: str,
    *,
    workers: int = 1,
    on_go: Callable[[], object] | None = None,
    interrupt: Callable[[Load], Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    ca_file: str | None = None,
    **fields: Any,
) -> Trial:
    """Run a scenario of these fields against a URL. `on_go` is called at the origin."""
    return asyncio.run(
        trial(
            Scenario(**fields), url, workers=workers, on_go=on_go, interrupt=interrupt, secrets=secrets, ca_file=ca_file
        )
    )


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

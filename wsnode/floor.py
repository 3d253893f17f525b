"""What a load generator cannot measure below: its response times against the least server there is, on its own host.

Each load worker is one process, so that the floor is that of one worker at a worker's share of the load. It is measured
before a load, never during one, and kept for the host's boot, this version and the class of the load.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wsnode import __version__
from wsnode.core.merge import since
from wsnode.core.protocol import Second
from wsnode.core.result import Floor, latency
from wsnode.core.scenario import Plan, Scenario
from wsnode.environment import boot_id
from wsnode.load.load import Load, LoadError
from wsnode.workers import cores

LOWEST_PER_S, HIGHEST_PER_S = 1000, 32_000
"""Below the one a second has too few samples for a p99; above the other the trivial server is what is measured."""
HIGHEST_ALONE_PER_S = 4000
"""The same where generator and trivial server have one core between them."""
MOST_CONNECTIONS = 200
LARGEST_BYTES = 32_768
AHEAD_S = 0.75
"""So far in the past is the origin: of its first second only the connects are wanted."""
PATIENCE_S = 8.0
KEPT_S = 12 * 3600


class NoFloor(Exception):
    """It could not be measured. The message says why."""


def load_class(plan: Plan, workers: int) -> Scenario:
    """The load of one worker of a plan, its rate and connections raised or lowered to the next class.

    Rates are powers of two times 1,000 messages a second, connections powers of two, so that loads of a kind share one.
    """
    scenario = plan.scenario
    share = plan.count / max(1, workers)
    most = HIGHEST_PER_S if cores() > 1 else HIGHEST_ALONE_PER_S
    wanted = scenario.offered_per_s * share / scenario.clients
    rate = min(most, LOWEST_PER_S << max(0, math.ceil(math.log2(max(1.0, wanted / LOWEST_PER_S)))))
    connections = min(MOST_CONNECTIONS, 1 << max(0, math.ceil(math.log2(max(1.0, share)))))
    # The interval is in whole milliseconds: of the connections as many as give the rate.
    interval_ms = max(1, math.ceil(connections * 1000 / rate))
    return Scenario(
        name="floor",
        clients=max(1, round(rate * interval_ms / 1000)),
        interval_ms=interval_ms,
        ramp_up_s=0,
        rate_per_s=100_000,
        duration_s=3,
        reply_timeout_s=1,
        drain_s=1,
        size_bytes=min(scenario.size_bytes, LARGEST_BYTES),
        message_type=scenario.message_type,
    )


async def measure(scenario: Scenario) -> Floor:
    """Measure it now, in some 1.7 s.

    Raises:
        NoFloor: the trivial server or the load failed.
    """
    series: list[Second] = []
    enough = asyncio.Event()

    def on_second(second: Second) -> None:
        series.append(second)
        if second.second == 2:
            enough.set()

    with _trivial() as url:
        load = Load(Plan.whole(scenario, url), 1, on_second=on_second, on_live=lambda live: None)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await load.prepare()
                load.go(time.monotonic_ns() - round(AHEAD_S * 1e9))
                ended = asyncio.ensure_future(load.wait())
                await asyncio.wait({ended, asyncio.ensure_future(enough.wait())}, return_when="FIRST_COMPLETED")
                await load.stop(drain=False, reason="the floor is known")
                await ended
        except TimeoutError:
            raise NoFloor(f"no second was settled within {PATIENCE_S:g} s") from None
        except LoadError as error:
            raise NoFloor(str(error)) from error
        finally:
            await load.kill()
    if len(series) < 2:
        raise NoFloor("the load against the trivial server ended before its second second")
    gained = since(series[1], series[0])
    counters = gained.counters
    figures, nulls = latency(gained.histogram("response_time"), counters.messages_due)
    if figures.p50 is None or figures.p99 is None:
        raise NoFloor(f"p50 or p99 of {counters.messages_due:,} messages is not known: {nulls}")
    return Floor(
        p50=figures.p50,
        p90=figures.p90,
        p95=figures.p95,
        p99=figures.p99,
        rate_per_s=counters.messages_due,
        connections=counters.connections_open,
        size_bytes=scenario.size_bytes,
        samples=counters.messages_received,
        measured_at=datetime.now(UTC).replace(microsecond=0),
    )


async def read(plan: Plan, workers: int, on_measure: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """What an environment holds as `floor`: that of a plan's load on this host, or `missing` with the reason.

    Measured now, unless it was of late; `on_measure` is called before.
    """
    if not plan.scenario.interval_ms:
        return {"missing": "nothing is sent"}
    try:
        return (await _known(load_class(plan, workers), on_measure)).model_dump(mode="json")
    except (NoFloor, OSError) as error:
        return {"missing": f"it could not be measured: {error}"}


async def _known(scenario: Scenario, on_measure: Callable[[], None]) -> Floor:
    key = (
        f"{boot_id()} {__version__} {scenario.clients} {scenario.interval_ms} {scenario.size_bytes} "
        f"{scenario.message_type} {cores()}"
    )
    async with _kept() as floors:
        found = floors.get(key)
        if found is None or not 0 <= (datetime.now(UTC) - found.measured_at).total_seconds() < KEPT_S:
            on_measure()
            found = floors[key] = await measure(scenario)
    return found


_memory: dict[str, Floor] = {}


@contextlib.asynccontextmanager
async def _kept() -> AsyncIterator[dict[str, Floor]]:
    """Floors known on this host, for one at a time: two that measure at once would measure each other."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsnode"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "floors.json", "a+", encoding="utf-8")  # noqa: SIM115, ASYNC230  a few kilobytes, held open
    except (OSError, RuntimeError):
        yield _memory  # a service without a home: it is alone on its host
        return
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.05)
        file.seek(0)
        floors: dict[str, Floor] = {}
        with suppress(ValueError, AttributeError):
            floors = {key: Floor.model_validate(value) for key, value in json.loads(file.read()).items()}
        before = dict(floors)
        yield floors
        if floors != before:
            boot = boot_id()
            file.truncate(0)
            json.dump({k: v.model_dump(mode="json") for k, v in floors.items() if k.startswith(boot)}, file)


@contextlib.contextmanager
def _trivial() -> Iterator[str]:
    try:
        server = subprocess.Popen(
            [sys.executable, "-m", "wsnode.trivial"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise NoFloor(f"the trivial server could not be started: {error.strerror}") from error
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        if not port:
            raise NoFloor("the trivial server did not start")
        yield f"ws://127.0.0.1:{port}/"
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait(5)

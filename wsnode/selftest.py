"""`wsnode selftest`: servers with known faults on this host, and whether the generator tells of them what is true.

What is expected is worked out from the fault and the timetable, never from another measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import uvloop

from wsnode import __version__
from wsnode.core.judge import LAG_INVALID_NS, LAG_SUSPECT_NS
from wsnode.core.merge import broken_identities
from wsnode.core.scenario import NS, Plan, Scenario
from wsnode.floor import NoFloor, load_class, measure
from wsnode.load.load import LoadError
from wsnode.load.report import duration
from wsnode.load.trial import Trial, trial
from wsnode.peer import Running, peer
from wsnode.workers import raise_descriptor_limit

EXAMPLES = """\
examples:
  wsnode selftest                   some 25 s: a stall, a known delay, losses, a close in mid-reply; a table
  wsnode selftest --json            the same as one JSON object
  wsnode selftest || wsnode preflight

Everything stays on 127.0.0.1. Let nothing else run meanwhile: what disturbs this host shows in the schedule's rows.
exit codes: 0 all as expected, 1 something is not, 2 could not run
"""
STALL_S, STALL_AFTER_S = 1.0, 4.0
STALLED = Scenario(
    name="stall", clients=100, interval_ms=200, ramp_up_s=1, rate_per_s=200, duration_s=8, reply_timeout_s=3
)
DELAY_S = 0.020
DELAYED = Scenario(
    name="delay", clients=20, interval_ms=100, ramp_up_s=0.5, rate_per_s=100, duration_s=4, reply_timeout_s=1, drain_s=1
)
SMALL = Scenario(
    name="accounts",
    clients=20,
    interval_ms=50,
    ramp_up_s=0.5,
    rate_per_s=100,
    duration_s=3,
    reply_timeout_s=0.5,
    drain_s=1,
    reconnect_delay_s=0.2,
)
STEADY = Scenario(name="steady", clients=100, interval_ms=100, ramp_up_s=0.5, rate_per_s=200, duration_s=3)
BREAKS_AT = 300
WITHIN_S = 0.1
"""How near a percentile of the stall must come: the stopped server has a second's messages to catch up with."""


class Check(NamedTuple):
    """One thing that must be so."""

    name: str
    expected: str
    measured: str
    ok: bool


async def stall() -> list[Check]:
    """The server stands still for a second: everything due meanwhile waited for what was left of it."""
    with peer("echo") as server:
        halt = Halt(server)
        done = await trial(STALLED, server.url, on_go=lambda: asyncio.ensure_future(halt.carry_out()))
    response, scenario = done.result.latency_s.response_time, done.summary.scenario
    window = done.summary.window or (0, 0)
    due = round(scenario.offered_per_s * (window[1] - window[0]))
    checks = [
        Check("stall: messages of the window", f"{due:,} due, all answered", _answered(done), (
            response.due == response.count == due
        )),
    ]  # fmt: skip
    for name, beyond in (("p95", 0.05), ("p99", 0.01)):
        # Messages come evenly, so that the slowest share of all waited evenly from the whole stall downwards.
        wanted = halt.lasted_s - beyond * due / scenario.offered_per_s
        checks.append(_near(f"stall: response time {name}", wanted, getattr(response, name), WITHIN_S))
    checks.append(_near("stall: response time max", halt.lasted_s, response.max, WITHIN_S))
    checks.append(
        Check("stall: unsent by the generator's fault", "0", f"{done.summary.generator_fault_unsent:,}", (
            not done.summary.generator_fault_unsent
        ))
    )  # fmt: skip
    lag = done.result.latency_s.scheduler_lag.p99
    limit_s = LAG_INVALID_NS / NS
    checks.append(
        Check("stall: not blamed on the generator", f"scheduler lag p99 below {duration(limit_s)}", duration(lag), (
            lag is not None and lag < limit_s
        ))
    )  # fmt: skip
    return checks


class Halt:
    """A stop of a server, whose length is what it was and not what was meant."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self.lasted_s = 0.0

    async def carry_out(self) -> None:
        """Wait, stop the server, let it go on."""
        await asyncio.sleep(STALL_AFTER_S)
        self._server.halt()
        begun = time.monotonic()
        await asyncio.sleep(STALL_S)
        self._server.go_on()
        self.lasted_s = time.monotonic() - begun


async def delay() -> list[Check]:
    """The server answers 20 ms late."""
    with peer("delay", DELAY_S) as server:
        latencies = (await trial(DELAYED, server.url)).result.latency_s
    return [
        _near("delay: response time p50", DELAY_S, latencies.response_time.p50, 0.002),
        _near("delay: service time p50", DELAY_S, latencies.service_time.p50, 0.002),
    ]


async def loss() -> list[Check]:
    """The server swallows every 100th message, and answers every other 50th twice."""
    with peer("faulty") as server:
        done = await trial(SMALL, server.url)
    counters = done.result.counters
    sent = counters.messages_sent
    doubled = sent // 50 - sent // 100
    return [
        _equal("loss: every 100th lost", sent // 100, counters.messages_lost),
        _equal("loss: doubled replies", doubled, counters.messages_unexpected),
        _equal("loss: answered", sent - sent // 100, counters.messages_received),
        _accounts("loss", done),
    ]


async def breaks() -> list[Check]:
    """The server closes a connection in the middle of a reply."""
    with peer("breaks", BREAKS_AT) as server:
        done = await trial(SMALL, server.url)
    counters, clients = done.result.counters, SMALL.clients
    return [
        _equal("close in mid-reply: lost", 1, counters.messages_lost),
        _equal("close in mid-reply: reconnects", 1, counters.reconnects),
        _equal("close in mid-reply: opened", clients + 1, counters.connections_opened),
        _equal("close in mid-reply: closed", clients + 1, counters.connections_closed),
        _accounts("close in mid-reply", done),
    ]


async def schedule() -> list[Check]:
    """How well this host lets a generator keep its schedule, and what it takes by itself."""
    scenario = load_class(Plan.whole(STALLED, "ws://127.0.0.1/"), 1)
    try:
        floor = await measure(scenario)
    except NoFloor as error:
        return [Check("floor: response time", "measured", str(error), False)]
    with peer("echo") as server:
        lag = (await trial(STEADY, server.url)).result.latency_s.scheduler_lag.p99
    limit_s = LAG_SUSPECT_NS / NS
    return [
        Check("schedule: scheduler lag p99", f"at most {duration(limit_s)}", duration(lag), (
            lag is not None and lag <= limit_s
        )),
        Check(f"floor: response time at {floor.rate_per_s:,.0f}/s", "measured", (
            f"p50 {duration(floor.p50)}, p99 {duration(floor.p99)}"
        ), True),
    ]  # fmt: skip


CHECKS: dict[str, Callable[[], Any]] = {
    "stall": stall,
    "delay": delay,
    "loss": loss,
    "close in mid-reply": breaks,
    "schedule and floor": schedule,
}


def _near(name: str, expected_s: float, measured_s: float | None, within_s: float) -> Check:
    ok = measured_s is not None and abs(measured_s - expected_s) <= within_s
    return Check(name, f"{duration(expected_s)} ± {duration(within_s)}", duration(measured_s), ok)


def _equal(name: str, expected: int, measured: int) -> Check:
    return Check(name, f"{expected:,}", f"{measured:,}", measured == expected)


def _answered(done: Trial) -> str:
    response = done.result.latency_s.response_time
    return f"{response.due:,} due, {response.count:,} answered"


def _accounts(name: str, done: Trial) -> Check:
    broken = [text for line in [*done.series, done.summary.total] for text in broken_identities(line.counters)]
    return Check(f"{name}: accounts of every second", "all add up", broken[0] if broken else "all add up", not broken)


def table(checks: list[Check]) -> Iterator[str]:
    """Expected beside measured, a line each."""
    rows = [
        ("", "expected", "measured", ""),
        *((c.name, c.expected, c.measured, "ok" if c.ok else "NOT") for c in checks),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wsnode selftest`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")


async def _all(say: Callable[[str], None]) -> list[Check]:
    checks: list[Check] = []
    for name, check in CHECKS.items():
        say(name)
        checks += await check()
    return checks


def run(arguments: argparse.Namespace) -> int:
    """Try this host. Returns the exit code."""
    raise_descriptor_limit()
    begun = time.monotonic()

    def say(name: str) -> None:
        if not arguments.json:
            print(f"{name} …", file=sys.stderr, flush=True)

    try:
        checks = uvloop.run(_all(say))
    except (LoadError, OSError) as error:
        print(f"wsnode selftest: {error}", file=sys.stderr)
        return 2
    bad = [check for check in checks if not check.ok]
    if arguments.json:
        told = {
            "wsnode": __version__,
            "host": os.uname().nodename,
            "ok": not bad,
            "took_s": round(time.monotonic() - begun, 1),
            "checks": [check._asdict() for check in checks],
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        print("\n".join(table(checks)))
        print(f"\n{len(checks) - len(bad)} of {len(checks)} as expected, in {time.monotonic() - begun:.0f} s")
    return 1 if bad else 0

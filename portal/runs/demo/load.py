"""Loads that nobody ran, as the hosts of a run would have reported them. No database: made in several processes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import zstandard

from portal.conductor.job import ClockReading, HostOutcome, Outcome
from portal.monitoring.queries import QUERIES, Query
from portal.runs.archive import pack
from wsnode.core.histogram import Histogram, bucket_index
from wsnode.core.judge import Clock, Surroundings, judge
from wsnode.core.merge import merge
from wsnode.core.protocol import Counters, HostResult, HostSecond, Second
from wsnode.core.result import Evidence, Host, Result
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.summary import HostRun, run_counters, summarise

RUN_ID = "r-demodemo22"
START_NS = 1_111_111_111_111_111_111
"""Stand in the text of an archive for what each run that uses it has of its own."""
SERVER = "server"
_POOL = 1500
"""Values that a second's times are drawn from."""
_LEVEL = 6
"""Quicker than a real archive's by far, and a little longer."""
_CLOCK = ClockReading(offset_s=0.00002, bound_s=0.00006)


class Condition(NamedTuple):
    """How server and lab were."""

    median_ms: float
    """Of the service time."""
    spread: float = 0.35
    """Sigma of its logarithm."""
    slow: float = 0.004
    """Share of the messages that take ten times as long."""
    lost: float = 0.0
    """Share of the messages that are never answered."""
    refused: float = 0.0
    """Refused connects, of those that came to be open."""
    lag_ms: float = 0.06
    """Median of the scheduler lag."""
    handshake_ms: float = 1.2
    busy: float = 0.22
    """CPU time of a generator's worker (s/s)."""


class Recipe(NamedTuple):
    """All that a load depends on; equal recipes give equal loads."""

    scenario: Scenario
    generators: tuple[str, ...]
    condition: Condition
    environment: dict[str, Any]
    """`stable` part of each host's reading but for its name."""
    engine: str
    """Of our own server; empty where another is measured."""
    seed: str


class Made(NamedTuple):
    """A load, judged. Its result and archive name `RUN_ID` and begin at `START_NS`."""

    result: Result
    archive: bytes
    """zstd of the archive's text."""
    values: dict[tuple[str, str], float]
    """Of the evidence, by query and host ('' for one over all)."""


def dice_of(seed: str | int) -> random.Random:
    """Numbers that come again with the same seed."""
    return random.Random(seed)  # noqa: S311  # nothing here is secret


def make(recipe: Recipe) -> Made:
    """Carry a recipe out. Takes some tens of ms, by the number of messages."""
    scenario, condition = recipe.scenario, recipe.condition
    dice = dice_of(recipe.seed)
    plans = Plan.divide(scenario, "ws://198.18.0.2:3000/echo", len(recipe.generators))
    runs = [
        _host_run(name, plan, condition, recipe.environment, dice_of(f"{recipe.seed} {name}"))
        for name, plan in zip(recipe.generators, plans, strict=True)
    ]
    summary = summarise(scenario, runs)
    assert summary is not None
    reading = {run.name: run.result.environment_begin for run in runs}
    told = {"server.engine": recipe.engine, "server.wsnode": recipe.environment["wsnode"]} if recipe.engine else {}
    reading[SERVER] = _reading(SERVER, recipe.environment | told, dice)
    hosts = [_outcome(SERVER, reading[SERVER])]
    hosts += [_outcome(run.name, reading[run.name], run) for run in runs]
    values = dict(_values(scenario, condition, recipe.generators, dice))
    result = judge(
        RUN_ID,
        summary,
        runs,
        started=datetime.fromtimestamp(START_NS // 10**9, UTC),
        host_rows=[_row(host) for host in hosts],
        evidence=evidence(values, float(START_NS // 10**9), scenario.window_s),
        surroundings=Surroundings(clocks=[Clock(run.name, _CLOCK.bound_s) for run in runs]),
        notes=scenario.notes(),
    )
    lines = [merge(lines) for lines in zip(*(run.series for run in runs), strict=True)]
    archive = pack(
        run_id=RUN_ID,
        scenario=scenario.model_dump(mode="json"),
        outcome=Outcome("finished", None, hosts, START_NS),
        seconds=[zstandard.compress(line.model_dump_json().encode()) for line in lines],
        series=(),
        log=(),
    )
    return Made(result, archive, values)


def archive_of(made: Made, run_id: str, start_at_ns: int) -> bytes:
    """The archive under a run's own id and start, both as long as what stands for them."""
    text = zstandard.ZstdDecompressor().decompress(made.archive)
    text = text.replace(RUN_ID.encode(), run_id.encode()).replace(str(START_NS).encode(), str(start_at_ns).encode())
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(text)


# --- what the hosts say ---------------------------------------------------------------------------------------------
class _Times:
    """A cumulative histogram that is fed from a pool of values."""

    def __init__(self, dice: random.Random, median_ns: float, spread: float, slow: float = 0.0) -> None:
        self._dice = dice
        values = [round(median_ns * dice.lognormvariate(0, spread)) for _ in range(_POOL)]
        for place in range(round(_POOL * slow)):
            values[place] = round(values[place] * dice.uniform(6, 14))
        self._pool = [(value, bucket_index(value)) for value in values]
        self.total = Histogram()

    def record(self, n: int) -> None:
        """Count `n` more values."""
        if not n:
            return
        drawn = self._dice.choices(self._pool, k=n)
        gained = Histogram()
        gained.buckets = dict(Counter(index for _, index in drawn))
        gained.count, gained.sum_ns = n, sum(value for value, _ in drawn)
        gained.min_ns, gained.max_ns = min(drawn)[0], max(drawn)[0]
        gained.add(self.total)
        # In order, as a histogram that was read from the wire has them.
        gained.buckets = dict(sorted(gained.buckets.items()))
        self.total = gained


def _host_run(name: str, plan: Plan, condition: Condition, environment: dict[str, Any], dice: random.Random) -> HostRun:
    scenario = plan.scenario
    times = {
        "response_time": _Times(dice, condition.median_ms * 1e6, condition.spread, condition.slow),
        "service_time": _Times(dice, condition.median_ms * 0.985e6, condition.spread, condition.slow),
        "scheduler_lag": _Times(dice, condition.lag_ms * 1e6, 0.6),
        "write_wait": _Times(dice, 18_000, 0.3),
        "handshake": _Times(dice, condition.handshake_ms * 1e6, 0.5),
    }
    opened = failed = due = lost = 0
    cpu = [0.0, 0.0]
    series: list[Second] = []
    for second in range(1, scenario.duration_s + 1):
        before, opened = opened, min(plan.count, round(plan.count * second / scenario.planned_ramp_s))
        times["handshake"].record(opened - before)
        failed += _share(opened - before, condition.refused, dice)
        sent = _due(plan, opened, second) - _due(plan, opened, second - 1)
        gone = _share(sent, condition.lost, dice)
        due, lost = due + sent, lost + gone
        for kind in ("scheduler_lag", "write_wait"):
            times[kind].record(sent)
        for kind in ("response_time", "service_time"):
            times[kind].record(sent - gone)
        cpu = [worker + condition.busy * dice.uniform(0.9, 1.1) for worker in cpu]
        series.append(
            Second(
                second=second,
                counters=Counters(
                    connections_attempted=opened + failed,
                    connections_opened=opened,
                    connections_failed=failed,
                    connections_open=opened,
                    reconnects=failed,
                    messages_due=due,
                    messages_sent=due,
                    messages_received=due - lost,
                    messages_lost=lost,
                    bytes_sent=due * scenario.size_bytes,
                    bytes_received=(due - lost) * scenario.size_bytes,
                ),
                errors={"connect_refused": failed} if failed else {},
                histograms={key: of.total for key, of in times.items() if of.total.count},
                host=HostSecond(worker_cpu_s=tuple(round(worker, 3) for worker in cpu), core_s=4.0 * second),
            )
        )
    last = series[-1]
    closed = last.counters.model_copy(update={"connections_closed": opened, "connections_open": 0})
    reading = _reading(name, environment, dice)
    result = HostResult(
        run_id=RUN_ID,
        host=name,
        state="finished",
        seconds=len(series),
        final=last.model_copy(update={"second": last.second + 1, "counters": closed}),
        workers=len(cpu),
        start_at_ns=START_NS,
        first_connect_due_ns=0,
        first_connect_begun_ns=600_000,
        environment_begin=reading,
        environment_end=reading,
    )
    return HostRun(name, series, result)


def _due(plan: Plan, opened: int, second: int) -> int:
    """Messages due up to a second, were so many clients there from the begin."""
    interval_ms = plan.scenario.interval_ms
    return opened * second * 1000 // interval_ms if interval_ms else 0


def _share(of: int, share: float, dice: random.Random) -> int:
    whole = of * share
    return int(whole) + (dice.random() < whole % 1)


def _reading(name: str, stable: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    own = {"hostname": name, "boot_id": f"boot-{name}-{stable['kernel']}", "machine_id": f"machine-{name}"}
    volatile = {"load_1m": round(dice.uniform(0.05, 0.4), 2), "tcp_in_use": dice.randrange(8, 30)}
    return {"stable": dict(sorted({**stable, **own}.items())), "volatile": volatile}


def _outcome(name: str, reading: dict[str, Any], run: HostRun | None = None) -> HostOutcome:
    return HostOutcome(
        name=name,
        role="server" if run is None else "load_generator",
        clock_begin=_CLOCK,
        clock_end=_CLOCK,
        start_skew_s=None if run is None else 0.0006,
        environment_begin=reading,
        environment_end=reading,
        run=run,
    )


def _row(host: HostOutcome) -> Host:
    counters = None
    if host.run is not None and host.run.total is not None:
        counters = run_counters(host.run.total, max(line.counters.connections_open for line in host.run.series))
    return Host(
        name=host.name,
        role=host.role,
        start_skew_s=host.start_skew_s,
        clock_offset_s=_CLOCK.offset_s,
        clock_bound_s=_CLOCK.bound_s,
        counters=counters,
        environment=host.environment_begin,
    )


# --- what Prometheus would have said ----------------------------------------------------------------------------------
_TOLD = {
    "Server CPU",
    "Server memory, most",
    "Server event-loop lag, largest",
    "Server connections, most",
    "Server messages received",
    "Generator CPU, busiest worker",
    "Host CPU",
}
"""A part of the evidence is enough to read."""


def _told() -> Iterator[Query]:
    return (query for query in QUERIES if query.name in _TOLD)


def _values(
    scenario: Scenario, condition: Condition, generators: Sequence[str], dice: random.Random
) -> Iterator[tuple[tuple[str, str], float]]:
    load = scenario.offered_per_s
    of_all = {
        "Server CPU": 0.02 + load * condition.median_ms * 1.6e-4,
        "Server memory, most": 60e6 + scenario.clients * 14e3,
        "Server event-loop lag, largest": condition.median_ms * 4e-3,
        "Server connections, most": scenario.clients,
        "Server messages received": load,
        "Generator CPU, busiest worker": condition.busy,
    }
    for name, value in of_all.items():
        exact = name == "Server connections, most"
        yield (name, ""), value if exact else value * dice.uniform(0.97, 1.03)
    for host in (SERVER, *generators):
        yield ("Host CPU", host), (0.1 + condition.busy * 2) * dice.uniform(0.9, 1.1)


def evidence(values: dict[tuple[str, str], float], start_s: float, window_s: int) -> list[Evidence]:
    """Rows for these values, over a window that ends `window_s` after `start_s` (s since the epoch)."""
    rows = []
    for query in _told():
        for (name, host), value in values.items():
            if name == query.name:
                promql = query.what.over_window([host] if host else [], float(window_s), start_s + window_s)
                rows.append(
                    Evidence(
                        name=f"{name} ({host})" if host else name,
                        value=value,
                        unit=query.unit,
                        promql=promql,
                        window_s=window_s,
                        step_s=1,
                        samples=window_s,
                    )
                )
    return rows

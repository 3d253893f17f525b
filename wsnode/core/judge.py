"""Two judgements of a run: its verdict (did it meet its thresholds) and its validity (can it be believed).

Validity concerns the lab only. What the measured server did, its CPU, refusals and drops, is a result. Each row of the
table below has a test that provokes it and one that shows the next weaker case passing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from wsnode.core.broadcast import broken_rooms
from wsnode.core.histogram import nearest_rank
from wsnode.core.merge import broken_identities, since
from wsnode.core.protocol import GENERATOR_FAULTS, HostSecond, Second, UnsentReason
from wsnode.core.result import (
    FLOORS,
    NO_BROADCAST,
    NOT_JUDGED,
    Aborted,
    Evidence,
    Floor,
    Host,
    Judged,
    Latencies,
    Result,
    State,
    Subject,
    Validity,
    Verdict,
    Window,
    near_floor,
)
from wsnode.core.summary import HostRun, Summary
from wsnode.core.threshold import COUNTS, DELIVERIES, LATENCIES, RATES, RATIOS, Threshold

MS = 1_000_000
LAG_SUSPECT_NS, LAG_INVALID_NS = 5 * MS, 50 * MS
GENERATOR_UNSENT_SUSPECT, GENERATOR_UNSENT_INVALID = 0.001, 0.01
WORKER_CPU_SUSPECT, WORKER_CPU_INVALID, WORKER_CPU_SECONDS = 0.80, 0.95, 0.05
STEAL_SUSPECT, STEAL_INVALID = 0.01, 0.10
CONNECTS_LATE_SUSPECT = 0.01
CONNECT_LATE_NS = 50 * MS
SCRAPES_SUSPECT = 0.05
CLOCK_BOUND_SUSPECT_S = 0.025
NAMED = 8
"""Hosts that a note names; of more it gives the number."""

Level = Literal["suspect", "invalid"]


class Reason(NamedTuple):
    """Why a run is not simply valid."""

    level: Level
    text: str


class Scrapes(NamedTuple):
    """How well Prometheus saw one target over the window."""

    target: str
    """Such as `load-1 (wsnode-agent)`."""
    expected: int
    """Scrapes that the window has room for."""
    failed: int
    missing: int


class Agreement(NamedTuple):
    """A number that both Prometheus and the load generators know."""

    name: str
    by_prometheus: float
    by_generators: float
    allowed: float
    """Two scrape intervals' worth."""


class Clock(NamedTuple):
    """How well a host's clock was known where its start skew is quoted."""

    host: str
    bound_s: float


class Surroundings(NamedTuple):
    """What is known of a run beside its counts."""

    server_changed: Sequence[str] = ()
    """How the server differed between begin and end, a line each."""
    scrapes: Sequence[Scrapes] = ()
    agreements: Sequence[Agreement] = ()
    clocks: Sequence[Clock] = ()
    environment_changed: Sequence[str] = ()
    """Stable keys of a host's environment that differ between begin and end, a line each."""
    lost_hosts: Sequence[str] = ()
    """Load generators that nobody can speak for."""
    exhausted: Sequence[str] = ()
    """What a load generator ran out of beside what its errors tell, such as conntrack entries, a line each."""


class Observed(NamedTuple):
    """A host's environment as its agent read it before and after the load: `{"stable": …, "volatile": …}`."""

    name: str
    role: Literal["server", "load_generator"]
    begin: Mapping[str, Any]
    end: Mapping[str, Any]


def validity(
    summary: Summary, hosts: Sequence[HostRun], surroundings: Surroundings | None = None
) -> tuple[Validity, list[str]]:
    """The worst level of all rows that apply, and their texts, the graver first."""
    reasons = list(_reasons(summary, hosts, surroundings or Surroundings()))
    reasons.sort(key=lambda reason: reason.level != "invalid")
    level: Validity = "valid"
    if reasons:
        level = reasons[0].level
    return level, [f"{reason.level}: {reason.text}" for reason in reasons]


def _reasons(summary: Summary, hosts: Sequence[HostRun], around: Surroundings) -> Iterator[Reason]:
    yield from _accounts(summary, hosts)
    yield from _lost(hosts, around)
    yield from _schedule(summary, hosts)
    yield from _connects(summary, around, hosts)
    yield from _processors(summary, hosts)
    yield from _exhaustion(summary, around)
    yield from _watching(around)


def _accounts(summary: Summary, hosts: Sequence[HostRun]) -> Iterator[Reason]:
    for host in hosts:
        if host.total is not None:
            for broken in broken_identities(host.total.counters):
                yield Reason("invalid", f"the accounts of {host.name} do not add up: {broken}")
    stretch = "window" if summary.window else "run"
    if summary.window:
        for broken in broken_identities(summary.measured.counters):
            # Of the connections, pending and open ones are of an instant and belong to no stretch of time.
            if broken.startswith("messages"):
                yield Reason("invalid", f"the accounts of the {stretch} do not add up: {broken}")
    for broken in broken_rooms(summary.total.rooms or ()):
        yield Reason("invalid", f"the accounts of the broadcast do not add up: {broken}")
    for name, (histogram, due) in summary.recorded().items():
        if histogram.count > due:
            text = f"{histogram.count:,} times of {name} were recorded, of {due:,} at most"
            yield Reason("invalid", f"the accounts of the {stretch} do not add up: {text}")


def _lost(hosts: Sequence[HostRun], around: Surroundings) -> Iterator[Reason]:
    for host in hosts:
        if host.result.state == "interrupted":
            yield Reason(
                "invalid",
                f"load generator {host.name} was lost after {host.result.seconds} s"
                + (f": {host.result.reason}" if host.result.reason else ""),
            )
    for name in around.lost_hosts:
        yield Reason("invalid", f"load generator {name} was lost")
    for line in around.server_changed:
        yield Reason("invalid", f"the server changed during the run: {line}")


def _schedule(summary: Summary, hosts: Sequence[HostRun]) -> Iterator[Reason]:
    due = summary.measured.counters.messages_due
    if due:
        p99 = _lag_p99(summary.measured)
        interval_ns = summary.scenario.interval_ms * MS
        limit = min(LAG_INVALID_NS, interval_ns) if interval_ns > LAG_SUSPECT_NS else LAG_INVALID_NS
        if summary.scenario.pace == "closed":
            pass  # what is sent is not due before that
        elif p99 is None:
            where = _where(summary, hosts, lambda part: _lag_p99(part) is None)
            yield Reason("invalid", f"scheduler lag p99: for more than 1 % of the messages the turn never came{where}")
        elif p99 > limit:
            where = _where(summary, hosts, lambda part: _later(_lag_p99(part), limit))
            what = "the limit" if limit == LAG_INVALID_NS else "one message interval"
            yield Reason("invalid", f"scheduler lag p99 {p99 / MS:.1f} ms is above {limit / MS:g} ms, {what}{where}")
        elif p99 > LAG_SUSPECT_NS:
            where = _where(summary, hosts, lambda part: _later(_lag_p99(part), LAG_SUSPECT_NS))
            yield Reason("suspect", f"scheduler lag p99 {p99 / MS:.1f} ms is above {LAG_SUSPECT_NS / MS:g} ms{where}")
        unsent = summary.generator_fault_unsent / due
        if unsent > GENERATOR_UNSENT_SUSPECT:
            over = GENERATOR_UNSENT_INVALID if unsent > GENERATOR_UNSENT_INVALID else GENERATOR_UNSENT_SUSPECT
            where = _where(
                summary, hosts, lambda part: _own_fault(part.unsent) > over * max(1, part.counters.messages_due)
            )
            yield Reason(
                "invalid" if unsent > GENERATOR_UNSENT_INVALID else "suspect",
                f"{unsent:.2%} of the due messages were not sent by the generator's own fault, above {over:.1%}{where}",
            )


def _lag_p99(part: Second) -> int | None:
    """Of all that was due (ns); None where for more than 1 % the turn never came."""
    due = part.counters.messages_due
    return part.histogram("scheduler_lag").value_at_rank(nearest_rank(0.99, due)) if due else 0


def _later(p99_ns: int | None, limit_ns: float) -> bool:
    return p99_ns is None or p99_ns > limit_ns


def _own_fault(unsent: Mapping[UnsentReason, int]) -> int:
    return sum(n for why, n in unsent.items() if why in GENERATOR_FAULTS)


def _where(summary: Summary, hosts: Sequence[HostRun], is_so: Callable[[Second], bool]) -> str:
    """Of several load generators the ones of which something is so over the window, as the end of a sentence."""
    counting = [(host, total) for host in hosts if (total := host.total) is not None]
    if len(counting) < 2:
        return ""
    names = []
    for host, total in counting:
        part = total
        if summary.window is not None:
            opens, closes = summary.window
            part = since(host.series[closes - 1], host.series[opens - 1] if opens else None)
        if is_so(part):
            names.append(host.name)
    return f" ({_few(names)})" if names else ""


def _connects(summary: Summary, around: Surroundings, hosts: Sequence[HostRun]) -> Iterator[Reason]:
    total = summary.total.counters
    late, connects = total.connects_late, total.connections_attempted
    if not around.lost_hosts and all(host.result.state != "interrupted" for host in hosts):
        # Those that were due early enough to be late, and that nobody has begun, are later than any.
        attempted = total.connections_attempted + summary.total.kinds.get("half_open.attempted", 0)
        never = _connects_due(summary, len(summary.series)) - (attempted - total.reconnects)
        late, connects = late + max(0, never), connects + max(0, never)
    if connects and late / connects > CONNECTS_LATE_SUSPECT:
        yield Reason(
            "suspect",
            f"{late:,} of {connects:,} connects began more than {CONNECT_LATE_NS / MS:g} ms late or never, "
            f"above {CONNECTS_LATE_SUSPECT:.0%}",
        )


def _connects_due(summary: Summary, second: int) -> int:
    """Connects, those after a break apart, that were due so early that it had to be begun by the end of a second."""
    pacing = summary.scenario.pacing()
    return pacing.connects_due(min(second * 1000 * MS, pacing.end_ns) - CONNECT_LATE_NS)


def _processors(summary: Summary, hosts: Sequence[HostRun]) -> Iterator[Reason]:
    for host in hosts:
        opens, closes = summary.window or (0, len(host.series))
        # Only this part of each line: all lines of a long run at once would take gigabytes.
        lines = [host.counted[second].host for second in range(opens, min(closes, len(host.series)))]
        if not lines:
            continue
        before = host.counted[opens - 1].host if opens else None
        share = _over(lines, before, WORKER_CPU_SUSPECT)
        graver = _over(lines, before, WORKER_CPU_INVALID)
        if graver > WORKER_CPU_SECONDS:
            yield Reason("invalid", _busy(host.name, WORKER_CPU_INVALID, graver))
        elif share > WORKER_CPU_SECONDS:
            yield Reason("suspect", _busy(host.name, WORKER_CPU_SUSPECT, share))
        end, begin = lines[-1], before
        core_s = end.core_s - (begin.core_s if begin else 0)
        stolen_s = end.steal_s + end.throttled_s - (begin.steal_s + begin.throttled_s if begin else 0)
        ratio = round(stolen_s / core_s, 9) if core_s > 0 else 0.0
        if ratio > STEAL_SUSPECT:
            invalid = ratio > STEAL_INVALID
            yield Reason(
                "invalid" if invalid else "suspect",
                f"{host.name}: {ratio:.1%} of the core-seconds were stolen or throttled, above "
                f"{STEAL_INVALID if invalid else STEAL_SUSPECT:.0%}",
            )


def _over(lines: Sequence[HostSecond], before: HostSecond | None, limit: float) -> float:
    """Largest share of seconds, over a host's workers, in which one worker used more than `limit` CPU s per s."""
    begin = before.worker_cpu_s if before else (0.0,) * len(lines[0].worker_cpu_s)
    cumulative = [begin, *(line.worker_cpu_s for line in lines)]
    workers = range(min(len(cpu) for cpu in cumulative))
    return max(
        # To the microsecond: differences of sums of floats carry noise.
        (sum(round(b[w] - a[w], 6) > limit for a, b in itertools.pairwise(cumulative)) / len(lines) for w in workers),
        default=0.0,
    )


def _busy(host: str, limit: float, share: float) -> str:
    return (
        f"{host}: a load worker used more than {limit:g} CPU seconds per second in {share:.0%} of the seconds, "
        f"above {WORKER_CPU_SECONDS:.0%}"
    )


def _exhaustion(summary: Summary, around: Surroundings) -> Iterator[Reason]:
    names = {"source_ports_exhausted": "source ports", "descriptors_exhausted": "file descriptors"}
    for kind, n in summary.total.errors.items():
        if n and kind in names:
            yield Reason("suspect", f"{names[kind]} were exhausted on a load generator, {n:,} times")
    if n := summary.total.errors.get("behaviour_failed", 0):
        yield Reason(
            "invalid", f"the behaviour {summary.scenario.behaviour} failed {n:,} times: its own code, not the server"
        )
    for line in around.exhausted:
        yield Reason("suspect", f"exhausted on a load generator: {line}")


def _watching(around: Surroundings) -> Iterator[Reason]:
    for scrapes in around.scrapes:
        # One scrape may be missing without a fault: the window's edges fall between two.
        bad = scrapes.failed + max(0, scrapes.missing - 1)
        if scrapes.expected and bad / scrapes.expected > SCRAPES_SUSPECT:
            yield Reason(
                "suspect",
                f"{scrapes.target}: {bad} of {scrapes.expected} scrapes failed or are missing, "
                f"above {SCRAPES_SUSPECT:.0%}",
            )
    for both in around.agreements:
        if abs(both.by_prometheus - both.by_generators) > both.allowed:
            yield Reason(
                "suspect",
                f"{both.name}: Prometheus has {both.by_prometheus:,.0f}, the load generators "
                f"{both.by_generators:,.0f}; more than {both.allowed:,.0f} apart",
            )
    for clock in around.clocks:
        if clock.bound_s > CLOCK_BOUND_SUSPECT_S:
            yield Reason(
                "suspect",
                f"{clock.host}: clock known within {clock.bound_s * 1000:.1f} ms only, above "
                f"{CLOCK_BOUND_SUSPECT_S * 1000:g} ms",
            )
    for line in around.environment_changed:
        yield Reason("suspect", f"the environment changed during the run: {line}")


def verdict(summary: Summary) -> tuple[Verdict, list[Judged], list[str]]:
    """Judge the scenario's thresholds; the third is notes on those that could not be judged.

    A threshold on a null fails where unanswered messages caused it, and is not judged where samples are too few.
    Without a window nothing is judged.
    """
    thresholds = [Threshold.parse(text) for text in summary.scenario.thresholds]
    if summary.window is None:
        return "none", [Judged(expr=t.text, value=None, passed=None) for t in thresholds], []
    latencies, nulls = summary.latencies()
    nulls |= summary.nulls()
    judged, notes = [], []
    for threshold in thresholds:
        value = _value(threshold, summary, latencies)
        passed: bool | None
        if value is not None:
            passed = threshold.holds(value)
        else:
            why = nulls.get(_place(threshold.metric), NO_BROADCAST)
            passed = False if threshold.metric.partition(".")[0] in LATENCIES and why not in NOT_JUDGED else None
            notes.append(f"threshold {threshold.text}: {'failed' if passed is False else 'not judged'}, {why}")
        judged.append(Judged(expr=threshold.text, value=value, passed=passed))
    return _overall(judge.passed for judge in judged), judged, notes


def _overall(outcomes: Iterable[bool | None]) -> Verdict:
    known = [outcome for outcome in outcomes if outcome is not None]
    if not known:
        return "none"
    return "passed" if all(known) else "failed"


def _value(threshold: Threshold, summary: Summary, latencies: Latencies) -> float | None:
    name, _, statistic = threshold.metric.partition(".")
    if name in LATENCIES:
        value: float | None = getattr(getattr(latencies, name), statistic, None)
        return value
    if name in RATIOS:
        return getattr(summary, name)  # type: ignore[no-any-return]
    if name == "connections_peak":
        return summary.peak
    if name in DELIVERIES:
        return getattr(summary.broadcast(), name, None)
    rate: float | None = getattr(summary.rates(), name)
    return rate


def _place(metric: str) -> str:
    """Where a threshold's metric stands in the result."""
    if metric in RATIOS:
        return metric
    rooms = (("counters", COUNTS), ("rates", RATES), ("broadcast", DELIVERIES))
    room = next((room for room, metrics in rooms if metric in metrics), "latency_s")
    return f"{room}.{metric}"


def lab_notes(hosts: Iterable[Observed]) -> list[str]:
    """What a reader must know of the lab: who shares a kernel and cores with the server, and what that kernel dropped.

    Reads of an environment's stable keys `boot_id`, `cpu_count` and `cpus_usable`, of its volatile ones
    `packets_dropped`.
    """
    kernels: dict[str, list[Observed]] = {}
    for host in hosts:
        if boot_id := _stable(host).get("boot_id"):
            kernels.setdefault(str(boot_id), []).append(host)
    notes = []
    for sharers in kernels.values():
        servers = [host.name for host in sharers if host.role == "server"]
        generators = [host.name for host in sharers if host.role == "load_generator"]
        if not servers or not generators:
            continue
        cores = {(_stable(host).get("cpu_count"), _stable(host).get("cpus_usable")) for host in sharers}
        count, usable = cores.pop() if len(cores) == 1 else (None, None)
        shared = f"a kernel and its {count} cores" if count and count == usable else "a kernel"
        names = f"{', '.join(servers)} and {_few(generators)}"
        notes.append(f"{names} share {shared}: what a load generator takes, the server has not")
        dropped = max(_dropped(host) for host in sharers)
        if dropped > 0:
            notes.append(f"the kernel that {names} share dropped {dropped:,} packets during the run")
    return notes


def _few(names: Sequence[str]) -> str:
    """Names as a note can hold them."""
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"


def _stable(host: Observed) -> Mapping[str, Any]:
    stable: Mapping[str, Any] = host.begin.get("stable") or {}
    return stable


def _dropped(host: Observed) -> int:
    begin, end = ((environment.get("volatile") or {}).get("packets_dropped") for environment in (host.begin, host.end))
    return 0 if begin is None or end is None else int(end) - int(begin)


def _stopped_notes(summary: Summary, hosts: Sequence[HostRun]) -> list[str]:
    return [
        f"the load of {host.name} was stopped after {host.result.seconds} of {summary.scenario.duration_s} s"
        + (f": {host.result.reason}" if host.result.reason else "")
        for host in hosts
        if host.result.state == "stopped"
    ]


def judge(
    run_id: str,
    summary: Summary,
    hosts: Sequence[HostRun],
    *,
    state: State = "finished",
    state_reason: str | None = None,
    subject: Subject | None = None,
    started: datetime | None = None,
    host_rows: Sequence[Host] = (),
    evidence: Sequence[Evidence] = (),
    surroundings: Surroundings | None = None,
    aborted: Aborted | None = None,
    notes: Sequence[str] = (),
    url: str | None = None,
) -> Result:
    """The whole result of a run. `started` is the run's origin on the caller's clock, time zone included.

    A run that one of its own rules has ended is finished, and has failed: its `abort_on` is a demand like the others.
    """
    level, reasons = validity(summary, hosts, surroundings)
    outcome, judged, threshold_notes = verdict(summary)
    if aborted is not None:
        outcome = "failed"
    latencies, nulls = summary.latencies()
    stages, of_stages = summary.stages()
    nulls |= summary.nulls() | of_stages
    window = None
    if summary.window is not None and started is not None:
        opens, closes = (started + timedelta(seconds=edge) for edge in summary.window)
        window = Window(start=opens, end=closes, from_s=summary.window[0], to_s=summary.window[1])
    else:
        nulls["window"] = "no measured window" if summary.window is None else "the time of its begin is not known"
    rows = [row.model_copy(update={"floor": _floor(row)}) for row in host_rows]
    for row in rows:
        if row.role == "load_generator" and row.floor is None:
            nulls[f"hosts.{row.name}.floor"] = (row.environment.get("floor") or {}).get(
                "missing"
            ) or "it was not measured"
    all_notes = [*notes, *summary.scenario.notes(), *_stopped_notes(summary, hosts), *threshold_notes]
    if aborted is not None and aborted.value is None:
        nulls["aborted.value"] = "too many messages of that second were never answered"
    if summary.window is None:
        all_notes.insert(0, "ramp-up only: no measured window, figures are of the whole run")
    result = Result(
        run_id=run_id,
        state=state,
        verdict=outcome if state == "finished" else "none",
        validity=level,
        reasons=([f"{state}: {state_reason}"] if state_reason else []) + reasons,
        notes=all_notes,
        subject=subject,
        scenario=summary.scenario,
        window=window,
        counters=summary.counters(),
        broadcast=summary.broadcast(),
        rates=summary.rates(),
        error_ratio=summary.error_ratio,
        connect_error_ratio=summary.connect_error_ratio,
        latency_s=latencies,
        stages=stages,
        thresholds=judged,
        aborted=aborted,
        hosts=rows,
        evidence=list(evidence),
        nulls=nulls,
        url=url,
    )
    result.notes += _floor_notes(result)
    return result


def _floor(row: Host) -> Floor | None:
    """What a load generator's environment says of its own floor."""
    said = row.environment.get("floor")
    if row.role != "load_generator" or not said or "missing" in said:
        return row.floor
    return Floor.model_validate(said)


def _floor_notes(result: Result) -> Iterator[str]:
    near = near_floor(result)
    if near:
        own = ", ".join(
            f"{name.replace('_', ' ').replace('.', ' ')} ({floor * 1e3:.3g} ms)" for name, floor in near.items()
        )
        yield (
            f"below {FLOORS} times what the load generator itself takes, given in brackets, and so no measure of the "
            f"server alone: {own}"
        )

"""From what the conductor brought back to a result: evidence gathered, everything judged. No database here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from portal.conductor.job import HostOutcome, Job, Outcome
from portal.monitoring.evidence import Kernel, Row, Span, Target, Watched, watch
from portal.monitoring.links import Page
from portal.monitoring.queries import STEP_S
from portal.runs.environment import changes
from wsnode.core.judge import Agreement, Clock, Observed, Scrapes, Surroundings, judge, lab_notes
from wsnode.core.protocol import Second
from wsnode.core.result import Evidence, Host, Result, Subject
from wsnode.core.summary import Summary, run_counters, summarise

STEP_BEYOND_S = 0.05
"""What a clock may move in a run, beyond what its readings are known to, by drift and by being slewed."""
SERVER_FACTS = "server."
"""What facts of the server begin with, as opposed to those of its host (`wsnode.environment`)."""


@dataclass(frozen=True)
class Facts:
    """What judging needs to know of a run beside its outcome."""

    job: Job
    targets: Sequence[Target]
    prometheus_url: str | None
    grafana_url: str | None
    subject: Subject
    notes: Sequence[str]
    url: str
    ended_at: float
    """When the last host's load was known to be over (s since the epoch)."""
    patience_s: float
    outside: str | None = None
    """That what was measured is not the lab's own server, in words."""
    server_changed: Sequence[str] = ()
    """What tells that it was not one and the same server all the time."""


@dataclass(frozen=True)
class Judgement:
    """A judged run, ready to be stored."""

    result: Result | None
    """None where no host has counted anything."""
    subject: Subject
    rows: Sequence[Row]
    watched: Watched | None


def judge_outcome(facts: Facts, outcome: Outcome) -> Judgement:
    """Gather the evidence and judge. Takes as long as Prometheus does, at most some seconds."""
    hosts = [host.run for host in outcome.hosts if host.run is not None]
    summary = summarise(facts.job.scenario, hosts)
    subject = _subject(facts.subject, outcome)
    if summary is None or outcome.start_at_ns is None:
        return Judgement(None, subject, (), None)
    start = outcome.start_at_ns / 1e9
    opens, closes = summary.window or (0, max(1, len(summary.series)))
    window = Span(start + opens, start + closes)
    whole = Span(start, max(facts.ended_at, window.end))
    watched = watch(
        facts.prometheus_url,
        facts.targets,
        window=window,
        whole=whole,
        page=_page(facts),
        kernels={host.name: _kernel(host) for host in outcome.hosts},
        patience_s=facts.patience_s,
        outside=facts.outside,
    )
    result = judge(
        facts.job.run_id,
        summary,
        hosts,
        state=outcome.state,
        state_reason=outcome.reason,
        subject=subject,
        started=datetime.fromtimestamp(start, UTC),
        host_rows=[_host_row(host) for host in outcome.hosts],
        evidence=[_evidence(row) for row in watched.rows],
        surroundings=_surroundings(outcome, summary, watched, facts.server_changed),
        aborted=outcome.aborted,
        notes=[*facts.notes, *_notes(outcome, watched)],
        url=facts.url,
    )
    return Judgement(result, subject, watched.rows, watched)


def stable(environment: dict[str, Any]) -> dict[str, Any]:
    """The part of a host's environment that must not change while a run is comparable."""
    part = environment.get("stable", {})
    return part if isinstance(part, dict) else {}


def _kernel(host: HostOutcome) -> Kernel:
    facts = stable(host.environment_begin)
    boot_id, network = facts.get("boot_id"), facts.get("network_namespace")
    return Kernel(str(boot_id) if boot_id else None, str(network) if network else None)


def _page(facts: Facts) -> Page | None:
    if facts.grafana_url is None:
        return None
    run_id = facts.job.run_id
    return Page(facts.grafana_url, facts.url.removesuffix(f"/runs/{run_id}/"), run_id)


def _subject(subject: Subject, outcome: Outcome) -> Subject:
    """Our own server's version is what its host says is installed."""
    if subject.source != "own":
        return subject
    said = [stable(host.environment_begin).get("wsnode") for host in outcome.hosts if host.role == "server"]
    return subject.model_copy(update={"version": str(said[0]) if said and said[0] else subject.version or "unknown"})


def _surroundings(outcome: Outcome, summary: Summary, watched: Watched, server_changed: Sequence[str]) -> Surroundings:
    changed: list[str] = []
    of_server = [f"its counters began anew {watched.restarts} times"] if watched.restarts else []
    for host in outcome.hosts:
        for change in changes(stable(host.environment_begin), stable(host.environment_end)):
            if change.name.startswith(SERVER_FACTS):
                if "absent" in (change.begin, change.end):
                    continue  # it did not answer then: busy or gone, which is a result
                of_server.append(f"{change.name.removeprefix(SERVER_FACTS)} {change.begin} → {change.end}")
            else:
                changed.append(f"{host.name}: {change.name} {change.begin} → {change.end}")
    return Surroundings(
        server_changed=[*server_changed, *of_server],
        scrapes=[Scrapes(str(seen.target), seen.expected, seen.failed, seen.missing) for seen in watched.seen],
        agreements=list(_agreements(summary, watched)),
        clocks=[
            Clock(host.name, bound)
            for host in outcome.hosts
            if host.start_skew_s is not None and (bound := _bound(host)) is not None
        ],
        environment_changed=changed,
        lost_hosts=[host.name for host in outcome.hosts if host.role == "load_generator" and host.lost],
    )


def _agreements(summary: Summary, watched: Watched) -> Iterator[Agreement]:
    """Whole-run totals: the load is over on both sides of the compared samples, so that nothing is in between."""
    counters, scenario = summary.total.counters, summary.scenario
    steps = 2 * STEP_S
    if watched.received is not None:
        busiest = max(scenario.offered_per_s, _busiest(summary.series))
        yield Agreement("messages at the server", watched.received, counters.messages_sent, max(1.0, steps * busiest))
    if watched.opened is not None:
        rate = max(1.0, steps * scenario.rate_per_s)
        yield Agreement("connections at the server", watched.opened, counters.connections_opened, rate)


def _busiest(series: Sequence[Second]) -> int:
    """Most messages sent of one second."""
    sent = [0, *(line.counters.messages_sent for line in series)]
    return max((later - earlier for earlier, later in itertools.pairwise(sent)), default=0)


def _notes(outcome: Outcome, watched: Watched) -> Iterator[str]:
    yield from lab_notes(
        Observed(host.name, host.role, host.environment_begin, host.environment_end) for host in outcome.hosts
    )
    yield from _steps(outcome)
    if watched.fault is not None:
        yield f"no host series: {watched.fault}"


def _bound(host: HostOutcome) -> float | None:
    """How well the offset at begin is known of the moment of the start: a clock that has moved by the next reading, by
    drift or by a step, may have done so before the start. What it does later is not the start's."""
    after = host.clock_started or host.clock_end
    readings = [reading for reading in (host.clock_begin, after) if reading is not None]
    if not readings:
        return None
    return max(reading.bound_s for reading in readings) + abs(readings[-1].offset_s - readings[0].offset_s)


def _steps(outcome: Outcome) -> Iterator[str]:
    """Clocks that were set during the run. Only one-way delays would be measured by them."""
    for host in outcome.hosts:
        first, last = host.clock_started or host.clock_begin, host.clock_end
        if first is None or last is None:
            continue
        moved_s = last.offset_s - first.offset_s
        if abs(moved_s) > STEP_BEYOND_S + first.bound_s + last.bound_s:
            yield f"{host.name}: its clock was moved by {moved_s:+,.3f} s during the run; no figure here is by it"


def _host_row(host: HostOutcome) -> Host:
    counters = None
    if host.run is not None and host.run.total is not None:
        peak = max((line.counters.connections_open for line in host.run.counted), default=None)
        counters = run_counters(host.run.total, peak)
    return Host(
        name=host.name,
        role=host.role,
        start_skew_s=host.start_skew_s,
        clock_offset_s=host.clock_begin.offset_s if host.clock_begin else None,
        clock_bound_s=_bound(host),
        counters=counters,
        environment=host.environment_begin,
    )


def _evidence(row: Row) -> Evidence:
    return Evidence(
        name=row.name,
        value=row.value,
        unit=row.unit,
        no_data=row.no_data,
        promql=row.promql,
        window_s=row.window_s,
        step_s=row.step_s,
        samples=row.samples,
        grafana_url=row.grafana_url,
    )

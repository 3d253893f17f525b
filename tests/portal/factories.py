"""Runs in every state, for the portal's tests: counted by core's own functions, so that all their numbers agree."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from portal.accounts.models import User
from portal.conductor.job import ClockReading, HostOutcome, Outcome
from portal.runs.archive import pack
from portal.runs.models import Archive, Environment, EvidenceRow, NamedScenario, Run, RunEvent, RunSecond, Summary
from portal.runs.states import ACTIVE, State
from wsnode.core.histogram import Histogram
from wsnode.core.judge import Surroundings, judge
from wsnode.core.merge import merge
from wsnode.core.protocol import Counters, HostResult, HostSecond, Second
from wsnode.core.result import Evidence, Host, Result, Subject
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.summary import HostRun, run_counters, summarise

NOW = datetime(2026, 11, 20, 9, 30, 0, tzinfo=UTC)
SMOKE = Scenario(
    name="smoke",
    description="Does everything work?",
    clients=100,
    interval_ms=200,
    ramp_up_s=2,
    duration_s=12,
    rate_per_s=100,
    thresholds=("response_time.p99 < 250ms", "error_ratio < 0.1%"),
)
STABLE = {"cpu_count": 2, "kernel": "6.8.0-45", "net.core.somaxconn": "4096", "wsnode": "0.1.0"}
VOLATILE = {"load_1m": 0.21, "tcp_in_use": 14}


def make_user(username: str = "ada", **fields: Any) -> User:
    """A person who may sign in, an operator unless said otherwise."""
    fields.setdefault("role", "operator")
    return User.objects.create_user(username, password="a long pass phrase", **fields)


def make_scenario(scenario: Scenario = SMOKE) -> NamedScenario:
    """A scenario that can be chosen."""
    return NamedScenario.objects.create(name=scenario.name, content=scenario.model_dump(mode="json"))


def host_run(
    name: str,
    plan: Plan,
    *,
    median_ms: float = 2.0,
    spread: float = 0.4,
    lose_every: int = 0,
    lag_ms: float = 0.05,
    cpu: float = 0.2,
    seed: int = 1,
    run_id: str = "r-test",
) -> HostRun:
    """A load generator's cumulative lines: every message answered (lognormal about `median_ms`), but each
    `lose_every`-th lost; clients connect evenly over the ramp-up and all stay."""
    scenario, dice = plan.scenario, random.Random(f"{seed} {name}")
    times = {key: Histogram() for key in ("response_time", "service_time", "scheduler_lag", "write_wait", "handshake")}
    due = lost = opened = 0
    series = []
    for second in range(1, scenario.duration_s + 1):
        to_open = min(plan.count, round(plan.count * second / scenario.planned_ramp_s))
        for _ in range(to_open - opened):
            times["handshake"].record(round(dice.lognormvariate(0, 0.5) * 1.5e6))
        opened = to_open
        for _ in range(round(opened * 1000 / scenario.interval_ms) if scenario.interval_ms else 0):
            due += 1
            times["scheduler_lag"].record(round(dice.lognormvariate(0, 0.6) * lag_ms * 1e6))
            times["write_wait"].record(round(dice.lognormvariate(0, 0.3) * 2e4))
            if lose_every and due % lose_every == 0:
                lost += 1
                continue
            service = round(dice.lognormvariate(0, spread) * median_ms * 1e6)
            times["service_time"].record(service)
            times["response_time"].record(service + 20_000)
        counters = Counters(
            connections_attempted=opened,
            connections_opened=opened,
            connections_open=opened,
            messages_due=due,
            messages_sent=due,
            messages_received=due - lost,
            messages_lost=lost,
            bytes_sent=due * scenario.size_bytes,
            bytes_received=(due - lost) * scenario.size_bytes,
        )
        host = HostSecond(worker_cpu_s=(cpu * second, cpu * second * 0.9), core_s=2.0 * second)
        copies = {key: Histogram.from_wire(histogram.to_wire()) for key, histogram in times.items()}
        series.append(Second(second=second, counters=counters, histograms=copies, host=host))
    closed = counters.model_copy(update={"connections_closed": opened, "connections_open": 0})
    final = series[-1].model_copy(update={"second": scenario.duration_s + 1, "counters": closed})
    result = HostResult(
        run_id=run_id,
        host=name,
        state="finished",
        seconds=len(series),
        final=final,
        workers=2,
        start_at_ns=0,
        first_connect_due_ns=0,
        first_connect_begun_ns=800_000,
        environment_begin={"stable": STABLE, "volatile": VOLATILE},
        environment_end={"stable": STABLE, "volatile": VOLATILE},
    )
    return HostRun(name, series, result)


def host_runs(scenario: Scenario = SMOKE, names: Sequence[str] = ("load-1", "load-2"), **load: Any) -> list[HostRun]:
    """One `host_run` per load generator, the clients divided as a conductor divides them."""
    plans = Plan.divide(scenario, "ws://127.0.0.1:3000/echo", len(names))
    return [host_run(name, plan, **load) for name, plan in zip(names, plans, strict=True)]


def evidence_rows() -> list[Evidence]:
    """One row with a value, one without."""
    query = 'sum(rate(node_cpu_seconds_total{job="node",host="server",mode!="idle"}[10s]))'
    return [
        Evidence(name="Host CPU", value=0.734, unit="cores", promql=query, window_s=10, step_s=1, samples=10),
        Evidence(
            name="Server loop lag",
            value=None,
            unit="s",
            no_data="no data: 0 samples in 10 s",
            promql='max(node_eventloop_lag_seconds{job="wsnode-server",host="server"})',
            window_s=10,
            step_s=1,
            samples=0,
            grafana_url="http://127.0.0.1:3001/d/wslab?viewPanel=panel-3",
        ),
    ]


def make_result(
    run_id: str = "r-test",
    scenario: Scenario = SMOKE,
    *,
    subject: Subject | None = None,
    surroundings: Surroundings | None = None,
    notes: Sequence[str] = ("the server shares a kernel with the load generators",),
    evidence: Sequence[Evidence] | None = None,
    runs: Sequence[HostRun] | None = None,
    **load: Any,
) -> Result:
    """What a finished run comes to; `load` goes to `host_run`."""
    runs = host_runs(scenario, **load) if runs is None else runs
    summary = summarise(scenario, runs)
    assert summary is not None
    environment = {"stable": STABLE, "volatile": VOLATILE}
    rows = [Host(name="server", role="server", clock_offset_s=0.0, clock_bound_s=0.00005, environment=environment)]
    for run in runs:
        assert run.total is not None
        peak = max(line.counters.connections_open for line in run.series)
        rows.append(
            Host(
                name=run.name,
                role="load_generator",
                start_skew_s=0.0008,
                clock_offset_s=0.00001,
                clock_bound_s=0.00005,
                counters=run_counters(run.total, peak),
                environment=environment,
            )
        )
    return judge(
        run_id,
        summary,
        runs,
        subject=subject,
        started=NOW,
        host_rows=rows,
        evidence=evidence_rows() if evidence is None else evidence,
        surroundings=surroundings,
        notes=notes,
    )


def make_run(user: User, state: State | str = State.QUEUED, scenario: Scenario = SMOKE, **fields: Any) -> Run:
    """A run in any state, without its record; created at `NOW` unless said otherwise."""
    state = State(state)
    fields.setdefault("created_at", NOW)
    fields.setdefault("machine", "this-machine")
    fields.setdefault("scenario_name", scenario.name)
    fields.setdefault("scenario", scenario.model_dump(mode="json"))
    fields.setdefault("generators", [] if state == State.QUEUED else ["load-1", "load-2"])
    begun: datetime = fields["created_at"]
    if state != State.QUEUED:
        fields.setdefault("epoch", 1)
        passed = ACTIVE[: ACTIVE.index(state) + 1] if state in ACTIVE else ACTIVE
        for seconds, stage in enumerate(passed, 1):
            fields.setdefault(f"{stage.value}_at", begun + timedelta(seconds=seconds))
        if state not in ACTIVE:
            fields.setdefault("finished_at", begun + timedelta(seconds=20))
    return Run.objects.create(created_by=user, state=state, **fields)


def make_finished(
    user: User,
    scenario: Scenario = SMOKE,
    *,
    load: dict[str, Any] | None = None,
    judged: dict[str, Any] | None = None,
    **fields: Any,
) -> Run:
    """A finished run with all that is kept of it. `load` goes to `host_run`, `judged` to `make_result`."""
    run = make_run(user, State.FINISHED, scenario, **fields)
    subject = None
    if run.subject_name:
        subject = Subject(name=run.subject_name, version=run.subject_version, source="given")
    runs = host_runs(scenario, **(load or {}))
    keep(run, make_result(run.id, scenario, subject=subject, runs=runs, **(judged or {})))
    add_archive(run, runs)
    return run


def merged_lines(runs: Sequence[HostRun]) -> list[Second]:
    """The seconds of a run whose hosts came to this."""
    return [merge(lines) for lines in zip(*(one.series for one in runs), strict=True)]


def add_archive(run: Run, runs: Sequence[HostRun]) -> None:
    """The archive of a run whose hosts came to this."""
    clock = ClockReading(offset_s=0.00001, bound_s=0.00005)
    environment = {"stable": STABLE, "volatile": VOLATILE}
    hosts = [
        HostOutcome(
            "server",
            "server",
            clock_begin=clock,
            clock_end=clock,
            environment_begin=environment,
            environment_end=environment,
        ),
        *(
            HostOutcome(
                r.name,
                "load_generator",
                clock_begin=clock,
                clock_end=clock,
                start_skew_s=0.0008,
                environment_begin=environment,
                environment_end=environment,
                run=r,
            )
            for r in runs
        ),
    ]
    outcome = Outcome("finished", None, hosts, round(NOW.timestamp() * 1e9))
    content = pack(
        run_id=run.pk,
        scenario=run.scenario,
        outcome=outcome,
        seconds=[RunSecond.of(run, line).line for line in merged_lines(runs)],
        series=(),
        log=(),
    )
    Archive.objects.create(run=run, content=content)


def keep(run: Run, result: Result) -> None:
    """Store a result as the portal does."""
    Run.objects.filter(pk=run.pk).update(verdict=result.verdict, validity=result.validity)
    run.refresh_from_db()
    Summary.of(run, result).save()
    EvidenceRow.objects.bulk_create(
        EvidenceRow(run=run, order=order, host="server", **row.model_dump())
        for order, row in enumerate(result.evidence)
    )
    Environment.objects.bulk_create(
        Environment(run=run, host=host.name, role=host.role, begin=host.environment, end=host.environment)
        for host in result.hosts
    )


def add_seconds(run: Run, lines: Sequence[Second]) -> None:
    """The merged seconds of a run that goes on."""
    RunSecond.objects.bulk_create(RunSecond.of(run, line) for line in lines)
    Run.objects.filter(pk=run.pk).update(last_second=lines[-1].second if lines else 0)
    run.refresh_from_db()


def say(run: Run, text: str, level: str = "info") -> RunEvent:
    """A line of a run's log."""
    return RunEvent.objects.create(run=run, text=text, level=level, at=run.created_at + timedelta(seconds=1))

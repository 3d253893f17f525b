"""What Prometheus saw, put beside what the load generators counted: every row of the table that the portal feeds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from portal.conductor.job import ClockReading, HostOutcome, Job, JobHost, Outcome
from portal.monitoring.evidence import Seen, Span, Target, Watched
from portal.monitoring.queries import QUERIES
from portal.runs import judging
from portal.runs.judging import Facts, Judgement, judge_outcome
from tests.portal.factories import SMOKE, host_runs
from tests.portal.standin import ENVIRONMENT, START_NS, outcome
from wsnode.core.result import Subject
from wsnode.core.scenario import Plan, Scenario

SERVER = Target("wsnode-server", "server", "server")
SENT = sum(run.total.counters.messages_sent for run in host_runs() if run.total)


def facts(scenario: Scenario = SMOKE, **changes: Any) -> Facts:
    plans = Plan.divide(scenario, "ws://127.0.0.1:13000/echo", 2)
    hosts = [JobHost("server", "server", "local", "/x", None)]
    hosts += [JobHost(f"load-{n}", "load_generator", "local", "/x", plan) for n, plan in enumerate(plans, 1)]
    given: dict[str, Any] = {
        "job": Job("r-test", 1, scenario, hosts, start_at_ns=START_NS),
        "targets": [SERVER],
        "prometheus_url": "http://127.0.0.1:1",
        "grafana_url": None,
        "subject": Subject(name="wsnode", version="", source="own"),
        "notes": [],
        "url": "http://portal/runs/r-test/",
        "ended_at": START_NS / 1e9 + 18,
        "patience_s": 0,
    }
    return Facts(**(given | changes))


def judged(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, change: dict[str, Any] | None = None, host: int = 0
) -> Judgement:
    """A run without trouble, as Prometheus saw it in this way; one host's word changed."""
    monkeypatch.setattr(judging, "watch", lambda *_, **__: watched)
    of = facts()
    result = outcome(of.job, runs=host_runs())
    hosts = list(result.hosts)
    hosts[host] = dataclasses.replace(hosts[host], **(change or {}))
    return judge_outcome(of, dataclasses.replace(result, hosts=hosts))


def reasons(judgement: Judgement) -> list[str]:
    assert judgement.result is not None
    return judgement.result.reasons


def test_where_both_sources_agree_the_run_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [Seen(SERVER, 10, 0, 1)]
    judgement = judged(monkeypatch, Watched(received=float(SENT), opened=100.0, seen=seen))
    assert judgement.result is not None
    assert (judgement.result.validity, judgement.result.reasons) == ("valid", [])
    assert judgement.subject == judgement.result.subject == Subject(name="wsnode", version="0.1.0", source="own")


@pytest.mark.parametrize(
    ("watched", "reason"),
    [
        # Two scrape intervals' worth of 500 messages/s are 1,000; of 100 connects/s 200.
        (Watched(received=SENT - 1000.0), None),
        (Watched(received=SENT - 1001.0), "suspect: messages at the server: Prometheus has"),
        (Watched(received=SENT + 1001.0), "suspect: messages at the server: Prometheus has"),
        (Watched(opened=300.0), None),
        (Watched(opened=301.0), "suspect: connections at the server: Prometheus has 301, the load generators 100"),
        (Watched(restarts=1), "invalid: the server changed during the run: its counters began anew"),
        (Watched(seen=[Seen(SERVER, 10, 1, 0)]), "suspect: server (wsnode-server): 1 of 10 scrapes failed"),
        (Watched(seen=[Seen(SERVER, 10, 0, 1)]), None),
        (Watched(seen=[Seen(SERVER, 10, 0, 2)]), "suspect: server (wsnode-server): 1 of 10 scrapes failed"),
    ],
)
def test_what_prometheus_saw_reaches_the_table(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, reason: str | None
) -> None:
    found = reasons(judged(monkeypatch, watched))
    if reason is None:
        assert found == []
    else:
        (line,) = found
        assert line.startswith(reason)


CHANGED = {**ENVIRONMENT, "stable": {**ENVIRONMENT["stable"], "kernel": "6.8.0-51"}}
MOVED = {**ENVIRONMENT, "volatile": {"load_1m": 99}}
ANOTHER_SERVER = {**ENVIRONMENT, "stable": {**ENVIRONMENT["stable"], "server.engine": "lean"}}


@pytest.mark.parametrize(
    ("host", "change", "reason"),
    [
        (1, {"environment_end": CHANGED}, "suspect: the environment changed during the run: load-1: kernel 6.8.0-45"),
        (1, {"environment_end": MOVED}, None),
        (0, {"environment_end": ENVIRONMENT}, None),  # the server did not answer then
        (0, {"environment_end": ANOTHER_SERVER}, "invalid: the server changed during the run: engine websockets →"),
        (1, {"environment_end": {}}, None),
        (1, {"clock_end": ClockReading(0.0001, 0.026)}, "suspect: load-1: clock known within 26.0 ms only"),
        (1, {"clock_end": ClockReading(0.0001, 0.025)}, None),
        (1, {"clock_end": ClockReading(0.1001, 0.002)}, "suspect: load-1: clock known within 102.0 ms only"),
        # Set later in the run: the start's skew is as well known as it was.
        (1, {"clock_started": ClockReading(0.0002, 0.002), "clock_end": ClockReading(86_400.0, 0.002)}, None),
        (1, {"clock_started": ClockReading(0.1001, 0.002)}, "suspect: load-1: clock known within 102.0 ms only"),
        # Of a server no skew is quoted.
        (0, {"clock_end": ClockReading(0.0, 0.9)}, None),
        (2, {"run": None, "lost": "it does not answer"}, "invalid: load generator load-2 was lost"),
        (0, {"lost": "it could not be looked at"}, None),
    ],
)
def test_what_hosts_say_reaches_the_table(
    monkeypatch: pytest.MonkeyPatch, host: int, change: dict[str, Any], reason: str | None
) -> None:
    found = reasons(judged(monkeypatch, Watched(), change, host))
    if reason is None:
        assert found == []
    else:
        (line,) = found
        assert line.startswith(reason)


def test_hosts_are_listed_with_their_clocks_and_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    result = judged(monkeypatch, Watched(), {"clock_end": ClockReading(0.3, 0.002)}, host=1).result
    assert result is not None
    server, load, _ = result.hosts
    assert (server.counters, server.start_skew_s) == (None, None)
    assert load.counters is not None
    assert load.counters.connections_peak == load.counters.connections_opened == 50
    assert (load.start_skew_s, load.clock_offset_s) == (0.0008, 0.0001)
    assert load.clock_bound_s == pytest.approx(0.002 + 0.2999)  # when its clock has moved, nobody knows
    assert load.environment == ENVIRONMENT


def test_a_clock_that_is_set_during_the_run_is_noted_and_one_that_drifts_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = ClockReading(0.0001, 0.001)
    for end_s, notes in ((-2.9999, ["load-1: its clock was moved by -3.000 s during the run; no figure here is by it"]),
                         (0.0501, [])):  # fmt: skip
        change = {"clock_started": started, "clock_end": ClockReading(end_s, 0.001)}
        result = judged(monkeypatch, Watched(), change, host=1).result
        assert result is not None
        assert [note for note in result.notes if "clock" in note] == notes


def test_a_shared_kernel_is_noted_and_separate_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {**ENVIRONMENT, "stable": {**ENVIRONMENT["stable"], "boot_id": "another"}}
    one = judged(monkeypatch, Watched(), {"environment_begin": own, "environment_end": own}, host=1).result
    assert one is not None
    assert [note for note in one.notes if "kernel" in note] == [
        "server and load-2 share a kernel: what a load generator takes, the server has not"
    ]
    apart = judged(monkeypatch, Watched(), {"environment_begin": own, "environment_end": own}, host=0).result
    assert apart is not None
    assert not any("kernel" in note for note in apart.notes)


def test_packets_that_a_shared_kernel_dropped_during_the_run_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(n: int) -> dict[str, Any]:
        return {**ENVIRONMENT, "volatile": {"packets_dropped": n}}

    result = judged(monkeypatch, Watched(), {"environment_begin": dropped(5), "environment_end": dropped(12)}, 0).result
    assert result is not None
    assert "the kernel that server and load-1, load-2 share dropped 7 packets during the run" in result.notes


def test_without_prometheus_the_run_is_judged_all_the_same() -> None:
    of = facts(prometheus_url=None, notes=["load-1: descriptors: 20000"])
    result = judge_outcome(of, outcome(of.job, runs=host_runs())).result
    assert result is not None
    assert (result.validity, len(result.evidence)) == ("valid", len(QUERIES))
    assert result.notes[0] == "load-1: descriptors: 20000"
    assert "no host series: the lab has no Prometheus" in result.notes
    assert result.url == "http://portal/runs/r-test/"


def test_an_unreachable_prometheus_makes_the_run_suspect() -> None:
    of = facts()
    result = judge_outcome(of, outcome(of.job, runs=host_runs())).result
    assert result is not None
    assert result.validity == "suspect"
    assert result.reasons[0].startswith("suspect: server (wsnode-server): 9 of 10 scrapes failed or are missing")


def test_the_windows_are_the_measured_one_and_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def watch(*_: object, **options: Any) -> Watched:
        asked.update(options)
        return Watched()

    monkeypatch.setattr(judging, "watch", watch)
    of = facts()
    judge_outcome(of, outcome(of.job, runs=host_runs()))
    start = START_NS / 1e9
    assert asked["window"] == Span(start + 2, start + 12)
    assert asked["whole"] == Span(start, start + 18)


def test_a_run_that_is_ramp_up_only_is_watched_as_far_as_it_went(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(judging, "watch", lambda *_, **options: asked.update(options) or Watched())
    partial = SMOKE.model_copy(update={"rate_per_s": 2.0})
    of = facts(partial)
    result = judge_outcome(of, outcome(of.job, runs=host_runs(partial))).result
    assert result is not None
    assert (result.window, result.verdict) == (None, "none")
    assert "ramp-up only" in result.notes[0]
    assert asked["window"] == Span(START_NS / 1e9, START_NS / 1e9 + 12)


@pytest.mark.parametrize("hosts", [(), (HostOutcome("load-1", "load_generator", lost="gone"),)])
def test_where_nobody_counted_anything_there_is_no_result(hosts: tuple[HostOutcome, ...]) -> None:
    judgement = judge_outcome(facts(), Outcome("lost", "gone", hosts, START_NS))
    assert (judgement.result, judgement.watched, judgement.rows) == (None, None, ())

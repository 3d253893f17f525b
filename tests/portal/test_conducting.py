"""A run from the queue to its record, and what happens to it when something gives way on the way."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, connections
from django.utils import timezone

from portal.accounts.models import User
from portal.conductor.job import Control, Counted, Event, Job, Outcome, Said, Seen, Staged
from portal.monitoring.queries import QUERIES
from portal.runs import conducting, line, store, tasks
from portal.runs.environment import HostReading, environment_digest
from portal.runs.models import Archive, Environment, EvidenceRow, Run, RunEvent, RunSecond, Summary
from portal.runs.states import State
from tests.portal.factories import SMOKE, make_run, make_user
from tests.portal.standin import START_NS, StandIn, conductor, live, outcome, runs_of, until, whole
from wsnode.core.merge import merge

__all__ = ["conductor"]
pytestmark = pytest.mark.django_db(transaction=True)
Emit = Callable[[Event], None]


@pytest.fixture
def user() -> User:
    return make_user()


@pytest.fixture(autouse=True)
def _quick(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.HEARTBEAT_S = 0.1
    settings.LEASE_S = 5.0
    monkeypatch.setattr(conducting, "POLL_S", 0.05)
    monkeypatch.setattr(conducting, "DATABASE_PAUSE_S", 0.02)


@contextmanager
def in_the_background(run: Run) -> Iterator[threading.Thread]:
    """A conductor's process, as a thread; the block ends when it has left."""

    def work() -> None:
        try:
            line.conduct_run(run.pk)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(timeout=30)
        assert not thread.is_alive()


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_a_run_goes_through_all_states_and_is_kept_whole(user: User, conductor: StandIn) -> None:
    run = make_run(user, subject_name="wsnode", subject_source="own")
    assert line.conduct_run(run.pk)
    run = Run.objects.get()
    stamps = [getattr(run, f"{name}_at") for name in ("preflight", "preparing", "running", "collecting", "judging")]
    assert run.state == State.FINISHED
    assert stamps == sorted(stamps)
    assert run.finished_at is not None
    assert (run.verdict, run.validity) == ("passed", "valid")
    assert (run.epoch, run.last_second, run.start_at_ns, run.live) == (1, 12, START_NS, None)
    assert run.generators == ["load-1", "load-2"]
    assert (run.subject_name, run.subject_version, run.engine) == ("wsnode", "0.1.0", "websockets")
    readings = [HostReading(row.host, row.role, row.begin) for row in Environment.objects.all()]
    assert run.environment_digest == environment_digest(readings) != ""
    assert RunSecond.objects.count() == 0

    result = run.summary.content
    assert result.counters.messages_due == result.counters.messages_received > 5000
    assert run.summary.p99_s == result.latency_s.response_time.p99
    assert run.summary.connections_peak == 100
    assert result.url == f"http://127.0.0.1:8000/runs/{run.pk}/"
    assert result.window is not None
    assert (result.window.from_s, result.window.to_s) == (2, 12)
    assert [host.name for host in result.hosts] == ["server", "load-1", "load-2"]
    assert any(note.startswith("server and load-1, load-2 share a kernel") for note in result.notes)

    rows = EvidenceRow.objects.all()
    assert len(rows) == len(QUERIES)
    assert {(row.value, row.no_data) for row in rows} == {(None, "the lab has no Prometheus")}
    assert [environment.host for environment in Environment.objects.all()] == ["server", "load-1", "load-2"]
    data = Archive.objects.get().data
    assert [second["second"] for second in data["seconds"]] == list(range(1, 13))
    assert [host["name"] for host in data["hosts"]] == ["server", "load-1", "load-2"]
    assert data["hosts"][1]["result"]["final"]["counters"]["messages_due"] > 0
    assert [entry["text"] for entry in data["log"]] == ["all hosts are ready"]
    assert conductor.acknowledged == conductor.jobs


def test_the_job_holds_every_host_and_deals_the_clients(user: User, conductor: StandIn) -> None:
    line.conduct_run(make_run(user).pk)
    (job,) = conductor.jobs
    assert (job.epoch, job.stage, job.from_second, job.start_at_ns) == (1, "preflight", 1, None)
    assert [(host.name, host.role, host.socket) for host in job.hosts] == [
        ("server", "server", "/nowhere/agent-server.sock"),
        ("load-1", "load_generator", "/nowhere/agent-load-1.sock"),
        ("load-2", "load_generator", "/nowhere/agent-load-2.sock"),
    ]
    assert job.hosts[0].plan is None
    plans = [host.plan for host in job.hosts[1:] if host.plan]
    assert [plan.url for plan in plans] == ["ws://127.0.0.1:13000/echo"] * 2
    assert sorted([*plans[0].share.clients(), *plans[1].share.clients()]) == list(range(100))


def test_seconds_and_the_live_line_are_stored_while_it_runs(user: User, conductor: StandIn) -> None:
    go_on = threading.Event()

    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        runs = runs_of(job)
        emit(Staged("preparing"))
        emit(Staged("running", START_NS))
        emit(Counted(merge([host.series[0] for host in runs])))
        emit(Seen(live(1)))
        await until(go_on)
        return await whole(job, emit, control)

    conductor.script = script
    run = make_run(user)
    with in_the_background(run):
        wait_for(lambda: Run.objects.get().live is not None)
        now = Run.objects.get()
        assert (now.state, now.last_second, now.start_at_ns) == (State.RUNNING, 1, START_NS)
        assert now.live == live(1).model_dump(mode="json")
        content = RunSecond.objects.get().content
        assert content.second == 1
        assert content.counters.connections_opened == 50
        go_on.set()
    assert Run.objects.get().state == State.FINISHED


def test_the_lease_is_kept_while_nothing_happens(user: User, conductor: StandIn) -> None:
    go_on = threading.Event()

    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        await until(go_on)
        return await whole(job, emit, control)

    conductor.script = script
    with in_the_background(make_run(user)):
        assert conductor.begun.wait(20)
        first = Run.objects.get().lease_until
        assert first is not None
        wait_for(lambda: (Run.objects.get().lease_until or first) > first + timedelta(seconds=0.3))
        go_on.set()


def test_a_cancel_reaches_the_conductor_and_its_hosts_words_decide(user: User, conductor: StandIn) -> None:
    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        emit(Staged("preparing"))
        emit(Staged("running", START_NS))
        assert await until(control.cancel)
        return outcome(job, "cancelled", "asked for by ada", runs_of(job))

    conductor.script = script
    run = make_run(user)
    with in_the_background(run):
        wait_for(lambda: Run.objects.get().state == State.RUNNING)
        assert Run.objects.get().request_cancel(user)
    run = Run.objects.get()
    assert (run.state, run.state_reason) == (State.CANCELLED, "asked for by ada")
    assert (run.verdict, run.validity) == (None, None)
    assert run.summary.content.verdict == "none"
    assert run.summary.content.reasons[0] == "cancelled: asked for by ada"
    assert conductor.acknowledged


def test_a_host_that_nobody_can_speak_for_makes_the_run_lost(user: User, conductor: StandIn) -> None:
    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        emit(Staged("running", START_NS))
        return outcome(job, "lost", "load-2 does not answer", runs_of(job)[:1])

    conductor.script = script
    run = make_run(user)
    line.conduct_run(run.pk)
    run = Run.objects.get()
    assert (run.state, run.state_reason) == (State.LOST, "load-2 does not answer")
    assert run.summary.content.counters.connections_opened == 50
    assert Archive.objects.count() == 1


def test_a_run_that_fails_before_its_load_has_no_result_but_says_why(user: User, conductor: StandIn) -> None:
    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        emit(Said("load-1: 12 descriptors", "error"))
        return Outcome("failed", "load-1 is unfit", (), None)

    conductor.script = script
    run = make_run(user)
    line.conduct_run(run.pk)
    run = Run.objects.get()
    assert (run.state, run.state_reason) == (State.FAILED, "load-1 is unfit")
    assert not hasattr(run, "summary")
    assert RunEvent.objects.get().level == "error"
    assert Archive.objects.get().data["log"][0]["text"] == "load-1: 12 descriptors"


def test_who_has_lost_the_lease_leaves_and_writes_nothing(user: User, conductor: StandIn) -> None:
    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        emit(Staged("preparing"))
        assert await until(control.abandon)
        emit(Said("too late"))
        return await whole(job, emit, control)

    conductor.script = script
    run = make_run(user)
    with in_the_background(run):
        wait_for(lambda: Run.objects.get().state == State.PREPARING)
        Run.objects.update(epoch=2, conductor="another")
    assert conductor.left.wait(20)
    run = Run.objects.get()
    assert (run.state, run.epoch, run.conductor) == (State.PREPARING, 2, "another")
    assert RunEvent.objects.count() == 0
    assert not conductor.acknowledged
    assert not Summary.objects.exists()


def test_a_dead_conductors_run_is_taken_over_from_the_next_second(user: User, conductor: StandIn) -> None:
    run = make_run(
        user,
        State.RUNNING,
        epoch=3,
        lease_until=timezone.now() - timedelta(seconds=1),
        start_at_ns=START_NS,
        last_second=2,
        takeovers=2,
    )
    assert line.due() == [run.pk]

    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        RunSecondsSeen.extend(range(job.from_second, 13))
        return await whole(job, emit, control)

    RunSecondsSeen: list[int] = []
    conductor.script = script
    line.conduct_run(run.pk)
    (job,) = conductor.jobs
    assert (job.epoch, job.stage, job.from_second, job.start_at_ns) == (4, "running", 3, START_NS)
    assert RunSecondsSeen == list(range(3, 13))
    run = Run.objects.get()
    assert (run.state, run.epoch, run.takeovers) == (State.FINISHED, 4, 0)


def test_a_taken_over_run_may_be_further_than_its_row(user: User, conductor: StandIn) -> None:
    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        emit(Staged("collecting"))
        return outcome(job, runs=runs_of(job))

    conductor.script = script
    run = make_run(user, State.PREPARING, lease_until=timezone.now() - timedelta(seconds=1), preparing_at=None)
    line.conduct_run(run.pk)
    run = Run.objects.get()
    assert run.state == State.FINISHED
    assert None not in (run.running_at, run.collecting_at, run.judging_at)


def test_a_run_whose_judge_died_is_collected_again(user: User, conductor: StandIn) -> None:
    run = make_run(user, State.JUDGING, lease_until=None, start_at_ns=START_NS, last_second=12)
    line.conduct_run(run.pk)
    assert conductor.jobs[0].stage == "collecting"
    assert conductor.jobs[0].from_second == 13
    assert Run.objects.get().state == State.FINISHED


def test_a_conductor_that_breaks_down_hands_the_run_on_until_it_is_given_up(
    user: User, conductor: StandIn, settings: Any
) -> None:
    settings.TAKEOVERS = 2

    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        emit(Staged("preparing"))
        raise RuntimeError("out of luck")

    conductor.script = script
    run = make_run(user)
    for n in range(1, 4):
        assert line.conduct_run(run.pk)
        assert len(conductor.jobs) == n
        assert line.due() == [run.pk]
    line.conduct_run(run.pk)
    run = Run.objects.get()
    assert len(conductor.jobs) == 3
    assert run.state == State.LOST
    assert run.state_reason == (
        "3 conductors in a row died over it; nobody can say what the load did on load-1, load-2"
    )
    errors = RunEvent.objects.filter(level="error")
    assert [event.text for event in errors] == ["the conductor broke down: RuntimeError: out of luck"] * 3
    others = RunEvent.objects.exclude(level="error")
    assert len(others) == 3
    assert all("goes on where" in event.text for event in others)
    assert Archive.objects.count() == 1
    assert line.due() == []


def test_a_conductor_that_never_comes_back_is_left(
    user: User, conductor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Event()

    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        await until(control.abandon)
        left.set()
        return outcome(job)

    monkeypatch.setattr(conducting, "GRACE_S", -16.5 - SMOKE.settle_s)
    conductor.script = script
    run = make_run(user)
    line.conduct_run(run.pk)
    assert left.wait(20)
    assert RunEvent.objects.get().text.startswith("the conductor broke down: no end")
    assert line.due() == [run.pk]


def test_a_locked_database_loses_no_event(user: User, conductor: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    written, refusals = conducting._written, iter(range(1, 100))

    def refusing(*arguments: Any) -> Run:
        if next(refusals) % 3:
            raise OperationalError("database is locked")
        return written(*arguments)

    monkeypatch.setattr(conducting, "_written", refusing)
    line.conduct_run(make_run(user).pk)
    run = Run.objects.get()
    assert run.state == State.FINISHED
    assert [second["second"] for second in Archive.objects.get().data["seconds"]] == list(range(1, 13))
    assert next(refusals) > 4


def test_a_writer_waits_for_another_connections_transaction(user: User, conductor: StandIn) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite has one writer at a time")
    held = threading.Event()
    name = connection.settings_dict["NAME"]

    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        other = sqlite3.connect(name, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        held.set()
        emit(Staged("preparing"))
        await asyncio.sleep(0.5)
        other.execute("ROLLBACK")
        other.close()
        return await whole(job, emit, control)

    conductor.script = script
    line.conduct_run(make_run(user).pk)
    assert held.is_set()
    assert Run.objects.get().state == State.FINISHED


@pytest.mark.parametrize("broken", [Summary, Archive, Environment])
def test_a_failure_in_the_middle_of_storing_stores_nothing(
    user: User, conductor: StandIn, monkeypatch: pytest.MonkeyPatch, broken: type
) -> None:
    if broken is Archive:
        monkeypatch.setattr(store, "pack", lambda **_: 1 / 0)
    elif broken is Summary:
        monkeypatch.setattr(Summary, "save", lambda *_, **__: 1 / 0)
    else:
        monkeypatch.setattr(store, "_environment", lambda *_: 1 / 0)
    line.conduct_run(make_run(user).pk)
    run = Run.objects.get()
    assert run.state == State.FAILED
    assert run.state_reason == "it could not be stored: ZeroDivisionError: division by zero"
    assert (run.verdict, run.validity) == (None, None)
    for model in (Summary, EvidenceRow, Environment, Archive):
        assert not model.objects.exists()  # type: ignore[attr-defined]
    assert RunSecond.objects.count() == 12
    assert not conductor.acknowledged
    assert line.due() == []


def test_a_judge_that_breaks_down_fails_the_run_and_keeps_what_the_hosts_said(
    user: User, conductor: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conducting, "judge_outcome", lambda *_: {}["nothing"])
    line.conduct_run(make_run(user).pk)
    run = Run.objects.get()
    assert run.state == State.FAILED
    assert run.state_reason == "judging broke down: KeyError: 'nothing'"
    data = Archive.objects.get().data
    assert len(data["seconds"]) == 12
    assert data["hosts"][1]["result"]["seconds"] == 12
    assert RunSecond.objects.count() == 0
    assert conductor.acknowledged


def test_a_lab_that_cannot_be_read_fails_the_run_by_name(user: User, conductor: StandIn, lab_file: Path) -> None:
    lab_file.unlink()
    line.conduct_run(make_run(user).pk)
    run = Run.objects.get()
    assert run.state == State.FAILED
    assert "lab.json: No such file or directory" in run.state_reason
    assert not conductor.jobs


def test_a_run_whose_load_generator_left_the_lab_is_lost(user: User, conductor: StandIn) -> None:
    run = make_run(user, State.RUNNING, lease_until=None, generators=["load-1", "load-9"])
    line.conduct_run(run.pk)
    run = Run.objects.get()
    assert run.state == State.LOST
    assert "no longer has the load generators load-9" in run.state_reason


def test_a_second_run_waits_for_the_first_and_says_so(user: User, conductor: StandIn) -> None:
    first = make_run(user, State.RUNNING, lease_until=timezone.now() + timedelta(seconds=60))
    second = make_run(user)
    assert not line.conduct_run(second.pk)
    second.refresh_from_db()
    assert (second.state, second.state_reason) == (State.QUEUED, f"waits for run {first.pk}")
    assert line.due() == []
    Run.objects.filter(pk=first.pk).update(state=State.FINISHED, finished_at=timezone.now())
    assert line.due() == [second.pk]
    assert line.conduct_run(second.pk)
    second.refresh_from_db()
    assert (second.state, second.state_reason) == (State.FINISHED, "")


HOLD = """
import sys, pathlib
from portal.runs.machine import Holder, MachineLock
lock = MachineLock("this-machine", Holder("r-theirs", "http://127.0.0.1:8500"), pathlib.Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_of_another_stack_on_this_machine_is_waited_for(user: User, conductor: StandIn, tmp_path: Path) -> None:
    run = make_run(user)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert not line.conduct_run(run.pk)
        run.refresh_from_db()
        assert run.state == State.QUEUED
        assert run.state_reason == "waits for the machine: run r-theirs of http://127.0.0.1:8500 has it"
        other.kill()
    assert line.conduct_run(run.pk)
    assert Run.objects.get().state == State.FINISHED


def test_a_wake_up_is_sent_after_the_commit_and_names_the_run(user: User) -> None:
    sent: list[Any] = []
    run = make_run(user)
    tasks.wake(run.pk)
    with tasks.app.connection_for_read() as broker:
        queue = broker.SimpleQueue("conduct")
        sent.append(queue.get(block=False).payload)
        queue.close()
    assert sent[0][0] == [run.pk]


def test_a_tick_wakes_what_is_due_and_nothing_else(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    monkeypatch.setattr(tasks, "wake", woken.append)
    make_run(user, State.RUNNING, lease_until=timezone.now() + timedelta(seconds=60))
    make_run(user)
    make_run(user, State.FAILED)
    dead = make_run(user, State.RUNNING, machine="two", lease_until=timezone.now() - timedelta(seconds=1))
    first = make_run(user, machine="three")
    tasks.tick()
    assert sorted(woken) == sorted([dead.pk, first.pk])


def test_a_lock_that_cannot_be_taken_stops_queued_runs_and_not_a_take_over(
    user: User, conductor: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "wslab-this-machine.lock").symlink_to(tmp_path / "elsewhere")
    run = make_run(user, State.RUNNING, lease_until=None, start_at_ns=START_NS, generators=["load-1", "load-2"])
    other = make_run(user)
    assert line.conduct_run(run.pk)
    run.refresh_from_db()
    assert run.state == State.FINISHED
    assert not line.conduct_run(other.pk)
    other.refresh_from_db()
    assert other.state == State.QUEUED
    assert other.state_reason.startswith("waits: the lock of the machine cannot be taken: ")


def test_a_run_queued_for_another_machine_is_not_let_loose_on_this_one(user: User, conductor: StandIn) -> None:
    make_run(user, State.RUNNING, lease_until=timezone.now() + timedelta(seconds=60))
    run = make_run(user, machine="the-old-machine")
    line.conduct_run(run.pk)
    run.refresh_from_db()
    assert run.state == State.FAILED
    assert run.state_reason == (
        "it was queued for the machine the-old-machine, and the lab is now on this-machine: queue it again"
    )
    assert not conductor.jobs


def test_a_scenario_of_another_version_fails_its_run_at_once(user: User, conductor: StandIn) -> None:
    run = make_run(user)
    Run.objects.filter(pk=run.pk).update(scenario=run.scenario | {"colour": "red"})
    line.conduct_run(run.pk)
    run = Run.objects.get()
    assert run.state == State.FAILED
    assert run.state_reason.startswith("this version cannot carry out its scenario: colour: no such field")


def test_what_a_host_says_at_length_is_kept_in_short(user: User, conductor: StandIn) -> None:
    async def script(job: Job, emit: Emit, control: Control) -> Outcome:
        emit(Said("a" * 1_000_000, "warning"))
        return Outcome("failed", "b\0" * 500_000, (), None)

    conductor.script = script
    line.conduct_run(make_run(user).pk)
    assert RunEvent.objects.get().text == "a" * conducting.TEXT_CHARS + "…"
    assert Run.objects.get().state_reason == "b�" * (conducting.TEXT_CHARS // 2) + "…"

"""One conductor's work on one run: the channels in a thread with its own event loop, the database in this one.

The thread of the channels only ever puts events onto a queue. This thread stores them, renews the lease, looks for a
cancel request, and at the end has everything judged and stored. A database that is locked or away delays the storing;
no event is lost by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

import uvloop
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.utils import timezone

from portal.conductor.job import Control, Counted, Event, Job, Outcome, Said, Seen, Staged, Waiting
from portal.conductor.transport import Transport
from portal.labs.lab import Lab
from portal.monitoring.evidence import missing_targets
from portal.monitoring.prometheus import PrometheusError
from portal.runs.jobs import targets_of
from portal.runs.judging import Facts, Judgement, judge_outcome
from portal.runs.machine import MachineLock
from portal.runs.models import DeclaredSubject, Run, RunEvent, RunSecond
from portal.runs.probe import ProbeError, read_version
from portal.runs.states import State, way
from portal.runs.store import LeaseLost, packing, store
from wsnode.core.protocol import HOOK_PATIENCE_S
from wsnode.core.result import Subject

T = TypeVar("T")
log = logging.getLogger("portal.runs")

POLL_S = 1.0
"""How long a cancel request waits at most to be seen."""
DATABASE_PATIENCE_S = 600.0
"""How long a database may be away before this conductor gives up."""
DATABASE_PAUSE_S = 0.25
GRACE_S = 180.0
"""So long after the scenario's end the conductor must be back."""
ACKNOWLEDGE_S = 10.0
TEXT_CHARS = 4000
"""Of a line of the log, and of a reason: what an agent says may be a megabyte long."""
NOTES = 20


class NoEnd(Exception):
    """The conductor's side did not come back in time, or broke down."""


class Conducting:
    """A claimed run. `carry_out` returns once the run is over; LeaseLost means that it is another's now."""

    def __init__(self, run: Run, job: Job, lab: Lab, lock: MachineLock) -> None:
        self.run = run
        self._job = job
        self._lab = lab
        self._lock = lock
        self._targets = targets_of(run, lab)
        self._lease = timedelta(seconds=settings.LEASE_S)
        self._renewed = time.monotonic()
        self._control = Control()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        """None: the other thread has ended, look."""

    def carry_out(self) -> None:
        """From preflight, or from where a dead conductor left off, to the end.

        Raises:
            LeaseLost: another conductor has the run.
            NoEnd: the channels' side broke down; the row is as it was, for the next conductor.
        """
        if self._job.stage == "preflight":
            self._write([Said(text, "warning") for text in self._meanwhile("looking for its targets", self._unwatched)])
        scenario = self._job.scenario
        longest_s = scenario.settle_s + scenario.duration_s + scenario.drain_s + GRACE_S
        if self._job.hook is not None:
            longest_s += HOOK_PATIENCE_S
        try:
            outcome = self._meanwhile("conducting", self._conduct, longest_s)
        except BaseException:
            self._control.abandon.set()
            raise
        if outcome.reason is not None:
            outcome = dataclasses.replace(outcome, reason=told(outcome.reason))
        self._finish(outcome)

    # --- the other thread ---------------------------------------------------------------------------------------------
    def _conduct(self) -> Outcome:
        # Late: the web processes, which import the tasks to wake them, need no SSH.
        from portal.conductor import conduct as conductor

        return uvloop.run(conductor.conduct(self._job, self._events.put, self._control, _transports()))

    def _unwatched(self) -> list[str]:
        """What Prometheus does not see of this run's hosts: a warning each."""
        url = self._lab.prometheus_url
        if url is None:
            return []
        try:
            return [
                f"Prometheus: {line}, so its figures may be missing"
                for line in missing_targets(url, self._targets, settings.SCRAPE_PATIENCE_S)
            ]
        except PrometheusError as error:
            return [f"{error}: host figures will be missing"]

    def _meanwhile(self, name: str, work: Callable[[], T], longest_s: float | None = None) -> T:
        """Run `work`, which touches no database, in a thread, and meanwhile do everything that does.

        Raises:
            NoEnd: it raised, or takes longer than `longest_s`.
        """
        done: Future[T] = Future()

        def target() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # whatever it is, this thread has to know
                done.set_exception(error)
            self._events.put(None)

        threading.Thread(target=target, name=f"{self.run.pk} {name}", daemon=True).start()
        deadline = None if longest_s is None else time.monotonic() + longest_s
        while not done.done():
            self._attend(self._next_events(min(POLL_S, settings.HEARTBEAT_S)))
            if deadline is not None and time.monotonic() > deadline:
                raise NoEnd(f"no end {longest_s:.0f} s after the begin")
        self._attend(self._next_events(0))
        try:
            return done.result()
        except Exception as error:
            log.exception("run %s: %s broke down", self.run.pk, name)
            raise NoEnd(f"{type(error).__name__}: {error}") from error

    # --- this thread: the database ----------------------------------------------------------------------------------
    def _next_events(self, timeout_s: float) -> list[Event]:
        """All events that are there; waits for the first."""
        events: list[Event | None] = []
        try:
            events.append(self._events.get(timeout=timeout_s) if timeout_s else self._events.get_nowait())
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return [event for event in events if event is not None]

    def _attend(self, events: Sequence[Event]) -> None:
        if events or time.monotonic() - self._renewed >= settings.HEARTBEAT_S:
            self._write(events)
        if not self._lock.held:
            # A hung predecessor had it; from now on no other stack may come between.
            with contextlib.suppress(OSError):
                self._lock.acquire()
        if not self._control.cancel.is_set() and self._patiently(self._cancel_requested):
            self._control.cancel.set()

    def _cancel_requested(self) -> bool:
        return Run.objects.filter(pk=self.run.pk, cancel_requested_at__isnull=False).exists()

    def _write(self, events: Sequence[Event]) -> None:
        self.run = self._patiently(lambda: _written(self.run, events, self._lease))
        self._renewed = time.monotonic()

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do database work; while the database is locked or away, try again."""
        deadline = time.monotonic() + DATABASE_PATIENCE_S
        while True:
            try:
                return work()
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("run %s: the database refuses, trying again: %s", self.run.pk, error)
                time.sleep(DATABASE_PAUSE_S)
                if not connection.in_atomic_block:
                    close_old_connections()
                    connection.close()

    # --- the end ------------------------------------------------------------------------------------------------------
    def _finish(self, outcome: Outcome) -> None:
        if outcome.state == "finished" or self.run.state == State.COLLECTING:
            self.run = self._patiently(lambda: _advanced(self.run, State.JUDGING))
        facts = self._patiently(self._facts)
        if outcome.state == "finished":
            facts = self._asked_again(facts)
        try:
            judgement = self._meanwhile("judging", lambda: judge_outcome(facts, outcome))
        except NoEnd as error:
            outcome = _broken(outcome, f"judging broke down: {error}")
            judgement = Judgement(None, facts.subject, (), None)
        try:
            packed = self._meanwhile("packing", self._patiently(lambda: packing(self.run, outcome, judgement)))
            self.run = self._patiently(lambda: store(self.run, outcome, judgement, packed))
        except LeaseLost:
            raise
        except Exception as error:
            # Not stored, so the seconds stay where they are and the hosts keep their results.
            log.exception("run %s cannot be stored", self.run.pk)
            what = str(error) if isinstance(error, NoEnd) else f"{type(error).__name__}: {error}"
            self._end(State.FAILED, f"it could not be stored: {what}")
            return
        try:
            left = asyncio.run(self._acknowledge())
        except Exception:
            log.exception("run %s: its hosts could not be told that it is stored", self.run.pk)
        else:
            for line in left:
                log.warning("run %s: %s", self.run.pk, line)

    def _asked_again(self, facts: Facts) -> Facts:
        """The facts, with what a declared subject says now where that is another version than at the begin."""
        if self.run.subject_source != "probed":
            return facts
        subject = self._patiently(lambda: DeclaredSubject.objects.filter(name=self.run.subject_name).first())

        def ask() -> tuple[str, str]:
            try:
                return (read_version(subject.url, subject.field), "") if subject else ("", "it is declared no more")
            except ProbeError as error:
                return "", str(error)

        before = self.run.subject_version
        now, fault = self._meanwhile("asking for the version again", ask)
        if fault:
            return dataclasses.replace(facts, notes=[*facts.notes, f"the version was not read again: {fault}"])
        changed = [f"it said version {before} before and {now} after"] if now != before else []
        return dataclasses.replace(facts, server_changed=changed)

    async def _acknowledge(self) -> Sequence[str]:
        from portal.conductor import conduct as conductor

        return await conductor.acknowledge(self._job, ACKNOWLEDGE_S, _transports()) or ()

    def _end(self, state: State, reason: str) -> None:
        def work() -> None:
            if not copy.copy(self.run).step(state, reason):
                raise LeaseLost(self.run.pk)

        self._patiently(work)

    def _facts(self) -> Facts:
        run = self.run
        warnings = run.events.filter(level="warning").values_list("text", flat=True)
        return Facts(
            job=self._job,
            targets=self._targets,
            prometheus_url=self._lab.prometheus_url,
            grafana_url=settings.GRAFANA_URL or self._lab.grafana_url,
            subject=Subject(
                name=run.subject_name,
                version=run.subject_version,
                source=run.subject_source or "given",  # type: ignore[arg-type]  # one of its choices
            ),
            notes=[*self._job.notes, *dict.fromkeys(warnings)][:NOTES],
            url=run.url,
            ended_at=time.time(),
            patience_s=settings.SCRAPE_PATIENCE_S,
            outside=f"the run aimed at {run.target}, which tells Prometheus nothing" if run.target else None,
        )


def _transports() -> Mapping[str, Transport]:
    from portal.conductor.ssh import SshTransport
    from portal.conductor.transport import TRANSPORTS

    return {**TRANSPORTS, "ssh": SshTransport(settings.SSH_KEY)}


def _written(run: Run, events: Sequence[Event], lease: timedelta) -> Run:
    """Renew the lease and store events, all or nothing. Returns the run as it is then.

    Raises:
        LeaseLost: the row is no longer this conductor's; nothing was written.
    """
    now = timezone.now()
    fields: dict[str, Any] = {}
    seconds = [event.second for event in events if isinstance(event, Counted)]
    newest = max((second.second for second in seconds), default=0)
    if newest > run.last_second:
        fields |= {"last_second": newest, "takeovers": 0}
    for event in events:
        if isinstance(event, Seen):
            fields["live"] = event.live.model_dump(mode="json")
        elif isinstance(event, Waiting):
            fields["state_reason"] = told(event.reason)
    # A commit may have happened though its answer was lost: what is in the row decides, not the instance.
    kept = Run.objects.filter(pk=run.pk, epoch=run.epoch).first()
    if kept is None:
        raise LeaseLost(run.pk)
    with transaction.atomic():
        if not kept.renew(lease, **fields):
            raise LeaseLost(run.pk)
        for event in events:
            if isinstance(event, Staged):
                kept = _advanced(kept, State(event.stage), event.start_at_ns)
        RunSecond.objects.bulk_create([RunSecond.of(kept, second) for second in seconds], ignore_conflicts=True)
        RunEvent.objects.bulk_create(
            RunEvent(run=kept, at=now, level=event.level, text=told(event.text), confirms=event.confirms)
            for event in events
            if isinstance(event, Said)
        )
    return kept


def told(text: str) -> str:
    """Words of a host or a conductor as they are kept."""
    return (text if len(text) <= TEXT_CHARS else f"{text[:TEXT_CHARS]}…").replace("\0", "�")


def _advanced(run: Run, to: State, start_at_ns: int | None = None) -> Run:
    """Every step on the way to `to`; none where the run is there already, or further.

    Raises:
        LeaseLost: the row is no longer this conductor's.
    """
    kept = copy.copy(run)
    for state in way(State(run.state), to):
        if not kept.step(state):
            raise LeaseLost(run.pk)
    if start_at_ns is not None and kept.start_at_ns is None and not kept.set_start(start_at_ns):
        raise LeaseLost(run.pk)
    return kept


def _broken(outcome: Outcome, reason: str) -> Outcome:
    """The same outcome, failed where it had finished; the reason is added to what is known."""
    reasons = "; ".join(filter(None, (outcome.reason, reason)))
    return dataclasses.replace(
        outcome, state="failed" if outcome.state == "finished" else outcome.state, reason=reasons
    )

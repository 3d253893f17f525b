"""Whose turn it is: claiming queued runs one by one per machine, taking over those of dead conductors, giving up."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone
from pydantic import ValidationError

from portal.conductor.job import Outcome
from portal.labs.aim import AimError, aim_at
from portal.labs.lab import Lab, LabError, load_lab
from portal.runs.capacity import weights_of
from portal.runs.conducting import Conducting, NoEnd
from portal.runs.jobs import NoJob, job_of
from portal.runs.judging import Judgement
from portal.runs.machine import Holder, MachineLock
from portal.runs.models import DeclaredSubject, Run, RunEvent
from portal.runs.probe import ProbeError, read_version
from portal.runs.states import State
from portal.runs.store import LeaseLost, packing, store
from wsnode.core.result import Subject

log = logging.getLogger("portal.runs")


def conduct_run(run_id: str) -> bool:
    """Carry a run out if it is its turn, or take it over if its conductor died. Harmless to call at any time.

    True where this call had the run.
    """
    run = Run.objects.filter(pk=run_id).first()
    if run is None or run.is_over or _must_wait(run):
        return False
    with _machine(run) as lock:
        if lock is None or not _claimed(run):
            return False
        log.info("run %s: epoch %d, from %s", run.pk, run.epoch, run.state)
        try:
            _carry_out(run, lock)
        except LeaseLost:
            log.warning("run %s: epoch %d is over, another conductor has it", run.pk, run.epoch)
        except NoEnd as error:
            # Row and hosts are as they were: the next conductor need not wait for the lease to lapse.
            RunEvent.objects.create(run=run, level="error", text=f"the conductor broke down: {error}")
            Run.objects.active().filter(pk=run.pk, epoch=run.epoch).update(lease_until=timezone.now())
    return True


def due() -> list[str]:
    """Runs that somebody should see to: abandoned ones, and the first in line of each machine that is free."""
    abandoned = Run.objects.abandoned(timezone.now()).values_list("pk", flat=True)
    return [*abandoned, *Run.objects.next_in_line().values_list("pk", flat=True)]


@contextlib.contextmanager
def _machine(run: Run) -> Iterator[MachineLock | None]:
    """The machine's lock. None where a queued run has to wait, which its row then says.

    An active run is taken over with or without it: its load may be going on, and nobody else can end it.
    """
    lock = MachineLock(run.machine, Holder(run.pk, settings.PORTAL_URL), settings.LOCK_FOLDER)
    try:
        free = lock.acquire()
    except OSError as error:
        log.error("run %s: the machine's lock: %s", run.pk, error)  # noqa: TRY400  (the message says it all)
        if not run.is_active:
            run.wait_for(f"waits: the lock of the machine cannot be taken: {error}")
            yield None
            return
        free = False
    with lock:
        if free or run.is_active:
            yield lock
            return
        holder = lock.holder()
        who = f"run {holder.run_id} of {holder.portal}" if holder else "another wslab"
        run.wait_for(f"waits for the machine: {who} has it")
        yield None


def _must_wait(run: Run) -> bool:
    """Whether a run of this portal comes first, which the row then says."""
    if run.state != State.QUEUED or Run.objects.next_in_line().filter(pk=run.pk).exists():
        return False
    others = Run.objects.filter(machine=run.machine).exclude(pk=run.pk)
    first = others.active().first() or others.queued().order_by("created_at", "pk").first()
    if first is not None:
        run.wait_for(f"waits for run {first.pk}")
    return True


def _claimed(run: Run) -> bool:
    before, conductor = run.conductor, f"{socket.gethostname()}:{os.getpid()}"[:200]
    try:
        if run.claim(conductor, timedelta(seconds=settings.LEASE_S)):
            if run.state != State.PREFLIGHT or before:
                RunEvent.objects.create(run=run, level="info", text=f"{conductor} goes on where {before} fell silent")
            return True
    except IntegrityError:
        log.info("run %s: another run of the machine was claimed at the same moment", run.pk)
    return False


def _carry_out(run: Run, lock: MachineLock) -> None:
    if run.takeovers > settings.TAKEOVERS:
        _give_up(run, f"{run.takeovers} conductors in a row died over it")
        return
    try:
        lab = load_lab(settings.LAB_FILE)
        if run.state == State.PREFLIGHT and lab.machine != run.machine:
            # Its lock and its turn are those of another machine; on this one a load may be going on.
            raise NoJob(
                f"it was queued for the machine {run.machine}, and the lab is now on {lab.machine}: queue it again"
            )
        if not run.generators:
            names = [host.name for host in lab.load_generators]
            weights = _weights(run, lab)
            if not run.renew(timedelta(seconds=settings.LEASE_S), generators=names, weights=weights):
                raise LeaseLost(run.pk)
        _look_up(run, lab)
        _read_version(run)
        job = job_of(run, lab)
    except (AimError, LabError, NoJob, ProbeError) as error:
        _give_up(run, str(error))
        return
    Conducting(run, job, lab, lock).carry_out()


def _weights(run: Run, lab: Lab) -> list[int]:
    """How many clients each load generator is to have, for good: whoever takes the run over deals them the same way."""
    try:
        return weights_of(run.scenario_model, lab)
    except ValidationError:  # of another version: what reads it next says so
        return []


def _look_up(run: Run, lab: Lab) -> None:
    """Find out where a target is, once for all hosts and for whoever takes the run over.

    Raises:
        AimError: the lab no longer allows it, or it is nowhere, or where it must not be.
        LeaseLost: the run is another conductor's.
    """
    if not run.target or run.aim is not None:
        return
    if run.state != State.PREFLIGHT:
        raise AimError(f"nobody knows where {run.target} was when the run began")
    aim = aim_at(lab, run.target, str(run.scenario.get("behaviour", "echo")))
    if not run.renew(timedelta(seconds=settings.LEASE_S), aim=aim.model_dump()):
        raise LeaseLost(run.pk)
    RunEvent.objects.create(run=run, level="info", text=f"{run.target} is {aim.url}, at {aim.address}")


def _read_version(run: Run) -> None:
    """Ask a declared subject for its version, once: what is measured is to be known before a host is touched.

    Raises:
        ProbeError: it does not tell, or is no longer declared.
        LeaseLost: the run is another conductor's.
    """
    if run.subject_source != "probed" or run.subject_version:
        return
    subject = DeclaredSubject.objects.filter(name=run.subject_name).first()
    if subject is None:
        raise ProbeError(f"the subject {run.subject_name} is no longer declared, so its version cannot be read")
    version = read_version(subject.url, subject.field)
    if not run.renew(timedelta(seconds=settings.LEASE_S), subject_version=version):
        raise LeaseLost(run.pk)
    RunEvent.objects.create(run=run, text=f"{subject.url} says that {subject.name} is {version}")


def _give_up(run: Run, reason: str) -> None:
    """End a run that nobody can carry out. What is known of it is kept.

    In preflight no host was touched, and in judging the loads were over; between the two nobody can say.
    """
    state: Literal["failed", "lost"] = "failed" if run.state in (State.PREFLIGHT, State.JUDGING) else "lost"
    if state == "lost":
        reason += f"; nobody can say what the load did on {', '.join(run.generators)}"
    outcome = Outcome(state=state, reason=reason, hosts=(), start_at_ns=run.start_at_ns)
    subject = Subject(name=run.subject_name, version=run.subject_version, source="given")
    judgement = Judgement(None, subject, (), None)
    store(run, outcome, judgement, packing(run, outcome, judgement)())

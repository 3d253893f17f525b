"""Keeping a run that is over: whole or not at all, in one transaction with its last step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

from django.db import transaction

from portal.conductor.job import HostOutcome, Outcome
from portal.monitoring.evidence import Row
from portal.runs.archive import pack
from portal.runs.environment import HostReading, engine_of, environment_digest
from portal.runs.judging import Judgement
from portal.runs.models import Archive, Environment, EvidenceRow, Run, RunSecond, Summary
from portal.runs.states import State


class LeaseLost(Exception):
    """Another conductor has the run: leave, and touch neither the row nor a host."""


def store(run: Run, outcome: Outcome, judgement: Judgement, archive: bytes) -> Run:
    """Write summary, evidence, environments and archive, delete the seconds, make the last step. All or nothing.

    Returns the run as it is now; the given instance stays as it was.

    Raises:
        LeaseLost: the row is no longer this conductor's; nothing was written.
    """
    kept = copy.copy(run)
    result = judgement.result
    finished = result if outcome.state == "finished" else None
    readings = [HostReading(host.name, host.role, host.environment_begin) for host in outcome.hosts]
    fields = {
        "verdict": finished.verdict if finished else None,
        "validity": finished.validity if finished else None,
        "subject_version": judgement.subject.version[:200],
        "engine": engine_of(readings)[:40] if judgement.subject.source == "own" else "",
        "environment_digest": environment_digest(readings),
    }
    with transaction.atomic():
        if not kept.step(State(outcome.state), outcome.reason or "", **fields):
            raise LeaseLost(run.pk)
        if result is not None:
            Summary.of(kept, result).save(force_insert=True)
        EvidenceRow.objects.bulk_create(_evidence(kept, n, row) for n, row in enumerate(judgement.rows))
        Environment.objects.bulk_create(_environment(kept, host) for host in outcome.hosts)
        Archive.objects.create(run=kept, content=archive)
        RunSecond.objects.filter(run=kept).delete()
    return kept


def packing(run: Run, outcome: Outcome, judgement: Judgement) -> Callable[[], bytes]:
    """Read what the archive takes from the database; the rest, which takes a while for a long run, needs none."""
    lines = [
        bytes(line) for line in RunSecond.objects.filter(run=run).order_by("second").values_list("line", flat=True)
    ]
    log = [{"at": e.at.isoformat(), "level": e.level, "text": e.text} for e in run.events.order_by("id")]
    return partial(
        pack,
        run_id=run.pk,
        scenario=run.scenario,
        outcome=outcome,
        seconds=lines,
        series=judgement.watched.series if judgement.watched else (),
        log=log,
    )


def _evidence(run: Run, order: int, row: Row) -> EvidenceRow:
    return EvidenceRow(run=run, order=order, **row._asdict())


def _environment(run: Run, host: HostOutcome) -> Environment:
    return Environment(run=run, host=host.name, role=host.role, begin=host.environment_begin, end=host.environment_end)

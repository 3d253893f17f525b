"""Keeping a run that is over: whole or not at all, in one transaction with its last step."""

from __future__ import annotations

import copy

from django.db import transaction

from portal.conductor.job import HostOutcome, Outcome
from portal.monitoring.evidence import Row
from portal.runs.archive import pack
from portal.runs.judging import Judgement
from portal.runs.models import Archive, Environment, EvidenceRow, Run, RunSecond, Summary
from portal.runs.states import State


class LeaseLost(Exception):
    """Another conductor has the run: leave, and touch neither the row nor a host."""


def store(run: Run, outcome: Outcome, judgement: Judgement) -> Run:
    """Write summary, evidence, environments and archive, delete the seconds, make the last step. All or nothing.

    Returns the run as it is now; the given instance stays as it was.

    Raises:
        LeaseLost: the row is no longer this conductor's; nothing was written.
    """
    kept = copy.copy(run)
    result = judgement.result
    finished = outcome.state == "finished" and result is not None
    fields = {
        "verdict": result.verdict if finished and result else None,
        "validity": result.validity if finished and result else None,
        "subject_version": judgement.subject.version[:200],
    }
    with transaction.atomic():
        if not kept.step(State(outcome.state), outcome.reason or "", **fields):
            raise LeaseLost(run.pk)
        if result is not None:
            Summary.of(kept, result).save(force_insert=True)
        EvidenceRow.objects.bulk_create(_evidence(kept, n, row) for n, row in enumerate(judgement.rows))
        Environment.objects.bulk_create(_environment(kept, host) for host in outcome.hosts)
        seconds = RunSecond.objects.filter(run=kept)
        content = pack(
            run_id=kept.pk,
            scenario=kept.scenario,
            outcome=outcome,
            seconds=(row.content for row in seconds.iterator()),
            series=judgement.watched.series if judgement.watched else (),
            log=({"at": event.at.isoformat(), "level": event.level, "text": event.text} for event in kept.events.all()),
        )
        Archive.objects.create(run=kept, content=content)
        seconds.delete()
    return kept


def _evidence(run: Run, order: int, row: Row) -> EvidenceRow:
    return EvidenceRow(run=run, order=order, **row._asdict())


def _environment(run: Run, host: HostOutcome) -> Environment:
    return Environment(run=run, host=host.name, role=host.role, begin=host.environment_begin, end=host.environment_end)

"""Keeping a run that is over: whole or not at all, in one transaction with its last step."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import NamedTuple

from django.db import transaction

from portal.conductor.job import HostOutcome, Outcome
from portal.monitoring.evidence import Row
from portal.runs import digest
from portal.runs.archive import Opened, pack
from portal.runs.environment import HostReading, engine_of, environment_digest
from portal.runs.judging import Judgement
from portal.runs.models import Archive, Environment, EvidenceRow, Run, RunSecond, Summary
from portal.runs.states import State

logger = logging.getLogger("portal.runs")


class LeaseLost(Exception):
    """Another conductor has the run: leave, and touch neither the row nor a host."""


class Packed(NamedTuple):
    """An archive, and what pages draw of it; None: they make it when they need it."""

    content: bytes
    digest: bytes | None


def store(run: Run, outcome: Outcome, judgement: Judgement, archive: Packed) -> Run:
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
        Archive.objects.create(run=kept, content=archive.content, digest=archive.digest)
        RunSecond.objects.filter(run=kept).delete()
    return kept


def packing(run: Run, outcome: Outcome, judgement: Judgement) -> Callable[[], Packed]:
    """Read what the archive takes from the database; the rest, which takes a while for a long run, needs none."""
    lines = [
        bytes(line) for line in RunSecond.objects.filter(run=run).order_by("second").values_list("line", flat=True)
    ]
    log = [{"at": e.at.isoformat(), "level": e.level, "text": e.text} for e in run.events.order_by("id")]
    window = judgement.result.window if judgement.result else None

    def packed() -> Packed:
        content = pack(
            run_id=run.pk,
            scenario=run.scenario,
            outcome=outcome,
            seconds=lines,
            series=judgement.watched.series if judgement.watched else (),
            log=log,
        )
        try:
            drawn = digest.make(Opened(content), (window.from_s, window.to_s) if window else None)
        except Exception:
            # A run is worth more than its pictures, which can be made at any time.
            logger.exception("run %s: no digest of its archive", run.pk)
            drawn = None
        return Packed(content, drawn)

    return packed


def _evidence(run: Run, order: int, row: Row) -> EvidenceRow:
    return EvidenceRow(run=run, order=order, **row._asdict())


def _environment(run: Run, host: HostOutcome) -> Environment:
    return Environment(run=run, host=host.name, role=host.role, begin=host.environment_begin, end=host.environment_end)

"""Which runs have expired, and their deletion: nothing is deleted that was not shown before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum, Window
from django.db.models.functions import Length, RowNumber

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.retention.models import EVERY_OTHER, RetentionRule
from portal.runs.models import Archive, NamedScenario, Run, RunQuerySet

AT_ONCE = 50
"""Runs that are deleted in one transaction."""


class Changed(Exception):
    """What would be deleted is no longer what was shown; nothing was deleted."""


class Preview(NamedTuple):
    """What the rules would delete now."""

    run_ids: Sequence[str]
    by_scenario: dict[str, int]
    archive_bytes: int
    kept: int
    """Runs that would have expired, but are starred or somebody's baseline."""

    @property
    def digest(self) -> str:
        """The same for the same runs."""
        return hashlib.sha256(json.dumps(sorted(self.run_ids)).encode()).hexdigest()


def protected() -> QuerySet[Run]:
    """Runs that never expire: starred, a scenario's baseline, or the baseline of another run."""
    return Run.objects.filter(
        Q(starred=True)
        | Exists(NamedScenario.objects.filter(baseline=OuterRef("pk")))
        | Exists(Run.objects.filter(baseline=OuterRef("pk")))
    )


def preview(now: datetime) -> Preview:
    """What the rules would delete now, oldest first."""
    rules = {rule.scenario_name: rule for rule in RetentionRule.objects.all()}
    every_other = rules.pop(EVERY_OTHER, None)
    found: list[tuple[datetime, str, str]] = []
    for name, rule in rules.items():
        found += _past(Run.objects.filter(scenario_name=name), rule, now)
    if every_other is not None:
        found += _past(Run.objects.exclude(scenario_name__in=list(rules)), every_other, now)
    safe = set(protected().values_list("pk", flat=True))
    expired = sorted(row for row in found if row[1] not in safe)
    by_scenario: dict[str, int] = {}
    for _, _, name in expired:
        by_scenario[name] = by_scenario.get(name, 0) + 1
    ids = [pk for _, pk, _ in expired]
    return Preview(ids, dict(sorted(by_scenario.items())), _archive_bytes(ids), len(found) - len(expired))


def _past(runs: RunQuerySet, rule: RetentionRule, now: datetime) -> list[tuple[datetime, str, str]]:
    place = Window(RowNumber(), partition_by=F("scenario_name"), order_by=(F("created_at").desc(), F("pk").desc()))
    limits = Q()
    if rule.keep_days is not None:
        limits |= Q(finished_at__lt=now - timedelta(days=rule.keep_days))
    if rule.keep_runs is not None:
        limits |= Q(place__gt=rule.keep_runs)
    over = runs.over().annotate(place=place) if rule.keep_runs is not None else runs.over()
    return list(over.filter(limits).order_by("created_at").values_list("created_at", "pk", "scenario_name"))


def _archive_bytes(run_ids: Sequence[str]) -> int:
    total = 0
    for begin in range(0, len(run_ids), 500):
        rows = Archive.objects.filter(run_id__in=run_ids[begin : begin + 500])
        total += rows.aggregate(bytes=Sum(Length("content")))["bytes"] or 0
    return total


def expire(by: User | None, shown: str, now: datetime) -> int:
    """Delete what was shown: `shown` is the digest of that preview. Returns how many.

    A run that is starred or becomes a baseline meanwhile stays. Each deleted run has its entry in the audit log.

    Raises:
        Changed: the rules would delete other runs by now.
    """
    found = preview(now)
    if found.digest != shown:
        raise Changed
    deleted = 0
    for begin in range(0, len(found.run_ids), AT_ONCE):
        with transaction.atomic():
            chunk = Run.objects.filter(pk__in=found.run_ids[begin : begin + AT_ONCE])
            runs = list(chunk.exclude(pk__in=protected().values("pk")).select_for_update(of=("self",)))
            for run in runs:
                record(by, "deleted", run, "it had expired")
            Run.objects.filter(pk__in=[run.pk for run in runs]).delete()
            deleted += len(runs)
    return deleted

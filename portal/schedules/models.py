"""Schedules and what became of their dates."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from portal.runs.groups import RunGroup, new_id
from portal.schedules.dates import Cron, Missed, Once, When

if TYPE_CHECKING:
    from portal.runs.models import Run


def new_schedule_id() -> str:
    """`s-` and 10 base32 characters."""
    return new_id("s")


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    """Schedules."""

    def due(self, now: datetime) -> ScheduleQuerySet:
        """Those whose date has come; a paused one has none."""
        return self.filter(next_at__lte=now).order_by("next_at", "pk")


class Schedule(models.Model):
    """A run that is asked for again and again, or once later. All its runs are one group."""

    id = models.CharField(primary_key=True, max_length=12, default=new_schedule_id, editable=False)
    title = models.CharField(max_length=200)
    scenario_name = models.CharField(max_length=63)
    """Its newest version is run each time."""
    accept_partial = models.BooleanField(default=False)
    subject_name = models.CharField(max_length=200, blank=True)
    """Empty: the lab's own server."""
    subject_version = models.CharField(max_length=200, blank=True)
    """Empty with a name: a declared subject, whose version is read when a run begins."""
    reason = models.CharField(max_length=500, blank=True)
    tags = models.CharField(max_length=1100, blank=True)
    """Words, parted by blanks."""
    cron = models.CharField(max_length=100, blank=True)
    once_at = models.DateTimeField(null=True, blank=True)
    """Instead of `cron`."""
    zone = models.CharField(max_length=64, default="UTC")
    missed = models.CharField(max_length=8, choices=[(m, m) for m in ("run_once", "skip")], default="skip")
    paused = models.BooleanField(default=False)
    next_at = models.DateTimeField(null=True, blank=True, db_index=True)
    """When its next run is due; None: never, or it is paused. Moving it on is how a tick takes a date for itself."""
    group = models.OneToOneField(RunGroup, models.PROTECT, related_name="schedule")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="schedules")
    """In whose name its runs are made: who edited it last."""
    created_at = models.DateTimeField(default=timezone.now)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        ordering = ("title", "id")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(cron="", once_at__isnull=False) | models.Q(~models.Q(cron=""), once_at__isnull=True),
                name="schedule_once_or_cron",
            )
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.title})"

    def get_absolute_url(self) -> str:
        """The path of its page."""
        return reverse("schedules:schedule", args=[self.id])

    @property
    def when(self) -> When:
        """Its dates."""
        if self.once_at is not None:
            return Once(self.once_at)
        return Cron(self.cron, self.zone)

    @property
    def rule(self) -> Missed:
        """What becomes of dates that pass while the portal is down."""
        return "run_once" if self.missed == "run_once" else "skip"

    @property
    def is_done(self) -> bool:
        """Whether there is no date to come, though nobody paused it."""
        return self.next_at is None and not self.paused

    def plan_next(self, now: datetime) -> None:
        """Set the first date after `now`; None while it is paused. Not saved."""
        self.next_at = None if self.paused else next(self.when.after(now), None)

    def take(self, next_at: datetime | None) -> bool:
        """Move on to the next date, if nobody else did since this instance was read: one conditional UPDATE."""
        seen = type(self).objects.filter(pk=self.pk, next_at=self.next_at, paused=False)
        if not seen.update(next_at=next_at):
            return False
        self.next_at = next_at
        return True


class Firing(models.Model):
    """A date of a schedule that has come, and what became of it."""

    class Outcome(models.TextChoices):
        """Of one date."""

        QUEUED = "queued"
        LATE = "late"
        """Queued for dates that were missed."""
        OVERLAP = "overlap"
        """Skipped: the run before was not over."""
        MISSED = "missed"
        """Skipped: the portal was down."""
        FAILED = "failed"

    schedule = models.ForeignKey(Schedule, models.CASCADE, related_name="firings")
    due_at = models.DateTimeField()
    at = models.DateTimeField(default=timezone.now)
    outcome = models.CharField(max_length=7, choices=Outcome.choices)
    text = models.TextField(blank=True)
    run: models.ForeignKey[Run | None, Run | None] = models.ForeignKey(
        "runs.Run", models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ("-due_at", "-id")
        constraints = [models.UniqueConstraint(fields=("schedule", "due_at"), name="one_firing_per_date")]

    def __str__(self) -> str:
        return f"{self.schedule_id} {self.due_at:%Y-%m-%d %H:%M} {self.outcome}"


new_group = partial(RunGroup, kind="schedule")

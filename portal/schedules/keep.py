"""What people do to schedules, each act with its entry in the audit log: the one way for pages and API."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.schedules.forms import ScheduleForm
from portal.schedules.models import Schedule, new_group


def create(user: User, form: ScheduleForm, now: datetime) -> Schedule:
    """A new schedule of a checked form, with the group that its runs will be."""
    schedule = Schedule(owner=user, created_at=now)
    form.put(schedule, now)
    with transaction.atomic():
        group = new_group(title=schedule.title, created_by=user)
        group.save()
        schedule.group = group
        schedule.save()
        record(user, "created", schedule, told(schedule))
    return schedule


def edit(user: User, schedule: Schedule, form: ScheduleForm, now: datetime) -> None:
    """Write a checked form onto it; its runs are made in the name of this user from now on."""
    form.put(schedule, now)
    schedule.owner = user
    with transaction.atomic():
        schedule.save()
        schedule.group.title = schedule.title
        schedule.group.save(update_fields=["title"])
        record(user, "edited", schedule, told(schedule))


def pause(user: User, schedule: Schedule, *, paused: bool, now: datetime) -> None:
    """Stop or go on. Dates that come while it is paused are not missed: nobody waits for them."""
    if schedule.paused == paused:
        return
    schedule.paused = paused
    schedule.plan_next(now)
    with transaction.atomic():
        schedule.save(update_fields=["paused", "next_at"])
        record(user, "paused" if paused else "resumed", schedule)


def delete(user: User, schedule: Schedule) -> None:
    """Take it away; its runs and their group stay."""
    with transaction.atomic():
        record(user, "deleted", schedule, told(schedule))
        schedule.delete()


def told(schedule: Schedule) -> str:
    """What it asks for, in a line."""
    dates = f"{schedule.cron} {schedule.zone}" if schedule.cron else f"once at {schedule.once_at:%Y-%m-%d %H:%M} UTC"
    subject = " ".join(filter(None, (schedule.subject_name, schedule.subject_version))) or "the lab's own server"
    return f"{schedule.scenario_name} on {subject}, {dates}, missed: {schedule.missed}"

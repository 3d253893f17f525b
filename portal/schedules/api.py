"""`/api/v1/schedules`: the same fields, refusals and acts as the pages."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest
from django.utils import timezone
from ninja import Router, Schema
from ninja.errors import HttpError
from ninja.responses import Status
from pydantic import Field

from portal.accounts.models import User
from portal.accounts.roles import operator, viewer
from portal.runs.api import REFUSALS, SubjectIn
from portal.runs.draft import Refused, shortened
from portal.schedules import keep
from portal.schedules.forms import ScheduleForm, shown_dates
from portal.schedules.models import Firing, Schedule

router = Router()
NEWEST = 20


class ScheduleIn(Schema):
    """A schedule to make: `cron` or `once`."""

    title: str
    scenario: str
    cron: str | None = Field(None, description="Five fields, in the local time of `zone`.")
    once: str | None = Field(None, description="A local date and time in `zone`: 2026-11-30T02:30.")
    zone: str = "UTC"
    missed: Literal["skip", "run_once"] = Field("skip", description="Of dates that pass while the portal is down.")
    subject: SubjectIn | None = None
    subject_declared: str = Field("", description="A declared subject instead, whose version is read at each run.")
    reason: str = ""
    tags: list[str] = []
    accept_partial: bool = False

    model_config = {"extra": "forbid"}


class FiringOut(Schema):
    """What became of a date."""

    due_at: str
    outcome: str
    text: str
    run_id: str | None


class ScheduleOut(Schema):
    """A schedule as it stands."""

    schedule_id: str
    title: str
    scenario: str
    subject: dict[str, str] | None
    cron: str | None
    once_at: str | None
    zone: str
    missed: str
    paused: bool
    next_dates: list[str]
    owner: str
    group: str
    newest: list[FiringOut] = Field(description=f"The newest {NEWEST} dates that came; in a list none.")


def _facts(schedule: Schedule, *, whole: bool = True) -> dict[str, Any]:
    dates = [] if schedule.paused else shown_dates(schedule.when, schedule.zone, timezone.now())
    subject = {"name": schedule.subject_name, "version": schedule.subject_version}
    firings = schedule.firings.all()[:NEWEST] if whole else Firing.objects.none()
    return {
        "schedule_id": schedule.pk,
        "title": schedule.title,
        "scenario": schedule.scenario_name,
        "subject": subject if schedule.subject_name else None,
        "cron": schedule.cron or None,
        "once_at": schedule.once_at and schedule.once_at.isoformat(),
        "zone": schedule.zone,
        "missed": schedule.missed,
        "paused": schedule.paused,
        "next_dates": [date.at.isoformat() for date in dates],
        "owner": schedule.owner.username,
        "group": schedule.group_id,
        "newest": [
            {"due_at": one.due_at.isoformat(), "outcome": one.outcome, "text": one.text, "run_id": one.run_id}
            for one in firings
        ],
    }


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _schedule(schedule_id: str) -> Schedule:
    found = None
    if schedule_id.isprintable():
        found = Schedule.objects.select_related("owner", "group").filter(pk=schedule_id).first()
    if found is None:
        raise HttpError(404, f"no schedule {shortened(schedule_id)}")
    return found


def _form(body: ScheduleIn) -> ScheduleForm:
    if (body.cron is None) == (body.once is None):
        raise Refused(["cron: wanted either cron or once"])
    subject = body.subject or SubjectIn(name="", version="")
    values = body.model_dump(include={"title", "scenario", "zone", "missed", "subject_declared", "reason"})
    values |= {"kind": "cron" if body.once is None else "once", "cron": body.cron or "", "once": body.once or ""}
    values |= {"subject_name": subject.name, "subject_version": subject.version, "tags": " ".join(body.tags)}
    form = ScheduleForm(values, accept_partial=body.accept_partial)
    if not form.check(timezone.now()):
        raise Refused(list(form.errors.values()))
    return form


@router.get("", response={200: list[ScheduleOut], **REFUSALS}, summary="Schedules, by title")
@viewer
def list_schedules(request: HttpRequest) -> list[dict[str, Any]]:
    """All of them."""
    return [_facts(one, whole=False) for one in Schedule.objects.select_related("owner")]


@router.post("", response={201: ScheduleOut, **REFUSALS}, summary="Make a schedule")
@operator
def post_schedule(request: HttpRequest, body: ScheduleIn) -> Status[dict[str, Any]]:
    """Make a schedule. Refused with every line that is wrong."""
    return Status(201, _facts(keep.create(_user(request), _form(body), timezone.now())))


@router.get("/{schedule_id}", response={200: ScheduleOut, **REFUSALS}, summary="A schedule, and its newest dates")
@viewer
def get_schedule(request: HttpRequest, schedule_id: str) -> dict[str, Any]:
    """How a schedule stands, and what became of its dates."""
    return _facts(_schedule(schedule_id))


@router.put("/{schedule_id}", response={200: ScheduleOut, **REFUSALS}, summary="Write a schedule anew")
@operator
def put_schedule(request: HttpRequest, schedule_id: str, body: ScheduleIn) -> dict[str, Any]:
    """Write a schedule anew, whole; its runs are made in your name from now on."""
    found = _schedule(schedule_id)
    keep.edit(_user(request), found, _form(body), timezone.now())
    return _facts(found)


@router.post("/{schedule_id}/pause", response={200: ScheduleOut, **REFUSALS}, summary="Pause a schedule")
@operator
def pause_schedule(request: HttpRequest, schedule_id: str) -> dict[str, Any]:
    """No more runs until it is resumed."""
    found = _schedule(schedule_id)
    keep.pause(_user(request), found, paused=True, now=timezone.now())
    return _facts(found)


@router.post("/{schedule_id}/resume", response={200: ScheduleOut, **REFUSALS}, summary="Resume a schedule")
@operator
def resume_schedule(request: HttpRequest, schedule_id: str) -> dict[str, Any]:
    """Go on with the next date to come."""
    found = _schedule(schedule_id)
    keep.pause(_user(request), found, paused=False, now=timezone.now())
    return _facts(found)


@router.delete("/{schedule_id}", response={204: None, **REFUSALS}, summary="Delete a schedule")
@operator
def delete_schedule(request: HttpRequest, schedule_id: str) -> Status[None]:
    """Take a schedule away; its runs stay."""
    keep.delete(_user(request), _schedule(schedule_id))
    return Status(204, None)

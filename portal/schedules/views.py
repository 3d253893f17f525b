"""The pages of schedules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts.models import User
from portal.accounts.roles import operator, viewer
from portal.runs.models import DeclaredSubject, NamedScenario
from portal.schedules import keep
from portal.schedules.dates import GRACE
from portal.schedules.forms import ScheduleForm, shown_dates
from portal.schedules.models import Firing, Schedule
from portal.schedules.trend import trends

FIRINGS = 50
GRACE_S = int(GRACE / timedelta(seconds=1))


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _schedule(schedule_id: str) -> Schedule:
    return get_object_or_404(Schedule.objects.select_related("owner", "group"), pk=schedule_id)


@viewer
@require_safe
def schedules(request: HttpRequest) -> HttpResponse:
    """All of them, with what became of their last date and how their runs go."""
    newest = Firing.objects.filter(schedule=OuterRef("schedule")).order_by("-due_at", "-pk").values("pk")[:1]
    found = list(Schedule.objects.select_related("owner"))
    last = {one.schedule_id: one for one in Firing.objects.filter(pk=Subquery(newest))}
    trend = trends((one.group_id, one.scenario_name) for one in found)
    rows = [(one, last.get(one.pk), trend[one.group_id]) for one in found]
    return render(request, "schedules/list.html", {"section": "schedules", "rows": rows})


@viewer
@require_safe
def schedule(request: HttpRequest, schedule_id: str) -> HttpResponse:
    """One: its dates, its rule, what became of the dates that came, its runs."""
    one = _schedule(schedule_id)
    trend = trends([(one.group_id, one.scenario_name)])[one.group_id]
    context = {
        "section": "schedules",
        "schedule": one,
        "dates": [] if one.paused else shown_dates(one.when, one.zone, timezone.now()),
        "words": one.when.words(),
        "trend": trend,
        "points": trend.points[::-1],
        "firings": one.firings.all()[:FIRINGS],
        "grace_s": GRACE_S,
    }
    return render(request, "schedules/schedule.html", context)


@operator
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """The form of a new schedule, and its receipt."""
    if request.method == "POST":
        form = ScheduleForm.posted(request.POST.dict())
        now = timezone.now()
        if form.check(now):
            return redirect(keep.create(_user(request), form, now))
        return _form_page(request, form, None, status=422)
    first = request.GET.get("scenario") or NamedScenario.objects.offered().values_list("name", flat=True).first() or ""
    return _form_page(request, ScheduleForm({"scenario": first, "cron": "0 2 * * *"}), None)


@operator
@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, schedule_id: str) -> HttpResponse:
    """The form of one that there is, and its receipt."""
    one = _schedule(schedule_id)
    if request.method == "POST":
        form = ScheduleForm.posted(request.POST.dict())
        now = timezone.now()
        if form.check(now):
            keep.edit(_user(request), one, form, now)
            return redirect(one)
        return _form_page(request, form, one, status=422)
    return _form_page(request, ScheduleForm.of(one), one)


def _form_page(request: HttpRequest, form: ScheduleForm, one: Schedule | None, status: int = 200) -> HttpResponse:
    posted = status != 200
    if not posted:
        # For the dates; what is missing in a form that nobody has filled in yet is no fault.
        form.check(timezone.now())
        form.errors = {}
    context: dict[str, Any] = {
        "section": "schedules",
        "form": form,
        "schedule": one,
        "scenarios": NamedScenario.objects.offered().order_by("name"),
        "declared": DeclaredSubject.objects.all(),
        "grace_s": GRACE_S,
    }
    return render(request, "schedules/form.html", context, status=status)


@operator
@require_POST
def dates(request: HttpRequest) -> HttpResponse:
    """The next dates of what is typed so far, or why there are none."""
    form = ScheduleForm.posted(request.POST.dict())
    form.check(timezone.now())
    return render(request, "schedules/dates.html", {"form": form})


@operator
@require_POST
def pause(request: HttpRequest, schedule_id: str) -> HttpResponse:
    """No more runs until it goes on."""
    one = _schedule(schedule_id)
    keep.pause(_user(request), one, paused=True, now=timezone.now())
    return redirect(one)


@operator
@require_POST
def resume(request: HttpRequest, schedule_id: str) -> HttpResponse:
    """Go on with the next date to come."""
    one = _schedule(schedule_id)
    keep.pause(_user(request), one, paused=False, now=timezone.now())
    return redirect(one)


@operator
@require_POST
def delete(request: HttpRequest, schedule_id: str) -> HttpResponse:
    """Take it away; its runs stay."""
    keep.delete(_user(request), _schedule(schedule_id))
    return redirect("schedules:list")

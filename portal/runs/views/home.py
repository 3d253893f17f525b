"""The first page: is the lab free, what runs, what comes next, what came out, what changed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from portal.accounts.roles import viewer
from portal.labs.lab import Lab, LabError, load_lab
from portal.runs.expected import expected, overhead_s
from portal.runs.models import Run, RunSecond
from portal.runs.news import doubted, news
from portal.runs.progress import Now, Progress, at_present, progress
from portal.runs.states import ACTIVE, State
from portal.schedules.models import Schedule
from wsnode.core.protocol import Live

LAST_RESULTS = 8
QUEUE_ROWS = 10
SCHEDULED_ROWS = 5


class UnderWay(NamedTuple):
    """A run that is under way, as it is at the moment."""

    run: Run
    progress: Progress
    present: Now
    ends_at: datetime


class Waiting(NamedTuple):
    """A run that waits, and when it is expected to begin."""

    run: Run
    begins_at: datetime


class Line(NamedTuple):
    """What a machine has before it."""

    machine: str
    under_way: list[UnderWay]
    waiting: list[Waiting]
    free_at: datetime | None
    """When all of it is expected to be over; None: nothing runs or waits."""


@viewer
@require_safe
@vary_on_headers("HX-Request")
def home(request: HttpRequest) -> HttpResponse:
    """The whole page; asked again by itself, the part that changes by the second."""
    now = timezone.now()
    lab, fault = _lab()
    context: dict[str, Any] = {
        "section": "home",
        "now": now,
        "lab": lab,
        "lab_fault": fault,
        "lines": _lines(lab, now),
        "queue_rows": QUEUE_ROWS,
        "scheduled": list(Schedule.objects.filter(next_at__isnull=False).order_by("next_at", "pk")[:SCHEDULED_ROWS]),
    }
    context["busy"] = any(line.under_way for line in context["lines"])
    last = Run.objects.for_list().filter(finished_at__isnull=False).defer("scenario")
    context["last"] = list(last[:LAST_RESULTS])
    if request.htmx:  # type: ignore[attr-defined]  # django-htmx
        return render(request, "runs/now.html", context)
    context |= {"news": news(now), "doubted": doubted(now)}
    return render(request, "runs/home.html", context)


def _lab() -> tuple[Lab | None, str]:
    try:
        # Read each time: an export, or a stack that starts anew, replaces it while the portal runs.
        return load_lab(settings.LAB_FILE), ""
    except LabError as error:
        return None, str(error)


def _lines(lab: Lab | None, now: datetime) -> list[Line]:
    """Of this lab's machine, also where it has none, and of others that runs wait for."""
    busy = Run.objects.filter(state__in=(*ACTIVE, State.QUEUED)).order_by("machine")
    machines = {*busy.values_list("machine", flat=True).distinct(), *([lab.machine] if lab else [])}
    return [_line(machine, now) for machine in sorted(machines)]


def _line(machine: str, now: datetime) -> Line:
    rows = Run.objects.filter(machine=machine).select_related("created_by")
    runs = [*rows.active(), *rows.queued().order_by("created_at", "pk")]
    moments = expected(runs, overhead_s(machine), now) if runs else []
    under_way, waiting = [], []
    for run, moment in moments:
        if run.is_active:
            under_way.append(UnderWay(run, progress(run, now), _present(run), now + timedelta(seconds=moment.ends_s)))
        else:
            waiting.append(Waiting(run, now + timedelta(seconds=moment.begins_s)))
    free_at = now + timedelta(seconds=moments[-1][1].ends_s) if moments else None
    return Line(machine, under_way, waiting, free_at)


def _present(run: Run) -> Now:
    """Its live line, and the rates of its last settled second."""
    last = list(RunSecond.objects.filter(run=run).order_by("-second")[:2])
    live = Live.model_validate(run.live) if run.live else None
    return at_present(live, [row.content for row in reversed(last)])

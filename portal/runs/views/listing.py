"""The list of runs."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from portal.accounts.roles import viewer
from portal.runs.models import Run
from portal.runs.states import ACTIVE, OVER, State

PAGE_ROWS = 50
QUEUE_ROWS = 20
"""Of a longer queue the page shows the head; it is asked for every two seconds."""


@viewer
@require_safe
@vary_on_headers("HX-Request")
def runs(request: HttpRequest) -> HttpResponse:
    """All runs, newest first; what is active and queued on top."""
    scenario, state = request.GET.get("scenario", ""), request.GET.get("state", "")
    found = Run.objects.for_list()
    if scenario:
        found = found.filter(scenario_name=scenario)
    if state:
        found = found.filter(state__in=ACTIVE if state == "active" else [state])
    page = Paginator(found, PAGE_ROWS).get_page(request.GET.get("page"))
    queued = Run.objects.for_list().queued().order_by("created_at", "id")
    queue = list(queued[: QUEUE_ROWS + 1])
    context = {
        "section": "runs",
        "page": page,
        "under_way": list(Run.objects.for_list().filter(state__in=ACTIVE).order_by("running_at")),
        "queue": queue[:QUEUE_ROWS],
        "waiting": queued.count() - QUEUE_ROWS if len(queue) > QUEUE_ROWS else 0,
        "scenario": scenario,
        "state": state,
        "filtered": bool(scenario or state),
        "now": timezone.now(),
    }
    if request.htmx:  # type: ignore[attr-defined]  # django-htmx
        return render(request, "runs/rows.html", context)
    names = Run.objects.order_by("scenario_name").values_list("scenario_name", flat=True).distinct()
    context |= {"scenarios": list(names), "states": ["active", State.QUEUED.value, *(s.value for s in OVER)]}
    return render(request, "runs/list.html", context)

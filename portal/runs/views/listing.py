"""The list of runs: found, sorted, paged."""

from __future__ import annotations

from typing import NamedTuple

from django.core.paginator import Page, Paginator
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from portal.accounts.roles import viewer
from portal.runs.filters import ORDERS, Chosen, choices, versions_of
from portal.runs.models import Run
from portal.runs.states import ACTIVE

PAGE_ROWS = 30
QUEUE_ROWS = 20
"""Of a longer queue the page shows the head; it is asked for every two seconds."""
MOST_COMPARED = 5
AT_HAND = 5
"""Filters that are offered at once; the others under "More filters"."""
SORTS = (
    ("-created", "newest"),
    ("created", "oldest"),
    ("scenario", "scenario"),
    ("subject", "subject, version"),
    ("p99", "p99, least"),
    ("-p99", "p99, most"),
    ("-throughput", "throughput, most"),
    ("-errors", "error ratio, most"),
    ("-connections", "connections, most"),
)


class Column(NamedTuple):
    """A column that the list can be sorted by."""

    query: str
    """Parameters that sort by it."""
    direction: str
    """In which the list is sorted by it now, else ''."""


@viewer
@require_safe
@vary_on_headers("HX-Request")
def runs(request: HttpRequest) -> HttpResponse:
    """The runs that the address asks for, newest first unless it says otherwise; what is active and queued on top."""
    chosen = Chosen.of(request.GET)
    if any(not value for value in request.GET.values()):
        # A form without script sends its empty fields too: the address is to be what it means.
        return redirect(request.path + (f"?{query}" if (query := chosen.query()) else ""))
    page = page_of(chosen, request.GET.get("page"))
    queued = Run.objects.for_list().queued().order_by("created_at", "id")
    queue = list(queued[: QUEUE_ROWS + 1])
    context = {
        "section": "runs",
        "asked": chosen,
        "page": page,
        "columns": {name: Column(chosen.sorted_by(name), chosen.direction_of(name)) for name in ORDERS},
        "under_way": list(Run.objects.for_list().filter(state__in=ACTIVE).order_by("running_at")),
        "queue": queue[:QUEUE_ROWS],
        "waiting": queued.count() - QUEUE_ROWS if len(queue) > QUEUE_ROWS else 0,
        "most_compared": MOST_COMPARED,
        "now": timezone.now(),
    }
    if request.htmx:  # type: ignore[attr-defined]  # django-htmx
        return render(request, "runs/rows.html", context)
    subject = chosen.values.get("subject", "")
    offered = choices(chosen)
    context |= {
        "choices": offered,
        "more_chosen": len(chosen.values.keys() - {choice.name for choice in offered[:AT_HAND]}),
        "versions": versions_of(subject) if subject else [],
        "sorts": SORTS,
    }
    return render(request, "runs/list.html", context)


def page_of(chosen: Chosen, number: str | None) -> Page[Run]:
    """One page of the runs that are asked for. Found and sorted by ids alone; of the rest only these rows are read."""
    keys = Paginator(chosen.runs().values_list("pk", flat=True), PAGE_ROWS).get_page(number)
    wanted = list(keys.object_list)
    tags = Prefetch("tags", to_attr="tag_list")
    rows = Run.objects.for_list().defer("scenario").prefetch_related(tags).in_bulk(wanted)
    return Page([rows[key] for key in wanted if key in rows], keys.number, keys.paginator)  # type: ignore[arg-type]

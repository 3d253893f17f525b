"""One metric of one scenario over its runs."""

from __future__ import annotations

import csv
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from portal.accounts.roles import viewer
from portal.runs.filters import distinct
from portal.runs.history import History, of_scenario
from portal.runs.measures import every, measure
from portal.runs.models import Run
from portal.runs.states import State
from wsnode.core.scenario import Scenario

ROWS = 25
"""Runs of the table; all of them are in the CSV."""
MOST_VERSIONS = 50


@viewer
@require_safe
def history(request: HttpRequest) -> HttpResponse:
    """A chart of all runs, what changed on the way, and what each version came to."""
    names = distinct(Run, "scenario_name")
    asked = request.GET.get("scenario", "")
    finished = Run.objects.filter(state=State.FINISHED, summary__isnull=False)
    # Whoever comes without a scenario sees that of the newest run.
    newest = finished.filter(scenario_name=asked) if asked in names else finished
    one = newest.order_by("-created_at", "-id").only("scenario_name", "scenario", "subject_name").first()
    context: dict[str, Any] = {"section": "history", "scenarios": names, "measures": every()}
    if one is None:
        return render(request, "runs/history.html", context | {"scenario": asked})
    subjects = list(
        finished.filter(scenario_name=one.scenario_name)
        .order_by("subject_name")
        .values_list("subject_name", flat=True)
        .distinct()
    )
    subject = request.GET.get("subject", one.subject_name)
    subject = subject if subject in subjects else one.subject_name
    known = {found.key for found in context["measures"]}
    key = request.GET.get("metric", "")
    key = key if key in known else Scenario.model_validate(one.scenario).effective_primary_metric
    found = of_scenario(one.scenario_name, subject, measure(key))
    by = "version" if request.GET.get("by") == "version" else "time"
    if request.GET.get("format") == "csv":
        return _csv(found)
    if request.GET.get("format") == "json":
        return JsonResponse(_drawn(found, by))
    context |= {
        "scenario": one.scenario_name,
        "subjects": subjects,
        "subject": subject,
        "metric": key,
        "by": by,
        "history": found,
        "versions": found.versions[: -MOST_VERSIONS - 1 : -1],
        "changes": list(enumerate(found.changes, 1))[::-1],
        "rows": [(point, found.version_of(point)) for point in found.points[: -ROWS - 1 : -1]],
        "address": urlencode({"scenario": one.scenario_name, "subject": subject, "metric": key}),
    }
    return render(request, "runs/history.html", context)


def _drawn(found: History, by: str) -> dict[str, Any]:
    """What the chart draws, a column each: ids, places (time in seconds, or the version's number), values, marks."""
    versions = found.version_names()
    number = {name: place for place, name in enumerate(versions)}
    of = [number[found.version_of(point)] for point in found.points]
    times = [round(point.at.timestamp()) for point in found.points]
    marks = [
        "baseline" if point.is_baseline else "starred" if point.starred else point.validity or ""
        for point in found.points
    ]
    return {
        "by": by,
        "unit": found.measure.unit,
        "run": reverse("runs:run", args=["RUN"]),
        "id": [point.id for point in found.points],
        "time": times,
        "version": of,
        "versions": versions,
        "value": [point.value for point in found.points],
        "smoothed": found.smoothed(),
        "mark": marks,
        "changes": [[change.place, number] for number, change in enumerate(found.changes, 1)],
    }


def _csv(found: History) -> HttpResponse:
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="history-{found.measure.key}.csv"'
    table = csv.writer(response)
    table.writerow(
        [
            "run",
            "begun_at",
            "subject_version",
            "engine",
            f"{found.measure.key} ({found.measure.unit})",
            "validity",
            "environment",
        ]
    )
    for point in found.points:
        version = point.version
        # A spreadsheet would take these for a formula.
        if version[:1] in ("=", "+", "-", "@", "\t", "\r"):
            version = f"'{version}"
        table.writerow(
            [point.id, point.at.isoformat(), version, point.engine, point.value, point.validity, point.digest[:12]]
        )
    return response

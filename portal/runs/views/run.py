"""A run's page, live and afterwards, and what can be fetched of it."""

from __future__ import annotations

import json
from typing import Any

import yaml
from django.contrib import messages
from django.db.models import F, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST, require_safe

from portal.accounts.audit import record
from portal.accounts.roles import operator, viewer
from portal.monitoring.links import run_link
from portal.runs import series
from portal.runs.models import Run, RunSecond
from portal.runs.progress import at_present, progress
from portal.runs.report import Report
from portal.runs.states import State
from wsnode.core.protocol import Live

LOG_LINES = 200


def _run(run_id: str) -> Run:
    return get_object_or_404(Run.objects.select_related("created_by", "cancel_requested_by"), pk=run_id)


@viewer
@require_safe
def run(request: HttpRequest, run_id: str) -> HttpResponse:
    """A run: live while it goes on, its report afterwards."""
    one = _run(run_id)
    if not one.is_over:
        return render(request, "runs/watch.html", {"charts": series.CHARTS} | _watched(one))
    log = list(one.events.order_by("id")[:LOG_LINES])
    evidence = list(one.evidence.order_by("order"))
    context = {
        "section": "runs",
        "run": one,
        "log": log,
        "report": Report(one),
        "evidence": evidence,
        "dashboard": next((link for row in evidence if row.grafana_url and (link := run_link(row.grafana_url))), None),
        "charts": series.CHARTS,
        "yaml": _yaml(one.scenario),
    }
    return render(request, "runs/run.html", context)


def _yaml(scenario: dict[str, Any]) -> str:
    """A scenario as one would write it: `2`, not `2.0`; what is not set is left out."""
    written = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in scenario.items()
        if value is not None
    }
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=100)


@viewer
@require_safe
def live(request: HttpRequest, run_id: str) -> HttpResponse:
    """What changes each second of a run's page; once it is over, the word to load the page again."""
    one = _run(run_id)
    if one.is_over:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "runs/live.html", _watched(one))


def _watched(one: Run) -> dict[str, Any]:
    rows = list(one.seconds.order_by("-second")[:2])
    seen = Live.model_validate(one.live) if one.live else None
    events = list(one.events.order_by("-id")[:LOG_LINES])
    context = {
        "section": "runs",
        "run": one,
        "progress": progress(one, timezone.now()),
        "present": at_present(seen, [row.content for row in reversed(rows)]),
        "log": events[::-1],
    }
    if one.state == State.QUEUED:
        context["ahead"] = Run.objects.queued().filter(machine=one.machine, created_at__lt=one.created_at).count()
        context["blocker"] = Run.objects.active().filter(machine=one.machine).first()
    return context


@viewer
@require_GET
def series_json(request: HttpRequest, run_id: str) -> HttpResponse:
    """The run's charts as columns; `?after=n` gives what came after second n of one that goes on,
    a long stretch in longer points."""
    one = _run(run_id)
    if one.is_over:
        response = JsonResponse(Report(one).series() | {"over": True})
        response["Cache-Control"] = "private, max-age=3600"
        return response
    text = request.GET.get("after", "0")
    if not (text.isdecimal() and len(text) < 10):
        raise Http404(f"after={text!r}: wanted a second, 0 or more")
    after = int(text)
    # Cumulative lines: of a long stretch every n-th is enough to cut it exactly, and takes a second instead of many.
    step = max(1, -(-(one.last_second - after) // series.MOST_POINTS))
    rows: QuerySet[RunSecond] = one.seconds.filter(second__gte=after).order_by("second")
    if step > 1:
        rows = rows.alias(rest=F("second") % step).filter(Q(second=after) | Q(rest=0))
    lines = [row.content for row in rows]
    before = lines.pop(0) if lines and lines[0].second == after else None
    table = series.columns(series.stretches(lines, before))
    scenario = one.scenario_model
    window = [scenario.window_open_s, scenario.duration_s] if scenario.window_s >= 1 else None
    until = scenario.duration_s
    return JsonResponse({"columns": table, "window": window, "until": until, "summaries": {}, "over": False})


@viewer
@require_safe
def phases(request: HttpRequest, run_id: str) -> HttpResponse:
    """What a report has from the archive, for the page that is already there."""
    return render(request, "runs/archived.html", {"report": Report(_run(run_id)), "tips": "archived"})


@operator
@require_POST
def cancel(request: HttpRequest, run_id: str) -> HttpResponse:
    """Ask for a run's end."""
    one = _run(run_id)
    if one.request_cancel(request.user):  # type: ignore[arg-type]
        record(request.user, "cancelled", one)  # type: ignore[arg-type]
    else:
        messages.warning(request, "The run was over already: there was nothing to cancel.", extra_tags="warn")
    return redirect(one)


@viewer
@require_safe
def result_json(request: HttpRequest, run_id: str) -> HttpResponse:
    """The machine-readable result."""
    one = get_object_or_404(Run.objects.select_related("summary"), pk=run_id, summary__isnull=False)
    return HttpResponse(json.dumps(one.summary.result, indent=2), content_type="application/json")


@viewer
@require_safe
def archive(request: HttpRequest, run_id: str) -> HttpResponse:
    """The archive, as stored: zstd of JSON."""
    one = get_object_or_404(Run.objects.select_related("archive"), pk=run_id, archive__isnull=False)
    name = f"wslab-{one.pk}.json.zst"
    return HttpResponse(
        bytes(one.archive.content),
        content_type="application/zstd",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )

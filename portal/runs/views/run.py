"""A run's page, live and afterwards, and what can be fetched of it."""

from __future__ import annotations

import json
import time
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.audit import record
from portal.accounts.roles import operator, viewer
from portal.labs.lab import LabError, load_lab
from portal.monitoring.links import run_link
from portal.runs.charts import CHARTS
from portal.runs.models import NamedScenario, Run
from portal.runs.progress import at_present, progress, words
from portal.runs.report import Report
from portal.runs.states import State
from portal.runs.text import write_yaml
from portal.runs.watching import Drawn, watching
from wsnode.core.protocol import Live

LOG_LINES = 200


def find(run_id: str) -> Run:
    """A run by its id, with those who had to do with it; else the page is not found."""
    return get_object_or_404(
        Run.objects.select_related("created_by", "cancel_requested_by", "group", "baseline"), pk=run_id
    )


@viewer
@require_safe
def run(request: HttpRequest, run_id: str) -> HttpResponse:
    """A run: live while it goes on, its report afterwards."""
    one = find(run_id)
    marks = {"baseline_of": NamedScenario.objects.filter(baseline=one).first(), "tags": list(one.tags.all())}
    if not one.is_over:
        shown = {"charts": CHARTS, "live": _live(one, _operates(request))}
        return render(request, "runs/watch.html", shown | _head(one) | marks)
    events = list(one.events.order_by("id")[:LOG_LINES])
    evidence = list(one.evidence.order_by("order"))
    context = {
        "section": "runs",
        "run": one,
        "log": events,
        "words": words(one, events) if one.cancel_requested_at else [],
        "report": Report(one),
        "evidence": evidence,
        "dashboard": next((link for row in evidence if row.grafana_url and (link := run_link(row.grafana_url))), None),
        "charts": CHARTS,
        "yaml": write_yaml(one.scenario),
    }
    return render(request, "runs/run.html", context | marks)


@viewer
@require_safe
def live(request: HttpRequest, run_id: str) -> HttpResponse:
    """What changes each second of a run's page; once it is over, the word to load the page again."""
    one = find(run_id)
    if one.is_over:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return HttpResponse("".join(_live(one, _operates(request))))


def _head(one: Run) -> dict[str, Any]:
    return {"section": "runs", "run": one, "report": None}


def _operates(request: HttpRequest) -> bool:
    return request.user.is_operator  # type: ignore[union-attr]


def _live(one: Run, operator: bool) -> Drawn:
    """The same for all who watch in one second: drawn by whoever comes first."""
    seen = watching(one.pk)
    newest = one.events.order_by("-id").values_list("id", flat=True).first()
    seen.read_seconds(one)
    seen.ask_hosts(one, _lab())
    at = (one.live or {}).get("second"), one.last_second, one.state, one.state_reason, one.cancel_requested_at
    key = (at, newest, int(time.time()))
    if (drawn := seen.drawn(operator, key)) is not None:
        return drawn
    events = list(one.events.order_by("-id")[:LOG_LINES])[::-1]
    live_line = Live.model_validate(one.live) if one.live else None
    context = _head(one) | {
        "progress": progress(one, timezone.now()),
        "present": at_present(live_line, [line for line in seen.lines if line is not None]),
        "operator": operator,
        "hosts": seen.hosts_now(one),
        "fault": seen.fault,
        "words": words(one, events) if one.cancel_requested_at else [],
        "log": events,
    }
    if one.state == State.QUEUED:
        context["ahead"] = Run.objects.queued().filter(machine=one.machine, created_at__lt=one.created_at).count()
        context["blocker"] = Run.objects.active().filter(machine=one.machine).first()
    now, log = (render_to_string(f"runs/{name}.html", context) for name in ("live", "live_log"))
    return seen.keep(operator, key, Drawn(now, log))


def _lab() -> Any:
    try:
        return load_lab(settings.LAB_FILE)
    except LabError:
        return None


@operator
@require_POST
def cancel(request: HttpRequest, run_id: str) -> HttpResponse:
    """Ask for a run's end."""
    one = find(run_id)
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
    """The archive, as stored: a tar under zstd."""
    one = get_object_or_404(Run.objects.select_related("archive"), pk=run_id, archive__isnull=False)
    name = f"wslab-{one.pk}.tar.zst"
    return HttpResponse(
        bytes(one.archive.content),
        content_type="application/zstd",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )

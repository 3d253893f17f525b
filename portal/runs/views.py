"""The pages of runs."""

from __future__ import annotations

import json
from typing import Any

import yaml
from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import F, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from portal.labs.lab import LabError, load_lab
from portal.monitoring.links import run_link
from portal.runs import series
from portal.runs.api import api as description
from portal.runs.comparison import compare as compare_results
from portal.runs.create import queue_run
from portal.runs.draft import Refused
from portal.runs.forms import RunForm
from portal.runs.models import Environment, NamedScenario, Run, RunSecond
from portal.runs.plan import PlainPlan, plain_plan
from portal.runs.progress import at_present, progress
from portal.runs.report import Report
from portal.runs.states import ACTIVE, OVER, State
from wsnode.core.protocol import Live

PAGE_ROWS = 50
QUEUE_ROWS = 20
"""Of a longer queue the page shows the head; it is asked for every two seconds."""
PICKER_ROWS = 100
LOG_LINES = 200


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


def new(request: HttpRequest) -> HttpResponse:
    """The form of a new run, and its receipt."""
    if request.method == "POST":
        form = RunForm.posted(request.POST.dict())
        if form.check():
            assert form.scenario is not None
            try:
                run = queue_run(
                    request.user,  # type: ignore[arg-type]  # signed in: the middleware sees to it
                    form.scenario,
                    accept_partial=form.accept_partial,
                    subject=form.subject(),
                )
            except Refused as refused:
                form.errors[""] = "; ".join(refused.lines)
            else:
                return redirect(run)
        return _form_page(request, form, status=422)
    return _form_page(request, _blank(request))


def _blank(request: HttpRequest) -> RunForm | None:
    """The form of a chosen scenario or of a run to repeat; None where there is no scenario at all."""
    if repeated := request.GET.get("from"):
        return RunForm.again(get_object_or_404(Run, pk=repeated))
    rows = NamedScenario.objects.all()
    if name := request.GET.get("scenario"):
        chosen = get_object_or_404(rows, name=name)
        return RunForm.of(chosen.name, chosen.scenario_model)
    first = rows.filter(name="smoke").first() or rows.first()
    return RunForm.of(first.name, first.scenario_model) if first else None


def _form_page(request: HttpRequest, form: RunForm | None, status: int = 200) -> HttpResponse:
    context: dict[str, Any] = {
        "section": "new",
        "form": form,
        "scenarios": NamedScenario.objects.all(),
        "posted": status != 200,
    }
    if form is not None:
        errors = form.errors
        form.check()
        form.errors |= errors
        context |= _plan_of(form)
    return render(request, "runs/new.html", context, status=status)


def _plan_of(form: RunForm) -> dict[str, Any]:
    """The plan of a checked form, and what to know of the lab."""
    lab, lab_error = None, ""
    try:
        lab = load_lab(settings.LAB_FILE)
    except LabError as error:
        lab_error = str(error)
    plan: PlainPlan | None = None
    if form.scenario is not None:
        names = [host.name for host in lab.load_generators] if lab else []
        weights = lab.weights(form.scenario.split) if lab else []
        plan = plain_plan(form.scenario, names, weights, accept_partial=form.accept_partial)
    return {"plan": plan, "lab_error": lab_error}


@require_POST
def plan(request: HttpRequest) -> HttpResponse:
    """The plan of what is typed so far, and each field's refusal."""
    form = RunForm.posted(request.POST.dict())
    form.check()
    return render(request, "runs/plan_live.html", {"form": form} | _plan_of(form))


def _run(run_id: str) -> Run:
    return get_object_or_404(Run.objects.select_related("created_by", "cancel_requested_by"), pk=run_id)


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


@require_safe
def phases(request: HttpRequest, run_id: str) -> HttpResponse:
    """What a report has from the archive, for the page that is already there."""
    return render(request, "runs/archived.html", {"report": Report(_run(run_id)), "tips": "archived"})


@require_POST
def cancel(request: HttpRequest, run_id: str) -> HttpResponse:
    """Ask for a run's end."""
    one = _run(run_id)
    if not one.request_cancel(request.user):  # type: ignore[arg-type]
        messages.warning(request, "The run was over already: there was nothing to cancel.", extra_tags="warn")
    return redirect(one)


@require_safe
def result_json(request: HttpRequest, run_id: str) -> HttpResponse:
    """The machine-readable result."""
    one = get_object_or_404(Run.objects.select_related("summary"), pk=run_id, summary__isnull=False)
    return HttpResponse(json.dumps(one.summary.result, indent=2), content_type="application/json")


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


@require_safe
def compare(request: HttpRequest) -> HttpResponse:
    """Two runs side by side, or the choice of them."""
    picked = request.GET.getlist("run")[:2]
    known = list(Run.objects.filter(pk__in=picked).order_by("created_at", "id").values_list("pk", flat=True))
    if len(known) == 2:
        older, newer = known
        return redirect(f"{request.path}?base={older}&contender={newer}")
    contender = request.GET.get("contender", "")
    if contender and not request.GET.get("base") and (base := _before(contender)):
        return redirect(f"{request.path}?base={base}&contender={contender}")
    return render(request, "runs/compare.html", {"section": "runs"} | _compared(request))


def _before(run_id: str) -> str | None:
    """The run that one is most likely held against: the one before it of the same scenario that has a result."""
    one = Run.objects.filter(pk=run_id).first()
    if one is None:
        return None
    earlier = Run.objects.filter(scenario_name=one.scenario_name, created_at__lt=one.created_at, summary__isnull=False)
    return earlier.order_by("-created_at", "-id").values_list("pk", flat=True).first()


def _compared(request: HttpRequest) -> dict[str, Any]:
    comparable = Run.objects.for_list().filter(summary__isnull=False)
    ids = {side: request.GET.get(side, "") for side in ("base", "contender")}
    chosen = {
        run.pk: run
        for run in Run.objects.filter(summary__isnull=False, pk__in=[i for i in ids.values() if i]).select_related(
            "summary", "created_by"
        )
    }
    missing = [i for i in ids.values() if i and i not in chosen]
    context: dict[str, Any] = {side: chosen.get(ids[side]) for side in ids}
    context |= {"choices": list(comparable[:PICKER_ROWS]), "missing": missing}
    base, contender = context["base"], context["contender"]
    if base is not None and contender is not None:
        environments: dict[str, dict[str, Any]] = {base.pk: {}, contender.pk: {}}
        for row in Environment.objects.filter(run_id__in=list(environments)).order_by("id"):
            environments[row.run_id][row.host] = row.begin
        context["sides"] = (("Base", base), ("Contender", contender))
        context["comparison"] = compare_results(
            base.summary.content, contender.summary.content, environments[base.pk], environments[contender.pk]
        )
    return context


@require_safe
def api(request: HttpRequest) -> HttpResponse:
    """How to use the API."""
    routes = [
        {"method": method.upper(), "path": path, "summary": route["summary"], "text": route.get("description", "")}
        for path, methods in description.get_openapi_schema()["paths"].items()
        for method, route in methods.items()
    ]
    return render(request, "runs/api.html", {"section": "api", "portal_url": settings.PORTAL_URL, "routes": routes})

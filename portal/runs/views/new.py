"""The form of a new run, and its plan while it is typed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts.roles import operator
from portal.labs.lab import LabError, load_lab
from portal.runs.create import queue_run, queue_series
from portal.runs.draft import Refused
from portal.runs.foresight import foresee
from portal.runs.forms import RunForm
from portal.runs.models import DeclaredSubject, NamedScenario, Run
from portal.runs.offers import Option, offers
from portal.runs.own_server import OwnServer, own_server

BASELINES = 30
"""Runs that are offered to be held against, the newest ones."""


@operator
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """The form of a new run, and its receipt."""
    if request.method != "POST":
        return _form_page(request, _blank(request))
    form = RunForm.posted(request.POST.dict())
    if form.check():
        try:
            return redirect(_queued(request, form))
        except Refused as refused:
            form.sort(refused.lines)
    return _form_page(request, form, status=422)


def _queued(request: HttpRequest, form: RunForm) -> Any:
    """The run, or the group of runs, that a checked form asks for."""
    assert form.order is not None
    user: Any = request.user  # signed in: the middleware sees to it
    if form.series == "once":
        return queue_run(user, form.order)
    return queue_series(user, form.order, form.times, other=form.other, title=form.asked["title"])


def _blank(request: HttpRequest) -> RunForm | None:
    """The form of a chosen scenario or of a run to repeat; None where there is no scenario at all."""
    if repeated := request.GET.get("from"):
        return RunForm.again(get_object_or_404(Run, pk=repeated), other_version="other" in request.GET)
    rows = NamedScenario.objects.offered()
    if name := request.GET.get("scenario"):
        chosen = get_object_or_404(rows, name=name)
        return RunForm.of(chosen.name, chosen.scenario_model)
    first = rows.filter(name="smoke").first() or rows.first()
    return RunForm.of(first.name, first.scenario_model) if first else None


def _form_page(request: HttpRequest, form: RunForm | None, status: int = 200) -> HttpResponse:
    scenarios = list(NamedScenario.objects.offered().select_related("baseline"))
    context: dict[str, Any] = {"section": "new", "form": form, "scenarios": scenarios, "posted": status != 200}
    if form is not None:
        errors = form.errors
        form.check()
        # Nobody has said anything wrong yet where the form is shown for the first time.
        form.errors = form.errors | errors if request.method == "POST" else {}
        context |= {
            "declared": DeclaredSubject.objects.all(),
            "targets": _targets(form),
            "usual": next((row.baseline for row in scenarios if row.name == form.base), None),
            "baselines": _baselines(form),
            "own": _own_server(),
            "other": (other := _other(request)),
            "say_version": other is not None and other.subject_source == "given",
            "say_why": other is not None and other.subject_source != "given",
        }
        context |= plan_of(form)
    return render(request, "runs/new.html", context, status=status)


def _other(request: HttpRequest) -> Run | None:
    """The run of which another version is to be measured."""
    return Run.objects.filter(pk=request.GET.get("from", "")).first() if "other" in request.GET else None


def _baselines(form: RunForm) -> list[Run]:
    """Finished runs to be held against: the newest of the scenario, and the one that is chosen."""
    runs = Run.objects.finished().defer("live", "scenario")
    found = list(runs.filter(scenario_name=form.base).order_by("-created_at")[:BASELINES])
    chosen = form.asked["baseline"]
    if chosen.isprintable() and chosen not in ("", "none", *(run.pk for run in found)):
        found = [*runs.filter(pk=chosen), *found]
    return found


def _targets(form: RunForm) -> list[Option]:
    """What the lab allows; and what is chosen, which is refused where it no longer does."""
    found, chosen = list(offers().targets), form.asked["target"]
    if chosen and chosen not in (option.value for option in found):
        found.append(Option(chosen, f"{chosen}: no longer allowed"))
    return found


def _own_server() -> OwnServer | None:
    """The lab's own server, as its host told last."""
    try:
        return own_server(load_lab(settings.LAB_FILE).machine)
    except LabError:
        return None


def plan_of(form: RunForm) -> dict[str, Any]:
    """The plan of a checked form, and what to know of the lab."""
    if form.scenario is None:
        return {"plan": None}
    others = [form.other.scenario] if form.other is not None else []
    return foresee(
        form.scenario, *others, times=form.times, accept_partial=form.accept_partial, own=form.is_own
    )._asdict()


@operator
@require_POST
def plan(request: HttpRequest) -> HttpResponse:
    """The plan of what is typed so far, and each field's refusal."""
    form = RunForm.posted(request.POST.dict())
    form.check()
    return render(request, "runs/plan_live.html", {"form": form} | plan_of(form))

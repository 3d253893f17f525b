"""The form of a new run, and its plan while it is typed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from portal.accounts.roles import operator
from portal.labs.lab import LabError, load_lab
from portal.runs.create import queue_run
from portal.runs.draft import Refused
from portal.runs.forms import RunForm
from portal.runs.models import NamedScenario, Run
from portal.runs.plan import PlainPlan, plain_plan


@operator
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


@operator
@require_POST
def plan(request: HttpRequest) -> HttpResponse:
    """The plan of what is typed so far, and each field's refusal."""
    form = RunForm.posted(request.POST.dict())
    form.check()
    return render(request, "runs/plan_live.html", {"form": form} | _plan_of(form))

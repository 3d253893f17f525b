"""Marks on a run: a star, and being its scenario's baseline."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from portal.accounts.audit import record
from portal.accounts.roles import operator
from portal.runs.models import NamedScenario, Run
from portal.runs.states import State
from portal.runs.views.run import find


@operator
@require_POST
def star(request: HttpRequest, run_id: str) -> HttpResponse:
    """Put a star on a run (`on=yes`), or take it off."""
    one, on = find(run_id), request.POST.get("on") == "yes"
    with transaction.atomic():
        if Run.objects.filter(pk=one.pk, starred=not on).update(starred=on):
            record(request.user, "starred" if on else "unstarred", one)  # type: ignore[arg-type]
    return redirect(one)


@operator
@require_POST
def baseline(request: HttpRequest, run_id: str) -> HttpResponse:
    """Make a finished run the baseline of its scenario (`on=yes`), or no longer."""
    one, on = find(run_id), request.POST.get("on") == "yes"
    scenario = NamedScenario.objects.filter(name=one.scenario_name).first()
    if scenario is None:
        messages.warning(request, f"No scenario is called {one.scenario_name} any more.", extra_tags="warn")
    elif on and one.state != State.FINISHED:
        messages.warning(
            request, f"A run that is {one.state} is no baseline: wanted a finished one.", extra_tags="warn"
        )
    else:
        with transaction.atomic():
            changed = (
                NamedScenario.objects.filter(pk=scenario.pk).exclude(baseline=one).update(baseline=one)
                if on
                else NamedScenario.objects.filter(pk=scenario.pk, baseline=one).update(baseline=None)
            )
            if changed:
                record(request.user, "made baseline" if on else "unmade baseline", one)  # type: ignore[arg-type]
    return redirect(one)

"""Runs side by side."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from portal.accounts.roles import viewer
from portal.runs.comparison import compare as compare_results
from portal.runs.models import Environment, Run

PICKER_ROWS = 100


@viewer
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

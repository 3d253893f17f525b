"""Runs and groups side by side, and the choice of them."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from portal.accounts.roles import viewer
from portal.runs.comparison import MOST_SIDES, Comparison
from portal.runs.comparison import compare as hold
from portal.runs.dots import plot
from portal.runs.filters import MOST_WORDS, SEARCH, Chosen
from portal.runs.lineup import earlier, line_up
from portal.runs.models import Run, RunGroup
from portal.runs.statistics import fewest_each

PICKER_ROWS = 30
PICKER_GROUPS = 12
MOST_CURVES = 10
"""Runs of one side whose lines are drawn."""


class Overlay(NamedTuple):
    """A chart with a line for each side."""

    key: str
    """Column of a run's series; `curve`: its percentile curve."""
    title: str
    unit: str
    note: str


OVERLAYS = (
    Overlay("curve", "Percentiles of the response time", "s", "Over all due messages of the measured window."),
    Overlay("p99", "Response time p99", "s", "By the second in which messages were due, since each run's start."),
    Overlay("answered", "Throughput", "1/s", "Messages answered, by the second in which they were due."),
    Overlay("open", "Connections", "connections", "At the end of each second."),
)


@viewer
@require_safe
def compare(request: HttpRequest) -> HttpResponse:
    """Two to five runs or groups side by side, or the choice of them."""
    base, contenders = request.GET.get("base", ""), request.GET.getlist("contender")
    ticked = list(dict.fromkeys(one for one in request.GET.getlist("run") if one.isprintable()))[:MOST_SIDES]
    if ticked and "choose" not in request.GET:
        known = _in_order(ticked)
        if base in known:
            known = [base, *(one for one in known if one != base)]
        if len(known) >= 2:
            return redirect(f"{request.path}?{address(known)}")
    if contenders and not base and (older := _before(contenders[0])):
        return redirect(f"{request.path}?{address([older, *contenders])}")
    chosen = [one for one in (base, *contenders) if one][:MOST_SIDES]
    if len(set(chosen)) < 2:
        return _choice(request, [*chosen, *ticked])
    sides, missing = line_up(chosen)
    if len(sides) < 2:
        return _choice(request, [side.id for side in sides], missing)
    comparison = hold(sides, earlier(sides[0]))
    context = {"section": "compare", "missing": missing} | _shown(comparison)
    return render(request, "runs/compare.html", context)


def address(ids: list[str]) -> str:
    """The parameters of a comparison: the base first."""
    return urlencode([("base", ids[0]), *(("contender", one) for one in ids[1:])])


def _in_order(ids: list[str]) -> list[str]:
    """Those that there are, the oldest first."""
    found: list[tuple[Any, str]] = [
        *Run.objects.filter(pk__in=ids).values_list("created_at", "pk"),
        *RunGroup.objects.filter(pk__in=ids).values_list("created_at", "pk"),
    ]
    return [pk for _, pk in sorted(found)]


def _before(contender: str) -> str | None:
    """What one is most likely held against: its baseline, its scenario's, or the run before it of the same scenario; of
    a group the one that it alternates with, or the group before it."""
    if not contender.isprintable():
        return None
    if group := RunGroup.objects.filter(pk=contender).first():
        if group.partner_id:
            return group.partner_id
        names = Run.objects.filter(group=group).values("scenario_name")[:1]
        older = RunGroup.objects.filter(created_at__lt=group.created_at, runs__scenario_name__in=names)
        return older.order_by("-created_at", "-id").values_list("pk", flat=True).first()
    one = Run.objects.select_related("scenario_version__scenario").filter(pk=contender).first()
    if one is None:
        return None
    version = one.scenario_version
    for baseline in (one.baseline_id, version.scenario.baseline_id if version else None):
        if baseline and baseline != one.pk:
            return baseline
    before = Run.objects.filter(scenario_name=one.scenario_name, created_at__lt=one.created_at, summary__isnull=False)
    return before.order_by("-created_at", "-id").values_list("pk", flat=True).first()


def _choice(request: HttpRequest, ids: list[str], missing: list[str] | None = None) -> HttpResponse:
    """The page on which sides are ticked: what is ticked stays while one searches."""
    search = request.GET.get("q", "").strip()[:200]
    # Whoever comes with one run wants another like it.
    sides, unknown = line_up(ids)
    taken = [side.id for side in sides]
    runs = Chosen.of({SEARCH: search}).found().filter(summary__isnull=False).exclude(pk__in=taken)
    groups = (
        RunGroup.objects.annotate(results=Count("runs", filter=Q(runs__summary__isnull=False)))
        .filter(results__gt=0)
        .exclude(pk__in=taken)
        .order_by("-created_at", "-id")
    )
    for word in search.split()[:MOST_WORDS]:
        groups = groups.filter(Q(title__icontains=word) | Q(pk=word.casefold()))
    context = {
        "section": "compare",
        "ticked": [(side, side.representative.figures.get("response_time.p99")) for side in sides],
        "base": request.GET.get("base", ""),
        "missing": [*(missing or []), *unknown],
        "search": search,
        "runs": list(
            runs.select_related("summary", "created_by")
            .defer("summary__result", "live")
            .order_by("-created_at", "-id")[:PICKER_ROWS]
        ),
        "groups": list(groups[:PICKER_GROUPS]),
        "most": MOST_SIDES,
        "fewest": fewest_each(),
        "any": bool(sides or search) or Run.objects.filter(summary__isnull=False).exists(),
    }
    return render(request, "runs/compare_pick.html", context)


def _shown(comparison: Comparison) -> dict[str, Any]:
    ids = [side.id for side in comparison.sides]
    sides = [
        {
            "side": side,
            "colour": number,
            "role": "Base" if number == 1 else "Contender",
            "as_base": address([side.id, *(one for one in ids if one != side.id)]),
            "without": address([one for one in ids if one != side.id]) if len(ids) > 2 else "",
            "drawn": [member.id for member in (side.counted or side.members)[-MOST_CURVES:]],
        }
        for number, side in enumerate(comparison.sides, 1)
    ]
    plots = []
    if any(side.is_group for side in comparison.sides):
        for row in comparison.rows:
            if row.kind != "explaining":
                samples = [row.base, *(cell.contender for cell in row.cells)]
                labels = [side.label for side in comparison.sides]
                plots.append(plot(row.measure, list(zip(labels, samples, strict=True))))
    found = [one for one in plots if one is not None]
    cautions = [*comparison.cautions, *(caution for one in comparison.contenders for caution in one.cautions)]
    return {
        "comparison": comparison,
        "sides": sides,
        "several": len(comparison.contenders) > 1,
        "differs": any(one.lines for one in comparison.contenders),
        "cautions": list(dict.fromkeys(cautions)),
        "grouped": any(side.is_group for side in comparison.sides),
        "columns": 1 + len(sides),
        "fewest": fewest_each(),
        "charts": OVERLAYS,
        "dots": found[:1],
        "more_dots": found[1:],
        "change": urlencode([("choose", "1"), ("base", ids[0]), *(("run", one) for one in ids)]),
        "api": f"/api/v1/compare?{address(ids)}",
    }

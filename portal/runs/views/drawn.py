"""The charts of a run: their columns, while it goes on and afterwards, and each as comma-separated values."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from portal.accounts.roles import viewer
from portal.runs.charts import BY_KEY, CHARTS, as_csv, lines, summaries
from portal.runs.digest import digest_of
from portal.runs.models import OtherWindow, Run
from portal.runs.percentiles import Point, curve_csv, curve_table
from portal.runs.report import window_of
from portal.runs.series import Table, after, tabulate
from portal.runs.views.run import find
from portal.runs.watching import watching

NO_HOSTS: Table = {"second": []}


@viewer
@require_safe
def series(request: HttpRequest, run_id: str) -> HttpResponse:
    """All charts of a run. Of one that goes on `?after=n&hosts_after=m` gives what came after second n, of hosts after
    second m."""
    one = find(run_id)
    if one.is_over:
        return _kept(one)
    seen = watching(one.pk)
    seen.read_seconds(one)
    run = after(seen.table, _second(request, "after"))
    hosts = after(seen.hosts, _second(request, "hosts_after"))
    scenario = one.scenario_model
    window = [scenario.window_open_s, scenario.duration_s] if scenario.window_s >= 1 else None
    return JsonResponse(
        {"tables": {"run": run, "hosts": hosts}, "charts": _charts(seen.table, seen.hosts), "window": window,
         "windows": [], "until": scenario.duration_s, "over": False}
    )  # fmt: skip


def _kept(one: Run) -> HttpResponse:
    window = window_of(one)
    digest = digest_of(one.pk, window)
    run, hosts = (digest.run, digest.hosts) if digest else (tabulate([]), NO_HOSTS)
    curves = digest.curves if digest else {}
    charts = _charts(run, hosts)
    for key, said in summaries(run, hosts, window).items():
        charts[key]["summary"] = said
    response = JsonResponse(
        {
            "tables": {"run": run, "hosts": hosts, "curve": curve_table(curves)},
            "charts": charts,
            "window": window,
            "windows": [
                [other.from_s, other.to_s, other.label] for other in OtherWindow.objects.filter(run=one).order_by("id")
            ],
            "until": None,
            "over": True,
        }
    )
    # Windows may be added: whoever has it asks whether it still holds.
    response["Cache-Control"] = "private, no-cache"
    return response


def _charts(run: Table, hosts: Table) -> dict[str, Any]:
    return {
        chart.key: {"lines": [line._asdict() for line in lines(chart, hosts if chart.of_hosts else run)]}
        for chart in CHARTS
    }


def _second(request: HttpRequest, name: str) -> int:
    text = request.GET.get(name, "0")
    if not (text.isdecimal() and text.isascii() and len(text) < 10):
        raise Http404(f"{name}={text!r}: wanted a second, 0 or more")
    return int(text)


@viewer
@require_safe
def table(request: HttpRequest, run_id: str, chart: str) -> HttpResponse:
    """A chart's values: of a run that goes on those that are known by now."""
    one = find(run_id)
    known: dict[str, list[Point]] = {}
    if one.is_over:
        digest = digest_of(one.pk, window_of(one))
        run, hosts = (digest.run, digest.hosts) if digest else (tabulate([]), NO_HOSTS)
        known = digest.curves if digest else {}
    else:
        seen = watching(one.pk)
        seen.read_seconds(one)
        run, hosts = seen.table, seen.hosts
    if chart == "curve":
        text = curve_csv(known)
    elif chart in BY_KEY:
        text = as_csv(BY_KEY[chart], hosts if BY_KEY[chart].of_hosts else run)
    else:
        raise Http404(f"no chart {chart!r}: known are curve, {', '.join(BY_KEY)}")
    return HttpResponse(
        text,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="wslab-{one.pk}-{chart}.csv"'},
    )

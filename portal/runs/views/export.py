"""Runs out of the portal, and runs of other portals into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from portal.accounts.models import User
from portal.accounts.roles import operator, viewer
from portal.runs import bundle, table
from portal.runs.bundle import BadBundle
from portal.runs.filters import Chosen
from portal.runs.importing import import_run
from portal.runs.models import Run, RunQuerySet
from portal.runs.states import OVER

MOST_RUNS = 10_000
AT_ONCE = 200


def _rows(runs: RunQuerySet) -> Iterator[dict[str, Any]]:
    """In pieces, so that a long list takes no more memory than a short one."""
    keys = list(runs.values_list("pk", flat=True)[:MOST_RUNS])
    wanted = (
        Run.objects.select_related("summary", "created_by", "scenario_version")
        .defer("summary__result", "live", "scenario")
        .prefetch_related("tags")
    )
    for begin in range(0, len(keys), AT_ONCE):
        found = wanted.in_bulk(keys[begin : begin + AT_ONCE])
        yield from (table.row(found[key]) for key in keys[begin : begin + AT_ONCE] if key in found)


def _sent(rows: Iterator[dict[str, Any]], form: str, name: str) -> StreamingHttpResponse:
    lines, kind = (table.as_json(rows), "application/json") if form == "json" else (table.as_csv(rows), "text/csv")
    disposition = {"Content-Disposition": f'attachment; filename="{name}.{form}"'}
    return StreamingHttpResponse(lines, content_type=f"{kind}; charset=utf-8", headers=disposition)


@viewer
@require_safe
def export(request: HttpRequest) -> HttpResponseBase:
    """The runs of a filtered list with all their figures, the first 10,000, as `format` csv or json."""
    form = "json" if request.GET.get("format") == "json" else "csv"
    return _sent(_rows(Chosen.of(request.GET).runs()), form, "wslab-runs")


@viewer
@require_safe
def figures(request: HttpRequest, run_id: str) -> HttpResponseBase:
    """All figures of one run as CSV."""
    run = get_object_or_404(Run, pk=run_id)
    return _sent(_rows(Run.objects.filter(pk=run.pk)), "csv", f"wslab-{run.pk}")


@viewer
@require_safe
def whole(request: HttpRequest, run_id: str) -> HttpResponse:
    """Everything of a run that is over, for another portal's import."""
    run = get_object_or_404(Run.objects.select_related("created_by", "summary", "archive"), pk=run_id, state__in=OVER)
    name = f"wslab-{run.pk}{bundle.SUFFIX}"
    return HttpResponse(
        bundle.pack(run),
        content_type="application/zstd",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@operator
@require_http_methods(["GET", "POST"])
def take(request: HttpRequest) -> HttpResponse:
    """The form for a file of another portal, and its receipt."""
    lines: list[str] = []
    if request.method == "POST":
        file = request.FILES.get("file")
        assert isinstance(request.user, User)
        try:
            if file is None or file.size is None:
                raise BadBundle([f"file: nothing was chosen: wanted a file of {bundle.SUFFIX}"])
            if file.size > bundle.MOST_BYTES:
                raise BadBundle([f"file: {file.size:,} bytes are refused: wanted at most {bundle.MOST_BYTES:,}"])
            return redirect(import_run(request.user, file.read()))
        except BadBundle as error:
            lines = error.lines
    context = {"section": "runs", "lines": lines, "suffix": bundle.SUFFIX, "most_bytes": bundle.MOST_BYTES}
    return render(request, "runs/import.html", context, status=422 if lines else 200)

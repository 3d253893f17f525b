"""A stretch of a run: its exact figures, and a judgement of its own."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.audit import record
from portal.accounts.roles import operator, viewer
from portal.runs.archive import BadArchive, Opened
from portal.runs.cut import Window, judged
from portal.runs.cut import stretch as cut_out
from portal.runs.models import OtherWindow, Run
from portal.runs.opened import opened
from portal.runs.report import Report
from portal.runs.stretches import Figures
from portal.runs.views.run import find
from portal.runs.windows import LABEL_CHARS, MOST_PER_RUN

NO_ARCHIVE = "there is no archive of this run to cut it from"


class Refused(Exception):
    """What was asked for is no stretch of this run. The message says why."""


@viewer
@require_safe
def stretch(request: HttpRequest, run_id: str) -> HttpResponse:
    """What was due in the seconds `from` to `to`: a part of the run's page, or a page of its own."""
    one = find(run_id)
    if not one.is_over:
        raise Http404("a run that goes on has no stretches yet")
    asked = request.GET.get("from", ""), request.GET.get("to", "")
    context: dict[str, Any] = {"section": "runs", "run": one, "report": Report(one), "tips": "stretch", "asked": asked}
    try:
        found, window = _asked(one, *asked)
        context |= {"window": window, "cut": Figures.of(cut_out(one.scenario_model, found.columns, window))}
    except Refused as refused:
        context["refused"] = str(refused)
    whole = not request.headers.get("HX-Request")
    return render(request, "runs/stretch_page.html" if whole else "runs/stretch.html", context)


@operator
@require_POST
def add(request: HttpRequest, run_id: str) -> HttpResponse:
    """Judge a run over a window of one's own, beside its first judgement."""
    one = find(run_id)
    first = Report(one).result
    label = " ".join(request.POST.get("label", "").split())
    try:
        found, window = _asked(one, request.POST.get("from", ""), request.POST.get("to", ""))
        if first is None:
            raise Refused("nothing of this run was judged")
        if first.window and window == (first.window.from_s, first.window.to_s):
            raise Refused(f"second {window[0]} to {window[1]} is the measured window, which is judged already")
        if len(label) > LABEL_CHARS or not label.isprintable():
            raise Refused(f"the name has {len(label)} characters: wanted at most {LABEL_CHARS}")
        if OtherWindow.objects.filter(run=one).count() >= MOST_PER_RUN:
            raise Refused(f"this run has {MOST_PER_RUN} other windows: remove one first")
        result = judged(first, found, window)
        label = label or f"second {window[0]} to {window[1]}"
        with transaction.atomic():
            other = OtherWindow.objects.create(
                run=one,
                label=label,
                from_s=window[0],
                to_s=window[1],
                result=result.model_dump(mode="json"),
                created_by=request.user,  # type: ignore[misc]
            )
            record(request.user, "judged a window", one, f"{other}: {result.verdict}")  # type: ignore[arg-type]
    except Refused as refused:
        messages.warning(request, f"Not judged: {refused}.", extra_tags="warn")
    except IntegrityError:
        messages.warning(request, "Not judged: this window is judged already.", extra_tags="warn")
    return redirect(f"{reverse('runs:run', args=[one.pk])}#windows")


@operator
@require_POST
def remove(request: HttpRequest, run_id: str, number: int) -> HttpResponse:
    """Take off a further judgement; the first one stays in any case."""
    one = find(run_id)
    other = get_object_or_404(OtherWindow, pk=number, run=one)
    with transaction.atomic():
        record(request.user, "removed a window", one, str(other))  # type: ignore[arg-type]
        other.delete()
    return redirect(f"{reverse('runs:run', args=[one.pk])}#windows")


def _asked(one: Run, from_text: str, to_text: str) -> tuple[Opened, Window]:
    """The archive and the stretch of it that was asked for.

    Raises:
        Refused: see there.
    """
    try:
        found = opened(one.pk)
        last = found.columns.last if found else 0
    except BadArchive as error:
        raise Refused(str(error)) from error
    if found is None:
        raise Refused(NO_ARCHIVE)
    if not last:
        raise Refused("no second of this run was counted")
    numbers = []
    for name, text in (("from", from_text), ("to", to_text)):
        if not (text.isdecimal() and text.isascii() and len(text) < 10):
            raise Refused(f"{name}: {text[:20]!r} is no second: wanted a whole number from 0 to {last}")
        numbers.append(int(text))
    begin, end = numbers
    if not begin < end <= last:
        raise Refused(f"second {begin} to {end} is no stretch of this run: wanted from before to, within 0 and {last}")
    return found, (begin, end)

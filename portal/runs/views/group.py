"""A group's page: its runs, how far they are, and how far apart their figures lie."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.contrib import messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.accounts.roles import operator, viewer
from portal.runs.expected import Moment, line_of
from portal.runs.models import Run, RunGroup
from portal.runs.spread import Spread, spreads
from portal.runs.states import OVER, State

SHOWN = 500
"""Runs of one group on its page, the newest ones; a schedule's may have more."""


class Part(NamedTuple):
    """A group as its page shows it."""

    group: RunGroup
    runs: list[tuple[Run, Moment | None]]
    """With when each is expected, where it is not over."""
    over: int
    spreads: list[Spread]
    """Of the finished ones that can be believed."""


@viewer
@require_safe
def group(request: HttpRequest, group_id: str) -> HttpResponse:
    """A group, and the one that it alternates with."""
    one = get_object_or_404(RunGroup.objects.select_related("partner", "created_by"), pk=group_id)
    first, second = one, one.partner
    # A is the one whose first run is the older one.
    if second is not None and (second.created_at, second.pk) < (first.created_at, first.pk):
        first, second = second, first
    groups = [first, second] if second is not None else [first]
    runs = list(
        Run.objects.filter(group__in=groups)
        .select_related("summary", "created_by")
        .defer("summary__result", "live")
        .order_by("-created_at", "-pk")[: SHOWN * len(groups)]
    )[::-1]
    moments: dict[str, Moment] = {}
    if any(not run.is_over for run in runs):
        moments = {run.pk: moment for run, moment in line_of(runs[0].machine, timezone.now())}
    parts = [_part(each, [run for run in runs if run.group_id == each.pk], moments) for each in groups]
    left = [moment.ends_s for run in runs if (moment := moments.get(run.pk)) is not None]
    context: dict[str, Any] = {
        "section": "runs",
        "group": one,
        "parts": parts,
        "total": len(runs),
        "over": sum(part.over for part in parts),
        "queued": sum(run.state == State.QUEUED for run in runs),
        "active": next((run for run in runs if run.is_active), None),
        "comparable": len(parts) > 1 and all(part.spreads for part in parts),
        "left_s": max(left, default=None),
        "order": [("B" if second is not None and run.group_id == second.pk else "A", run) for run in runs],
    }
    return render(request, "runs/group.html", context)


def _part(one: RunGroup, runs: list[Run], moments: dict[str, Moment]) -> Part:
    believed = [run for run in runs if run.state == State.FINISHED and run.validity != "invalid"]
    return Part(
        one,
        [(run, moments.get(run.pk)) for run in runs],
        sum(run.state in OVER for run in runs),
        spreads([run.summary.figures for run in believed if hasattr(run, "summary")]),
    )


@operator
@require_POST
def cancel(request: HttpRequest, group_id: str) -> HttpResponse:
    """Ask for the end of all that is not over, of both groups where two alternate."""
    assert isinstance(request.user, User)
    one = get_object_or_404(RunGroup, pk=group_id)
    cancelled = cancel_rest(one, request.user)
    if cancelled:
        messages.success(request, f"{cancelled} {'run is' if cancelled == 1 else 'runs are'} asked to end.")
    else:
        messages.warning(request, "All its runs were over already.", extra_tags="warn")
    return redirect(one)


def cancel_rest(one: RunGroup, user: User) -> int:
    """Ask for the end of all runs of a group, and of its partner, that are not over. Returns how many there were."""
    groups = [one.pk, *([one.partner_id] if one.partner_id else [])]
    with transaction.atomic():
        # The last ones first: else the next would begin while the first ones are cancelled.
        rows: QuerySet[Run] = Run.objects.filter(group__in=groups).exclude(state__in=OVER)
        asked = sum(run.request_cancel(user) for run in rows.order_by("-created_at", "-pk"))
        if asked:
            record(user, "cancelled the rest of", one, f"{asked} runs")
    return asked

"""The page of retention."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.accounts.roles import admin
from portal.retention.expiry import Changed, expire, preview
from portal.retention.models import EVERY_OTHER, RetentionRule
from portal.runs.models import NamedScenario, Run

SHOWN_RUNS = 50
MOST = 100_000


def _admin(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@admin
@require_safe
def retention(request: HttpRequest) -> HttpResponse:
    """The rules, and what they would delete now."""
    return _page(request, {})


def _page(request: HttpRequest, refused: dict[str, str], status: int = 200) -> HttpResponse:
    found = preview(timezone.now())
    named = set(NamedScenario.objects.values_list("name", flat=True))
    known = named | set(Run.objects.values_list("scenario_name", flat=True).distinct())
    context: dict[str, Any] = {
        "section": "team",
        "page_of": "retention",
        "rules": RetentionRule.objects.all(),
        "scenarios": sorted(known),
        "preview": found,
        "runs": Run.objects.for_list().filter(pk__in=found.run_ids[:SHOWN_RUNS]).order_by("created_at", "pk"),
        "refused": refused,
        "typed": request.POST,
    }
    return render(request, "retention/retention.html", context, status=status)


@admin
@require_POST
def rule(request: HttpRequest) -> HttpResponse:
    """Write a scenario's rule; both limits empty take it away."""
    name = request.POST.get("scenario", EVERY_OTHER)
    refused: dict[str, str] = {}
    limits: dict[str, int | None] = {}
    for field in ("keep_days", "keep_runs"):
        text = request.POST.get(field, "").strip()
        number = int(text) if text.isdecimal() and len(text) < 9 else 0
        if text and not 1 <= number <= MOST:
            refused[field] = f"{field}: {text[:20]!r} is refused: wanted 1 to {MOST:,}, or nothing"
        limits[field] = number if text else None
    if len(name) > 63 or not (name == EVERY_OTHER or name.isprintable()):
        refused["scenario"] = f"scenario: {name[:63]!r} is refused: wanted a scenario's name"
    if refused:
        return _page(request, refused, status=422)
    with transaction.atomic():
        if limits["keep_days"] is None and limits["keep_runs"] is None:
            return _take_away(request, get_object_or_404(RetentionRule, scenario_name=name))
        row, _ = RetentionRule.objects.update_or_create(scenario_name=name, defaults=limits)
        record(_admin(request), "edited", row)
    return redirect("team:retention")


@admin
@require_POST
def remove(request: HttpRequest, rule_id: int) -> HttpResponse:
    """Take a rule away: the runs of its scenario are kept for ever, or by the rule for every other."""
    with transaction.atomic():
        return _take_away(request, get_object_or_404(RetentionRule, pk=rule_id))


def _take_away(request: HttpRequest, row: RetentionRule) -> HttpResponse:
    record(_admin(request), "deleted", row)
    row.delete()
    return redirect("team:retention")


@admin
@require_POST
def apply(request: HttpRequest) -> HttpResponse:
    """Delete what the page has shown, if it still is what would be deleted."""
    try:
        n = expire(_admin(request), request.POST.get("shown", ""), timezone.now())
    except Changed:
        text = "Nothing was deleted: other runs have expired meanwhile. Look again at what would go."
        messages.warning(request, text, extra_tags="warn")
    else:
        messages.success(request, f"{n:,} {'run was' if n == 1 else 'runs were'} deleted.", extra_tags="good")
    return redirect("team:retention")

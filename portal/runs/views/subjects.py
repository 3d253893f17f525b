"""Where subjects tell their version: declared by administrators, read when a run begins."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.accounts.roles import admin, viewer
from portal.runs.models import DeclaredSubject
from portal.runs.probe import ProbeError, read_version

FIELDS = ("name", "url", "field")


@viewer
@require_safe
def subjects(request: HttpRequest) -> HttpResponse:
    """All of them, and the form of a new one."""
    return _page(request, {}, {})


def _page(request: HttpRequest, typed: dict[str, str], errors: dict[str, str], status: int = 200) -> HttpResponse:
    rows = DeclaredSubject.objects.select_related("created_by")
    context = {"section": "scenarios", "rows": rows, "typed": typed, "errors": errors}
    return render(request, "scenarios/subjects.html", context, status=status)


@admin
@require_POST
def declare(request: HttpRequest) -> HttpResponse:
    """A new one."""
    assert isinstance(request.user, User)
    typed = {name: request.POST.get(name, "").strip() for name in FIELDS}
    row = DeclaredSubject(**typed, created_by=request.user)
    try:
        row.full_clean()
    except ValidationError as error:
        return _page(request, typed, {name: "; ".join(lines) for name, lines in error.message_dict.items()}, 422)
    with transaction.atomic():
        row.save()
        record(request.user, "declared", row, f"{row.url} {row.field}".strip())
    messages.success(request, f"{row.name} is declared.", extra_tags="good")
    return redirect("scenarios:subjects")


@admin
@require_POST
def forget(request: HttpRequest, pk: int) -> HttpResponse:
    """Take one away. Runs that have read their version keep it."""
    assert isinstance(request.user, User)
    row = get_object_or_404(DeclaredSubject, pk=pk)
    with transaction.atomic():
        record(request.user, "took away", row, f"{row.url} {row.field}".strip())
        row.delete()
    messages.success(request, f"{row.name} is no longer declared.", extra_tags="good")
    return redirect("scenarios:subjects")


@admin
@require_POST
def read(request: HttpRequest, pk: int) -> HttpResponse:
    """Read one's version now, to see whether it can be."""
    row = get_object_or_404(DeclaredSubject, pk=pk)
    try:
        messages.success(request, f"{row.name} says {read_version(row.url, row.field)}.", extra_tags="good")
    except ProbeError as error:
        messages.error(request, f"{row.name}: {error}", extra_tags="bad")
    return redirect("scenarios:subjects")

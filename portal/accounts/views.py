"""The pages of the team: users and the audit log, for admins."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from portal.accounts import people
from portal.accounts.models import ApiToken, AuditEntry, User
from portal.accounts.people import NotDone
from portal.accounts.roles import Role, admin
from portal.runs.filters import distinct

AUDIT_ROWS = 100
FILTERS = ("user", "verb", "kind", "q")
SHOWN_ONCE = "password_shown_once"


def _admin(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@admin
@require_safe
def team(request: HttpRequest) -> HttpResponse:
    """Everybody, with role and tokens."""
    return _team(request, {})


def _team(request: HttpRequest, refused: dict[str, str], status: int = 200) -> HttpResponse:
    alive = Count("tokens", filter=Q(tokens__expires_at__isnull=True) | Q(tokens__expires_at__gt=timezone.now()))
    context: dict[str, Any] = {
        "section": "team",
        "page_of": "people",
        "people": User.objects.annotate(alive=alive).order_by("-is_active", "username"),
        "tokens": ApiToken.objects.select_related("user").order_by("user__username", "pk"),
        "roles": list(Role),
        "now": timezone.now(),
        "shown": request.session.pop(SHOWN_ONCE, None),
        "typed": {"username": request.POST.get("username", ""), "role": request.POST.get("role", Role.VIEWER)},
        "refused": refused,
    }
    return render(request, "accounts/team.html", context, status=status)


@admin
@require_POST
def invite(request: HttpRequest) -> HttpResponse:
    """A new user; the password is shown once, on the page that follows."""
    try:
        user, password = people.invite(_admin(request), request.POST.get("username", ""), request.POST.get("role", ""))
    except NotDone as error:
        return _team(request, {str(error).partition(":")[0]: str(error)}, status=422)
    request.session[SHOWN_ONCE] = {"username": user.username, "password": password}
    return redirect("team:people")


@admin
@require_POST
def act(request: HttpRequest, user_id: int, what: str) -> HttpResponse:
    """Give a role, deactivate, activate, reset the password."""
    user = get_object_or_404(User, pk=user_id)
    by = _admin(request)
    try:
        if what == "role":
            people.give_role(by, user, request.POST.get("role", ""))
        elif what == "deactivate":
            people.deactivate(by, user)
        elif what == "activate":
            people.activate(by, user)
        else:
            password = people.reset_password(by, user)
            request.session[SHOWN_ONCE] = {"username": user.username, "password": password}
    except NotDone as error:
        messages.error(request, f"Nothing was changed: {error}.", extra_tags="bad")
    return redirect("team:people")


@admin
@require_safe
def audit(request: HttpRequest) -> HttpResponse:
    """Who did what, newest first; every filter is a permalink."""
    asked = {name: request.GET.get(name, "") for name in FILTERS}
    found = AuditEntry.objects.select_related("user")
    if asked["user"]:
        found = found.filter(user__isnull=True) if asked["user"] == "-" else found.filter(user__username=asked["user"])
    for name in ("verb", "kind"):
        if asked[name]:
            found = found.filter(**{name: asked[name]})
    if asked["q"] and asked["q"].isprintable():
        found = found.filter(
            Q(label__icontains=asked["q"]) | Q(detail__icontains=asked["q"]) | Q(key=asked["q"]) | Q(token=asked["q"])
        )
    context = {
        "section": "team",
        "page_of": "audit",
        "page": Paginator(found, AUDIT_ROWS).get_page(request.GET.get("page")),
        "asked": asked,
        "filtered": any(asked.values()),
        "users": User.objects.order_by("username").values_list("username", flat=True),
        "verbs": distinct(AuditEntry, "verb"),
        "kinds": distinct(AuditEntry, "kind"),
    }
    return render(request, "accounts/audit.html", context)

"""The page of one's own account: password and API tokens."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.audit import record
from portal.accounts.models import ApiToken, Scope, User
from portal.accounts.roles import own

LIFETIMES = {"7": "7 days", "30": "30 days", "90": "90 days", "365": "a year", "never": "never"}
TOKEN_SHOWN = "token_shown_once"  # noqa: S105  # a key of the session
NAME_CHARS = 100


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@own
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Password and tokens."""
    return _page(request, PasswordChangeForm(_me(request)), {})


def _page(request: HttpRequest, form: PasswordChangeForm, refused: dict[str, str], status: int = 200) -> HttpResponse:
    me = _me(request)
    context = {
        "section": "account",
        "form": form,
        "refused": refused,
        "tokens": me.tokens.order_by("-created_at", "-pk"),
        "now": timezone.now(),
        "scopes": [scope for scope in Scope if me.standing.covers(scope.role)],
        "lifetimes": LIFETIMES,
        "shown": request.session.pop(TOKEN_SHOWN, None),
        "typed": {name: request.POST.get(name, default) for name, default in
                  (("name", ""), ("scope", Scope.READ), ("lifetime", "30"))},
    }  # fmt: skip
    return render(request, "accounts/account.html", context, status=status)


@own
@require_POST
def password(request: HttpRequest) -> HttpResponse:
    """Another password; other sessions end, this one goes on."""
    me = _me(request)
    form = PasswordChangeForm(me, request.POST)
    if not form.is_valid():
        return _page(request, form, {}, status=422)
    with transaction.atomic():
        me.must_change_password = False
        form.save()
        record(me, "changed the password of", me)
    update_session_auth_hash(request, me)
    messages.success(request, "The password was changed. Other sessions of yours have ended.", extra_tags="good")
    return redirect("account:home")


@own
@require_POST
def issue(request: HttpRequest) -> HttpResponse:
    """A new token, shown once on the page that follows."""
    me = _me(request)
    name, scope, lifetime = (request.POST.get(key, "").strip() for key in ("name", "scope", "lifetime"))
    refused = {}
    if not (1 <= len(name) <= NAME_CHARS and name.isprintable()):
        refused["name"] = f"name: {name[:NAME_CHARS]!r} is refused: wanted one line of 1 to {NAME_CHARS} characters"
    if scope not in Scope.values or not me.standing.covers(Scope(scope).role):
        may = ", ".join(one.value for one in Scope if me.standing.covers(one.role))
        refused["scope"] = f"scope: {scope[:20]!r} is refused: your role allows {may}"
    if lifetime not in LIFETIMES:
        refused["lifetime"] = f"lifetime: {lifetime[:20]!r} is refused: wanted one of {', '.join(LIFETIMES)}"
    if refused:
        return _page(request, PasswordChangeForm(me), refused, status=422)
    lasts = None if lifetime == "never" else timedelta(days=int(lifetime))
    with transaction.atomic():
        token, text = ApiToken.objects.issue(me, name, lasts, Scope(scope))
        record(me, "issued", token, f"scope {scope}, expires: {LIFETIMES[lifetime]}")
    request.session[TOKEN_SHOWN] = {"name": name, "text": text}
    return redirect("account:home")


@own
@require_POST
def revoke(request: HttpRequest, token_id: int) -> HttpResponse:
    """End a token: one's own, or as an admin anybody's."""
    me = _me(request)
    token = ApiToken.objects.select_related("user").filter(pk=token_id).first()
    if token is None or not (token.user_id == me.pk or me.is_admin):
        raise Http404("no such token of yours")
    with transaction.atomic():
        record(me, "revoked", token, f"of {token.user.username}, scope {token.scope}")
        token.delete()
    return redirect("account:home" if token.user_id == me.pk else "team:people")

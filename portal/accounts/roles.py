"""Who may do what: every view carries one of five rules, and a view without one is closed to everybody.

The words below go above a view, or above an operation's function under `@api.…`:

    @viewer             everybody who is signed in may read; writing (POST, PUT, PATCH, DELETE) takes an operator
    @operator           operators and admins
    @admin              admins
    @own                everybody who is signed in, writing too: what is one's own
    @anyone             no login at all
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.exceptions import PermissionDenied
from django.db.models import TextChoices
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect

log = logging.getLogger("portal.accounts")

View = TypeVar("View", bound=Callable[..., Any])
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Role(TextChoices):
    """Each may do what the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """0 for the least."""
        return list(Role).index(self)

    def covers(self, wanted: Role) -> bool:
        """Whether it may do what `wanted` may."""
        return self.rank >= wanted.rank


@dataclass(frozen=True)
class Rule:
    """The least role that may read, and the least that may write; None: nobody need sign in."""

    word: str
    read: Role | None
    write: Role | None

    def __call__(self, view: View) -> View:
        """Put the rule on a view; the view itself stays as it is."""
        marked: Any = view
        marked.rule = self
        if self.read is None:
            marked.login_required = False
        return view

    def wants(self, method: str | None) -> Role | None:
        """The least role for a request of this method."""
        return self.read if method in SAFE else self.write


anyone = Rule("anyone", None, None)
viewer = Rule("viewer", Role.VIEWER, Role.OPERATOR)
own = Rule("own", Role.VIEWER, Role.VIEWER)
operator = Rule("operator", Role.OPERATOR, Role.OPERATOR)
admin = Rule("admin", Role.ADMIN, Role.ADMIN)


def refusal(rule: Rule | None, method: str | None, role: Role | None) -> str:
    """Why somebody of this role (None: not signed in) may not; empty where they may."""
    if rule is None:
        return "nobody may do this: the address has no rule"
    wanted = rule.wants(method)
    if wanted is None or (role is not None and role.covers(wanted)):
        return ""
    have = f"yours is {role.value}" if role is not None else "nobody is signed in"
    return f"this takes the role {wanted.value}; {have}"


class RuleMiddleware:
    """Asks each view for its rule before it is called; the API asks its operations itself, after it has looked at the
    token. Stands behind the middleware that wants a login."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], *_: Any
    ) -> HttpResponseRedirect | None:
        """Let it through, or lead to the change of a password that somebody else knows.

        Raises:
            PermissionDenied: with the reason.
        """
        if hasattr(view, "rules"):
            return None
        rule: Rule | None = getattr(view, "rule", None)
        if rule is None:
            log.error("%s has no rule: put one of portal.accounts.roles on its view", request.path)
        role = request.user.standing if request.user.is_authenticated else None
        if reason := refusal(rule, request.method, role):
            raise PermissionDenied(reason)
        if request.user.is_authenticated and request.user.must_change_password and rule not in (own, anyone):
            return redirect("account:home")
        return None

"""The sign-in page, which lets nobody try passwords as fast as they can."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.cache import cache
from django.core.exceptions import ValidationError

log = logging.getLogger("portal.accounts")

PER_NAME, PER_ADDRESS = 10, 50
"""Failures in a minute, per web process: of one user name from one address, and of one address. By both, lest anybody
keep another one out; behind a proxy all have its address."""
MINUTE_S = 60


class SlowedForm(AuthenticationForm):
    """Refuses further attempts for a while after too many failures, right ones too."""

    def clean(self) -> dict[str, Any]:
        address = self.request.META.get("REMOTE_ADDR", "") if self.request is not None else ""
        name = hashlib.sha256(self.cleaned_data.get("username", "").casefold().encode()).hexdigest()
        limits = {f"login-{address}-{name}": PER_NAME, f"login-{address}": PER_ADDRESS}
        if any(cache.get(key, 0) >= most for key, most in limits.items()):
            log.warning("too many failed sign-ins from %s", address)
            raise ValidationError("Too many failed attempts. Wait a minute, then try again.", code="too_many")
        try:
            return super().clean()
        except ValidationError:
            for key in limits:
                _count(key)
            raise


def _count(key: str) -> None:
    if not cache.add(key, 1, timeout=MINUTE_S):
        try:
            cache.incr(key)
        except ValueError:  # its minute was over just now
            cache.set(key, 1, timeout=MINUTE_S)


class Login(LoginView):
    """Sign in, and go on to where one wanted to be."""

    http_method_names = ["get", "post", "head", "options"]
    authentication_form = SlowedForm
    redirect_authenticated_user = True

"""The first administrator, and tokens for machines."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from django.db import transaction

from portal.accounts.models import ApiToken, Scope, User
from portal.accounts.roles import Role


class Admission(NamedTuple):
    """Who may come in; the password only when it was thought up just now."""

    username: str
    password: str | None


class NoSuchUser(ValueError):
    """The message names the user and how to make one."""


def first_admin() -> User | None:
    """The active admin who was made first."""
    return User.objects.filter(role=Role.ADMIN, is_active=True).order_by("pk").first()


def ensure_admin(username: str, password: str | None = None) -> Admission:
    """Make the first administrator where there is no active one; without a password one is generated."""
    with transaction.atomic():
        first = first_admin()
        if first is not None:
            return Admission(first.username, None)
        chosen = password or secrets.token_urlsafe(15)
        user, _ = User.objects.get_or_create(username=username)
        user.is_superuser = user.is_staff = user.is_active = True
        user.set_password(chosen)
        user.save()
    return Admission(username, None if password else chosen)


def issue_token(username: str, name: str, lifetime: timedelta | None, scope: Scope = Scope.RUN) -> str:
    """A new token's text.

    Raises:
        NoSuchUser: no active user has that name.
    """
    user = User.objects.filter(username=username, is_active=True).first()
    if user is None:
        raise NoSuchUser(f"no active user {username!r}: make the first one with `manage ensure_admin`")
    return ApiToken.objects.issue(user, name, lifetime, scope)[1]


def keep_token(file: Path, username: str, name: str) -> str:
    """The living token in a file of ours; else a new one, written there, readable by its owner only."""
    text = _kept_token(file, username)
    if text:
        return text
    text = issue_token(username, name, None)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text + "\n")
    draft.replace(file)
    return text


def is_kept_token(file: Path, username: str) -> bool:
    """Whether the file holds a living token of this user."""
    return bool(_kept_token(file, username))


def _kept_token(file: Path, username: str) -> str:
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    token = ApiToken.objects.authenticate(text) if text else None
    return text if token and token.user.username == username else ""

"""What admins do to users, each act with its entry in the audit log. There is always one active admin."""

from __future__ import annotations

import secrets

from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.accounts.roles import Role

NAME_CHARS = 150


class NotDone(ValueError):
    """Why something about a user was not done; nothing has changed."""


def invite(by: User, username: str, role: str) -> tuple[User, str]:
    """A new user with a password for the first sign-in, which is not kept in clear and can't be told again.

    Raises:
        NotDone: the name is taken, too long or has other characters; there is no such role.
    """
    username = User.normalize_username(username.strip())
    try:
        UnicodeUsernameValidator()(username)
    except ValidationError:
        wanted = f"wanted 1 to {NAME_CHARS} letters, digits and @/./+/-/_"
        raise NotDone(f"username: {username[:NAME_CHARS]!r} is refused: {wanted}") from None
    if len(username) > NAME_CHARS:
        raise NotDone(f"username: {len(username)} characters are refused: wanted at most {NAME_CHARS}")
    password = one_time_password()
    with transaction.atomic():
        if User.objects.filter(username__iexact=username).exists():
            raise NotDone(f"username: {username!r} is taken")
        user = User(username=username, must_change_password=True)
        _set_role(user, role)
        user.set_password(password)
        user.save()
        record(by, "invited", user, f"as {user.role}")
    return user, password


def give_role(by: User, user: User, role: str) -> None:
    """Another role, from the next request on.

    Raises:
        NotDone: there is no such role, or nobody would be left who is an admin.
    """
    with transaction.atomic():
        before = user.role
        if before == role:
            return
        if before == Role.ADMIN:
            _keep_an_admin(user)
        _set_role(user, role)
        user.save(update_fields=["role", "is_superuser"])
        record(by, "gave a role", user, f"{before} → {role}")


def deactivate(by: User, user: User) -> None:
    """No more signing in; sessions and tokens end at once.

    Raises:
        NotDone: nobody would be left who is an admin.
    """
    with transaction.atomic():
        if not user.is_active:
            return
        if user.role == Role.ADMIN:
            _keep_an_admin(user)
        user.is_active = False
        user.save(update_fields=["is_active"])
        record(by, "deactivated", user)


def activate(by: User, user: User) -> None:
    """Let them in again, with the password that they had."""
    with transaction.atomic():
        if user.is_active:
            return
        user.is_active = True
        user.save(update_fields=["is_active"])
        record(by, "activated", user)


def reset_password(by: User, user: User) -> str:
    """A new password for the next sign-in; their sessions end.

    Raises:
        NotDone: it is one's own, which is changed on the page of one's account.
    """
    if user.pk == by.pk:
        raise NotDone("your own password is changed on the page of your account")
    password = one_time_password()
    with transaction.atomic():
        user.set_password(password)
        user.must_change_password = True
        user.save(update_fields=["password", "must_change_password"])
        record(by, "reset the password of", user)
    return password


def one_time_password() -> str:
    """90 random bits that can be read out."""
    return secrets.token_urlsafe(12)


def _set_role(user: User, role: str) -> None:
    if role not in Role.values:
        raise NotDone(f"role: {role[:20]!r} is refused: wanted one of {', '.join(Role.values)}")
    user.role = role
    user.is_superuser = role == Role.ADMIN


def _keep_an_admin(leaving: User) -> None:
    """Two that leave at the same moment must not both be let go: their rows are locked first."""
    admins = list(User.objects.select_for_update().filter(role=Role.ADMIN, is_active=True).order_by("pk"))
    if leaving.is_active and all(admin.pk == leaving.pk for admin in admins):
        raise NotDone(f"{leaving.username} is the last active admin: make another one first")

"""Who uses the portal, and with which tokens."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone

from portal.accounts.audit import AuditEntry
from portal.accounts.roles import Role

__all__ = ["ApiToken", "AuditEntry", "Scope", "User", "digest"]

PREFIX_CHARS = 8
LAST_USED_STEP = timedelta(minutes=1)


class User(AbstractUser):
    """A person, or a machine that has tokens only. Never deleted, since runs and the audit log name them."""

    role = models.CharField(max_length=8, choices=Role.choices, default=Role.VIEWER)
    must_change_password = models.BooleanField(default=False)
    """Signed in with a password that somebody else knows: every page leads to the change of it."""
    came_with: ApiToken | None = None
    """On the user of a request: the token that it carried."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write it; a superuser, as Django's own commands make them, is an admin."""
        if self.is_superuser:
            self.role = Role.ADMIN
        super().save(*args, **kwargs)

    @property
    def standing(self) -> Role:
        """What they may do in this request: their role, or less where the token's scope is less."""
        role = Role(self.role)
        if self.came_with is None:
            return role
        return min(role, Scope(self.came_with.scope).role, key=lambda r: r.rank)

    @property
    def is_operator(self) -> bool:
        """Whether they may start, stop and write; admins may."""
        return self.standing.covers(Role.OPERATOR)

    @property
    def is_admin(self) -> bool:
        """Whether they may look after people, schedules of others and what is kept."""
        return self.standing.covers(Role.ADMIN)


class Scope(models.TextChoices):
    """How much of its user's role a token has."""

    READ = "read"
    RUN = "run"
    ADMIN = "admin"

    @property
    def role(self) -> Role:
        """The most that it may do."""
        return {Scope.READ: Role.VIEWER, Scope.RUN: Role.OPERATOR, Scope.ADMIN: Role.ADMIN}[self]


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    """Tokens."""

    def alive(self, now: datetime) -> ApiTokenQuerySet:
        """Those that have not expired and whose user is active."""
        unexpired = models.Q(expires_at__isnull=True) | models.Q(expires_at__gt=now)
        return self.filter(unexpired, user__is_active=True)

    def issue(
        self, user: User, name: str, lifetime: timedelta | None = None, scope: Scope = Scope.RUN
    ) -> tuple[ApiToken, str]:
        """A new token and its text, which is not kept and can't be told again."""
        prefix = secrets.token_hex(PREFIX_CHARS // 2)
        text = f"wslab_{prefix}_{secrets.token_urlsafe(32)}"
        expires_at = None if lifetime is None else timezone.now() + lifetime
        token = self.create(
            user=user, name=name, prefix=prefix, digest=digest(text), expires_at=expires_at, scope=scope
        )
        return token, text

    def authenticate(self, text: str) -> ApiToken | None:
        """The living token of this text; None where there is none."""
        parts = text.split("_", 2)
        if len(parts) != 3 or parts[0] != "wslab" or len(parts[1]) != PREFIX_CHARS:
            return None
        now, given = timezone.now(), digest(text)
        for token in self.alive(now).filter(prefix=parts[1]).select_related("user"):
            if hmac.compare_digest(token.digest, given):
                token.touch(now)
                return token
        return None


class ApiToken(models.Model):
    """A secret that stands for its user at the API. Only its SHA-256 is stored: it has 256 random bits, so that a
    slow hash would add nothing."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=PREFIX_CHARS, db_index=True)
    digest = models.CharField(max_length=64, unique=True)
    scope = models.CharField(max_length=5, choices=Scope.choices, default=Scope.READ)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = ApiTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"wslab_{self.prefix}_… ({self.name})"

    def touch(self, now: datetime) -> None:
        """Note the use, to the minute: a poll each second need not write each second."""
        if self.last_used_at is None or now - self.last_used_at >= LAST_USED_STEP:
            type(self).objects.filter(pk=self.pk).update(last_used_at=now)
            self.last_used_at = now


def digest(text: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(text.encode()).hexdigest()

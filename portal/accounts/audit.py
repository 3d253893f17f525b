"""Who did what to what, and when. Entries are only ever added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from django.conf import settings
from django.db import models
from django.utils import timezone

if TYPE_CHECKING:
    from portal.accounts.models import User

DETAIL_CHARS = 2000


class AppendOnly(TypeError):
    """The message says what was tried."""


class AuditQuerySet(models.QuerySet["AuditEntry"]):
    """Entries."""

    def update(self, **_: Any) -> NoReturn:
        """Refused.

        Raises:
            AppendOnly: always.
        """
        raise AppendOnly("entries of the audit log are never changed")

    def delete(self) -> NoReturn:
        """Refused.

        Raises:
            AppendOnly: always.
        """
        raise AppendOnly("entries of the audit log are never deleted")


class AuditEntry(models.Model):
    """One act of one person, or of the portal itself. The database refuses to change or delete it (its migration's
    triggers), and so does this class."""

    at = models.DateTimeField(default=timezone.now, db_index=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    """None: the portal itself, or a management command."""
    token = models.CharField(max_length=130, blank=True)
    """The API token that it was done with; empty in the browser."""
    verb = models.CharField(max_length=40)
    kind = models.CharField(max_length=40)
    """Of what it was done to: `run`, `user`, `scenario` …"""
    key = models.CharField(max_length=64)
    """Its primary key."""
    label = models.CharField(max_length=200)
    """What it was called then."""
    detail = models.TextField(blank=True)

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = [
            models.Index(fields=("kind", "key"), name="audit_object"),
            models.Index(fields=("verb", "-at"), name="audit_verb"),
            models.Index(fields=("user", "-at"), name="audit_user"),
        ]

    def __str__(self) -> str:
        return f"{self.user or 'the portal'} {self.verb} {self.kind} {self.label}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write it, once.

        Raises:
            AppendOnly: it was written before.
        """
        if not self._state.adding:
            raise AppendOnly(f"entry {self.pk} of the audit log is never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused.

        Raises:
            AppendOnly: always.
        """
        raise AppendOnly(f"entry {self.pk} of the audit log is never deleted")


def record(user: User | None, verb: str, obj: models.Model, detail: str = "") -> AuditEntry:
    """Note an act in the transaction that it is part of: `record(user, "cancelled", run)`.

    `verb` in the past tense and without an object; `detail` is what the object will not tell later, never a secret.
    The entry names the object by its model's name, its key and its text at this moment.
    """
    token = getattr(user, "came_with", None)
    return AuditEntry.objects.create(
        user=user,
        token=str(token or ""),
        verb=verb,
        kind=str(obj._meta.verbose_name),
        key=str(obj.pk),
        label=str(obj)[:200],
        detail=detail[:DETAIL_CHARS],
    )

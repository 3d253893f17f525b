"""Subjects whose version is read from an address that an administrator declared."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone


def http_address(url: str) -> None:
    """Refuse what is no plain http address.

    Raises:
        ValidationError: another scheme, no host, a port that is none, or a user name or password in it.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValidationError(f"{url!r} is refused: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise ValidationError(f"{url!r} is refused: wanted an address such as http://10.0.0.7:8080/version")
    if parts.username is not None or parts.password is not None:
        raise ValidationError("a user name or password in the address is refused: it would be shown to everybody")


def visible(text: str) -> None:
    """Refuse what cannot be read.

    Raises:
        ValidationError: it holds what is no visible character.
    """
    if not text.isprintable():
        raise ValidationError("wanted visible characters only")


class DeclaredSubject(models.Model):
    """What a run may measure without anybody typing its version: `portal.runs.probe` reads it when the run begins.

    Only these addresses are ever fetched, and only administrators declare them.
    """

    name = models.CharField(max_length=200, unique=True, validators=[visible])
    url = models.CharField(max_length=500, validators=[http_address])
    field = models.CharField(max_length=200, blank=True, validators=[visible])
    """Where the version stands in a JSON answer, as `build.commit`; empty: the whole answer is the version."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

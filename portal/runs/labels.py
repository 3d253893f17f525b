"""What people write onto a run: tags and notes."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class Tag(models.Model):
    """A word that many runs may share."""

    name = models.CharField(max_length=50, unique=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Note(models.Model):
    """A remark on a run, in Markdown; kept with who wrote it."""

    run = models.ForeignKey("runs.Run", models.CASCADE, related_name="notes")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    text = models.TextField(max_length=20_000)
    created_at = models.DateTimeField(default=timezone.now)
    edited_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("run", "created_at", "id")

    def __str__(self) -> str:
        return f"note {self.pk} on {self.run_id}"

"""Runs that belong together: repetitions, two alternating series, what a schedule started."""

from __future__ import annotations

import secrets
from typing import Literal

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

MOST_TIMES = 50
"""Runs of one group that are queued in one go."""

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def new_id(prefix: str) -> str:
    """`prefix`, a dash and 10 base32 characters: 50 random bits."""
    return f"{prefix}-" + "".join(secrets.choice(_BASE32) for _ in range(10))


def new_group_id() -> str:
    """`g-` and 10 base32 characters."""
    return new_id("g")


def alternating(times: int) -> list[Literal["a", "b"]]:
    """A B B A A B B A …, `times` of each: a drift of the lab, and whatever a run leaves behind for the next, falls on
    both alike."""
    pairs: tuple[Literal["a", "b"], ...] = ("a", "b", "b", "a")
    return [pairs[n % 4] for n in range(2 * times)]


class RunGroup(models.Model):
    """Runs of one scenario and subject, whose values are a sample; each run has its `group_place` from 1 on."""

    id = models.CharField(primary_key=True, max_length=12, default=new_group_id, editable=False)
    title = models.CharField(max_length=200)
    kind = models.CharField(max_length=9, choices=[(k, k) for k in ("repeat", "alternate", "schedule")])
    partner = models.OneToOneField("self", models.SET_NULL, null=True, blank=True, related_name="+")
    """The other of two alternating groups (A B B A …); each names the other."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-created_at", "-id")

    def __str__(self) -> str:
        return f"{self.id} ({self.title})"

    @property
    def url(self) -> str:
        """The absolute address of its page."""
        return f"{settings.PORTAL_URL}{self.get_absolute_url()}"

    def get_absolute_url(self) -> str:
        """The path of its page."""
        return reverse("runs:group", args=[self.id])

"""Rules of how long runs are kept."""

from __future__ import annotations

from django.db import models

EVERY_OTHER = ""
"""Instead of a scenario's name: all that have no rule of their own."""


class RetentionRule(models.Model):
    """How long the runs of a scenario are kept. A run expires by either limit; without a rule none does."""

    scenario_name = models.CharField(max_length=63, unique=True, blank=True)
    keep_days = models.PositiveIntegerField(null=True, blank=True)
    """Since they were over."""
    keep_runs = models.PositiveIntegerField(null=True, blank=True)
    """The newest so many."""

    class Meta:
        ordering = ("scenario_name",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(keep_days__gte=1) | models.Q(keep_runs__gte=1), name="retention_rule_limits"
            )
        ]

    def __str__(self) -> str:
        limits = []
        if self.keep_days is not None:
            limits.append(f"{self.keep_days} days")
        if self.keep_runs is not None:
            limits.append(f"the newest {self.keep_runs}")
        return f"{self.scenario_name or 'every other scenario'}: {' and '.join(limits)}"

"""Further judgements of a run that is over: over windows that somebody chose. The first one stays what it is."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from wsnode.core.result import Result, read_result

LABEL_CHARS = 80
MOST_PER_RUN = 20


class OtherWindow(models.Model):
    """A stretch of a run, judged as its measured window was, under a name of its own.

    Its result says what the run would have been told to be with this window: the scenario's thresholds over it, and
    whether it can be believed.
    """

    run = models.ForeignKey("runs.Run", models.CASCADE, related_name="other_windows")
    label = models.CharField(max_length=LABEL_CHARS)
    from_s = models.PositiveIntegerField()
    to_s = models.PositiveIntegerField()
    """Seconds from the run's origin; it holds what was due after the first and up to the second."""
    result = models.JSONField()
    """`wsnode.core.result.Result`."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("run", "id")
        constraints = [
            models.UniqueConstraint(fields=("run", "from_s", "to_s"), name="one_judgement_per_window"),
            models.CheckConstraint(condition=models.Q(to_s__gt=models.F("from_s")), name="window_has_a_length"),
        ]

    def __str__(self) -> str:
        return f"{self.label} ({self.from_s} s to {self.to_s} s)"

    @property
    def content(self) -> Result:
        """The result as core knows it, older schemas upgraded."""
        return read_result(self.result)

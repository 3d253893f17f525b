"""What is kept of a run beside its row: seconds and log while it goes on; summary, evidence and archive after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zstandard
from django.db import models
from django.utils import timezone

from portal.runs.archive import unpack
from wsnode.core.protocol import Second
from wsnode.core.result import Result, figures, read_result

if TYPE_CHECKING:
    from portal.runs.models import Run


class RunSecond(models.Model):
    """One merged second of a run that is not yet over; the archive has them afterwards."""

    run = models.ForeignKey("runs.Run", models.CASCADE, related_name="seconds")
    second = models.PositiveIntegerField()
    line = models.BinaryField()
    """zstd of the JSON of `wsnode.core.protocol.Second`."""

    class Meta:
        ordering = ("run", "second")
        constraints = [models.UniqueConstraint(fields=("run", "second"), name="one_line_per_second")]

    @classmethod
    def of(cls, run: Run, second: Second) -> RunSecond:
        """A row that holds this second, unsaved."""
        return cls(run=run, second=second.second, line=zstandard.compress(second.model_dump_json().encode()))

    @property
    def content(self) -> Second:
        """The second as core knows it."""
        return Second.model_validate_json(zstandard.decompress(bytes(self.line)))


class RunEvent(models.Model):
    """A line of the conductor's log."""

    run = models.ForeignKey("runs.Run", models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    level = models.CharField(max_length=7, choices=[(v, v) for v in ("info", "warning", "error")], default="info")
    text = models.TextField()
    confirms = models.CharField(max_length=100, blank=True)
    """The host that says with this line that no load of the run is left on it."""

    class Meta:
        ordering = ("run", "id")


class Summary(models.Model):
    """The result of a run, and the figures of it that lists sort and show."""

    run = models.OneToOneField("runs.Run", models.CASCADE, primary_key=True, related_name="summary")
    result = models.JSONField()
    """`wsnode.core.result.Result`."""
    p50_s = models.FloatField(null=True)
    p95_s = models.FloatField(null=True)
    p99_s = models.FloatField(null=True)
    received_per_s = models.FloatField(null=True)
    error_ratio = models.FloatField(null=True)
    connections_peak = models.PositiveIntegerField(null=True)
    figures = models.JSONField(default=dict)
    """Every metric that a threshold can name, with its value or null: what comparisons and history read."""

    class Meta:
        indexes = [
            # All that a list sorts by: the rows themselves are some pages long, since a result is.
            models.Index(
                fields=("run", "p50_s", "p95_s", "p99_s", "received_per_s", "error_ratio", "connections_peak"),
                name="summary_sorted",
            )
        ]

    @classmethod
    def of(cls, run: Run, result: Result) -> Summary:
        """A row that holds this result, unsaved."""
        times = result.latency_s.response_time
        return cls(
            run=run,
            result=result.model_dump(mode="json"),
            p50_s=times.p50,
            p95_s=times.p95,
            p99_s=times.p99,
            received_per_s=result.rates.received_per_s,
            error_ratio=result.error_ratio,
            connections_peak=result.counters.connections_peak,
            figures=figures(result),
        )

    @property
    def content(self) -> Result:
        """The result as core knows it, older schemas upgraded."""
        return read_result(self.result)


class EvidenceRow(models.Model):
    """One figure of what a host did over the measured window, from Prometheus, with the query that gave it."""

    run = models.ForeignKey("runs.Run", models.CASCADE, related_name="evidence")
    order = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=100)
    host = models.CharField(max_length=100, blank=True)
    value = models.FloatField(null=True)
    unit = models.CharField(max_length=20)
    no_data = models.TextField(null=True)
    promql = models.TextField()
    window_s = models.FloatField()
    step_s = models.FloatField()
    samples = models.PositiveIntegerField()
    grafana_url = models.TextField(null=True)

    class Meta:
        ordering = ("run", "order")
        constraints = [models.UniqueConstraint(fields=("run", "order"), name="one_evidence_per_place")]


class Environment(models.Model):
    """What a host was like before and after the run."""

    run = models.ForeignKey("runs.Run", models.CASCADE, related_name="environments")
    host = models.CharField(max_length=100)
    role = models.CharField(max_length=14)
    begin = models.JSONField(default=dict)
    end = models.JSONField(default=dict)

    class Meta:
        ordering = ("run", "id")
        indexes = [models.Index(fields=("host", "run"), name="environment_host")]
        constraints = [models.UniqueConstraint(fields=("run", "host"), name="one_environment_per_host")]


class Archive(models.Model):
    """Everything else that is known of a run (`portal.runs.archive`)."""

    run = models.OneToOneField("runs.Run", models.CASCADE, primary_key=True, related_name="archive")
    content = models.BinaryField()
    digest = models.BinaryField(null=True)
    """What pages draw of it (`portal.runs.digest`), so that they need not open it; null: not made yet."""

    @property
    def data(self) -> dict[str, Any]:
        """The archive, unpacked: see `portal.runs.archive.unpack`."""
        return unpack(bytes(self.content))

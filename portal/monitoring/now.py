"""What the hosts of a run do while it goes on, second by second."""

from __future__ import annotations

from collections.abc import Sequence

from portal.monitoring.evidence import Target
from portal.monitoring.prometheus import Prometheus
from portal.monitoring.queries import STEP_S, WATCHED, WATCHED_S

Lines = dict[str, dict[float, float]]
"""By `cpu:HOST`, `worker:HOST` (the busiest; both cores) and `loop_lag:HOST` (s): value by time (s since the epoch)."""


def watched(prometheus: Prometheus, targets: Sequence[Target], start: float, end: float) -> Lines:
    """All lines for start < t <= end, as far as there are samples. Of a server its own workers, not its agent's.

    Raises:
        PrometheusError: it does not answer.
    """
    found: Lines = {}
    for name, job, what in WATCHED:
        hosts = [
            target.host
            for target in targets
            if target.job == job and not (job == "wsnode-agent" and target.role == "server")
        ]
        if not hosts:
            continue
        # A rate needs two samples, of which one may be late; of a gauge the newest is enough.
        span_s = WATCHED_S if "rate" in what.aggregation else 2 * STEP_S
        for series in prometheus.over_time(what.lately(hosts, span_s), start, end, STEP_S):
            found[name.format(host=series.labels.get("host", ""))] = dict(series.samples)
    return found

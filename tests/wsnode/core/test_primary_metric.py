"""The one metric of a scenario that a comparison is decided by."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.portal.factories import make_result
from wsnode.core.result import figures
from wsnode.core.scenario import Scenario, error_lines
from wsnode.core.threshold import COUNTS, DELIVERIES, LATENCIES, RATES, RATIOS, STATISTICS, Threshold, check_metric

NAMES = [f"{latency}.{statistic}" for latency in LATENCIES for statistic in STATISTICS]
NAMES += [*RATIOS, *RATES, *COUNTS, *DELIVERIES]


@pytest.mark.parametrize(
    ("fields", "metric"),
    [
        ({}, "response_time.p99"),
        ({"interval_ms": 0}, "handshake.p99"),
        ({"match": "none"}, "sent_per_s"),
        ({"interval_ms": 0, "match": "none"}, "handshake.p99"),
        ({"primary_metric": "response_time.p50"}, "response_time.p50"),
        ({"interval_ms": 0, "primary_metric": " connections_peak "}, "connections_peak"),
    ],
)
def test_a_comparison_is_decided_by_what_the_load_can_show_unless_told_otherwise(
    fields: dict[str, Any], metric: str
) -> None:
    assert Scenario(**fields).effective_primary_metric == metric


@pytest.mark.parametrize("name", ["", "p99", "response_time", "response_time.p98", "error_ratio.p99", "broadcast.p99"])
def test_a_metric_that_there_is_not_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario(primary_metric=name)
    [line] = error_lines(caught.value)
    assert line.startswith(f"primary_metric: no metric {name!r}; known: response_time.p99, ")
    assert line.endswith("each time also with min, mean, p50, p90, p95, p99, p999, max")


def test_the_metrics_are_those_of_thresholds_and_each_has_its_figure_in_a_result() -> None:
    units = {"ratio": "1%", "per_s": "1/s", "count": "1"}
    assert set(figures(make_result())) == set(NAMES)
    for name in NAMES:
        assert check_metric(name) == name
        kind = next((kind for kind in ("ratio", "per_s") if name.endswith(kind)), "count")
        assert Threshold.parse(f"{name} < {'1ms' if '.' in name else units[kind]}").metric == name

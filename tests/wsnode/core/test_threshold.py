"""Thresholds as text and as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsnode.core.threshold import COUNTS, LATENCIES, RATES, RATIOS, STATISTICS, Threshold


@pytest.mark.parametrize(
    ("text", "metric", "operator", "limit", "canonical"),
    [
        ("response_time.p99 < 50ms", "response_time.p99", "<", 0.05, "response_time.p99 < 50ms"),
        ("response_time.p99<50ms", "response_time.p99", "<", 0.05, "response_time.p99 < 50ms"),
        ("  service_time.p999   <=  1.5 s ", "service_time.p999", "<=", 1.5, "service_time.p999 <= 1.5s"),
        ("scheduler_lag.max < 900us", "scheduler_lag.max", "<", 0.0009, "scheduler_lag.max < 900us"),
        ("write_wait.mean < 900µs", "write_wait.mean", "<", 0.0009, "write_wait.mean < 900µs"),
        ("handshake.min > 10ns", "handshake.min", ">", 1e-8, "handshake.min > 10ns"),
        ("response_time.max < 9ms", "response_time.max", "<", 0.009, "response_time.max < 9ms"),
        ("error_ratio < 0.1%", "error_ratio", "<", 0.001, "error_ratio < 0.1%"),
        ("error_ratio <= 0.29 %", "error_ratio", "<=", 0.0029, "error_ratio <= 0.29%"),
        ("error_ratio < 0.001", "error_ratio", "<", 0.001, "error_ratio < 0.001"),
        ("connect_error_ratio <= 0", "connect_error_ratio", "<=", 0, "connect_error_ratio <= 0"),
        ("received_per_s >= 4990/s", "received_per_s", ">=", 4990, "received_per_s >= 4990/s"),
        ("connect_per_s > 99.5 /s", "connect_per_s", ">", 99.5, "connect_per_s > 99.5/s"),
        ("connections_peak >= 5000", "connections_peak", ">=", 5000, "connections_peak >= 5000"),
    ],
)
def test_a_threshold_is_read_in_the_base_unit(
    text: str, metric: str, operator: str, limit: float, canonical: str
) -> None:
    threshold = Threshold.parse(text)
    assert threshold == (metric, operator, limit, canonical)
    assert Threshold.parse(threshold.text) == threshold


def test_every_metric_can_be_demanded() -> None:
    for latency in LATENCIES:
        for statistic in STATISTICS:
            assert Threshold.parse(f"{latency}.{statistic} < 1ms").limit == 0.001
    for ratio in RATIOS:
        assert Threshold.parse(f"{ratio} < 1%").limit == 0.01
    for rate in RATES:
        assert Threshold.parse(f"{rate} > 1/s").limit == 1
    assert Threshold.parse("deliveries_per_s > 1/s").limit == 1
    assert Threshold.parse("delivery_loss_ratio <= 0%").limit == 0
    for name in COUNTS:
        assert Threshold.parse(f"{name} > 1").limit == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected METRIC OPERATOR NUMBER UNIT"),
        ("response_time.p99", "expected METRIC OPERATOR NUMBER UNIT"),
        ("response_time.p99 = 50ms", "operators < <= > >="),
        ("response_time.p99 == 50ms", "operators < <= > >="),
        ("response_time.p99 < -1ms", "expected METRIC"),
        ("response_time.p99 < ms", "expected METRIC"),
        ("response_time.p99 < 50ms and more", "expected METRIC"),
        ("response_time.p99 < nan", "expected METRIC"),
        ("50ms > response_time.p99", "expected METRIC"),
        ("response_time < 50ms", "response_time needs a statistic, one of response_time.min"),
        ("response_time.p98 < 50ms", "one of response_time.min, .*response_time.p999, response_time.max"),
        ("response_time.count > 50", "response_time needs a statistic"),
        ("latency.p99 < 50ms", "'latency' has no statistics; known: response_time.p99"),
        ("error_ratio.p99 < 1%", "'error_ratio' has no statistics"),
        ("p99 < 50ms", "no metric 'p99'; known: response_time.p99, .*error_ratio.*connections_peak"),
        ("errors < 1%", "no metric 'errors'"),
        ("response_time.p99 < 50", "unit ''; response_time takes 'ns' or 'us' or 'µs' or 'ms' or 's'"),
        ("response_time.p99 < 50 %", "unit '%'"),
        ("response_time.p99 < 1e3ms", "unit 'e3ms'"),
        ("response_time.p99 < 1,5s", "unit ',5s'"),
        ("error_ratio < 1ms", "unit 'ms'; error_ratio takes '%' or none"),
        ("received_per_s > 100", "unit ''; received_per_s takes '/s'"),
        ("received_per_s > 100%", "unit '%'"),
        ("connections_peak > 5k", "unit 'k'; connections_peak takes none"),
    ],
)
def test_a_bad_threshold_is_refused_with_what_may_stand_there(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        Threshold.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "below", "at", "above"),
    [("<", True, False, False), ("<=", True, True, False), (">", False, False, True), (">=", False, True, True)],
)
def test_a_threshold_holds_by_its_operator(operator: str, below: bool, at: bool, above: bool) -> None:
    threshold = Threshold.parse(f"response_time.p99 {operator} 50ms")
    assert [threshold.holds(value) for value in (0.049_999, 0.05, 0.050_001)] == [below, at, above]


@given(st.integers(1, 100_000))
def test_a_measured_value_on_the_limit_is_neither_below_nor_above_it(tenths_of_ms: int) -> None:
    measured = tenths_of_ms * 100_000 / 1e9
    text = f"{tenths_of_ms // 10}.{tenths_of_ms % 10}ms"
    assert not Threshold.parse(f"response_time.max < {text}").holds(measured)
    assert not Threshold.parse(f"response_time.max > {text}").holds(measured)
    assert Threshold.parse(f"response_time.max <= {text}").holds(measured)

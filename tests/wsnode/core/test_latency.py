"""What a histogram of which some are missing says of all that were due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsnode.core.histogram import Histogram
from wsnode.core.result import NOTHING_DUE, QUANTILES, SAMPLES_BEYOND, TOO_FEW, latency

MS = 1_000_000


def answered(n: int, value_ns: int = 5 * MS) -> Histogram:
    return Histogram.of([value_ns] * n)


def test_all_answered_gives_every_figure_and_no_reason() -> None:
    figures, nulls = latency(Histogram.of(range(1, 100_001)), 100_000)
    assert nulls == {}
    assert (figures.due, figures.count) == (100_000, 100_000)
    assert figures.min == 1e-9
    assert figures.max == 100_000e-9
    assert figures.mean == 50_000.5e-9
    for name, quantile in QUANTILES.items():
        assert getattr(figures, name) == pytest.approx(quantile * 1e-4, rel=1 / 256)


def test_unanswered_messages_rank_above_every_answered_one() -> None:
    # 40 of 1000 unanswered: p95 is an answered one's, p99 is not, and no survivor stands in for it.
    figures, nulls = latency(answered(960), 1000)
    assert figures.p95 == 0.005
    assert figures.p99 is None
    assert nulls["p99"] == "more than 1 % unanswered"
    assert figures.count == 960
    assert figures.due == 1000
    assert figures.mean == figures.max == 0.005


@pytest.mark.parametrize(
    ("unanswered", "p99", "reason"),
    [(19, 0.005, None), (20, 0.005, None), (21, None, "more than 1 % unanswered")],
)
def test_the_border_of_p99_is_exactly_one_percent_unanswered(
    unanswered: int, p99: float | None, reason: str | None
) -> None:
    figures, nulls = latency(answered(2000 - unanswered), 2000)
    assert figures.p99 == p99
    assert nulls.get("p99") == reason


@pytest.mark.parametrize(
    ("name", "fewest"),
    [("p50", 20), ("p90", 100), ("p95", 200), ("p99", 1000), ("p999", 10_000)],
)
def test_a_percentile_is_given_from_ten_samples_beyond_it_on(name: str, fewest: int) -> None:
    figures, nulls = latency(answered(fewest), fewest)
    assert getattr(figures, name) == 0.005
    assert name not in nulls
    figures, nulls = latency(answered(fewest - 1), fewest - 1)
    assert getattr(figures, name) is None
    assert nulls[name] == TOO_FEW


@pytest.mark.parametrize(("unanswered", "reason"), [(9, TOO_FEW), (10, "more than 1 % unanswered")])
def test_among_few_samples_ten_unanswered_are_the_reason(unanswered: int, reason: str) -> None:
    _, nulls = latency(answered(100 - unanswered), 100)
    assert nulls["p99"] == reason


def test_nothing_answered_is_said_of_every_figure() -> None:
    figures, nulls = latency(Histogram(), 100)
    assert figures.model_dump() == {"due": 100, "count": 0} | dict.fromkeys(("min", "mean", "max", *QUANTILES), None)
    assert nulls == {
        "p50": "more than 50 % unanswered",
        "p90": "more than 10 % unanswered",
        "p95": "more than 5 % unanswered",
        "p99": "more than 1 % unanswered",
        "p999": "more than 0.1 % unanswered",
        "min": "all 100 unanswered",
        "mean": "all 100 unanswered",
        "max": "all 100 unanswered",
    }


def test_nothing_due_is_no_data_and_not_zero() -> None:
    figures, nulls = latency(Histogram(), 0)
    assert figures.count == figures.due == 0
    assert figures.mean is None
    assert nulls == dict.fromkeys((*QUANTILES, "min", "mean", "max"), NOTHING_DUE)


def test_what_is_missing_can_be_named() -> None:
    _, nulls = latency(answered(900), 1000, "not sent")
    assert nulls["p99"] == "more than 1 % not sent"


def test_a_rank_among_the_overflowed_has_no_value() -> None:
    figures, nulls = latency(Histogram.of([5 * MS] * 900 + [1 << 50] * 100), 1000)
    assert figures.p50 == 0.005
    assert figures.p95 is None
    assert nulls["p95"] == "beyond the histogram's range"
    assert figures.max == (1 << 50) / 1e9


def test_more_answered_than_due_is_refused() -> None:
    with pytest.raises(ValueError, match="11 recorded of 10 due"):
        latency(answered(11), 10)


@given(st.lists(st.integers(0, 10**10), max_size=300), st.integers(0, 300))
def test_every_null_has_a_reason_and_every_reason_a_null(recorded: list[int], missing: int) -> None:
    figures, nulls = latency(Histogram.of(recorded), len(recorded) + missing)
    assert {name for name, value in figures.model_dump().items() if value is None} == nulls.keys()
    ordered = sorted(recorded) + [10**12] * missing
    for name, quantile in QUANTILES.items():
        value = getattr(figures, name)
        beyond = sum(rank > quantile * len(ordered) for rank in range(1, len(ordered) + 1))
        if value is not None:
            exact = ordered[len(ordered) - beyond - 1] / 1e9
            assert value == pytest.approx(exact, rel=1 / 256)
            assert beyond >= SAMPLES_BEYOND

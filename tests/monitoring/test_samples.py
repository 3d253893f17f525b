"""Arithmetic on raw samples, by tables."""

from __future__ import annotations

import math

import pytest

from portal.monitoring.samples import Samples, around, gain, quantile, rate, ratio, resets, total


def line(*values: float, begin: float = 0.0, step: float = 1.0) -> Samples:
    return [(begin + step * n, value) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "gained", "began_anew"),
    [
        ((5, 7, 9), 4, 0),
        ((5, 5, 5), 0, 0),
        ((5,), 0, 0),
        ((), 0, 0),
        ((5, 7, 1, 4), 2 + 1 + 3, 1),  # after the reset 1 was gained, then 3
        ((5, 0, 0, 2), 2, 1),
        ((9, 3, 2, 8), 3 + 2 + 6, 2),
        ((0.5, 0.75), 0.25, 0),
    ],
)
def test_a_counter_gains_over_its_resets(values: tuple[float, ...], gained: float, began_anew: int) -> None:
    assert gain(line(*values)) == gained
    assert resets(line(*values)) == began_anew


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (line(5, 7, 9), 2.0),
        (line(5, 9, step=8.0), 0.5),
        ([(0.4, 1), (1.4, 2), (4.4, 9)], 2.0),  # last - first over the time between those two, whatever is missing
        (line(5, 7, 1, 4), 2.0),
    ],
)
def test_a_rate_is_over_the_time_between_first_and_last_sample(samples: Samples, expected: float) -> None:
    assert rate(samples) == pytest.approx(expected)


@pytest.mark.parametrize("samples", [[], line(5)])
def test_a_rate_needs_two_samples(samples: Samples) -> None:
    with pytest.raises(ValueError, match=f"a rate of {len(samples)} samples"):
        rate(samples)


def test_series_of_one_scrape_are_added_by_their_time() -> None:
    assert total([line(1, 2, 3), line(10, 20, 30)]) == [(0, 11), (1, 22), (2, 33)]
    assert total([line(1, 2), [(1.0, 5.0)]]) == [(0, 1), (1, 7)]
    assert total([]) == []


@pytest.mark.parametrize(
    ("start", "end", "first_and_last"),
    [
        (2.5, 5.5, (2, 6)),
        (2.0, 5.0, (2, 5)),
        (0.0, 9.0, (0, 9)),
        (-0.1, 5.0, None),
        (2.0, 9.1, None),
    ],
)
def test_a_stretch_is_cut_from_the_sample_before_to_the_one_after(
    start: float, end: float, first_and_last: tuple[float, float] | None
) -> None:
    cut = around(line(*range(10)), start, end)
    assert (None if cut is None else (cut[0][0], cut[-1][0])) == first_and_last


def test_a_ratio_is_taken_scrape_by_scrape() -> None:
    assert ratio(line(1, 2, 3, 4), [(0.0, 2.0), (1.0, 0.0), (3.0, 8.0)]) == [(0.0, 0.5), (3.0, 0.5)]


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, [(1, 10), (2, 20), (math.inf, 20)], 1.0),
        (0.75, [(1, 10), (2, 20), (math.inf, 20)], 1.5),
        (0.99, [(math.inf, 100), (2, 100), (1, 0)], 1.99),  # in any order
        (0.25, [(4, 8), (math.inf, 8)], 1.0),  # the first bucket begins at 0
        (0.99, [(1, 10), (2, 20), (math.inf, 100)], 2.0),  # beyond the last bound
    ],
)
def test_a_quantile_lies_evenly_within_its_bucket(
    q: float, buckets: list[tuple[float, float]], expected: float
) -> None:
    assert quantile(q, buckets) == pytest.approx(expected)


@pytest.mark.parametrize("buckets", [[], [(1.0, 0.0), (math.inf, 0.0)], [(1.0, 5.0)]])
def test_a_quantile_of_nothing_is_no_number(buckets: list[tuple[float, float]]) -> None:
    assert math.isnan(quantile(0.99, buckets))

"""Histograms: bucket for bucket, rank for rank, and over the wire."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsnode.core.histogram import BUCKETS, LIMIT_NS, MANY, Histogram, Pool, bucket_bounds, bucket_index, nearest_rank

values = st.one_of(
    st.integers(0, 600),
    st.integers(0, 10_000_000),
    st.integers(0, LIMIT_NS - 1),
    st.integers(LIMIT_NS - 5, LIMIT_NS * 3),
)
samples = st.lists(values, max_size=80)


def moments(histogram: Histogram) -> tuple[int, int, int, dict[int, int]]:
    """All but the extremes, which `since` knows within a bucket only."""
    return histogram.count, histogram.sum_ns, histogram.overflow, histogram.buckets


def test_buckets_follow_each_other_without_gap_or_overlap() -> None:
    expected = 0
    for index in range(BUCKETS):
        low, high = bucket_bounds(index)
        assert low == expected
        assert bucket_index(low) == bucket_index(high) == index
        expected = high + 1
    assert expected == LIMIT_NS


def test_a_bucket_spans_one_nanosecond_below_256_and_a_128th_of_its_power_of_two_above() -> None:
    assert [bucket_bounds(index) for index in (0, 1, 255)] == [(0, 0), (1, 1), (255, 255)]
    assert bucket_bounds(256) == (256, 257)
    assert bucket_bounds(bucket_index(5_000_000)) == (4_980_736, 5_013_503)
    for index in range(256, BUCKETS):
        low, high = bucket_bounds(index)
        assert (high - low + 1) * 128 == 1 << (low.bit_length() - 1)


@given(st.integers(0, LIMIT_NS - 1))
def test_every_value_lies_in_the_bucket_of_its_index(value: int) -> None:
    low, high = bucket_bounds(bucket_index(value))
    assert low <= value <= high


@given(samples, samples, samples)
def test_merging_is_associative_and_commutative_and_equals_the_pooled_histogram(
    a: list[int], b: list[int], c: list[int]
) -> None:
    pooled = Histogram.of(a + b + c)
    left, right, other_way = Histogram.of(a), Histogram.of(b), Histogram.of(c)
    left.add(Histogram.of(b))
    left.add(Histogram.of(c))
    right.add(Histogram.of(c))
    first = Histogram.of(a)
    first.add(right)
    other_way.add(Histogram.of(b))
    other_way.add(Histogram.of(a))
    assert left == first == other_way == pooled
    assert left.buckets == pooled.buckets
    assert pooled.count == len(a + b + c)
    assert pooled.sum_ns == sum(a + b + c)
    assert (pooled.min_ns, pooled.max_ns) == (min(a + b + c, default=None), max(a + b + c, default=None))


@given(st.lists(samples, max_size=2 * MANY))
def test_a_pool_of_however_many_is_the_pooled_histogram_and_leaves_its_parts_alone(parts: list[list[int]]) -> None:
    own = [Histogram.of(part) for part in parts]
    read = [Histogram.from_wire(json.loads(json.dumps(part.to_wire()))) for part in own]
    for histograms in (own, read):
        pool = Pool()
        for histogram in histograms:
            pool.add(histogram)
        assert pool.total() == Histogram.of([value for part in parts for value in part])
    assert own == read == [Histogram.of(part) for part in parts]


@given(samples, samples)
def test_one_that_was_read_can_be_recorded_into(a: list[int], b: list[int]) -> None:
    histogram = Histogram.from_wire(Histogram.of(a).to_wire())
    for value in b:
        histogram.record(value)
    pool = Pool()
    for _ in range(MANY):
        pool.add(histogram)
    assert pool.total() == Histogram.of((a + b) * MANY)


def test_merging_leaves_the_merged_one_as_it_was() -> None:
    one, other = Histogram(), Histogram.of([7, 7, 300])
    one.add(other)
    one.record(7)
    assert other == Histogram.of([7, 7, 300])


@given(st.lists(st.integers(0, LIMIT_NS - 1), min_size=1, max_size=120))
def test_every_rank_is_within_a_256th_of_exact_sorting(recorded: list[int]) -> None:
    histogram = Histogram.of(recorded)
    for rank, exact in enumerate(sorted(recorded), start=1):
        value = histogram.value_at_rank(rank)
        assert value is not None
        assert abs(value - exact) * 256 <= exact if exact >= 256 else value == exact


def test_percentiles_of_many_values_are_within_a_256th_of_exact_sorting() -> None:
    draw = random.Random(7)
    recorded = [int(draw.lognormvariate(14, 1.5)) for _ in range(50_000)]
    histogram, ordered = Histogram.of(recorded), sorted(recorded)
    for quantile in (0.001, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999):
        rank = nearest_rank(quantile, len(recorded))
        value = histogram.value_at_rank(rank)
        assert value is not None
        assert value == pytest.approx(ordered[rank - 1], rel=1 / 256)
    assert histogram.value_at_rank(1) == ordered[0]
    assert histogram.value_at_rank(50_000) == ordered[-1]
    assert histogram.mean_ns == sum(recorded) / 50_000


def test_a_rank_that_nobody_has_is_no_value() -> None:
    assert Histogram().value_at_rank(1) is None
    assert Histogram().mean_ns is None
    assert Histogram.of([5]).value_at_rank(0) is None
    assert Histogram.of([5]).value_at_rank(2) is None


def test_overflow_is_counted_and_never_clipped_into_the_last_bucket() -> None:
    histogram = Histogram.of([1, LIMIT_NS - 1, LIMIT_NS, LIMIT_NS * 5])
    assert histogram.overflow == 2
    assert histogram.count == 4
    assert histogram.buckets == {1: 1, BUCKETS - 1: 1}
    assert histogram.max_ns == LIMIT_NS * 5
    assert histogram.sum_ns == 7 * LIMIT_NS
    assert histogram.value_at_rank(2) == (sum(bucket_bounds(BUCKETS - 1)) // 2)
    assert histogram.value_at_rank(3) is None
    assert histogram.value_at_rank(4) is None


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 ns"):
        Histogram().record(-1)


@given(samples, samples)
def test_what_came_since_is_what_was_recorded_since(before: list[int], after: list[int]) -> None:
    earlier, later = Histogram.of(before), Histogram.of(before + after)
    gained, expected = later.since(earlier), Histogram.of(after)
    assert moments(gained) == moments(expected)
    if after:
        assert gained.min_ns is not None
        assert gained.max_ns is not None
        assert min(*after, LIMIT_NS) * 127 // 128 <= gained.min_ns <= min(after)
        assert gained.max_ns >= max(after)
        if max(after) < LIMIT_NS:
            assert gained.max_ns - max(after) <= max(after) / 128
    else:
        assert gained == Histogram()
    assert Histogram.from_wire(gained.to_wire()) == gained
    again = Histogram.of(before)
    again.add(gained)
    assert moments(again) == moments(later)


@given(samples, samples, samples, samples)
def test_since_and_merge_commute(a: list[int], more_a: list[int], b: list[int], more_b: list[int]) -> None:
    earlier, later = Histogram.of(a), Histogram.of(a + more_a)
    one = later.since(earlier)
    one.add(Histogram.of(b + more_b).since(Histogram.of(b)))
    earlier.add(Histogram.of(b))
    later.add(Histogram.of(b + more_b))
    assert moments(later.since(earlier)) == moments(one)


@pytest.mark.parametrize(
    ("later", "earlier"),
    [([], [1]), ([1], [1, 1]), ([1, 2], [3]), ([LIMIT_NS], [LIMIT_NS, LIMIT_NS]), ([1000], [1001])],
)
def test_since_something_that_is_not_earlier_is_refused(later: list[int], earlier: list[int]) -> None:
    with pytest.raises(ValueError, match="not an earlier state"):
        Histogram.of(later).since(Histogram.of(earlier))


@given(samples)
def test_the_wire_form_round_trips_through_json(recorded: list[int]) -> None:
    histogram = Histogram.of(recorded)
    assert Histogram.from_wire(json.loads(json.dumps(histogram.to_wire()))) == histogram


def test_the_wire_form_is_sparse_pairs_of_step_and_count() -> None:
    assert Histogram.of([3, 3, 10, 300]).to_wire() == {
        "count": 4,
        "sum": 316,
        "min": 3,
        "max": 300,
        "overflow": 0,
        "buckets": [3, 2, 7, 1, 268, 1],
    }
    assert Histogram().to_wire() == {"count": 0, "sum": 0, "min": None, "max": None, "overflow": 0, "buckets": []}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"buckets": [3, 2, 7]}, "pairs"),
        ({"buckets": "3,2"}, "pairs"),
        ({"buckets": None}, "pairs"),
        ({"buckets": [3, 2.0, 7, 1]}, "whole numbers"),
        ({"buckets": [3, True, 7, 2]}, "whole numbers"),
        ({"buckets": [3, "2", 7, 1]}, "whole numbers"),
        ({"buckets": [3, 2, 0, 1]}, "ascend"),
        ({"buckets": [10, 1, -7, 2]}, "ascend"),
        ({"buckets": [-1, 2, 11, 1]}, "ascend"),
        ({"buckets": [3, 2, BUCKETS - 3, 1]}, "ascend"),
        ({"buckets": [3, 3, 7, 0]}, "count 0"),
        ({"buckets": [3, 4, 7, -1]}, "count -1"),
        ({"count": 4}, "add up"),
        ({"overflow": 1}, "add up"),
        ({"buckets": [3, 2]}, "add up"),
        ({"count": -3}, "-3"),
        ({"count": True}, "True"),
        ({"sum": 16.0}, "16.0"),
        ({"min": None}, "count above 0"),
        ({"max": None}, "count above 0"),
        ({"min": 4}, "do not fit"),
        ({"max": 9}, "do not fit"),
        ({"max": LIMIT_NS}, "do not fit"),
        ({"sum": 8}, "do not fit"),
        ({"sum": 31}, "do not fit"),
        ({"buckets": [3, 2], "overflow": 1}, "do not fit"),
        ({"more": 1}, "expected an object of"),
    ],
)
def test_a_wire_form_that_contradicts_itself_is_refused(change: dict[str, Any], why: str) -> None:
    good = {"count": 3, "sum": 16, "min": 3, "max": 10, "overflow": 0, "buckets": [3, 2, 7, 1]}
    assert Histogram.from_wire(good) == Histogram.of([3, 3, 10])
    with pytest.raises(ValueError, match=why):
        Histogram.from_wire(good | change)


@pytest.mark.parametrize("data", [None, [], "x", 5, {}, {"count": 0}])
def test_what_is_no_wire_form_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="histogram: expected an object of buckets, count, max, min, overflow, sum"):
        Histogram.from_wire(data)


def test_an_empty_wire_form_with_a_sum_or_extremes_is_refused() -> None:
    empty = Histogram().to_wire()
    for change in ({"sum": 1}, {"min": 0, "max": 0}, {"min": 0}):
        with pytest.raises(ValueError, match=r"histogram: minimum"):
            Histogram.from_wire(empty | change)


@pytest.mark.parametrize(
    ("quantile", "of", "rank"),
    [
        (0.5, 1, 1),
        (0.5, 2, 1),
        (0.5, 3, 2),
        (0.0, 10, 1),
        (1.0, 10, 10),
        (0.99, 100, 99),
        (0.99, 101, 100),
        (0.999, 1000, 999),
        (0.999, 1001, 1000),
        (0.07, 100, 7),  # as floats 7.000000000000001
        (0.29, 100, 29),  # as floats 28.999999999999996
        (0.58, 50, 29),
        (0.999, 10**9, 999_000_000),
        (0.999, 10**9 + 1, 999_000_001),
        (0.99, 10**9 - 1, 990_000_000),
        (0.999, 10**18, 999 * 10**15),
        (0.9999999, 10**9, 999_999_900),
        (0.99, 0, 1),
    ],
)
def test_nearest_ranks_are_exact(quantile: float, of: int, rank: int) -> None:
    assert nearest_rank(quantile, of) == rank


@given(st.integers(1, 9999), st.integers(1, 10**9))
def test_a_nearest_rank_is_the_smallest_that_covers_its_share(ten_thousandths: int, of: int) -> None:
    assert nearest_rank(ten_thousandths / 10_000, of) == ceil(Fraction(ten_thousandths, 10_000) * of)

"""Whether values of runs differ by more than noise: against counting by hand, by properties, by printed tables."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.runs.statistics import (
    LEVEL,
    WIDER,
    against_sample,
    against_spread,
    deviation,
    fewest_each,
    holm,
    median,
    rank_sum,
    smallest_p,
    t_cdf,
    t_quantile,
)

FEW = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=5)
"""With many ties."""
APART = st.lists(st.floats(-1e6, 1e6, width=32), min_size=10, max_size=10, unique=True)


def counted(first: Sequence[float], second: Sequence[float]) -> float:
    """p by trying every way to deal the values, the statistic worked out anew for each: pairs in favour of the second,
    a tie being half of one."""
    values = [*first, *second]

    def pairs(chosen: Sequence[int]) -> float:
        others = [values[i] for i in range(len(values)) if i not in chosen]
        return sum((values[i] > other) + 0.5 * (values[i] == other) for i in chosen for other in others)

    seen = pairs(range(len(first), len(values)))
    every = [pairs(chosen) for chosen in combinations(range(len(values)), len(second))]
    tail = min(sum(p <= seen for p in every), sum(p >= seen for p in every))
    return min(1.0, 2 * tail / len(every))


@given(FEW, FEW)
def test_p_is_that_of_counting_every_way_to_deal_the_runs(first: list[float], second: list[float]) -> None:
    assert rank_sum(first, second).p == counted(first, second)


@given(FEW, FEW)
def test_the_other_way_round_the_difference_has_the_other_sign_and_the_same_p(
    first: list[float], second: list[float]
) -> None:
    one, other = rank_sum(first, second, power=True), rank_sum(second, first)
    assert one.p == other.p
    assert (one.low, one.high) == (
        None if other.high is None else -other.high,
        None if other.low is None else -other.low,
    )
    assert one.shift is not None
    assert other.shift is not None
    assert one.shift == -other.shift


@given(APART, st.floats(0.01, 100), st.floats(-1000, 1000))
def test_p_depends_on_neither_unit_nor_offset_and_the_interval_follows_the_unit(
    values: list[float], unit: float, offset: float
) -> None:
    first, second = values[:5], values[5:]
    plain = rank_sum(first, second)
    curved = rank_sum([math.atan(v / 1e6) for v in first], [math.atan(v / 1e6) for v in second])
    scaled = rank_sum([2.0 * v for v in first], [2.0 * v for v in second])
    assert plain.p == curved.p == scaled.p
    assert (scaled.low, scaled.high, scaled.shift) == tuple(
        2 * v for v in (plain.low, plain.high, plain.shift) if v is not None
    )
    moved = rank_sum([unit * v + offset for v in first], [unit * v + offset for v in second])
    if len({unit * v + offset for v in values}) == 10:
        assert moved.p == plain.p


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(5, 9), st.integers(5, 9))
def test_the_interval_holds_the_shifts_that_the_test_does_not_reject(seed: int, n: int, m: int) -> None:
    dice = random.Random(seed)
    first, second = [dice.gauss(0, 1) for _ in range(n)], [dice.gauss(1, 1) for _ in range(m)]
    found = rank_sum(first, second)
    assert found.low is not None
    assert found.high is not None
    step = 1e-6

    def rejects(shift: float) -> bool:
        return rank_sum([v + shift for v in first], second).p <= LEVEL

    assert rejects(found.low - step)
    assert not rejects(found.low + step)
    assert not rejects(found.high - step)
    assert rejects(found.high + step)
    assert (found.p <= LEVEL) == (not found.low <= 0 <= found.high)


def test_five_on_each_side_are_the_fewest_that_can_differ_or_four_and_six() -> None:
    assert fewest_each() == 5
    assert [smallest_p(*sizes) <= LEVEL for sizes in ((4, 4), (4, 5), (4, 6), (5, 5), (3, 8), (3, 9))] == [
        False, False, True, True, False, True,
    ]  # fmt: skip
    assert rank_sum([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]).p == smallest_p(5, 5) == 2 / 252
    assert rank_sum([1, 2, 3, 4], [5, 6, 7, 8, 9, 10]).p == 2 / 210
    assert rank_sum([1, 2, 3, 4, 6], [5, 7, 8, 9, 10]).p == 4 / 252 > LEVEL


def test_the_interval_of_five_and_five_is_from_the_least_to_the_largest_difference() -> None:
    found = rank_sum([1, 2, 3, 4, 5], [16, 17, 18, 19, 20])
    assert (found.shift, found.low, found.high, found.up) == (15, 11, 19, True)
    assert rank_sum([1, 2, 3, 4], [16, 17, 18, 19]).low is None


def test_p_of_many_runs_is_that_of_the_printed_table() -> None:
    # Critical values of U at 0.01, two-sided, for 20 + 20 (Milton 1964): 105 is one, 106 is not.
    ordered = [float(v) for v in range(40)]

    def with_pairs(pairs: int) -> float:
        """Two samples of 20 with so many pairs in the rarer order."""
        # Each of the second's values passes over at most 20 of the first's.
        first, second = ordered[:20], ordered[20:]
        for place in range(20):
            passed = min(20, pairs)
            second[place] = ordered[20 - passed] - 0.5 - (20 - place) * 1e-3 if passed else second[place]
            pairs -= passed
        return rank_sum(first, second).p

    assert with_pairs(105) <= LEVEL < with_pairs(106)


def test_what_was_never_answered_ranks_above_every_time() -> None:
    lost = rank_sum([1, 2, 3, 4, 5], [6, 7, 8, math.inf, math.inf])
    assert (lost.p, lost.up, lost.shift, lost.high) == (2 / 252, True, 6, None)
    assert rank_sum([math.inf] * 5, [math.inf] * 5).p == 1
    assert rank_sum([1, 2, 3, math.inf, math.inf], [math.inf] * 5).shift is None


def test_the_change_that_is_found_is_found_in_four_of_five_comparisons() -> None:
    dice = random.Random(7)
    for n in (5, 8, 15):
        stated = median(
            [
                found
                for _ in range(40)
                if (
                    found := rank_sum(
                        [dice.gauss(0, 1) for _ in range(n)], [dice.gauss(0, 1) for _ in range(n)], power=True
                    ).detectable
                )
                is not None
            ]
        )
        hits = sum(
            rank_sum([dice.gauss(0, 1) for _ in range(n)], [dice.gauss(stated, 1) for _ in range(n)]).p <= LEVEL
            for _ in range(600)
        )
        assert 0.7 < hits / 600 < 0.9, (n, stated, hits)


@pytest.mark.parametrize(
    ("degrees", "quantiles"),
    # Student's t for 0.8, 0.975, 0.995 (any printed table).
    [(1, (1.376, 12.706, 63.657)), (4, (0.941, 2.776, 4.604)), (9, (0.883, 2.262, 3.250)), (30, (0.854, 2.042, 2.750))],
)
def test_t_is_that_of_the_printed_table(degrees: int, quantiles: tuple[float, ...]) -> None:
    for share, t in zip((0.8, 0.975, 0.995), quantiles, strict=True):
        assert t_quantile(share, degrees) == pytest.approx(t, abs=6e-4)
        assert t_cdf(t_quantile(share, degrees), degrees) == pytest.approx(share, abs=1e-12)
        assert t_cdf(-t, degrees) == pytest.approx(1 - t_cdf(t, degrees), abs=1e-12)


def test_a_single_run_is_held_against_the_spread_of_earlier_ones() -> None:
    earlier = [10.0, 11.0, 9.0, 10.5, 9.5]
    s = deviation(earlier)
    assert s == pytest.approx(math.sqrt(0.625))
    edge = 4.6041 * math.sqrt(2) * WIDER * s
    for contender, rejected in ((10 + edge * 1.001, True), (10 + edge * 0.999, False), (10 - edge * 1.001, True)):
        found = against_spread(10, contender, earlier, 0.0)
        assert found is not None
        assert (found.p <= LEVEL) is rejected
        assert found.low is not None
        assert found.high is not None
        assert (not found.low <= 0 <= found.high) is rejected
        assert found.up is (contender > 10)
        assert found.shift == contender - 10


def test_fewer_than_five_earlier_runs_and_such_that_are_all_equal_tell_nothing_of_noise() -> None:
    assert against_spread(10, 20, [10, 11, 9, 10], 0.0) is None
    assert against_spread(10, 20, [10.0] * 30, 0.0) is None
    assert against_spread(10, 20, [10.0] * 4 + [math.inf], 0.0) is None
    floored = against_spread(10, 20, [10.0] * 5, 0.1)
    assert floored is not None
    assert floored.p < LEVEL


def test_a_run_against_a_group_needs_no_second_noise_of_its_own() -> None:
    group = [10.0, 11.0, 9.0, 10.5, 9.5, 10.0]
    edge = t_quantile(0.995, 5) * WIDER * deviation(group) * math.sqrt(1 + 1 / 6)
    inside, outside = against_sample(group, 10 + edge * 0.999, 0.0), against_sample(group, 10 + edge * 1.001, 0.0)
    assert inside is not None
    assert outside is not None
    assert inside.p > LEVEL > outside.p
    assert against_sample(group[:4], 20, 0.0) is None


def test_single_runs_of_normal_noise_raise_hardly_a_false_alarm_and_find_what_is_stated() -> None:
    dice, tries = random.Random(11), 3000
    alarms = hits = 0
    change = (t_quantile(0.995, 7) + t_quantile(0.8, 7)) * WIDER * math.sqrt(2)
    for _ in range(tries):
        earlier = [dice.gauss(0, 1) for _ in range(8)]
        base, contender = dice.gauss(0, 1), dice.gauss(0, 1)
        alarm, hit = against_spread(base, contender, earlier, 0), against_spread(base, contender + change, earlier, 0)
        assert alarm is not None
        assert hit is not None
        alarms += alarm.p <= LEVEL
        hits += hit.p <= LEVEL
    assert alarms / tries < 0.0025
    assert 0.78 < hits / tries < 0.92


def test_holm_gives_the_worked_example() -> None:
    # Holm, step-down: 0.005 · 4, 0.01 · 3, 0.03 · 2, 0.04 · 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_sample_of_nothing_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="samples of 0 and 1"):
        rank_sum([], [1])
    with pytest.raises(ValueError, match="no values"):
        median([])
    assert median([3, 1]) == 2

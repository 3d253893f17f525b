"""Sizes by a distribution: the shares that were asked for, the same for a seed, wherever a client runs."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wsnode.core.scenario import Scenario, error_lines
from wsnode.core.sizes import TABLE, Sizes, place_of


@given(st.integers(1, 5000), st.integers(0, 5000), st.integers(0, 2**32 - 1))
def test_uniform_sizes_are_as_frequent_as_each_other(low: int, more: int, seed: int) -> None:
    sizes = Sizes.parse(f"uniform {low}..{low + more}")
    table = sizes.table(seed)
    assert len(table) == TABLE
    assert low <= min(table) <= max(table) <= low + more
    assert sizes.mean_bytes == pytest.approx(low + more / 2, abs=1)
    if more < 64:
        counts = Counter(table)
        assert len(counts) == more + 1
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_choice_has_its_shares_and_an_exponential_its_mean() -> None:
    counts = Counter(Sizes.parse("choice 64:90% 1024:9% 65536:1%").table(3))
    assert counts.keys() == {64, 1024, 65536}
    assert [round(counts[size] / TABLE, 3) for size in (64, 1024, 65536)] == [0.9, 0.09, 0.01]
    exponential = Sizes.parse("exp mean 200 max 4096")
    assert exponential.mean_bytes == pytest.approx(200, rel=0.01)
    assert sum(size > 600 for size in exponential.table(0)) / TABLE == pytest.approx(0.0498, abs=0.001)  # e^-3
    assert min(exponential.table(0)) >= 1
    assert max(exponential.table(0)) <= 4096


def test_the_order_is_the_seeds_and_each_client_begins_elsewhere() -> None:
    sizes = Sizes.parse("uniform 1..1000")
    assert sizes.table(1) == Sizes.parse("uniform 1..1000").table(1)
    assert sizes.table(1) != sizes.table(2)
    assert sorted(sizes.table(1)) == sorted(sizes.table(2))
    assert len({place_of(1, client) for client in range(100)}) > 90
    # No order is left: neighbours are as unlike as any two.
    table = sizes.table(1)
    apart = sum(abs(a - b) for a, b in itertools.pairwise(table)) / TABLE
    assert apart == pytest.approx(1000 / 3, rel=0.05)


def test_the_message_size_follows_and_a_small_one_leaves_no_room_for_a_prefix() -> None:
    scenario = Scenario(sizes="uniform 24..1000")
    assert (scenario.size_bytes, scenario.effective_match) == (512, "prefix")
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    small = Scenario(sizes="uniform 16..1000")
    assert small.effective_match == "order"
    assert small.notes() == [
        "replies are matched by order: 16 bytes are too few for a prefix of 24 bytes, so a loss cannot be placed"
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": "zipf 3"}, "sizes: sizes 'zipf 3': expected 'uniform A..B', 'exp mean A max B' or 'choice A:P%"),
        ({"sizes": "uniform 9..8"}, "sizes 'uniform 9..8': 9 is above 8"),
        ({"sizes": "uniform 0..8"}, "whole bytes from 1 to 1,048,576"),
        ({"sizes": "exp mean 9 max 1048577"}, "whole bytes from 1 to 1,048,576"),
        ({"sizes": "choice 5:50% 6:49%"}, "the shares add up to 99 %, expected 100 %"),
        ({"sizes": "choice 5:99.95% 6:0.05%"}, "a share of 0.05 % is too small, expected 0.1 % or more"),
        ({"sizes": "uniform 9..11", "size_bytes": 64}, "size_bytes is 64 but by sizes it is 10: leave size_bytes"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario.model_validate(fields)
    assert message in "\n".join(error_lines(caught.value))

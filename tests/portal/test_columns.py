"""Seconds as columns: nothing is lost, and any stretch adds up to what its lines do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.runs.columns import Buckets, Columns
from portal.runs.deltas import add_up, grow, shrink
from tests.portal.test_archive import GAINS, lines_of
from wsnode.core.protocol import HISTOGRAMS, Second


@settings(max_examples=100, deadline=None)
@given(GAINS)
def test_columns_give_the_cumulative_lines_again(gains: list[tuple[list[tuple[str, int]], int, int, str]]) -> None:
    lines = lines_of(gains)
    found = Columns.of(line.model_dump(mode="json") for line in lines)
    assert [Second.model_validate(line) for line in grow(json.loads(json.dumps(list(found.gains()))))] == lines


@settings(max_examples=100, deadline=None)
@given(GAINS.filter(len), st.data())
def test_a_stretch_is_what_its_lines_add_up_to(
    gains: list[tuple[list[tuple[str, int]], int, int, str]], data: st.DataObject
) -> None:
    small = list(shrink(line.model_dump(mode="json") for line in lines_of(gains)))
    begin = data.draw(st.integers(0, len(small) - 1))
    end = data.draw(st.integers(begin + 1, len(small)))
    wanted = add_up(small[begin:end], HISTOGRAMS)
    found = Columns.of_gains(small).stretch(begin, end)
    assert {k: n for k, n in wanted["counters"].items() if n} == found["counters"]
    assert Second.model_validate(wanted).histograms == Second.model_validate(found).histograms
    assert (found["second"], found["errors"], found["unsent"]) == (wanted["second"], wanted["errors"], wanted["unsent"])
    assert json.dumps(found["host"]) == json.dumps(wanted["host"])


@given(st.lists(st.lists(st.integers(0, 70_000), min_size=5, max_size=5), min_size=1, max_size=4))
def test_counts_of_any_size_fit_into_planes_of_four_bits(rows: list[list[int]]) -> None:
    buckets = Buckets.of({10 * place: row for place, row in enumerate(rows)}, 5)
    assert [list(buckets.row(place))[:5] for place in range(len(rows))] == rows
    assert len(buckets.planes) == max(1, -(-max(map(max, rows)).bit_length() // 4))
    assert buckets.sums(1, 4) == {10 * place: n for place, row in enumerate(rows) if (n := sum(row[1:4]))}


@pytest.mark.parametrize(("from_s", "to_s"), [(0, 0), (2, 1), (0, 4), (-1, 2), (3, 4)])
def test_a_stretch_that_is_none_is_refused(from_s: int, to_s: int) -> None:
    found = Columns.of(line.model_dump(mode="json") for line in lines_of([([], 1, 0, "")] * 3))
    with pytest.raises(ValueError, match=f"no seconds {from_s} to {to_s}: wanted a stretch of 0 to 3"):
        found.stretch(from_s, to_s)


def test_without_a_second_there_are_no_columns() -> None:
    found = Columns.of([])
    assert (found.last, found.numbers, list(found.gains()), found.opened()) == (0, [], [], [])

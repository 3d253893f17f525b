"""What a series of equal runs is said to show: the table of `./wslab bench repeats`."""

from __future__ import annotations

import pytest

from tests.benchmarks.repeats import markdown, row


def test_the_spread_of_a_series_and_the_changes_that_it_hides() -> None:
    values = [0.001 * (1 + 0.01 * (n % 10)) for n in range(40)]
    found = row("p50", values, values)
    assert (found.median, found.least, found.most) == (pytest.approx(0.001045), 0.001, pytest.approx(0.00109))
    # Ten equal steps of 1 %: a standard deviation of √(33/4 · 40/39) of them.
    assert found.spread == pytest.approx(2.909 / 104.5, rel=1e-3)
    assert found.single is not None
    assert found.grouped is not None
    # Five runs on each side show less than one, and not less than the noise itself.
    assert found.spread < found.grouped < found.single
    assert "| p50 | 1.05 ms | 1 ms to 1.09 ms | 2.8 % |" in markdown([found])


def test_single_runs_are_not_told_apart_by_runs_that_are_not_believed() -> None:
    values = [1.0 + 0.01 * n for n in range(12)]
    assert row("p99", values, values[:4]).single is None
    assert row("p99", values, values).single is not None


def test_a_series_without_any_spread_hides_nothing_from_groups() -> None:
    found = row("throughput", [1000.0] * 40, [1000.0] * 40)
    assert (found.spread, found.grouped, found.single) == (0, 0, None)

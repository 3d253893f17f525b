"""Numbers as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.runs.figures import NONE, Figure, count, figure, latency, length, number, percentile, ratio, size, span


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (5, "5"),
        (12.0, "12"),
        (0.5, "0.500"),
        (0.012345, "0.0123"),
        (9.996, "10.0"),
        (99.96, "100"),
        (499.97, "500"),
        (1234.5, "1,234"),
        (1_000_000, "1,000,000"),
        (-2.345, "-2.35"),
        (None, NONE),
        (float("nan"), NONE),
    ],
)
def test_a_number_has_three_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, ("0", "s")),
        (1.2345, ("1.23", "s")),
        (0.0456, ("45.6", "ms")),
        (0.000789, ("789", "µs")),
        (1.2e-8, ("12", "ns")),
        (0.99996, ("1.00", "s")),
        (0.00099996, ("1.00", "ms")),
        (123.4, ("123", "s")),
        (None, (NONE, "")),
    ],
)
def test_a_latency_steps_to_the_unit_that_shows_it(seconds: float | None, shown: tuple[str, str]) -> None:
    assert latency(seconds) == Figure(*shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0\u00a0%"),
        (0.00012, "0.0120\u00a0%"),
        (0.07, "7\u00a0%"),
        (1, "100\u00a0%"),
        (1e-9, "< 0.0001\u00a0%"),
        (0.99999, "> 99.9\u00a0%"),
        (None, NONE),
    ],
)
def test_a_ratio_never_reads_as_nothing_or_all_where_it_is_not(value: float | None, shown: str) -> None:
    assert str(ratio(value)) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0021, "s", "2.10\u00a0ms"),
        (500.2, "1/s", "500/s"),
        (12_345.0, "connections", "12,345"),
        (0.734, "cores", "0.734\u00a0cores"),
        (42.0, "sockets", "42\u00a0sockets"),
        (1_572_864, "bytes", "1.50\u00a0MiB"),
        (2048.0, "bytes/s", "2\u00a0KiB/s"),
        (12.34, "percent", "12.3\u00a0%"),
        (0.0162, "points", "1.62\u00a0points"),
        (None, "bytes", NONE),
        (float("inf"), "s", NONE),
    ],
)
def test_a_figure_is_written_in_the_unit_of_its_definition(value: float | None, unit: str, shown: str) -> None:
    assert str(figure(value, unit)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.4, "0.4 s"),
        (12, "12 s"),
        (59.6, "1 min"),
        (80, "1 min 20 s"),
        (7260, "2 h 1 min"),
        (90_000, "1 d 1 h"),
        (None, NONE),
    ],
)
def test_a_span_is_said_in_its_two_largest_units(seconds: float | None, shown: str) -> None:
    assert span(seconds).replace("\u00a0", " ") == shown


def test_the_rest_of_the_numbers() -> None:
    assert count(1234567) == "1,234,567"
    assert count(None) == NONE
    assert str(size(3)) == "3\u00a0B"
    assert length(timedelta(seconds=20)) == "20\u00a0s"
    assert length(None) == NONE
    assert [percentile(name) for name in ("p50", "p999", "max")] == ["p50", "p99.9", "max"]

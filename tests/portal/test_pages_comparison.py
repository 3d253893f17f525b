"""Two results side by side."""

from __future__ import annotations

import pytest

from portal.runs.comparison import Comparison, Difference, compare, direction, value_of
from tests.portal.factories import SMOKE, STABLE, make_result
from wsnode.core.judge import Surroundings
from wsnode.core.result import DEFINITIONS, Subject

LOWER = DEFINITIONS["latency_s.response_time"]
HIGHER = DEFINITIONS["rates.received_per_s"]
NEITHER = DEFINITIONS["rates.offered_per_s"]


@pytest.mark.parametrize(
    ("base", "contender", "word"),
    [
        (0.010, 0.005, "better"),
        (0.005, 0.010, "worse"),
        (0.010, 0.010, "same"),
        (0.010, 0.01005, "same"),  # within one bucket of the histogram
        (0.010, 0.0102, "worse"),
        (None, 0.010, "no value"),
        (0.010, None, "no value"),
        (0.0, 0.0, "same"),
    ],
)
def test_a_latency_is_better_when_it_is_lower(base: float | None, contender: float | None, word: str) -> None:
    assert direction(base, contender, LOWER, estimate=True) == word


@pytest.mark.parametrize(
    ("base", "contender", "word"),
    [(100.0, 200.0, "better"), (200.0, 100.0, "worse"), (499.97, 500.02, "same"), (0.0, 1.0, "better")],
)
def test_a_rate_is_better_when_it_is_higher(base: float, contender: float, word: str) -> None:
    assert direction(base, contender, HIGHER, estimate=False) == word


@pytest.mark.parametrize(("base", "contender", "word"), [(1.0, 2.0, "higher"), (2.0, 1.0, "lower"), (2.0, 2.0, "same")])
def test_what_was_asked_for_is_neither_better_nor_worse(base: float, contender: float, word: str) -> None:
    assert direction(base, contender, NEITHER, estimate=False) == word


def compared(**contender: object) -> Comparison:
    base = make_result("r-base", subject=Subject(name="echo", version="1", source="given"))
    other = make_result("r-contender", subject=Subject(name="echo", version="2", source="given"), **contender)
    return compare(base, other, {"server": {"stable": STABLE}}, {"server": {"stable": STABLE}})


def test_each_row_has_both_values_and_their_difference() -> None:
    result = compared(median_ms=4.0)
    row = next(row for row in result.rows if row.key == "latency_s.response_time.p50")

    assert (row.group, row.title, row.unit, row.direction) == ("Response time", "p50", "s", "worse")
    assert row.base == pytest.approx(0.002, rel=0.05)
    assert row.contender == pytest.approx(0.004, rel=0.05)
    assert row.base is not None
    assert row.contender is not None
    assert row.delta == pytest.approx(row.contender - row.base)
    assert row.change == pytest.approx(row.contender / row.base - 1)


def test_response_time_comes_first_then_load_and_errors() -> None:
    groups = list(dict.fromkeys(row.group for row in compared().rows))
    assert groups[:2] == ["Response time", "Load and errors"]
    assert set(groups[2:]) == {"Service time", "Scheduler lag", "Write wait", "Handshake"}


def test_a_null_keeps_its_reason_and_has_no_difference() -> None:
    row = next(r for r in compared(lose_every=50).rows if r.key == "latency_s.response_time.p99")
    assert (row.contender, row.contender_null, row.direction) == (None, "more than 1 % unanswered", "no value")
    assert (row.base_null, row.delta, row.change) == (None, None, None)


def test_a_change_from_zero_has_no_ratio() -> None:
    row = next(r for r in compared(lose_every=200).rows if r.key == "error_ratio")
    assert (row.base, row.contender, row.delta) == (0, 26 / 5000, 26 / 5000)
    assert (row.change, row.direction) == (None, "worse")


def test_the_lines_that_differ_are_named_by_part() -> None:
    base = make_result("r-1", subject=Subject(name="echo", version="1", source="given"))
    faster = SMOKE.model_copy(update={"interval_ms": 100, "reconnect_delay_s": 2.5})
    contender = make_result("r-2", faster, subject=Subject(name="echo", version="2", source="given"))
    environment = {"server": {"stable": STABLE | {"net.core.somaxconn": "1024", "gone": None}}, "load-9": {}}

    result = compare(base, contender, {"server": {"stable": STABLE}}, environment)

    assert result.differences == [
        Difference("subject", "version", "1", "2"),
        Difference("scenario", "interval_ms", "200", "100"),
        Difference("scenario", "reconnect_delay_s", "1", "2.5"),
        Difference("environment", "server · net.core.somaxconn", "4096", "1024"),
        Difference("environment", "server · gone", "–", "absent"),
    ]
    assert result.cautions == ["The two runs did not carry the same load: interval_ms, reconnect_delay_s differ."]
    assert [line.what for line in result.of("subject")] == ["version"]


def test_runs_that_are_alike_differ_in_nothing() -> None:
    base = make_result("r-1")
    result = compare(base, base, {}, {})
    assert result.differences == []
    assert result.cautions == []
    assert {row.direction for row in result.rows} == {"same", "no value"}


def test_a_run_that_cannot_be_trusted_is_a_caution() -> None:
    changed = Surroundings(environment_changed=["server: kernel 1 → 2"])
    assert compared(surroundings=changed).cautions == [
        "The contender is suspect: the environment changed during the run: server: kernel 1 → 2."
    ]


def test_a_run_without_a_window_is_a_caution() -> None:
    partial = SMOKE.model_copy(update={"ramp_up_s": 20.0})
    result = compare(make_result("r-1"), make_result("r-2", partial), {}, {})
    assert result.cautions[0] == "The contender has no measured window: its figures are of the whole run."


def test_every_compared_name_exists_in_a_result() -> None:
    result = make_result()
    for row in compared().rows:
        assert value_of(result, row.key) is not None or row.key in result.nulls, row.key

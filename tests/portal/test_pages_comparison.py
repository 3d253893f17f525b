"""What a comparison comes to, from values to words and an exit code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from portal.runs.comparison import Comparison, compare
from portal.runs.contrast import Contrast, Sample, as_family, contrast
from portal.runs.measures import EXPLAINING, SECONDARY, compared, every, measure, value_of
from portal.runs.sides import Member, Side, load_of, name_apart
from tests.portal.factories import NOW, SMOKE, make_result
from wsnode.core.result import DEFINITIONS, figures
from wsnode.core.scenario import Scenario
from wsnode.core.threshold import DELIVERIES

P99, RATE, OFFERED = (measure(name) for name in ("response_time.p99", "received_per_s", "offered_per_s"))
LOW, HIGH = (1.0, 1.1, 1.2, 1.3, 1.4), (2.0, 2.1, 2.2, 2.3, 2.4)


def sample(values: Sequence[float]) -> Sample:
    return Sample(tuple(values))


@pytest.mark.parametrize(
    ("of", "word"),
    [(P99, "worse"), (RATE, "better"), (OFFERED, "higher")],
)
def test_the_metric_says_whether_more_is_better(of: Any, word: str) -> None:
    assert contrast(of, sample(LOW), sample(HIGH), ()).word == word
    opposite = {"worse": "better", "better": "worse", "higher": "lower"}[word]
    assert contrast(of, sample(HIGH), sample(LOW), ()).word == opposite


def test_a_difference_is_stated_as_a_share_of_times_and_in_points_of_shares() -> None:
    times = contrast(P99, sample(LOW), sample(HIGH), ())
    assert times.relative
    assert times.delta == pytest.approx(1.0)
    assert times.change == pytest.approx(1 / 1.2)
    # From the least of the ratios between the two to the largest.
    assert times.interval == pytest.approx((2.0 / 1.4 - 1, 2.4 / 1.0 - 1))
    shares = contrast(measure("error_ratio"), sample([0, 0, 0, 0, 0.001]), sample([0.01] * 5), ())
    assert not shares.relative
    assert (shares.change, shares.word) == (None, "worse")
    assert shares.interval == pytest.approx((0.009, 0.01))


def test_a_lone_zero_makes_times_and_rates_differ_by_their_amounts() -> None:
    found = contrast(RATE, sample([0, 5, 6, 7, 8]), sample([20, 21, 22, 23, 24]), ())
    assert (found.relative, found.interval, found.word) == (False, (12, 24), "better")


def test_the_least_difference_that_single_runs_can_show_is_a_buckets_width_or_so() -> None:
    constant = [0.010] * 5
    for contender, word in ((0.0101, "not distinguishable"), (0.0102, "worse")):
        assert contrast(P99, sample([0.010]), sample([contender]), constant).word == word
    # Shares of 1 have no such width: five times no error does not say how often there is none.
    assert contrast(measure("error_ratio"), sample([0]), sample([0.1]), [0] * 5).word == "noise unknown"


def test_beside_a_primary_that_differs_others_speak_for_themselves_else_as_one_of_all() -> None:
    same = contrast(P99, sample(LOW), sample(LOW), ())
    apart = contrast(P99, sample(LOW), sample(HIGH), ())
    five, nine = (
        apart,
        contrast(P99, sample([v / 10 for v in range(1, 10)]), sample([v / 10 for v in range(11, 20)]), ()),
    )

    def words(primary: Contrast, *others: Contrast) -> list[str]:
        return [one.word for one in as_family(primary, others)]

    assert words(apart, five, same) == ["worse", "not distinguishable"]
    assert words(same, five, same) == ["too few runs", "not distinguishable"]
    assert words(same, five) == ["worse"]
    # 9 + 9 runs are enough to be told from noise as one of ten: 2 of 48,620 ways.
    assert words(same, nine, *[same] * 9) == ["worse"] + ["not distinguishable"] * 9


def test_what_was_never_answered_is_worse_than_any_time_and_what_was_not_measured_is_nothing() -> None:
    nulls = {P99.null_key: "more than 1 % unanswered"}
    assert value_of(P99, {"response_time.p99": None}, nulls) == (math.inf, "more than 1 % unanswered")
    assert value_of(P99, {"response_time.p99": None}, {P99.null_key: "too few samples"}) == (None, "too few samples")
    assert value_of(P99, {}, {}) == (None, "not measured")
    assert value_of(RATE, {}, {RATE.null_key: "no measured window"}) == (None, "no measured window")


def test_every_metric_of_a_result_is_a_measure_whose_null_can_be_found() -> None:
    result = make_result()
    assert {one.key for one in every()} == set(figures(result))
    assert result.broadcast is None  # where the whole block is null, so is what it would hold, with no reason each
    for one in every():
        if one.key not in DELIVERIES and not one.key.startswith("one_way."):
            assert (figures(result)[one.key] is None) == (one.null_key in result.nulls), one.key
        assert one.text in {definition.text for definition in DEFINITIONS.values()}
    assert [one.key for one, _ in compared("response_time.p99")] == [
        key for key in (*SECONDARY, *EXPLAINING) if key != "response_time.p99"
    ]
    with pytest.raises(KeyError):
        measure("response_time.p42")


# --- sides ------------------------------------------------------------------------------------------------------------
def member(number: int, p99: float | None, scenario: Scenario = SMOKE, **fields: Any) -> Member:
    given: dict[str, Any] = {
        "state": "finished",
        "validity": "valid",
        "reasons": (),
        "subject": ("echo", "1"),
        "engine": "",
        "environment_digest": "d",
        "has_window": True,
        "nulls": {P99.null_key: "more than 1 % unanswered"},
    }
    return Member(
        id=f"r-{number:010}",
        created_at=NOW + timedelta(minutes=number),
        scenario=scenario.model_dump(mode="json"),
        figures={"response_time.p99": p99},
        **given | fields,
    )


def side(first: int, values: Sequence[float | None], scenario: Scenario = SMOKE, **fields: Any) -> Side:
    members = [member(first + i, value, scenario, **fields) for i, value in enumerate(values)]
    kind: Any = "group" if len(values) > 1 else "run"
    return Side(f"{kind[0]}-{first}", kind, f"side {first}", "/", members, [])


def words(comparison: Comparison) -> list[str]:
    return [contender.word for contender in comparison.contenders]


@pytest.mark.parametrize(
    ("contenders", "code"),
    [
        ([LOW], 0),
        ([tuple(v / 2 for v in LOW)], 0),
        ([HIGH], 1),
        ([LOW, HIGH], 1),
        ([HIGH[:3]], 3),
        ([LOW, HIGH[:3]], 3),
        ([HIGH, HIGH[:3]], 1),
        ([(None,) * 5], 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_contender(contenders: list[Sequence[float | None]], code: int) -> None:
    sides = [side(1, LOW), *(side(100 * n, values) for n, values in enumerate(contenders, 1))]
    assert compare(sides, ()).exit_code == code


def test_each_contender_is_held_against_the_base_whoever_else_is_there() -> None:
    base, worse, same = side(1, LOW), side(100, HIGH), side(200, LOW)
    assert words(compare([base, worse, same], ())) == ["worse", "not distinguishable"]
    assert [
        (row.measure.key, [cell.word for cell in row.cells]) for row in compare([base, same, worse], ()).rows[:1]
    ] == [("response_time.p99", ["not distinguishable", "worse"])]


def test_the_earlier_runs_are_the_newest_thirty_before_the_two_and_none_of_theirs() -> None:
    earlier = [member(number, 1.0) for number in range(50)]
    base, contender = side(48, [1.0]), side(60, [1.1])
    [found] = compare([base, contender], earlier).contenders
    assert [one.id for one in found.noise.members] == [f"r-{n:010}" for n in (49, *range(47, 18, -1))]


def test_a_field_that_an_older_scenario_does_not_have_stands_at_its_default() -> None:
    old = SMOKE.model_dump(mode="json")
    del old["split"], old["primary_metric"]
    assert load_of(old) == load_of(SMOKE.model_dump(mode="json")) == load_of(SMOKE.model_dump())
    renamed = SMOKE.model_copy(update={"name": "x", "thresholds": (), "primary_metric": "received_per_s"})
    assert load_of(renamed.model_dump(mode="json")) == load_of(old)


def test_a_group_whose_runs_are_not_equal_says_so() -> None:
    first, *rest = side(1, LOW).members
    members = [first._replace(environment_digest="e", subject=("echo", "2")), *rest]
    assert Side("g-1", "group", "side 1", "/", members, []).cautions() == [
        "Within group side 1 the environment changed: its runs are not equal ones.",
        "Within group side 1 the subject changed: its runs are not equal ones.",
    ]


def test_one_side_is_no_comparison_and_six_are_too_many() -> None:
    for n in (1, 6):
        with pytest.raises(ValueError, match=f"{n} sides: expected 2 to 5"):
            compare([side(100 * i, LOW) for i in range(n)], ())


def test_groups_that_were_made_one_after_the_other_say_so_and_those_that_alternate_do_not() -> None:
    [contender] = compare([side(1, LOW), side(100, LOW)], ()).contenders
    assert contender.cautions == [
        "side 100 and side 1 were made one after the other: whatever else changed in between counts as a difference. "
        "Groups that alternate (A B B A) do not have this."
    ]
    [contender] = compare([side(1, LOW), side(3, LOW)], ()).contenders
    assert contender.cautions == []
    [contender] = compare([side(1, LOW), side(100, [1.0])], ()).contenders
    assert contender.cautions == []


def test_sides_of_one_version_are_told_apart_by_title_or_id() -> None:
    run, other = side(1, [1.0]), side(2, [1.0], subject=("echo", "2"))
    groups = [side(10, LOW), side(20, LOW), side(30, LOW)]
    groups[2].title = groups[1].title
    name_apart([run, other, *groups])
    assert [one.label for one in (run, other, *groups)] == ["r-1", "2", "side 10", "g-20", "g-30"]


def test_equal_values_need_no_noise_to_be_the_same() -> None:
    same = contrast(measure("error_ratio"), sample([0]), sample([0]), ())
    assert (same.word, same.p, same.delta) == ("not distinguishable", None, 0)
    [contender] = compare([side(1, [1.0]), side(2, [1.0])], ()).contenders
    assert contender.sentence.endswith("They are equal.")

"""Equal runs that were really made, dealt to two sides at random: how often a difference is found where there is none.

`repeats.json` holds the figures of 160 repetitions of a load against one server (`tests/benchmarks/record_repeats.py`).
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from portal.runs.contrast import Contrast, Sample, contrast
from portal.runs.measures import measure
from portal.runs.statistics import LEVEL

RUNS = [
    run["figures"]
    for run in json.loads((Path(__file__).parent / "repeats.json").read_text())["runs"]
    if run["validity"] != "invalid"
]
METRICS = ("response_time.p50", "response_time.p99", "handshake.p50")


def recorded(metric: str) -> list[float]:
    return [float(run[metric]) for run in RUNS]


def held(metric: str, base: Sequence[float], contender: Sequence[float], earlier: Sequence[float] = ()) -> Contrast:
    return contrast(measure(metric), Sample(tuple(base)), Sample(tuple(contender)), earlier)


def most(tries: int) -> float:
    """False alarms among so many tries that one of `LEVEL` in truth exceeds once in a thousand."""
    return LEVEL * tries + 3.1 * math.sqrt(LEVEL * (1 - LEVEL) * tries)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 6), (8, 8), (10, 6)])
def test_equal_groups_raise_a_false_alarm_in_at_most_one_of_a_hundred(metric: str, n: int, m: int) -> None:
    dice, tries = random.Random(f"{metric} {n} {m}"), 2000
    alarms = 0
    for _ in range(tries):
        dealt = dice.sample(recorded(metric), n + m)
        alarms += held(metric, dealt[:n], dealt[n:]).is_different
    assert alarms <= most(tries)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("earlier", [5, 8, 15, 30])
def test_equal_single_runs_raise_a_false_alarm_in_at_most_one_of_a_hundred(metric: str, earlier: int) -> None:
    dice, tries = random.Random(f"{metric} {earlier}"), 2000
    alarms = 0
    for _ in range(tries):
        base, contender, *before = dice.sample(recorded(metric), earlier + 2)
        alarms += held(metric, [base], [contender], before).is_different
    assert alarms <= most(tries)


@pytest.mark.parametrize("metric", METRICS)
def test_a_single_run_in_its_place_is_no_false_alarm_either(metric: str) -> None:
    values = recorded(metric)
    places = range(20, len(values))
    alarms = sum(held(metric, [values[at - 1]], [values[at]], values[at - 20 : at - 1]).is_different for at in places)
    assert alarms <= most(len(places))


@pytest.mark.parametrize("metric", METRICS)
def test_alternating_groups_raise_no_alarm_over_a_drift_that_groups_one_after_the_other_take_for_a_change(
    metric: str,
) -> None:
    values, n = recorded(metric), 8
    starts = range(len(values) - 2 * n + 1)
    windows = [values[start : start + 2 * n] for start in starts]
    alternated = [
        held(metric, [v for i, v in enumerate(w) if i % 4 in (0, 3)], [v for i, v in enumerate(w) if i % 4 in (1, 2)])
        for w in windows
    ]
    one_after_the_other = [held(metric, window[:n], window[n:]) for window in windows]
    assert sum(one.is_different for one in alternated) <= most(len(windows))
    # The machine's other work came and went while this was recorded: the reason for A B B A.
    assert sum(one.is_different for one in one_after_the_other) > 10 * LEVEL * len(windows)


def test_a_change_of_the_size_that_is_stated_is_found_in_four_of_five_comparisons_of_recorded_runs() -> None:
    metric, n, tries = "response_time.p99", 8, 400
    dice, values = random.Random(5), recorded("response_time.p99")
    stated = []
    for _ in range(40):
        dealt = dice.sample(values, 2 * n)
        found = contrast(measure(metric), Sample(tuple(dealt[:n])), Sample(tuple(dealt[n:])), (), power=True)
        assert found.detectable is not None
        stated.append(found.detectable)
    change = 1 + sorted(stated)[len(stated) // 2]
    hits = 0
    for _ in range(tries):
        dealt = dice.sample(values, 2 * n)
        one = held(metric, dealt[:n], [change * v for v in dealt[n:]])
        hits += one.word == "worse"
    assert 0.7 < hits / tries < 0.9


def test_a_constant_throughput_is_never_a_difference() -> None:
    values = recorded("received_per_s")
    assert len({round(v) for v in values}) <= 3
    dice = random.Random(3)
    for _ in range(300):
        dealt = dice.sample(values, 10)
        assert held("received_per_s", dealt[:5], dealt[5:]).word == "not distinguishable"

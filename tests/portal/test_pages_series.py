"""A run over time: columns, summaries, phases."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from portal.runs import charts
from portal.runs.charts import CHARTS, as_csv, lines
from portal.runs.columns import Columns
from portal.runs.phases import Phase, phases
from portal.runs.series import Table, after, extend, of_columns, of_line, tabulate
from tests.portal.factories import SMOKE, host_runs, merged_lines
from wsnode.core.merge import since
from wsnode.core.protocol import Second
from wsnode.core.scenario import Scenario
from wsnode.core.summary import Summary, summarise

NO_HOSTS: Table = {"second": []}


def columns(cumulative: Sequence[Second], before: Second | None = None) -> Table:
    """The table of consecutive cumulative lines; `before` precedes the first."""
    points = []
    for line in cumulative:
        points.append(of_line(line, before))
        before = line
    return tabulate(points)


def stored(cumulative: Sequence[Second]) -> Columns:
    """As an archive holds them."""
    return Columns.of(line.model_dump(mode="json") for line in cumulative)


def summaries(table: Table, window: tuple[int, int] | None) -> dict[str, str]:
    return charts.summaries(table, NO_HOSTS, window)


def summary(scenario: Scenario = SMOKE, **load: object) -> Summary:
    """Its series are the run's whole lines, histograms included."""
    runs = host_runs(scenario, **load)  # type: ignore[arg-type]
    found = summarise(scenario, runs)
    assert found is not None
    return found._replace(series=merged_lines(runs))


def test_every_chart_line_has_a_column_as_long_as_the_run() -> None:
    table = columns(summary().series)
    keys = {line.key for chart in CHARTS if not chart.of_hosts for line in chart.lines}
    assert set(table) == keys | {"second"}
    assert {len(column) for column in table.values()} == {12}


def test_a_point_is_what_was_due_in_its_second() -> None:
    table = columns(summary(lose_every=100).series)
    assert table["second"] == list(range(1, 13))
    assert table["offered"] == [250.0] + [500.0] * 11
    assert table["open"] == [50] + [100] * 11
    assert sum(v or 0 for v in table["answered"]) + sum(v or 0 for v in table["lost"]) == 5750
    assert not any(key.startswith(("error:", "unsent:")) for key in table)
    assert all(value == pytest.approx(0.002, rel=0.2) for value in table["p50"])


def test_what_was_not_answered_ranks_above_all_that_was() -> None:
    table = columns(summary(lose_every=20).series)
    assert table["p99"] == [None] * 12
    assert None not in table["p50"]


def test_columns_go_on_from_the_line_before() -> None:
    lines = summary().series
    whole, rest = columns(lines), columns(lines[7:], lines[6])
    assert {key: column[7:] for key, column in whole.items()} == rest


def test_an_archived_run_gives_the_same_columns() -> None:
    lines = summary(lose_every=50).series
    assert tabulate(list(of_columns(stored(lines)))) == columns(lines)


def test_kinds_of_errors_have_columns_of_their_own_and_come_late() -> None:
    lines_then = summary().series
    seen = [
        line.model_copy(update={"errors": {"reset": line.second}, "unsent": {"not_open": 3}} if line.second > 8 else {})
        for line in lines_then
    ]
    table = columns(seen[:6])
    extend(table, columns(seen[6:], seen[5]))
    assert table == columns(seen) == tabulate(list(of_columns(stored(seen))))
    assert table["error:reset"] == [0.0] * 8 + [9.0, 1.0, 1.0, 1.0]
    assert table["unsent:not_open"] == [0.0] * 8 + [3.0, 0.0, 0.0, 0.0]
    (errors,) = (chart for chart in CHARTS if chart.key == "errors")
    assert [(line.label, line.colour) for line in lines(errors, table)] == [
        ("messages lost", 5),
        ("reset", 6),
        ("unsent, not open", 7),
    ]
    assert (
        summaries(table, None)["errors"] == "Reset, most in second 9 (9/s); unsent, not open, most in second 9 (3/s)."
    )
    assert after(table, 10)["error:reset"] == [1.0, 1.0]
    assert as_csv(errors, after(table, 11)) == "second,lost_per_s,error_reset_per_s,unsent_not_open_per_s\n12,0,1,0\n"


def test_more_lines_than_colours_are_told_apart_by_dashes() -> None:
    (cpu,) = (chart for chart in CHARTS if chart.key == "cpu")
    drawn = lines(cpu, {"second": [], **{f"cpu:host-{n:02}": [] for n in range(20)}})
    assert len(drawn) == 16
    assert len({(line.colour, line.dashed) for line in drawn}) == 16


def test_a_long_run_is_cut_into_fewer_exact_points() -> None:
    lines = summary().series
    table = tabulate(list(of_columns(stored(lines), most=4)))
    assert table["second"] == [3, 6, 9, 12]
    assert table["offered"] == [pytest.approx((250 + 500 + 500) / 3), 500.0, 500.0, 500.0]
    middle = since(lines[5], lines[2]).histogram("response_time")
    value = middle.value_at_rank(750)
    assert value is not None
    assert table["p50"][1] == value / 1e9


def test_a_run_without_seconds_has_empty_columns_and_says_so() -> None:
    table = columns([])
    assert set(map(len, table.values())) == {0}
    assert set(summaries(table, None).values()) == {"Nothing yet."}


def test_summaries_say_what_the_charts_show() -> None:
    found = summary(lose_every=100)
    said = summaries(columns(found.series), found.window)
    assert said["connections"] == "At most 100 open."
    assert said["messages"] == "500/s offered and 495/s answered in the measured window, on average."
    assert said["response_time"].startswith("p50 between 1.")
    assert said["errors"].startswith("Messages lost, most in second ")
    assert said["scheduler_lag"].startswith("p99 between ")
    assert said["cpu"] == "No host was seen."
    assert summaries(columns(summary().series), (2, 12))["errors"] == "None."


def test_gaps_are_counted_in_words() -> None:
    found = summary(lose_every=20)
    said = summaries(columns(found.series), found.window)["response_time"]
    assert said.endswith("10 points have no p99: too much was never answered.")


def test_phases_share_out_all_that_was_due() -> None:
    found = summary(lose_every=100)
    parts = phases(SMOKE, stored(found.series), found.total, found.window)

    assert [(part.name, part.from_s, part.to_s) for part in parts] == [
        ("Ramp-up", 0, 2),
        ("Measured window", 2, 12),
        ("Drain", 12, None),
    ]
    assert [part.stretch.counters.messages_due for part in parts] == [750, 5000, 0]
    assert sum(part.stretch.counters.messages_lost for part in parts) == found.total.counters.messages_lost
    assert [Phase.from_json(json.loads(json.dumps(part.to_json()))) for part in parts] == parts
    window, (latencies, _) = parts[1], found.latencies()
    assert window.response_time == latencies.response_time
    assert set(parts[2].nulls.values()) == {"nothing was due"}


def test_without_anybodys_last_word_there_is_no_drain() -> None:
    found = summary()
    assert [part.name for part in phases(SMOKE, stored(found.series), None, found.window)] == [
        "Ramp-up",
        "Measured window",
    ]
    assert phases(SMOKE, Columns(), None, None) == []


def test_warm_up_is_a_phase_of_its_own() -> None:
    warm = SMOKE.model_copy(update={"warm_up_s": 3})
    found = summary(warm)
    parts = phases(warm, stored(found.series), found.total, found.window)
    assert [(part.name, part.from_s, part.to_s) for part in parts] == [
        ("Ramp-up", 0, 2),
        ("Warm-up", 2, 5),
        ("Measured window", 5, 12),
        ("Drain", 12, None),
    ]


def test_without_a_window_everything_is_ramp_up() -> None:
    partial = SMOKE.model_copy(update={"ramp_up_s": 20.0})
    found = summary(partial)
    assert [part.name for part in phases(partial, stored(found.series), found.total, None)] == ["Ramp-up", "Drain"]

"""Stretches of a run that is kept: the same figures as the measured window had, and judged by the same rules."""

from __future__ import annotations

import re

import pytest

from portal.conductor.job import HostOutcome, Outcome
from portal.runs.archive import Opened, pack
from portal.runs.cut import judged, stretch, summary
from portal.runs.models import RunSecond
from portal.runs.percentiles import Point, curve, curve_csv, curve_summary, curves, quantile
from portal.runs.stretches import Figures
from tests.portal.factories import SMOKE, STABLE, host_runs, make_result, merged_lines
from wsnode.core.histogram import Histogram
from wsnode.core.judge import Surroundings
from wsnode.core.merge import since
from wsnode.core.result import Result
from wsnode.core.scenario import Scenario
from wsnode.core.summary import HostRun, summarise


def archive(runs: list[HostRun], scenario: Scenario = SMOKE) -> Opened:
    environment = {"stable": STABLE}
    hosts = [
        HostOutcome("server", "server"),
        *(
            HostOutcome(r.name, "load_generator", environment_begin=environment, environment_end=environment, run=r)
            for r in runs
        ),
    ]
    content = pack(
        run_id="r-test",
        scenario=scenario.model_dump(mode="json"),
        outcome=Outcome("finished", None, hosts, 1_795_000_000_000_000_000),
        seconds=[RunSecond.of(None, line).line for line in merged_lines(runs)],  # type: ignore[arg-type]
        series=(),
        log=(),
    )
    return Opened(content)


def whole(result: Result) -> dict[str, object]:
    """A result without what the judgement's caller puts in, and the hosts that a reason names."""
    bare = [re.sub(r" \(load-1, load-2\)$", "", reason) for reason in result.reasons]
    return result.model_dump(exclude={"evidence", "window", "notes"}) | {"reasons": bare}


@pytest.mark.parametrize("load", [{}, {"lose_every": 100}, {"lag_ms": 60.0}, {"cpu": 0.99}])
def test_the_measured_window_cut_again_is_judged_as_it_was(load: dict[str, float]) -> None:
    runs = host_runs(**load)
    first = make_result(runs=runs)
    again = judged(first, archive(runs), (2, 12))
    assert whole(again) == whole(first)
    assert set(first.notes) <= set(again.notes)


def test_a_part_of_the_window_has_figures_of_its_own() -> None:
    runs = host_runs(lose_every=100)
    first, found = make_result(runs=runs), archive(runs)
    part = judged(first, found, (4, 9))
    lines = merged_lines(runs)
    gained = since(lines[8], lines[3])
    assert part.window is not None
    assert (part.window.from_s, part.window.to_s) == (4, 9)
    assert (part.window.end - part.window.start).total_seconds() == 5
    assert part.latency_s.response_time.due == gained.counters.messages_due == 2500
    assert part.latency_s.response_time.count == gained.counters.messages_received
    assert part.rates.offered_per_s == 500
    assert part.counters == first.counters
    assert part.latency_s.handshake == first.latency_s.handshake
    assert part.thresholds[0].expr == "response_time.p99 < 250ms"
    value = gained.histogram("response_time").value_at_rank(2475)
    assert part.latency_s.response_time.p99 == (None if value is None else value / 1e9)


def test_what_was_known_of_the_lab_holds_for_every_window() -> None:
    runs = host_runs()
    around = Surroundings(environment_changed=["server: kernel 1 → 2"])
    first = make_result(runs=runs, surroundings=around)
    assert first.validity == "suspect"
    other = judged(first, archive(runs), (5, 8))
    assert (other.validity, other.reasons) == (first.validity, first.reasons)


def test_a_window_of_bad_seconds_fails_where_the_whole_passed() -> None:
    """Lost are only messages of the seconds 11 and 12."""
    good, bad = host_runs(), host_runs(lose_every=50)
    mixed = []
    for fine, poor in zip(good, bad, strict=True):
        gained = [since(poor.series[n], poor.series[n - 1]) for n in (10, 11)]
        lines = list(fine.series[:10])
        for extra in gained:
            last = lines[-1]
            counters = {
                name: getattr(last.counters, name)
                + (0 if name == "connections_open" else getattr(extra.counters, name))
                for name in type(last.counters).model_fields
            }
            times = {name: Histogram.from_wire(h.to_wire()) for name, h in last.histograms.items()}
            for name, histogram in extra.histograms.items():
                times[name].add(histogram)
            lines.append(
                last.model_copy(
                    update={
                        "second": extra.second,
                        "counters": type(last.counters)(**counters),
                        "histograms": times,
                        "host": fine.series[extra.second - 1].host,
                    }
                )
            )
        closed = lines[-1].counters.model_copy(
            update={"connections_closed": lines[-1].counters.connections_opened, "connections_open": 0}
        )
        final = lines[-1].model_copy(update={"second": 13, "counters": closed})
        mixed.append(HostRun(fine.name, lines, fine.result.model_copy(update={"final": final})))
    lenient = SMOKE.model_copy(update={"thresholds": ("error_ratio < 1%",)})
    first, found = make_result(runs=mixed, scenario=lenient), archive(mixed, lenient)
    assert (first.verdict, first.thresholds[0].value) == ("passed", pytest.approx(0.004))
    end = judged(first, found, (10, 12))
    assert (end.verdict, end.thresholds[0].value) == ("failed", pytest.approx(0.02))
    assert judged(first, found, (2, 10)).thresholds[0].value == 0


def test_a_stretch_needs_no_measured_window() -> None:
    partial = SMOKE.model_copy(update={"ramp_up_s": 20.0})
    runs = host_runs(partial)
    first, found = make_result(scenario=partial, runs=runs), archive(runs, partial)
    assert first.verdict == "none"
    other = judged(first, found, (6, 12))
    assert other.verdict == "passed"
    assert [judgement.passed for judgement in other.thresholds] == [True, True]
    assert "ramp-up only" not in " ".join(other.notes)


@pytest.mark.parametrize("window", [(0, 0), (3, 3), (5, 4), (0, 13), (-1, 3)])
def test_what_is_no_stretch_is_refused(window: tuple[int, int]) -> None:
    runs = host_runs()
    with pytest.raises(ValueError, match="wanted a stretch of 0 to 12"):
        stretch(SMOKE, archive(runs).columns, window)


def test_the_figures_of_a_stretch_are_exact() -> None:
    runs = host_runs(lose_every=100)
    lines = merged_lines(runs)
    figures = Figures.of(stretch(SMOKE, archive(runs).columns, (4, 9)))
    gained = since(lines[8], lines[3])
    assert figures.length_s == 5
    assert {(count.name, count.n, count.per_s) for count in figures.messages} >= {
        ("due", 2500, 500.0),
        ("received", gained.counters.messages_received, gained.counters.messages_received / 5),
        ("lost", gained.counters.messages_lost, gained.counters.messages_lost / 5),
    }
    assert figures.open_most == 100
    assert figures.error_ratio == gained.counters.messages_lost / 2500
    response = figures.rows[0]
    value = gained.histogram("response_time").value_at_rank(1250)
    assert value is not None
    assert (response.cells[1].title, response.cells[1].value) == ("p50", value / 1e9)
    assert response.cells[5].why == "more than 0.1 % unanswered"


def test_without_hosts_last_words_the_seconds_are_the_whole() -> None:
    runs = [run._replace(result=run.result.model_copy(update={"final": None})) for run in host_runs()]
    found = summary(SMOKE, archive(runs), (2, 12))
    known = summarise(SMOKE, runs)
    assert found is not None
    assert known is not None
    assert found.total.counters == known.total.counters
    assert found.latencies() == known.latencies()
    assert found.rates() == known.rates()


# --- percentile curves ------------------------------------------------------------------------------------------------
def test_a_curve_passes_through_the_percentiles_and_ends_where_they_do() -> None:
    histogram = Histogram.of(range(1_000, 1_001_000, 1_000))  # 1 µs to 1 ms
    points = dict(curve(histogram, 1000))
    assert points[0] == 1e-6
    assert points[1] == pytest.approx(900e-6, rel=0.004)
    assert points[2] == pytest.approx(990e-6, rel=0.004)
    assert max(points) == 2
    unanswered = dict(curve(histogram, 2000))
    assert max(unanswered) == pytest.approx(0.3)
    assert curve(Histogram(), 0) == []


def test_a_curve_is_told_in_words_and_as_values() -> None:
    found = summary(SMOKE, archive(host_runs()), (2, 12))
    assert found is not None
    known = curves(found)
    assert set(known) == {"response_time", "service_time", "write_wait", "scheduler_lag"}
    said = curve_summary(known)
    assert said.startswith("Response time: p90 ")
    assert "and the curve ends at p99." in said
    assert curve_summary({}) == "Too few messages for a curve of the response time."
    text = curve_csv({"response_time": [Point(0.0, 0.001), Point(2.0, 0.0125)]})
    assert text == "percentile,response_time_s\n0,0.001\n99,0.0125\n"
    assert [quantile(nines) for nines in (0, 0.3, 1, 2, 3, 3.5, 5)] == [
        "p0", "p50", "p90", "p99", "p99.9", "p99.97", "p99.999",
    ]  # fmt: skip

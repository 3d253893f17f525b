"""Summaries of constructed loads, with every figure worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wsnode.core.runs import MS, SCENARIO, Load, second, steady
from wsnode.core.result import NO_REPLY, NOTHING_DUE
from wsnode.core.scenario import Scenario
from wsnode.core.summary import HostRun, Summary, summarise


def summary_of(*hosts: HostRun, **changes: Any) -> Summary:
    summary = summarise(SCENARIO.model_copy(update=changes), hosts)
    assert summary is not None
    return summary


def test_a_steady_load_gives_exact_counts_and_rates() -> None:
    summary = summary_of(steady().run())
    assert summary.window == (2, 12)
    assert summary.window_s == 10
    assert summary.rates().model_dump() == {
        "connect_per_s": 50,
        "offered_per_s": 1000,
        "sent_per_s": 1000,
        "received_per_s": 1000,
    }
    assert summary.error_ratio == 0
    assert summary.connect_error_ratio == 0
    assert summary.peak == 100
    assert summary.nulls() == {}
    counters = summary.counters()
    assert counters.messages_due == counters.messages_received == 11_000
    assert counters.connections_closed == counters.connections_opened == 100
    assert counters.connections_open == 0
    assert counters.connections_peak == 100
    assert counters.bytes_sent == counters.bytes_received == 704_000


def test_a_steady_load_gives_exact_latencies() -> None:
    latencies, nulls = summary_of(steady().run()).latencies()
    response = latencies.response_time
    assert (response.due, response.count) == (10_000, 10_000)
    assert response.mean == 0.005
    assert response.p50 == response.p999 == pytest.approx(0.005, rel=1 / 256)
    assert latencies.service_time.mean == 0.0049
    assert latencies.scheduler_lag.mean == latencies.write_wait.mean == 0.0001
    assert (latencies.handshake.due, latencies.handshake.p90) == (100, 0.002)
    # 100 handshakes are enough for p90 and too few for what lies above it.
    assert {key: why for key, why in nulls.items() if "p9" in key} == {
        "latency_s.handshake.p95": "too few samples",
        "latency_s.handshake.p99": "too few samples",
        "latency_s.handshake.p999": "too few samples",
    }
    assert nulls.keys() == {f"latency_s.handshake.{name}" for name in ("p95", "p99", "p999")}


def test_lost_and_unsent_messages_are_errors_but_for_the_generators_own() -> None:
    load = steady(lost=20, unsent={"not_open": 3, "write_blocked": 2, "generator_late": 5})
    summary = summary_of(load.run())
    assert summary.error_ratio == 25 / 1000
    assert summary.server_fault_unsent == 50
    assert summary.generator_fault_unsent == 50
    assert summary.rates().sent_per_s == 990
    assert summary.rates().received_per_s == 970
    latencies, nulls = summary.latencies()
    assert (latencies.response_time.due, latencies.response_time.count) == (10_000, 9700)
    assert (latencies.service_time.due, latencies.service_time.count) == (9900, 9700)
    assert (latencies.scheduler_lag.due, latencies.scheduler_lag.count) == (10_000, 9950)
    assert (latencies.write_wait.due, latencies.write_wait.count) == (9950, 9900)
    assert latencies.response_time.p95 == pytest.approx(0.005, rel=1 / 256)
    assert nulls["latency_s.response_time.p99"] == "more than 1 % unanswered"
    assert nulls["latency_s.scheduler_lag.p999"] == "more than 0.1 % without a turn"
    assert nulls["latency_s.write_wait.p999"] == "more than 0.1 % not sent"


def test_what_was_due_before_the_window_does_not_count_in_it_but_handshakes_do() -> None:
    load = Load().tick(connects=50, due=250, lost=250).tick(connects=50, due=750, response_ns=900 * MS)
    summary = summary_of(load.tick(seconds=10, due=1000).run())
    assert summary.error_ratio == 0
    latencies, _ = summary.latencies()
    assert latencies.response_time.max is not None
    assert latencies.response_time.max == pytest.approx(0.005, rel=1 / 128)
    assert latencies.handshake.count == 100
    assert summary.counters().messages_lost == 250


def test_the_warm_up_is_not_measured() -> None:
    load = Load().tick(connects=100, seconds=1).tick().tick(seconds=3, due=1000, lost=500)
    summary = summary_of(load.tick(seconds=7, due=1000).run(), warm_up_s=3)
    assert summary.window == (5, 12)
    assert summary.error_ratio == 0
    assert summary.measured.counters.messages_due == 7000


def test_two_hosts_add_up() -> None:
    one = steady("load-1").run()
    other = Load("load-2").tick(connects=10).tick().tick(seconds=10, due=500, response_ns=20 * MS, lost=5).run()
    summary = summary_of(one, other)
    assert summary.rates().offered_per_s == 1500
    assert summary.rates().received_per_s == 1495
    assert summary.rates().connect_per_s == 55
    assert summary.error_ratio == 50 / 15_000
    latencies, _ = summary.latencies()
    assert latencies.response_time.count == 14_950
    assert latencies.response_time.mean == (10_000 * 0.005 + 4950 * 0.020) / 14_950
    # 10,000 of the 15,000 due are answered within 5 ms, 4,950 more within 20 ms.
    assert latencies.response_time.p50 == pytest.approx(0.005, rel=1 / 256)
    assert latencies.response_time.p90 == pytest.approx(0.020, rel=1 / 256)


def test_the_peak_is_that_of_the_sum_and_not_the_sum_of_the_peaks() -> None:
    one = Load("load-1").tick(connects=10).tick(closed=10).tick(seconds=10).run()
    other = Load("load-2").tick(connects=2).tick(connects=4).tick(seconds=10, closed=0).run()
    assert summary_of(one, other).peak == 12


def test_an_interrupted_host_ends_the_window_at_its_last_line_and_keeps_what_it_has_counted() -> None:
    dead = Load("load-1").tick(connects=50).tick().tick(seconds=4, due=100).run("interrupted")
    alive = Load("load-2").tick(connects=50).tick().tick(seconds=10, due=100).run()
    summary = summary_of(dead, alive)
    assert len(summary.series) == 6
    assert all(line.histograms == {} for line in summary.series)  # of a long run they would fill the memory
    assert summary.window == (2, 6)
    assert summary.measured.counters.messages_due == 800
    assert summary.rates().offered_per_s == 200
    assert summary.counters().messages_due == 1400
    assert summary.counters().connections_open == 50  # the dead one's, as far as anybody knows


def test_a_stopped_load_is_measured_until_its_last_whole_second() -> None:
    load = Load().tick(connects=100).tick().tick(seconds=3, due=1000)
    final = load.lines[-1].model_copy(
        update={
            "second": 6,
            "counters": load.lines[-1].counters.model_copy(
                update={"messages_due": 3400, "messages_sent": 3400, "messages_in_flight": 400}
            ),
        }
    )
    summary = summary_of(load.run("stopped", final=final))
    assert summary.window == (2, 5)
    assert summary.measured.counters.messages_due == 3000
    assert summary.counters().messages_due == 3400
    assert summary.counters().messages_in_flight == 400


def test_lines_beyond_the_duration_are_not_measured() -> None:
    assert summary_of(steady().tick(seconds=2, due=7).run()).window == (2, 12)


@pytest.mark.parametrize(("lines", "window"), [(3, (2, 3)), (2, None), (1, None)])
def test_a_window_has_at_least_one_second(lines: int, window: tuple[int, int] | None) -> None:
    summary = summary_of(Load().tick(connects=50, due=100, seconds=lines).run("stopped"))
    assert summary.window == window


def test_a_ramp_up_only_run_has_counts_and_a_connect_rate_but_no_rates_of_a_window() -> None:
    load = Load().tick(connects=10, due=100, seconds=8)
    summary = summary_of(load.run(), clients=1000, rate_per_s=10, duration_s=8)
    assert summary.window is None
    assert summary.window_s is None
    assert summary.measured == summary.total
    assert summary.rates().model_dump() == {
        "connect_per_s": 10,
        "offered_per_s": None,
        "sent_per_s": None,
        "received_per_s": None,
    }
    assert summary.nulls() == dict.fromkeys(
        ("rates.offered_per_s", "rates.sent_per_s", "rates.received_per_s"), "no measured window"
    )
    latencies, _ = summary.latencies()
    assert latencies.response_time.count == 800


def test_an_idle_load_has_true_zeros_and_no_ratio_of_nothing() -> None:
    load = Load().tick(connects=50, seconds=2).tick(seconds=10)
    summary = summary_of(load.run(), interval_ms=0)
    assert summary.rates().model_dump() == {
        "connect_per_s": 50,
        "offered_per_s": 0,
        "sent_per_s": 0,
        "received_per_s": 0,
    }
    assert summary.error_ratio is None
    assert summary.nulls() == {"error_ratio": "no messages were due"}
    latencies, nulls = summary.latencies()
    assert latencies.response_time.mean is None
    assert latencies.response_time.due == 0
    assert nulls["latency_s.response_time.mean"] == nulls["latency_s.response_time.p99"] == NOTHING_DUE
    assert latencies.handshake.mean == 0.002


def test_without_awaited_replies_times_to_a_reply_are_not_unanswered() -> None:
    load = Load().tick(connects=50, seconds=2)
    load.tick(seconds=10, due=1000, no_reply=950, unsent={"connection_down": 50})
    summary = summary_of(load.run(), match="none")
    latencies, nulls = summary.latencies()
    assert latencies.response_time.due == latencies.service_time.due == 0
    assert nulls["latency_s.response_time.p99"] == nulls["latency_s.service_time.mean"] == NO_REPLY
    assert summary.error_ratio == 0.05
    assert latencies.write_wait.count == 9500


def test_the_connect_rate_is_what_was_opened_within_the_ramp_up() -> None:
    # The server opens half of the connections only after the ramp-up: the warm-up must not make up for it.
    load = Load().tick(connects=25, seconds=2).tick(connects=50).tick(seconds=9, due=10)
    assert summary_of(load.run(), warm_up_s=5).rates().connect_per_s == 25


@pytest.mark.parametrize(
    ("ramp_up_s", "per_s"),
    [(2.9, 50), (2, 50), (1.999, 60), (1, 60), (0.999, None)],
)
def test_the_connect_rate_is_over_the_whole_seconds_of_the_ramp_up(ramp_up_s: float, per_s: float | None) -> None:
    load = Load().tick(connects=60).tick(connects=40).tick(seconds=10, due=10)
    summary = summary_of(load.run(), ramp_up_s=ramp_up_s, rate_per_s=10_000)
    assert summary.rates().connect_per_s == per_s
    if per_s is None:
        assert summary.nulls() == {"rates.connect_per_s": "the ramp-up is shorter than a second"}


def test_a_load_without_a_ramp_up_is_measured_from_second_one_on() -> None:
    scenario = Scenario(clients=100, interval_ms=100, ramp_up_s=0, rate_per_s=100_000, duration_s=3)
    summary = summarise(scenario, [Load().tick(connects=100, due=1000, lost=9).tick(seconds=2, due=1000).run()])
    assert summary is not None
    assert summary.window == (1, 3)
    assert summary.rates().offered_per_s == 1000
    assert summary.error_ratio == 0


def test_failed_connects_are_a_share_of_the_attempted() -> None:
    load = Load().tick(connects=60, failed=10, errors={"connect_refused": 10}).tick(connects=50).tick(seconds=10)
    summary = summary_of(load.run())
    assert summary.connect_error_ratio == 10 / 110
    assert summary.counters().errors == {"connect_refused": 10}


def test_a_host_that_has_counted_nothing_is_left_out() -> None:
    nothing = Load("load-2").run("interrupted")
    assert summarise(SCENARIO, []) is None
    assert summarise(SCENARIO, [nothing]) is None
    assert summary_of(steady().run(), nothing).rates().offered_per_s == 1000


def test_a_load_of_less_than_a_second_has_counts_and_no_series() -> None:
    summary = summary_of(Load().run("stopped", final=second(1, connections_pending=3, connections_attempted=3)))
    assert summary.series == []
    assert summary.window is None
    assert summary.counters().connections_attempted == 3
    assert summary.peak is None
    assert summary.nulls() == {
        "rates.connect_per_s": "no whole second was counted",
        "rates.offered_per_s": "no measured window",
        "rates.sent_per_s": "no measured window",
        "rates.received_per_s": "no measured window",
        "counters.connections_peak": "no whole second was counted",
        "error_ratio": "no messages were due",
    }

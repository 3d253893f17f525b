"""What is measured is what happened: stalls in full, delays to the millisecond, a late generator is not believed."""

from __future__ import annotations

from tests.wsnode.loads import carry_out
from tests.wsnode.peers import peer


def test_a_stall_of_two_seconds_shows_in_the_percentiles_and_is_not_the_generators_fault() -> None:
    with peer("echo") as server:
        done = carry_out(
            server.url,
            on_go=lambda: server.stop_for(2.0, after=5.0),
            clients=100,
            interval_ms=200,
            ramp_up_s=2,
            duration_s=12,
            rate_per_s=100,
        )
    response = done.result.latency_s.response_time
    # A fifth of the window's messages wait evenly from 2 s down to nothing: the worst 5 % more than 1.5 s.
    assert done.summary.window == (2, 12)
    assert response.p95 is not None
    assert response.p99 is not None
    assert abs(response.p95 - 1.5) < 0.2
    assert abs(response.p99 - 1.9) < 0.1
    assert response.due == response.count == 5000
    lag = done.result.latency_s.scheduler_lag.p99
    assert lag is not None
    assert lag < 0.05
    assert not any("scheduler lag" in reason and "invalid" in reason for reason in done.result.reasons)
    assert done.result.validity != "invalid"
    # The seconds that the stall fell into are the only ones that show it.
    worst = [
        line.histogram("response_time").since(before.histogram("response_time")).max_ns
        for before, line in zip(done.series[2:], done.series[3:], strict=False)
    ]
    assert [second for second, ns in enumerate(worst, start=4) if ns is not None and ns > 400_000_000] == [6, 7]


def test_a_server_that_answers_after_20_ms_is_measured_as_20_ms() -> None:
    with peer("delay", 0.020) as server:
        done = carry_out(server.url, clients=20, interval_ms=100, ramp_up_s=1, duration_s=5, rate_per_s=100)
    service = done.result.latency_s.service_time
    assert service.p50 is not None
    assert abs(service.p50 - 0.020) < 0.002
    assert service.min is not None
    assert service.min > 0.018  # asyncio's timers may fire within their resolution of 1 ms
    response = done.result.latency_s.response_time
    assert response.p50 is not None
    assert abs(response.p50 - 0.020) < 0.002


def test_a_generator_asked_for_more_than_it_can_is_not_believed() -> None:
    with peer("silent") as server:
        done = carry_out(
            server.url,
            clients=400,
            interval_ms=1,
            ramp_up_s=1,
            duration_s=4,
            rate_per_s=1000,
            match="none",
        )
    assert done.result.validity == "invalid"
    blamed = [reason for reason in done.result.reasons if reason.startswith("invalid: ")]
    assert any("scheduler lag p99" in reason or "generator's own fault" in reason for reason in blamed)
    counters = done.result.counters
    assert counters.messages_due == counters.messages_sent + counters.messages_unsent
    assert counters.unsent["generator_late"] > 0

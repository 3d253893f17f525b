"""What is measured is what happened: stalls in full, delays to the millisecond, a late generator is not believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wsnode.loads import Done, carry_out, undisturbed
from tests.wsnode.peers import new_identity, peer
from wsnode.core.merge import broken_identities

BIG = {"clients": 1, "interval_ms": 50, "ramp_up_s": 0, "rate_per_s": 10, "duration_s": 5, "size_bytes": 256_000}
"""5 MB/s, of which the kernel buffers take some 4 MB."""


def test_a_stall_of_two_seconds_shows_in_the_percentiles_and_is_not_the_generators_fault() -> None:
    def stalled() -> Done:
        with peer("echo") as server:
            return carry_out(
                server.url,
                on_go=lambda: server.stop_for(2.0, after=5.0),
                clients=100,
                interval_ms=200,
                ramp_up_s=2,
                duration_s=12,
                rate_per_s=100,
            )

    done = undisturbed(stalled)
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
        done = undisturbed(
            lambda: carry_out(server.url, clients=20, interval_ms=100, ramp_up_s=1, duration_s=5, rate_per_s=100)
        )
    service = done.result.latency_s.service_time
    assert service.p50 is not None
    assert abs(service.p50 - 0.020) < 0.002
    response = done.result.latency_s.response_time
    assert response.p50 is not None
    assert abs(response.p50 - 0.020) < 0.002
    # A response can't be shorter than the delay, but that asyncio's timers may fire within their resolution of 1 ms. A
    # service time may, where another program had the CPU between the write and the look at the clock.
    assert response.min is not None
    assert response.min > 0.018


def _identity(tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    if not tls:
        return None
    identity = new_identity(tmp_path / "peer.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(identity))
    return identity


@pytest.mark.parametrize("tls", [False, True])
def test_what_the_kernel_could_not_take_at_once_is_write_wait(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with peer("halts", 2.5, _identity(tls, tmp_path, monkeypatch)) as server:
        done = carry_out(server.url, **BIG)
    latency = done.result.latency_s
    counters = done.result.counters
    assert counters.messages_received == counters.messages_sent > 80
    # It read nothing for 2.5 s, and the buffers were full before that.
    assert latency.response_time.max is not None
    assert latency.write_wait.max is not None
    assert 2.2 < done.summary.total.histogram("response_time").max_ns / 1e9 < 4
    assert 0.5 < latency.write_wait.max < 2.4
    lag_ns = done.summary.measured.histogram("scheduler_lag").value_at_rank(72)  # of 80
    assert lag_ns is not None
    assert lag_ns < 50_000_000


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_never_reads_is_measured_to_the_end(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with peer("halts", 0, _identity(tls, tmp_path, monkeypatch)) as server:
        done = carry_out(server.url, **BIG, reply_timeout_s=0.5, drain_s=1)
    # Also the message that the kernel had in part is given up in time: else its second would never be told.
    assert [line.second for line in done.series] == [1, 2, 3, 4, 5]
    assert done.summary.window == (1, 5)
    assert [broken_identities(line.counters) for line in done.series] == [[]] * 5
    counters = done.result.counters
    assert counters.messages_received == 1
    assert counters.messages_in_flight == 0
    assert counters.messages_sent == counters.messages_lost + 1 < 40
    assert counters.unsent["write_blocked"] > 50
    assert done.series[-1].unsent["write_blocked"] == counters.unsent["write_blocked"]


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

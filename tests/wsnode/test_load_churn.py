"""Clients that leave and come back: by plan, all at once, and after the server was started anew."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from tests.wsnode.loads import carry_out
from tests.wsnode.serving import serving
from wsnode.core.merge import broken_identities
from wsnode.core.scenario import Plan, Scenario
from wsnode.load.load import Load
from wsnode.load.reconnects import Reconnects

NS = 1_000_000_000


def connects(**fields: Any) -> int:
    return Scenario(**fields).pacing().connects_due(fields["duration_s"] * NS)


def test_a_storm_of_500_clients_is_counted_to_the_last() -> None:
    fields: dict[str, Any] = {
        "clients": 500, "interval_ms": 500, "ramp_up_s": 1, "rate_per_s": 500, "duration_s": 7, "storms": ("at 3s",),
        "reconnect_delay_s": 0.5, "reconnect_jitter": 1,
    }  # fmt: skip
    with serving() as server:
        done = carry_out(server.url(), workers=2, **fields)
        assert server.metrics().total("websocket_connections_opened_total") == 1000
    counters = done.result.counters
    assert connects(**fields) == 1000
    assert counters.connections_attempted == counters.connections_opened == counters.connections_closed == 1000
    assert counters.connections_peak == 500
    assert counters.errors == {}
    assert counters.reconnects == counters.messages_lost == 0
    assert done.result.latency_s.handshake.count == done.result.latency_s.handshake.due == 1000
    assert counters.messages_due == Scenario(**fields).pacing().offered(
        Plan.whole(Scenario(**fields), "ws://x").share, 7 * NS
    )
    assert broken_identities(counters) == []


def test_sessions_end_in_order_and_none_is_an_error() -> None:
    fields: dict[str, Any] = {
        "clients": 40, "interval_ms": 100, "ramp_up_s": 0.5, "rate_per_s": 80, "duration_s": 6, "session": "exp 1s",
        "reconnect_delay_s": 0.2, "seed": 3,
    }  # fmt: skip
    with serving() as server:
        done = carry_out(server.url(), workers=2, **fields)
    counters = done.result.counters
    assert counters.errors == {}
    assert counters.messages_lost == counters.messages_in_flight == 0
    assert counters.connections_opened == counters.connections_closed == counters.connections_attempted
    # A client that is still leaving when it is to be back comes a moment later, near the end perhaps not at all.
    assert connects(**fields) - 5 <= counters.connections_attempted <= connects(**fields)
    assert counters.messages_received == counters.messages_sent > 1000
    assert broken_identities(counters) == []


def test_everybody_is_back_after_a_restart_of_the_server() -> None:
    fields: dict[str, Any] = {
        "clients": 100, "interval_ms": 200, "ramp_up_s": 0.5, "rate_per_s": 200, "duration_s": 16,
        "reconnect_delay_s": 0.1, "reconnect_jitter": 1, "reconnect_backoff": 1.5,
    }  # fmt: skip
    with serving() as first:
        port = first.port

        async def restart(load: Load) -> None:
            await asyncio.sleep(2)
            first.process.kill()
            await asyncio.to_thread(first.process.wait)
            await asyncio.to_thread(started.append, second.__enter__())

        started: list[Any] = []
        second = serving("--port", str(port))
        try:
            done = carry_out(first.url(), workers=2, interrupt=restart, **fields)
        finally:
            if started:
                second.__exit__(None, None, None)
    counters = done.result.counters
    assert counters.connections_opened == 200
    assert counters.errors.get("reset", 0) + counters.errors.get("closed_by_server", 0) == 100
    assert counters.connections_failed == sum(
        n for kind, n in counters.errors.items() if re.match("connect_|handshake_", kind)
    )
    assert counters.connections_attempted == 100 + counters.reconnects
    assert done.series[-1].counters.connections_open == 100
    assert broken_identities(counters) == []


class _Asker:
    def __init__(self, number: int) -> None:
        self.number = number
        self.opened_ns = 0


def test_the_delay_grows_with_failures_in_a_row_up_to_a_minute_and_begins_anew() -> None:
    scenario = Scenario(reconnect_delay_s=1, reconnect_backoff=2, reconnect_jitter=0.5)
    reconnects, asker = Reconnects(scenario), _Asker(7)
    delays = []
    for _ in range(8):
        reconnects.plan(asker, 0)  # type: ignore[arg-type]
        delays.append(reconnects.due)
        reconnects.take()
    wanted = [1, 2, 4, 8, 16, 32, 60, 60]
    assert all(want * NS <= delay <= want * 1.5 * NS for want, delay in zip(wanted, delays, strict=True))
    asker.opened_ns = 1
    reconnects.plan(asker, 0)  # type: ignore[arg-type]
    assert reconnects.due <= 1.5 * NS

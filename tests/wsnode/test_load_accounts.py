"""Every message and connection is accounted for, whatever the server does."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from tests.wsnode.loads import carry_out
from tests.wsnode.peers import peer
from tests.wsnode.wild_peer import wild_peer
from wsnode.core.merge import broken_identities, since
from wsnode.core.protocol import Counters
from wsnode.core.scenario import Plan, Scenario
from wsnode.load.load import Load, LoadEnd, LoadError

SMALL = {"clients": 20, "interval_ms": 50, "ramp_up_s": 0.5, "duration_s": 3, "rate_per_s": 100}


def test_a_faithful_server_answers_everything_that_was_sent() -> None:
    with peer("echo") as server:
        done = carry_out(server.url, **SMALL)
    scenario = Scenario(**SMALL)
    counters = done.result.counters
    offered = scenario.pacing().offered(Plan.whole(scenario, "ws://x").share, 3 * 10**9)
    assert counters.messages_due == offered
    assert counters.messages_sent == counters.messages_received
    assert counters.messages_lost == counters.messages_unexpected == counters.messages_in_flight == 0
    assert set(counters.unsent) <= {"not_open"}
    assert counters.connections_opened == counters.connections_closed == 20
    assert counters.bytes_sent == counters.bytes_received == 64 * counters.messages_sent
    assert counters.errors == {}
    assert [line.second for line in done.series] == [1, 2, 3]
    # In the window all clients are open: nothing may be missing there, and the counts are those of the timetable.
    assert done.result.window is None  # no clock was given
    assert done.summary.window == (1, 3)
    assert done.summary.measured.counters.messages_due == 800
    assert done.summary.measured.counters.messages_received == 800


def test_drops_doubles_are_counted_exactly() -> None:
    with peer("faulty") as server:
        done = carry_out(server.url, **SMALL, reply_timeout_s=1, drain_s=1)
    counters = done.result.counters
    sent = counters.messages_sent
    assert sent > 900
    assert counters.messages_lost == sent // 100
    assert counters.messages_received == sent - sent // 100
    # Every 50th is doubled, except where it is also a 100th: the drop wins.
    assert counters.messages_unexpected == sent // 50 - sent // 100
    assert broken_identities(done.summary.total.counters) == []
    assert done.result.validity != "invalid"


def test_a_close_in_the_middle_of_a_reply_loses_that_message_and_the_client_comes_back() -> None:
    with peer("breaks", 300) as server:
        done = carry_out(server.url, **SMALL, reconnect_delay_s=0.2)
    counters = done.result.counters
    assert counters.messages_lost == 1
    assert counters.errors == {"closed_by_server": 1}
    assert counters.reconnects == 1
    assert counters.connections_attempted == counters.connections_opened == counters.connections_closed == 21
    assert counters.unsent["connection_down"] in range(3, 7)  # 200 ms at 50 ms
    assert counters.messages_received == counters.messages_sent - 1
    assert broken_identities(done.summary.total.counters) == []


def test_a_frame_that_breaks_the_protocol_is_named_so() -> None:
    with peer("badframe", 300) as server:
        done = carry_out(server.url, **SMALL, reconnect=False)
    counters = done.result.counters
    assert counters.errors == {"protocol_error": 1}
    assert counters.connections_attempted == 20
    assert counters.unsent["connection_down"] > 10


def test_a_server_that_says_close_and_leaves_the_connection_standing_is_left_after_two_seconds() -> None:
    with peer("leaves", 100) as server:
        done = carry_out(server.url, **{**SMALL, "duration_s": 5}, reconnect_delay_s=0.1)
    counters = done.result.counters
    assert counters.errors == {"closed_by_server": 1}
    # The schedule went on meanwhile: one client of 20 messages a second was down for some 2.1 s.
    assert 35 <= counters.unsent["connection_down"] <= 60
    assert counters.messages_lost <= 1
    assert counters.reconnects == 1
    assert broken_identities(done.summary.total.counters) == []
    assert [line.second for line in done.series] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("seed", "fields"),
    [
        (1, {"clients": 40, "interval_ms": 20, "while_down": "queue", "reply_timeout_s": 1, "drain_s": 2}),
        (2, {"clients": 4, "interval_ms": 50, "size_bytes": 1 << 20, "max_in_flight": 5, "connect_timeout_s": 0.3}),
    ],
)
def test_the_accounts_of_every_second_hold_whatever_a_server_does(seed: int, fields: dict[str, Any]) -> None:
    with wild_peer(seed) as url:
        done = carry_out(url, workers=2, **{**SMALL, **fields}, reconnect_delay_s=0.1)
    total = done.end.final
    assert total is not None
    assert [line.second for line in done.series] == [1, 2, 3]
    lines = [*done.series, total.model_copy(update={"second": 4})]
    assert [broken_identities(line.counters) for line in lines] == [[]] * 4
    for earlier, later in itertools.pairwise(lines):
        since(later, earlier)  # raises where a line has lost something that an earlier one had
    scenario = Scenario(**{**SMALL, **fields})
    plan = Plan.whole(scenario, "ws://x")
    assert total.counters.messages_due == scenario.pacing().offered(plan.share, 3 * 10**9)
    assert total.counters.messages_unsent == sum(total.unsent.values())
    assert total.histogram("response_time").count == total.counters.messages_received > 0
    assert total.histogram("write_wait").count == total.counters.messages_sent
    assert total.histogram("handshake").count == total.counters.connections_opened
    assert "generator_late" not in total.unsent


def test_while_down_queue_sends_after_the_reconnect_with_the_original_due_time() -> None:
    with peer("breaks", 300) as server:
        done = carry_out(server.url, **SMALL, reconnect_delay_s=0.5, while_down="queue")
    counters = done.result.counters
    assert "connection_down" not in counters.unsent
    assert counters.messages_received == counters.messages_sent - 1
    slowest = done.result.latency_s.response_time.max
    assert slowest is not None
    assert 0.4 < slowest < 1.0


def test_replies_that_match_nothing_are_unexpected_and_their_messages_lost() -> None:
    with peer("lies") as server:
        done = carry_out(server.url, **SMALL, reply_timeout_s=0.5, drain_s=1)
    counters = done.result.counters
    assert counters.messages_received == 0
    assert counters.messages_lost == counters.messages_unexpected == counters.messages_sent
    assert done.result.error_ratio == 1.0
    assert done.result.latency_s.response_time.p50 is None
    assert done.result.nulls["latency_s.response_time.p50"] == "more than 50 % unanswered"


def test_fragmented_replies_with_pings_between_are_whole_messages() -> None:
    with peer("fragments") as server:
        done = carry_out(server.url, **SMALL)
    counters = done.result.counters
    assert counters.messages_received == counters.messages_sent
    assert counters.errors == {}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("reject", "handshake_rejected"), ("garbage", "handshake_failed"), ("mute", "connect_timeout")],
)
def test_a_refused_handshake_is_a_failed_connect_of_its_kind(mode: str, kind: str) -> None:
    with peer(mode) as server:
        done = carry_out(
            server.url, clients=5, interval_ms=100, ramp_up_s=0.1, duration_s=2, rate_per_s=100,
            reconnect=False, connect_timeout_s=0.5,
        )  # fmt: skip
    counters = done.result.counters
    assert counters.errors == {kind: 5}
    assert counters.connections_failed == counters.connections_attempted == 5
    assert counters.messages_unsent == counters.messages_due > 0
    assert set(counters.unsent) == {"not_open"}
    assert done.result.connect_error_ratio == 1.0


def test_a_closed_port_is_refused_and_tried_again() -> None:
    with peer("echo") as server:
        url = server.url
    done = carry_out(url, clients=3, interval_ms=100, ramp_up_s=0, duration_s=2, rate_per_s=100, reconnect_delay_s=0.5)
    counters = done.result.counters
    assert set(counters.errors) == {"connect_refused"}
    assert counters.connections_attempted == 3 + counters.reconnects
    assert counters.reconnects in range(6, 13)


def test_max_in_flight_bounds_what_a_connection_owes() -> None:
    with peer("silent") as server:
        done = carry_out(server.url, **SMALL, max_in_flight=2, reply_timeout_s=1, drain_s=1)
    counters = done.result.counters
    assert counters.unsent["max_in_flight"] > 0
    assert counters.messages_lost == counters.messages_sent
    assert counters.messages_due == counters.messages_sent + counters.messages_unsent


def test_match_none_awaits_no_reply() -> None:
    with peer("silent") as server:
        done = carry_out(server.url, **SMALL, match="none")
    counters = done.result.counters
    assert counters.messages_no_reply == counters.messages_sent
    assert counters.messages_lost == 0
    assert done.result.latency_s.response_time.due == 0


def test_small_payloads_are_matched_by_order_and_the_result_says_so() -> None:
    with peer("echo") as server:
        done = carry_out(server.url, **SMALL, size_bytes=4, message_type="binary")
    assert done.result.counters.messages_received == done.result.counters.messages_sent
    assert done.result.counters.bytes_received == 4 * done.result.counters.messages_sent
    assert any("matched by order" in note for note in done.result.notes)


def test_two_workers_share_the_clients_and_their_seconds_are_merged() -> None:
    with peer("echo") as server:
        one = carry_out(server.url, workers=1, **SMALL)
        two = carry_out(server.url, workers=2, **SMALL)
    assert two.result.counters.messages_due == one.result.counters.messages_due
    assert two.result.counters.connections_peak == 20
    assert len(two.series[-1].host.worker_cpu_s) == 2
    assert two.summary.measured.counters.messages_received == 800


def test_a_worker_that_is_killed_interrupts_the_load() -> None:
    async def kill_a_worker(load: Load) -> None:
        await asyncio.sleep(1.5)
        assert load._pool is not None
        load._pool.workers[1].process.kill()

    with peer("echo") as server:
        done = carry_out(server.url, workers=2, interrupt=kill_a_worker, **SMALL)
    assert done.end.final is None
    assert done.end.interrupted == "load worker 1 ended before the load did: killed by SIGKILL"
    assert done.end.seconds == len(done.series) == 1
    assert done.result.validity == "invalid"


def test_a_stop_drains_and_keeps_the_accounts() -> None:
    async def stop(load: Load) -> None:
        await asyncio.sleep(2.3)
        await load.stop(reason="enough")

    with peer("echo") as server:
        done = carry_out(server.url, interrupt=stop, **{**SMALL, "duration_s": 60})
    assert done.end.stopped == "enough"
    assert done.end.seconds == 2
    assert done.summary.window == (1, 2)
    assert broken_identities(done.summary.total.counters) == []
    assert done.result.counters.messages_in_flight == 0
    assert done.result.counters.connections_closed == 20


def test_a_stop_without_drain_leaves_the_awaited_in_flight() -> None:
    async def stop(load: Load) -> None:
        await asyncio.sleep(1.2)
        await load.stop(drain=False)

    with peer("silent") as server:
        done = carry_out(server.url, interrupt=stop, **{**SMALL, "duration_s": 60})
    counters = done.result.counters
    assert counters.messages_in_flight == counters.messages_sent > 0
    assert broken_identities(done.summary.total.counters) == []


def test_a_stop_without_drain_ends_a_drain_that_has_begun() -> None:
    async def stop(load: Load) -> None:
        await asyncio.sleep(2.0)
        await load.stop(drain=False)

    began = time.monotonic()
    with peer("silent") as server:
        done = carry_out(server.url, interrupt=stop, **{**SMALL, "duration_s": 1, "drain_s": 60, "reply_timeout_s": 60})
    assert time.monotonic() - began < 15
    assert done.end.interrupted is None
    counters = done.result.counters
    assert counters.messages_in_flight == counters.messages_sent > 0
    assert counters.connections_closed == 20


def test_a_load_that_is_stopped_before_its_begin_connects_nobody() -> None:
    async def run(url: str) -> LoadEnd:
        scenario = Scenario(**SMALL)
        plan = Plan.whole(scenario, url)
        load = Load(plan, 1, on_second=lambda second: None, on_live=lambda live: None)
        await load.prepare()
        try:
            load.go(time.monotonic_ns() + 500_000_000)
            await load.stop()
            return await load.wait()
        finally:
            await load.kill()

    with peer("echo") as server:
        end = asyncio.run(run(server.url))
    assert (end.stopped, end.interrupted, end.seconds) == ("stopped", None, 0)
    assert end.first_connect_due_ns is None
    assert end.final is not None
    assert end.final.counters == Counters()


@pytest.mark.parametrize(
    ("url", "message"),
    [("http://127.0.0.1/", "is not a WebSocket URL"), ("ws://no-such-host.invalid/", "has no address")],
)
def test_a_url_that_leads_nowhere_is_refused_before_anything_starts(url: str, message: str) -> None:
    plan = Plan.model_construct(scenario=Scenario(), url=url, begin=0, end=1)
    load = Load(plan, 1, on_second=print, on_live=print)
    with pytest.raises(LoadError, match=message):
        asyncio.run(load.prepare())

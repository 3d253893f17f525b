"""Every delivery of a broadcast is accounted for, whatever the server does."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.wsnode.loads import carry_out
from tests.wsnode.rooms_peer import rooms_peer
from tests.wsnode.serving import serving
from wsnode.core.merge import broken_identities
from wsnode.core.pacing import Share
from wsnode.core.scenario import Scenario
from wsnode.load.address import Address

SMALL: dict[str, Any] = {
    "behaviour": "broadcast",
    "clients": 20,
    "publishers": "4",
    "interval_ms": 50,
    "ramp_up_s": 0.5,
    "duration_s": 4,
    "rate_per_s": 100,
    "reply_timeout_s": 0.5,
}
FAITHFUL = {"lost": 0, "duplicate": 0, "out_of_order": 0, "late": 0}


def test_of_a_real_server_every_expected_delivery_is_received(engine: str) -> None:
    with serving("--engine", engine, "--workers", "2") as server:
        done = carry_out(server.url("/broadcast"), workers=2, **SMALL, rooms=2)
    counters, broadcast = done.result.counters, done.result.broadcast
    assert broadcast is not None
    # Four publishers of 20 messages a second, ten subscribers to each: from the second after all have joined on, all
    # is expected; what is before that is expected as far as a connection was open a whole slice long.
    assert broadcast.expected == broadcast.received >= 4 * 20 * 10 * 2
    assert {name: getattr(broadcast, name) for name in FAITHFUL} == FAITHFUL
    assert counters.deliveries == broadcast.received + broadcast.indeterminate
    assert counters.messages_sent == counters.messages_no_reply > 200
    assert counters.messages_unexpected == counters.messages_received == counters.messages_lost == 0
    assert broken_identities(counters) == []
    assert broadcast.delivery_loss_ratio == 0
    # By the clock, so that a busy machine shifts some from one second into the next.
    assert broadcast.deliveries_per_s == done.summary.measured.counters.deliveries / 3
    assert 0.8 < broadcast.deliveries_per_s / (4 * 20 * 10) < 1.2
    one_way = done.result.latency_s.one_way
    assert one_way is not None
    assert one_way.due == one_way.count == done.summary.measured.counters.deliveries
    assert 0 < one_way.p50 < 0.1
    assert done.result.latency_s.response_time.due == 0


FAULTS = [
    ({"drop": 37}, "lost"),
    ({"double": 37}, "duplicate"),
    ({"swap": 37}, "out_of_order"),
    ({"late": 37}, "late"),
]


@pytest.mark.parametrize(("faults", "seen"), FAULTS, ids=[seen for _, seen in FAULTS])
def test_what_a_server_does_to_deliveries_is_seen_exactly(faults: dict[str, int], seen: str) -> None:
    """The server leaves alone what had its turn in the first two seconds, when clients were still joining, and in the
    last one, when what is late would come too late."""
    with rooms_peer(**faults) as rooms:
        done = carry_out(rooms.url, workers=2, **SMALL)
    [fault] = faults
    broadcast = done.result.broadcast
    assert broadcast is not None
    assert rooms.did[fault] > 5
    assert broadcast.expected >= rooms.did["deliveries"] - rooms.did["let alone"] >= 4 * 20 * 20
    assert broadcast.expected + broadcast.indeterminate == rooms.did["deliveries"]
    assert broadcast.expected == broadcast.received + broadcast.lost
    wanted = FAITHFUL | {seen: rooms.did[fault]}
    if seen == "late":  # by a second, so that others of its publisher have overtaken it
        wanted["out_of_order"] = wanted["late"]
    assert {name: getattr(broadcast, name) for name in FAITHFUL} == wanted
    assert done.result.counters.messages_unexpected == 0
    assert not any("add up" in reason for reason in done.result.reasons)


def test_an_altered_message_is_no_delivery() -> None:
    with rooms_peer(alter=37) as rooms:
        done = carry_out(rooms.url, **SMALL)
    broadcast = done.result.broadcast
    assert broadcast is not None
    assert broadcast.lost == done.result.counters.messages_unexpected == rooms.did["alter"] > 5
    assert broadcast.delivery_loss_ratio == broadcast.lost / broadcast.expected


def test_two_runs_never_share_a_room() -> None:
    """Nor is a message of another run taken for one's own, whoever lets it in."""
    with rooms_peer() as rooms:
        carry_out(rooms.url, **{**SMALL, "duration_s": 2})
        carry_out(rooms.url, **{**SMALL, "duration_s": 2})
    assert rooms.did["rooms"] == 2


def test_rooms_are_asked_for_with_the_scenarios_headers() -> None:
    scenario = Scenario(headers=("X-Team: blue",), subprotocols=("chat",))
    url = "ws://127.0.0.1:1/broadcast"
    address = Address.at(url, socket.AF_INET, ("127.0.0.1", 1), (), Share(1, 0, 1), scenario=scenario)
    asked = address.towards(f"{url}/r-0").request.of(b"key")
    assert asked.startswith(b"GET /broadcast/r-0 HTTP/1.1\r\n")
    assert b"X-Team: blue\r\n" in asked
    assert b"Sec-WebSocket-Protocol: chat\r\n" in asked

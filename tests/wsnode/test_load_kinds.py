"""Clients that are not as they should be, against real servers: what they do, and whose accounts it is in."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from tests.wsnode.loads import carry_out
from tests.wsnode.serving import serving
from wsnode.core.merge import broken_identities

BASE = {"ramp_up_s": 0, "rate_per_s": 1000, "interval_ms": 50, "duration_s": 5, "reply_timeout_s": 1.0}


def test_each_kind_does_what_it_says_and_response_times_are_of_the_normal_ones() -> None:
    kinds = ("slow_reader 20% 3000 B/s", "never_reads 10%", "half_open 10%", "idle_pings 20% 1 s")
    with serving("--workers", "1") as server:
        done = carry_out(server.url(), workers=2, clients=40, size_bytes=1000, kinds=kinds, **BASE)
    counters, by_kind = done.result.counters, done.result.counters.kinds
    assert broken_identities(done.summary.total.counters) == []
    # Half-open ones are in no account of connections.
    assert (counters.connections_attempted, counters.connections_opened, counters.connections_failed) == (36, 36, 0)
    assert by_kind["half_open.attempted"] >= 4
    assert {kind: by_kind[f"{kind}.opened"] for kind in ("slow_reader", "never_reads", "idle_pings")} == {
        "slow_reader": 8,
        "never_reads": 4,
        "idle_pings": 8,
    }
    # Twelve odd ones send, and nobody awaits their replies; sixteen normal ones have all of theirs.
    odd = by_kind["slow_reader.sent"] + by_kind["never_reads.sent"]
    assert odd == counters.messages_no_reply > 12 * 20
    assert counters.messages_sent - odd == counters.messages_received > 16 * 80
    assert counters.messages_lost == counters.messages_unexpected == 0
    window = done.summary.measured.counters
    assert done.result.latency_s.response_time.due == window.messages_received
    assert done.result.error_ratio == 0
    # At most so much a second, one second's worth ahead, and what one read may hold beyond.
    assert 8 * 3000 * 2 < by_kind["slow_reader.bytes_read"] <= 8 * (3000 * 6 + 16_384)
    assert "never_reads.bytes_read" not in by_kind
    assert by_kind["idle_pings.pings"] == by_kind["idle_pings.pongs"] >= 8 * 3
    assert "idle_pings.pongs_missed" not in by_kind


def test_what_a_server_no_longer_takes_from_those_who_do_not_read_is_nobodys_fault() -> None:
    """It stops to read, as it should; the normal clients beside them are answered."""
    with serving("--workers", "1") as server:
        done = carry_out(
            server.url(), clients=4, size_bytes=100_000, kinds=("never_reads 50%",), **{**BASE, "reply_timeout_s": 0.5}
        )
    counters = done.result.counters
    assert broken_identities(done.summary.total.counters) == []
    assert set(counters.unsent) == {"client_kind"}
    assert counters.messages_unsent > 10
    assert counters.messages_received == counters.messages_sent - counters.messages_no_reply > 100
    response = done.result.latency_s.response_time
    assert response.due == response.count
    assert done.result.error_ratio == 0


@contextlib.contextmanager
def _impatient(patience_s: float, heard: list[bytes]) -> Iterator[str]:
    """A server that ends each connection after a moment, and keeps what it was told."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    time.sleep(patience_s)
                    heard.append(connection.recv(4096))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.getsockname()[1]}/somewhere"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_a_half_open_client_says_half_and_comes_again_where_it_is_thrown_out() -> None:
    heard: list[bytes] = []
    with _impatient(0.2, heard) as url:
        done = carry_out(url, clients=2, kinds=("half_open 50%",), reconnect_delay_s=0.1, connect_timeout_s=1, **BASE)
    by_kind, port = done.result.counters.kinds, url.split(":")[2].partition("/")[0]
    halves = [words for words in heard if words == f"GET /somewhere HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()]
    assert len(halves) >= 3
    assert by_kind["half_open.ended_by_server"] >= 3
    assert by_kind["half_open.attempted"] - by_kind["half_open.ended_by_server"] in (0, 1)
    assert broken_identities(done.summary.total.counters) == []
    # The other one's connects fail, and they alone are in the accounts.
    counters = done.result.counters
    assert counters.connections_attempted == counters.connections_failed + counters.connections_pending
    assert sum(counters.errors.values()) == counters.connections_failed


def test_odd_clients_leave_and_come_back_with_the_stages() -> None:
    kinds = ("slow_reader 25%", "half_open 25%", "idle_pings 25% 1 s")
    stages = ("up to 20 in 1s", "hold 2s", "down to 0 in 1s", "up to 20 in 1s", "hold 1s")
    with serving("--workers", "1") as server:
        done = carry_out(server.url(), stages=stages, kinds=kinds, interval_ms=50)
    by_kind = done.result.counters.kinds
    assert broken_identities(done.summary.total.counters) == []
    assert by_kind["slow_reader.opened"] == by_kind["idle_pings.opened"] == by_kind["half_open.attempted"] == 10
    assert done.result.counters.connections_opened == 30
    assert done.result.counters.errors == {}

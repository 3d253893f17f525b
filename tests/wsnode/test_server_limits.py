"""Every limit has a defined answer and is counted under its kind."""

from __future__ import annotations

import asyncio
import socket

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.wsnode.serving import Server, eventually, frame, raw, read_answer, read_close, reset, serving, upgrade
from wsnode.core.metrics import SERVER, for_job
from wsnode.server.admission import Admission, Limits
from wsnode.server.engines import make_engine
from wsnode.telemetry import Layout, SharedTable

REQUEST = (
    b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(engine):
    with serving(
        "--engine",
        engine,
        "--workers",
        "1",
        "--max-connections",
        "3",
        "--max-message-bytes",
        "1000",
        "--ping-interval",
        "0",
    ) as running:
        yield running


@pytest.fixture
def counted(server):
    """How many errors of each kind were counted during the test."""
    eventually(server.metrics, lambda metrics: metrics.total("websocket_active_connections") == 0)
    before = server.metrics()

    def since(kind: str, wanted: int) -> None:
        server.value_becomes(
            "websocket_connection_errors_total",
            before.value("websocket_connection_errors_total", kind=kind) + wanted,
            kind=kind,
        )
        now = server.metrics()
        assert now.total("websocket_connection_errors_total") == (
            before.total("websocket_connection_errors_total") + wanted
        )

    return since


def send_then_code(server: Server, *data: bytes) -> int:
    sock, status, _, _ = upgrade(server.port)
    with sock:
        assert status == 101
        for part in data:
            sock.sendall(part)
        return read_close(sock)


def test_one_connection_too_many_gets_503_and_when_to_come_back(server, counted):
    socks = [upgrade(server.port)[0] for _ in range(3)]
    sock, status, body, headers = upgrade(server.port)
    sock.close()
    assert (status, headers["retry-after"]) == (503, "1")
    assert "3 connections" in body
    assert server.get("/healthz")[0] == 200, "a full server is healthy"
    for held in socks:
        held.sendall(frame(8, b"\x03\xe8"))
        held.close()
    counted("capacity", 1)
    server.total_becomes("websocket_active_connections", 0)
    again, status, _, _ = upgrade(server.port)
    assert status == 101
    again.sendall(frame(8, b"\x03\xe8"))
    again.close()


def test_the_connection_limit_holds_over_two_workers(engine):
    with serving("--engine", engine, "--workers", "2", "--max-connections", "9") as two:
        socks = [upgrade(two.port) for _ in range(9)]
        assert [status for _, status, _, _ in socks] == [101] * 9
        sock, status, body, _ = upgrade(two.port)
        assert status == 503
        assert "the server's 9 connections" in body
        for held in (sock, *(held for held, *_ in socks)):
            held.close()


def test_the_limit_over_workers_is_exact_however_many_come_at_once(engine):
    """In each round 60 handshakes race for 17 places; whoever is refused finds them taken indeed."""

    async def race(server: Server) -> tuple[int, int]:
        async def come() -> tuple[asyncio.StreamWriter, bool]:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            ready.append(None)
            await asyncio.sleep(0.3)
            writer.write(REQUEST)
            return writer, b" 101 " in await reader.readline()

        ready: list[None] = []
        came = await asyncio.gather(*(come() for _ in range(60)))
        counted = await asyncio.to_thread(server.get, "/healthz")
        assert counted[0] == 200
        for writer, _ in came:
            writer.transport.abort()
        return sum(let_in for _, let_in in came), len(ready)

    with serving("--engine", engine, "--workers", "4", "--max-connections", "17") as four:
        for _ in range(5):
            assert asyncio.run(race(four)) == (17, 60)
            four.total_becomes("websocket_active_connections", 0)
        four.value_becomes("websocket_connections_opened_total", 5 * 17)
        four.value_becomes("websocket_connection_errors_total", 5 * 43, kind="capacity")


def test_a_place_that_a_bad_handshake_was_given_is_given_back(engine):
    with serving("--engine", engine, "--workers", "2", "--max-connections", "1") as two:
        for _ in range(5):
            with raw(two.port) as sock:
                sock.sendall(REQUEST.replace(b"Version: 13", b"Version: 12"))
                assert read_answer(sock)[0] == 400
        sock, status, _, _ = upgrade(two.port)
        sock.close()
        assert status == 101


def test_descriptors_bound_a_worker_and_connections_beyond_do_not_harm_it(engine):
    """96 open files: 32 connections, then answers of 503, and above 32 more TCP connections none at all."""
    with serving("--engine", engine, "--workers", "1", descriptors=96) as small:
        assert "limits: 32 connections" in small.line
        assert "open-file limit is 96" in eventually(small.stderr, bool)
        held = [upgrade(small.port) for _ in range(32)]
        assert {status for _, status, _, _ in held} == {101}
        silent = [raw(small.port) for _ in range(60)]
        small.value_becomes("websocket_connection_errors_total", 28, kind="capacity")
        for sock in silent:
            sock.close()
        sock, status, body, _ = eventually(lambda: _try_upgrade(small.port), lambda answer: answer[1] != 0)
        sock.close()
        assert (status, "this worker's 32" in body) == (503, True)
        assert small.get("/healthz")[0] == 200
        for sock, *_ in held:
            sock.close()


def _try_upgrade(port: int):
    try:
        return upgrade(port)
    except (EOFError, ConnectionError):
        return raw(port), 0, "", {}


def test_a_message_over_the_limit_closes_with_1009(server, counted):
    assert send_then_code(server, frame(2, b"x" * 1001)) == 1009
    counted("too_big", 1)


def test_fragments_that_add_up_to_more_than_the_limit_close_with_1009(server, counted):
    async def run():
        async with connect(server.url(), proxy=None, compression=None) as client:
            await client.send(["x" * 600, "y" * 600])
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            return closed.value.rcvd.code

    assert asyncio.run(run()) == 1009
    counted("too_big", 1)


def test_an_unmasked_frame_closes_with_1002(server, counted):
    assert send_then_code(server, frame(1, b"hello", masked=False)) == 1002
    counted("protocol", 1)


def test_text_that_is_not_utf8_closes_with_1007(server, counted):
    assert send_then_code(server, frame(1, b"\xff\xfe")) == 1007
    counted("protocol", 1)


def test_a_lost_connection_is_abnormal(server, counted):
    sock = upgrade(server.port)[0]
    reset(sock)
    counted("abnormal", 1)
    assert server.metrics().value("websocket_connections_closed_total", code="1006") >= 1


def test_a_normal_close_is_no_error(server, counted):
    sock = upgrade(server.port)[0]
    with sock:
        sock.sendall(frame(8, b"\x03\xe8bye"))
        assert read_close(sock) == 1000
    counted("abnormal", 0)


def test_a_request_that_is_not_http_is_a_failed_handshake(server, counted):
    with raw(server.port) as sock:
        sock.sendall(b"GARBAGE\r\n\r\n")
        assert sock.recv(100) == b""
    counted("handshake", 1)


def test_a_refused_path_is_a_failed_handshake(server, counted):
    sock, status, _, _ = upgrade(server.port, "/nothing")
    sock.close()
    assert status == 404
    counted("handshake", 1)


def test_a_bad_key_is_a_failed_handshake(server, counted):
    with raw(server.port) as sock:
        sock.sendall(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert read_answer(sock)[0] == 400
    counted("handshake", 1)


def test_a_port_probe_is_no_error(server, counted):
    raw(server.port).close()
    assert server.get("/healthz")[0] == 200
    counted("handshake", 0)


def test_a_client_that_answers_no_ping_is_closed_with_1011_as_a_timeout(engine):
    with serving("--engine", engine, "--workers", "1", "--ping-interval", "0.2", "--ping-timeout", "0.2") as pinging:
        sock = upgrade(pinging.port)[0]
        with sock:
            assert sock.recv(2)[0] == 0x89
            sock.recv(4)
            assert read_close(sock) == 1011
        pinging.value_becomes("websocket_connection_errors_total", 1, kind="timeout")
        assert pinging.metrics().total("websocket_connection_errors_total") == 1


def test_a_client_that_stays_after_its_offence_is_cut_off(server):
    """Without pings nothing else would ever end it."""
    sock, *_ = upgrade(server.port)
    with sock:
        sock.sendall(frame(2, b"x" * 1001))
        assert read_close(sock) == 1009
        assert server.metrics().total("websocket_active_connections") == 1
        server.total_becomes("websocket_active_connections", 0)


def test_a_fault_of_the_server_s_own_closes_with_1011_as_internal(caplog, engine):
    table = SharedTable.create(Layout(for_job(SERVER)), slots=1)
    counters = table.layout.counters()
    counters.message_processing.bounds = None  # the fault: bisect cannot search it
    limits = Limits(
        workers=1,
        connections_total=None,
        connections_per_worker=10,
        message_bytes=1000,
        backlog_bytes=1000,
        ping_interval_s=None,
        ping_timeout_s=None,
        compression=False,
    )
    admission = Admission(limits, counters, table, table.writer(table.acquire(), counters))

    async def run():
        serving_engine = make_engine(engine, admission)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await serving_engine.start(listener)
            async with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/echo", proxy=None) as client:
                await client.send("hello")
                assert await client.recv() == "hello"
                await client.wait_closed()
            await serving_engine.drain(1)
            return client.close_code

    assert asyncio.run(run()) == 1011
    assert {kind: count for kind, count in counters.errors.items() if count} == {"internal": 1}
    assert counters.connections == 0
    assert "connection handler failed" in caplog.text
    table.close()

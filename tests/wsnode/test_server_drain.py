"""How a server ends."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.wsnode.serving import PATIENCE_S, eventually, is_gone, read_close, serving, upgrade


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_client_is_told_1001_and_the_server_exits_with_0(number, engine):
    async def run(server):
        clients = [await connect(server.url(), proxy=None) for _ in range(20)]
        server.process.send_signal(number)
        codes = []
        for client in clients:
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            codes.append(closed.value.rcvd.code)
        return codes

    with serving("--engine", engine, "--workers", "2") as server:
        pids = [worker.pid for worker in server.workers()]
        assert asyncio.run(run(server)) == [1001] * 20
        assert server.process.wait(PATIENCE_S) == 0
        assert all(is_gone(pid) for pid in pids)
        assert "drained, 0 connections cut off" in server.stderr()


def test_who_does_not_leave_is_cut_off_at_the_deadline_and_health_is_503_until_then(engine):
    with serving("--engine", engine, "--workers", "1", "--drain-timeout", "1.5") as server:
        sock = upgrade(server.port)[0]
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with sock:
            assert read_close(sock) == 1001
            status, body, _ = server.get("/healthz")
            assert (status, body) == (503, "draining\n")
            refused, status, body, _ = upgrade(server.port)
            refused.close()
            assert (status, body) == (503, "The server is shutting down.\n")
            server.value_becomes("websocket_connection_errors_total", 1, kind="draining")
            assert server.process.wait(PATIENCE_S) == 0
        assert 1.4 < time.monotonic() - began < 8
        assert "drained, 1 connections cut off" in server.stderr()


def test_a_second_signal_ends_at_once(engine):
    with serving("--engine", engine, "--workers", "2", "--drain-timeout", "60") as server:
        pids = [worker.pid for worker in server.workers()]
        sock = upgrade(server.port)[0]
        with sock:
            server.process.send_signal(signal.SIGTERM)
            assert read_close(sock) == 1001
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(PATIENCE_S) == 128 + signal.SIGINT
        assert all(is_gone(pid) for pid in pids)


def test_workers_do_not_outlive_a_killed_server(engine):
    with serving("--engine", engine, "--workers", "2") as server:
        pids = [worker.pid for worker in server.workers()]
        server.process.kill()
        eventually(lambda: [is_gone(pid) for pid in pids], all)

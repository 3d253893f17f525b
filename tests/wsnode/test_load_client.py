"""A client's own behaviour, in the process of the test."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from typing import Any

import pytest
import uvloop

from tests.wsnode.peers import peer
from wsnode.core.metrics import for_job
from wsnode.core.pacing import Share
from wsnode.load.address import Address
from wsnode.load.client import DOWN, OPEN, Client, Setting, message_head
from wsnode.load.recorder import NS, Recorder
from wsnode.telemetry import Layout


def _setting(url: str, recorder: Recorder, **fields: Any) -> Setting:
    port = int(url.rpartition(":")[2].partition("/")[0])
    values: dict[str, Any] = {
        "address": Address.at(url, socket.AF_INET, ("127.0.0.1", port), (), Share(1, 0, 1)),
        "recorder": recorder,
        "match": "prefix",
        "size": 64,
        "head": message_head(False, 64),
        "max_in_flight": None,
        "queue_while_down": False,
        "reply_timeout_ns": 5 * NS,
        "connect_timeout_ns": 5 * NS,
        "reconnect": None,
        "connecting": {},
        "opened": set(),
    }
    return Setting(**{**values, **fields})


def _recorder() -> Recorder:
    return Recorder(Layout(for_job("wsnode-agent")).counters())


async def _until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("mode", "error"), [("badframe", "protocol_error"), ("reject", "handshake_rejected")])
def test_an_ended_connection_leaves_nothing_for_the_collector(mode: str, error: str) -> None:
    """A load runs without the cyclic collector, and may have millions of breaks."""

    async def ended(url: str) -> weakref.ref[Any]:
        recorder = _recorder()
        protocols: list[weakref.ref[Any]] = []

        class Watched(Client):
            def connection_lost(self, exc: Exception | None) -> None:
                library = self._opening._protocol if self._opening else self._special.protocol
                protocols.append(weakref.ref(library))
                del library
                super().connection_lost(exc)

        client = Watched(0, _setting(url, recorder))
        client.connect()
        if mode != "reject":
            await _until(lambda: client.state == OPEN)
            second = recorder.second(1)
            second.lags.append(0)
            client.turn(second, 1)
        await _until(lambda: client.state == DOWN and not client._connected)
        assert recorder.errors == {error: 1}
        return protocols[0]

    gc.collect()
    gc.disable()
    try:
        with peer(mode, 1) as server:
            assert uvloop.run(ended(server.url))() is None
    finally:
        gc.enable()

"""The usual client accounts for everything as the general one does: both are driven through the same random events."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.wsnode.test_load_client import _setting
from wsnode.core.metrics import for_job
from wsnode.lean import frame_head
from wsnode.load import client as client_module
from wsnode.load import usual as usual_module
from wsnode.load.client import OPEN, Client
from wsnode.load.recorder import NS, Recorder
from wsnode.load.usual import UsualClient
from wsnode.telemetry import Layout

SIZE = 64


class Wire:
    """A transport whose peer reads only when told to."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.stuck = 0
        self.stalled = False

    def write(self, data: bytes) -> None:
        self.frames.append(bytes(data))
        self.stuck = len(data) if self.stalled else 0

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def is_closing(self) -> bool:
        return False


def _echo(frame: bytes) -> bytes:
    mask, masked = frame[2:6], frame[6:]
    return frame_head(0x81, len(masked)) + bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))


def _account(kind: type[Client], seed: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All lines and live counters after a few hundred events, on a clock of our own."""
    clock = [NS]

    def tick() -> int:
        clock[0] += 1000
        return clock[0]

    monkeypatch.setattr(client_module, "monotonic_ns", tick)
    monkeypatch.setattr(usual_module, "monotonic_ns", tick)
    chance = random.Random(seed)
    layout = Layout(for_job("wsnode-agent"))
    counters = layout.counters()
    recorder = Recorder(counters, SIZE)
    setting = _setting("ws://127.0.0.1:9/echo", recorder, reply_timeout_ns=NS // 4)
    assert usual_module.is_usual(setting)
    client, wire = kind(7, setting), Wire()
    client.begin(wire)  # type: ignore[arg-type]
    client._connected, client.state = True, OPEN
    waiting: list[bytes] = []
    lines: list[Any] = []
    second = recorder.second(1)
    for step in range(600):
        clock[0] += chance.choice((10_000, 1_000_000, 30_000_000))
        if step and step % 100 == 0:
            recorder.snapshot(step // 100, 0, 1, 0.0)
            second = recorder.second(step // 100 + 1)
        match chance.choice(
            ("turn", "turn", "turn", "reply", "reply", "reply", "stray", "half", "stall", "expire", "ping")
        ):
            case "turn":
                second.lags.append(chance.randrange(1 << chance.randrange(1, 30)))
                client.turn(second, clock[0])
            case "reply" if waiting:
                client.data_received(_echo(waiting.pop(chance.choice((0, -1)))))
            case "half" if waiting:
                data = _echo(waiting.pop(0))
                client.data_received(data[:9])
                client.data_received(data[9:])
            case "stray":
                client.data_received(frame_head(0x81, 3) + b"huh")
            case "stall":
                wire.stalled = not wire.stalled
                if not wire.stalled:
                    wire.stuck = 0
                    client.resume_writing()
            case "expire":
                client.expire(clock[0])
            case "ping":
                client.data_received(b"\x89\x00")
        waiting += [frame for frame in wire.frames if len(frame) == SIZE + 6]
        wire.frames.clear()
        lines += recorder.settled_lines()
        lines.append((client.in_flight, client.unsettled))
    recorder.snapshot(6, 0, 1, 0.0)
    in_flight = client.in_flight
    lines.append(recorder.final_line(7, 0, 1, in_flight, 0.0))
    lines += [getattr(counters, metric.field) for metric in layout.plain]
    return lines


@pytest.mark.parametrize("seed", range(20))
def test_the_usual_client_accounts_as_the_general_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    general = _account(Client, seed, monkeypatch)
    usual = _account(UsualClient, seed, monkeypatch)
    assert usual == general
    final = next(line for line in reversed(usual) if isinstance(line, dict) and "histograms" in line)
    assert final["counters"]["messages_received"] > 50


def test_with_tls_a_limit_or_another_match_a_client_is_not_usual() -> None:
    recorder = Recorder(Layout(for_job("wsnode-agent")).counters(), SIZE)
    assert not usual_module.is_usual(_setting("ws://127.0.0.1:9/", recorder, max_in_flight=1))
    assert not usual_module.is_usual(_setting("ws://127.0.0.1:9/", recorder, match="order"))
    assert not usual_module.is_usual(_setting("wss://127.0.0.1:9/", recorder))

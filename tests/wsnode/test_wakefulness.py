"""CPUs are kept awake while a load runs, where that is permitted, and not longer."""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

import pytest

from tests.wsnode.loads import carry_out
from tests.wsnode.peers import peer
from wsnode.load.load import Load
from wsnode.wakefulness import DEVICE, CpuLatencyHold, permitted


def _request_us() -> int:
    """The request in force, over all who hold one."""
    value: int = struct.unpack("<i", Path(DEVICE).read_bytes()[:4])[0]
    return value


def test_a_hold_asks_for_0_us_and_ends_with_its_release(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(b"")
    hold = CpuLatencyHold.take(str(device))
    assert hold.held
    assert device.read_bytes() == struct.pack("<i", 0)
    hold.release()
    assert not hold.held
    hold.release()  # once more does nothing


def test_without_the_device_or_the_right_to_it_nothing_is_held(tmp_path: Path) -> None:
    assert not CpuLatencyHold.take(str(tmp_path / "none")).held
    assert not permitted(str(tmp_path / "none"))


@pytest.mark.skipif(not os.access(DEVICE, os.R_OK | os.W_OK), reason=f"{DEVICE} is not ours to open: needs root")
def test_a_load_holds_the_request_from_its_preparation_to_its_end() -> None:
    before = _request_us()
    seen: list[int] = []

    async def look(load: Load) -> None:
        await asyncio.sleep(0.5)
        seen.append(_request_us())

    with peer("echo") as server:
        carry_out(server.url, interrupt=look, clients=2, interval_ms=100, ramp_up_s=0, duration_s=2, rate_per_s=100)
    assert seen == [0]
    assert _request_us() == before

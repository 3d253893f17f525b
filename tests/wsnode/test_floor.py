"""The load generator's own floor: the trivial server, the class of a load, the measurement and where it is kept."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from tests.wsnode.core.runs import MS, SCENARIO, Load
from wsnode import floor, trivial
from wsnode.core.judge import judge
from wsnode.core.result import Host, Result, near_floor
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.summary import summarise
from wsnode.load.report import render


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 20), st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
def test_the_trivial_server_gives_each_whole_frame_back_unmasked(
    payloads: list[bytes], cut: int, opcode: Opcode
) -> None:
    masked = [Frame(opcode, data).serialize(mask=True) for data in payloads]
    whole = b"".join(masked)
    rest = Frame(opcode, b"x" * 30).serialize(mask=True)[:cut]
    answer, left = trivial.echoed(whole + rest)
    assert answer == b"".join(Frame(opcode, data).serialize(mask=False) for data in payloads)
    assert left == rest


@pytest.mark.parametrize("frame", [b"\x88\x80abcd", b"\x81\x05hello", b"\x01\x81abcdx", b"\x82\xff" + bytes(12)])
def test_the_trivial_server_ends_with_what_it_does_not_know(frame: bytes) -> None:
    with pytest.raises(ValueError, match="whole masked message"):
        trivial.echoed(frame)


@pytest.mark.parametrize(
    ("fields", "workers", "rate", "most_connections"),
    [
        ({"clients": 100, "interval_ms": 200}, 2, 1000, 64),
        ({"clients": 1000, "interval_ms": 1000}, 1, 1000, 200),
        ({"clients": 1000, "interval_ms": 100}, 2, 8000, 200),
        ({"clients": 1, "interval_ms": 1000}, 1, 1000, 1),
        ({"clients": 100_000, "interval_ms": 100}, 2, 32_000, 200),
    ],
)
def test_a_floor_is_of_a_workers_share_in_classes(
    fields: dict[str, int], workers: int, rate: int, most_connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "cores", lambda: 2)
    tried = floor.load_class(Plan.whole(Scenario(**fields), "ws://x"), workers)
    assert tried.offered_per_s == pytest.approx(rate, rel=0.05)
    assert tried.clients <= most_connections * 1.15


def test_the_floor_is_measured_once_for_loads_of_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured: list[int] = []

    def read(clients: int = 100, interval_ms: int = 200) -> dict[str, object]:
        plan = Plan.whole(Scenario(clients=clients, interval_ms=interval_ms), "ws://x")
        return asyncio.run(floor.read(plan, 1, lambda: measured.append(clients)))

    async def both() -> list[dict[str, object]]:
        plan = Plan.whole(Scenario(clients=100, interval_ms=200), "ws://x")
        return await asyncio.gather(*(floor.read(plan, 1, lambda: measured.append(100)) for _ in range(2)))

    first, other = asyncio.run(both())
    assert first == other
    assert measured == [100]
    known = floor.Floor.model_validate(first)
    assert 0 < known.p50 <= (known.p90 or 0) <= (known.p95 or 0) <= known.p99 < 1
    # A second's messages, each answered.
    assert known.samples == known.rate_per_s == 1000
    assert read(clients=90) == first
    assert measured == [100]
    kept = tmp_path / "wsnode" / "floors.json"
    kept.write_text("no JSON")
    assert read() != {}
    assert measured == [100, 100]
    [text] = json.loads(kept.read_text())
    assert text.startswith(floor.boot_id())
    assert read(interval_ms=0) == {"missing": "nothing is sent"}
    assert measured == [100, 100]


def _judged(response_ns: int, **own: float) -> Result:
    load = Load().tick(connects=100, due=100, seconds=2).tick(due=1000, seconds=10, response_ns=response_ns)
    summary = summarise(SCENARIO, [load.run()])
    assert summary is not None
    said = own | {
        "p90": None, "p95": None, "rate_per_s": 1000, "connections": 64, "size_bytes": 64, "samples": 1000,
        "measured_at": "2026-11-24T09:00:00Z",
    }  # fmt: skip
    rows = [
        Host(name="load-1", role="load_generator", environment={"floor": said}),
        Host(name="load-2", role="load_generator", environment={"floor": {"missing": "no room"}}),
        Host(name="load-3", role="load_generator"),
        Host(name="server", role="server"),
    ]
    return judge("r-1", summary, [load.run()], host_rows=rows)


def test_a_percentile_below_three_times_the_floor_is_marked() -> None:
    result = _judged(6 * MS, p50=0.001, p99=0.00201)
    assert near_floor(result) == {"response_time.p99": 0.00201, "service_time.p99": 0.00201}
    [note] = [note for note in result.notes if note.startswith("below 3 times")]
    assert note.endswith("response time p99 (2.01 ms), service time p99 (2.01 ms)")
    shown = render(result)
    assert len(re.findall(r"~(?:6\.0\d|5\.9\d) ms", shown)) == 2
    assert "~ below 3 times the load generator's own floor" in shown
    assert result.nulls["hosts.load-2.floor"] == "no room"
    assert result.nulls["hosts.load-3.floor"] == "it was not measured"
    assert "hosts.server.floor" not in result.nulls


def test_a_percentile_of_three_times_the_floor_and_more_is_not() -> None:
    result = _judged(6 * MS, p50=0.001, p99=0.0019)
    assert near_floor(result) == {}
    assert not any("below 3 times" in note for note in result.notes)
    assert "~" not in render(result)

"""The conductor's parts by themselves: clocks, kept lines, live lines added up, the local way."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from portal.conductor import channel as channel_module
from portal.conductor import transport
from portal.conductor.channel import BadAgent, Broken, Channel, Refused
from portal.conductor.clock import ConductorClock, offset, read_clock
from portal.conductor.conduct import acknowledge
from portal.conductor.follow import _added
from portal.conductor.job import JobHost
from portal.conductor.lines import Lines, number_of
from portal.conductor.transport import LocalTransport
from tests.portal.hosts import Wire, lab, quick
from tests.wsnode.agents import ScriptedLoad, agents, eventually, local_agent, plan, run, scripted, second
from wsnode.core import protocol
from wsnode.core.protocol import Hello, Live, ProtocolError, encode

__all__ = ["quick", "scripted"]

Loads = type[ScriptedLoad]
MS = 1_000_000


# --- clocks ---


@pytest.mark.parametrize("shift_ns", [0, 400 * MS, -400 * MS, 86_400_000 * MS])
def test_the_offset_is_known_within_half_the_round_trip_however_the_way_divides_it(shift_ns: int) -> None:
    draw = random.Random(1)
    for _ in range(1000):
        there, thinking, back = (draw.randint(1, 50 * MS) for _ in range(3))
        asked = 1_795_492_522_000_000_000
        received = asked + there + shift_ns
        sent = received + thinking
        found, trip = offset(asked, received, sent, sent - shift_ns + back)
        assert trip == there + back
        assert abs(found - shift_ns) <= trip / 2


def test_the_best_of_sixteen_exchanges_counts() -> None:
    class Script:
        def __init__(self) -> None:
            self.asked = 0
            self.now = 0

        def now_ns(self) -> int:
            return self.now

        async def ask(self, kind: Any, timeout_s: float) -> dict[str, Any]:
            self.asked += 1
            there = (3 if self.asked == 9 else 40) * MS  # the way there is slower than the way back
            self.now += there
            host = self.now + 250 * MS
            self.now += 1 * MS
            return {"received_ns": host, "sent_ns": host}

    script = Script()
    reading = run(read_clock(script, script))  # type: ignore[arg-type]
    assert script.asked == 16
    assert reading.bound_s == pytest.approx(0.002)
    assert reading.offset_s == pytest.approx(0.251)
    assert abs(reading.offset_s - 0.250) <= reading.bound_s


@pytest.mark.parametrize("answer", [{}, {"received_ns": "now", "sent_ns": 1}, {"received_ns": 1.5, "sent_ns": 2.5}])
def test_an_agent_that_answers_clock_without_times_is_no_agent(answer: dict[str, Any]) -> None:
    class Script:
        async def ask(self, kind: Any, timeout_s: float) -> dict[str, Any]:
            return answer

    with pytest.raises(BadAgent):
        run(read_clock(Script(), ConductorClock()))  # type: ignore[arg-type]


def test_the_conductors_clock_does_not_move_when_the_wall_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ConductorClock()
    before = clock.now_ns()
    monkeypatch.setattr("portal.conductor.clock.time.time_ns", lambda: 0)
    assert 0 <= clock.now_ns() - before < 60_000 * MS


# --- lines ---


def test_lines_are_kept_as_they_came_and_read_like_a_list() -> None:
    lines = Lines()
    seconds = [second(number) for number in range(1, 6)]
    for line in seconds:
        lines.append(encode(line))
    assert len(lines) == 5
    assert list(lines) == seconds
    assert lines[-1] == seconds[4]
    assert list(lines[1:3]) == seconds[1:3]
    assert lines.raw(2) == encode(seconds[1])
    for index in (5, -6):
        with pytest.raises(IndexError):
            lines[index]


def test_lines_are_read_without_their_histograms_too_whatever_order_they_came_in() -> None:
    lines = Lines()
    whole = [second(number) for number in range(1, 4)]
    odd = json.loads(encode(whole[1]))
    odd["host"] = odd.pop("host")
    odd["histograms"] = odd.pop("histograms")
    raws = [encode(whole[0]), json.dumps(odd).encode(), encode(whole[2])]
    for raw in raws:
        lines.append(raw)
    assert [lines.raw(number) for number in (1, 2, 3)] == raws
    assert list(lines) == whole
    assert list(lines.bare) == [line.model_copy(update={"histograms": {}}) for line in whole]
    assert b'"histograms"' not in lines.raw_bare(1)
    assert lines.bare[-1].counters == whole[2].counters
    assert lines.bare[1:] == [lines.bare[1], lines.bare[2]]
    with pytest.raises(IndexError):
        lines.bare[3]


def test_lines_leave_no_file_and_no_descriptor_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    gc.collect()  # what earlier tests left to be closed
    before = len(os.listdir("/proc/self/fd"))
    lines = Lines()
    lines.append(encode(second(1)))
    assert list(folder.iterdir()) == []
    del lines
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_line_is_numbered_without_decoding_it_and_checked_when_it_is_read() -> None:
    assert number_of(encode(second(12))) == 12
    assert number_of(b'{"second":4,"type":"second","counters":{}}\n') == 4
    for bad in (
        b'{"type":"second","second":"x"}\n',
        b'{"type":"second"}\n',
        b'{"type":"second","second":0,"counters":{}}\n',
    ):
        with pytest.raises(ProtocolError):
            number_of(bad)
    lines = Lines()
    lines.append(b'{"type":"second","second":1,"counters":{"messages_due":-0.5}}\n')
    lines.append(encode(second(3)))
    for index in (0, 1):
        with pytest.raises(ProtocolError):
            lines[index]


def test_live_lines_add_up_and_the_worst_hosts_percentiles_are_shown() -> None:
    def live(at: int, n: int, p50: int | None, p99: int | None) -> Live:
        return Live(
            second=at,
            connections_open=n,
            sent=2 * n,
            received=3 * n,
            outstanding=4 * n,
            errors=5 * n,
            recent={"p50_ns": p50, "p99_ns": p99},
        )

    added = _added([live(7, 1, 10, None), live(6, 10, 30, None), live(7, 100, 20, 5)])
    assert added == Live(
        second=7,
        connections_open=111,
        sent=222,
        received=333,
        outstanding=444,
        errors=555,
        recent={"p50_ns": 30, "p99_ns": 5},
    )


# --- channels ---


def test_a_request_without_an_answer_in_time_is_told_apart_from_a_broken_channel(scripted: Loads) -> None:
    async def work() -> None:
        scripted.ready = asyncio.Event()
        async with local_agent() as agent:
            place = JobHost("load-1", "load_generator", "local", agent.socket, plan())
            channel = await Channel.open(Wire(), place)
            with pytest.raises(Broken, match=r"no answer to prepare within 0\.05 s"):
                await channel.ask(protocol.Prepare, 0.05, run_id="r1", epoch=1, plan=plan())
            answer = await channel.ask(protocol.ListLoads, 5)
            assert answer == {"loads": []}
            with pytest.raises(Refused) as refused:
                await channel.ask(protocol.GetResult, 5, run_id="r9", epoch=1)
            assert refused.value.code == "unknown_run"
            await channel.close()
            with pytest.raises(Broken):
                await channel.ask(protocol.ListLoads, 5)

    run(work())


def test_while_lines_come_few_pulses_ask_and_silence_is_asked_about_and_ends_the_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel_module, "PULSE_S", 0.05)

    class Talkative:
        """Says a line whenever it is asked to, `lines` in all, and then nothing."""

        def __init__(self, lines: int) -> None:
            self.left = lines
            self.asked = 0

        async def read_line(self) -> bytes:
            await asyncio.sleep(0.01 if self.left else 1000)
            self.left -= 1
            return b'{"type":"live","second":1}\n'

        async def write(self, data: bytes) -> None:
            assert b'"clock"' in data
            self.asked += 1

        async def close(self) -> str:
            return ""

    async def work() -> None:
        pipe = Talkative(160)  # at least 1.6 s, which is 32 pulses
        hello = Hello(wsnode="0", name="a", boot_id="b", agent_start_id="c", capabilities=("observe",))
        channel = Channel(pipe, hello)
        came = []
        channel.on_line = came.append
        await eventually(lambda: len(came) == 160)
        # A busy machine takes longer about the lines, in which pulses may pass without any.
        assert 3 <= pipe.asked < 32
        with pytest.raises(Broken, match=r"nothing was heard for 0\.2 s"):
            await channel.ended
        await channel.close()

    run(work())


def test_acknowledging_says_which_hosts_could_not_be_told(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            hosts.wire.down.add("load-2")
            left = await acknowledge(hosts.job(), 0.3, {"local": hosts.wire})
            assert left == ["load-2 could not be told that the run is stored: no route to host"]
            await hosts.agents["load-1"].running("r-abc")
            left = await acknowledge(hosts.job(), 0.3, {"local": hosts.wire})
            assert "load-1 could not be told that the run is stored: run r-abc has not ended" in left[0]

    run(work())


# --- the local way ---


def test_the_local_way_leads_through_agent_connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def work(socket: str) -> None:
        place = JobHost("server", "server", "local", socket, None)
        channel = await Channel.open(LocalTransport(), place)
        assert channel.hello.name == "server"
        assert (await channel.ask(protocol.ListLoads, 5)) == {"loads": []}
        process = channel._pipe._process  # type: ignore[attr-defined]
        await channel.close()
        assert process.returncode == 0

    # Whatever folder this process is in, `wsnode` is found.
    monkeypatch.chdir(tmp_path)
    with agents("server", role="server") as [agent]:
        run(work(agent.socket))


@pytest.mark.parametrize(
    ("socket", "words"),
    [
        ("/nowhere/agent.sock", "no agent at /nowhere/agent.sock: the socket does not exist"),
        ("/" + "x" * 200, "path too long"),
    ],
)
def test_the_local_way_says_why_nobody_is_there(socket: str, words: str) -> None:
    async def work() -> None:
        with pytest.raises(Broken, match=words):
            await Channel.open(LocalTransport(), JobHost("load-1", "load_generator", "local", socket, None))

    run(work())


def test_a_python_that_is_not_there_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport.sys, "executable", "/nowhere/python")

    async def work() -> None:
        place = JobHost("load-1", "load_generator", "local", "/nowhere", None)
        with pytest.raises(transport.Unreachable, match="could not be started"):
            await LocalTransport().open(place)

    run(work())


def test_the_conductor_needs_no_django() -> None:
    script = (
        "import sys\nimport portal.conductor.conduct\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('django', 'celery', 'asyncssh')))\n"
        "print(sorted(n for n in sys.modules if n.startswith('wsnode') and not n.startswith('wsnode.core')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=transport.SOURCE, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n['wsnode']\n"

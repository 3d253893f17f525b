"""What a follower gets: lines that are on disk first and never change; and what the agent makes of nonsense."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.wsnode.agents import Local, ScriptedLoad, eventually, local_agent, plan, run, scripted
from wsnode.core.protocol import MAX_LINE_BYTES, HostResult, Second, decode_reply

__all__ = ["scripted"]

Loads = type[ScriptedLoad]


def lines_of(agent: Local, run_id: str = "r1") -> bytes:
    return (agent.data / "runs" / run_id / "lines.jsonl").read_bytes()


def test_a_replay_is_the_first_stream_byte_for_byte(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            first = await agent.running("r1")
            await first.ask("follow", run_id="r1", epoch=1)
            for number in range(1, 8):
                scripted.made[0].tick()
                assert (await first.until("second"))["second"] == number
                assert lines_of(agent).count(b"\n") == number, "the line was sent before it was on disk"
            scripted.made[0].finish()
            ended = await first.until("ended")
            assert ended == {"type": "ended", "run_id": "r1", "state": "finished", "reason": None, "seconds": 7}
            again = await agent.talk()
            await again.ask("follow", run_id="r1", epoch=1, from_second=1)
            assert await again.until("ended") == ended
            assert again.stored() == first.stored() == lines_of(agent)
            assert again.raw[-1] == first.raw[-1]

    run(work())


def test_following_goes_on_from_the_second_asked_for(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            for _ in range(4):
                scripted.made[0].tick()
            assert (await talk.ask("follow", run_id="r1", epoch=1, from_second=3))["seconds"] == 4
            assert [(await talk.until("second"))["second"] for _ in range(2)] == [3, 4]
            # Once more on the same channel: the earlier stream ends, the new one begins where it is told to.
            await talk.ask("follow", run_id="r1", epoch=1, from_second=4)
            scripted.made[0].tick()
            assert [(await talk.until("second"))["second"] for _ in range(2)] == [4, 5]

    run(work())


def test_live_lines_are_shown_and_not_stored(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            await talk.ask("follow", run_id="r1", epoch=1)
            scripted.made[0].tick()
            live = await talk.until("live")
            assert (live["second"], live["connections_open"]) == (1, 10)
            assert b'"live"' not in lines_of(agent)

    run(work())


def test_a_follower_that_does_not_read_holds_up_nobody(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            slow = await agent.running("r1", a_plan=plan(count=10, clients=10))
            await slow.ask("follow", run_id="r1", epoch=1)
            slow.writer.transport.pause_reading()
            quick = await agent.talk()
            await quick.ask("follow", run_id="r1", epoch=1)
            for number in range(1, 400):
                scripted.made[0].tick()
                assert (await quick.until("second"))["second"] == number
            scripted.made[0].finish()
            assert (await quick.until("ended"))["seconds"] == 399
            assert quick.stored() == lines_of(agent)

    run(work())


def test_what_the_host_lost_is_put_into_each_line(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            await talk.ask("follow", run_id="r1", epoch=1)
            await asyncio.sleep(0.1)
            scripted.made[0].tick()
            host = (await talk.until("second"))["host"]
            assert host["worker_cpu_s"] == [0.1]
            cores = os.cpu_count() or 1
            assert 0.05 * cores < host["core_s"] < 5 * cores
            assert 0 <= host["steal_s"] <= host["core_s"]
            scripted.made[0].finish()
            await talk.until("ended")
            result = HostResult.model_validate(await talk.ask("result", run_id="r1", epoch=1))
            assert result.final is not None
            assert result.final.host.core_s > host["core_s"]

    run(work())


@pytest.mark.parametrize(
    ("line", "number", "words"),
    [
        (b"nonsense\n", None, "Invalid JSON"),
        (b"\xff\xfe\n", None, "Invalid JSON"),
        (b"[]\n", None, "object"),
        (b'{"type":"clock"}\n', None, "Field required"),
        (b'{"type":"dance","id":5}\n', 5, "dance"),
        (b'{"type":"list","id":6,"more":1}\n', 6, "Extra inputs"),
        (b'{"type":"go","id":7,"run_id":"r1","epoch":-1,"start_at":1}\n', 7, "greater than or equal to 0"),
        (b'{"type":"second","second":1,"counters":{}}\n', None, "second"),
        (b'{"type":"clock","id":' + b"9" * 5000 + b"}\n", None, ""),
    ],
)
def test_nonsense_is_refused_and_does_no_harm(scripted: Loads, line: bytes, number: int | None, words: str) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            talk.writer.write(line)
            refusal = await talk.line()
            assert (refusal["type"], refusal["id"], refusal["code"]) == ("refusal", number, "bad_request")
            assert words in refusal["message"]
            assert (await talk.ask("list"))["loads"][0]["state"] == "running"

    run(work())


def test_a_line_of_more_than_a_mebibyte_ends_its_channel_and_no_other(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            other = await agent.running("r1")
            talk = await agent.talk()
            talk.writer.write(b"x" * (2 * MAX_LINE_BYTES + 4096))
            refusal = await talk.line()
            assert (refusal["code"], "1,048,576 bytes" in refusal["message"]) == ("bad_request", True)
            with suppress(ConnectionError):
                assert await talk.line() == {}
            assert (await other.ask("list"))["loads"][0]["state"] == "running"

    run(work())


def test_a_request_whose_end_is_missing_is_none(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            talk.writer.write(b'{"type":"stop","id":9,"run_id":"r1","epoch":1}')
            talk.writer.write_eof()
            assert await talk.line() == {}
            assert (await (await agent.talk()).ask("list"))["loads"][0]["state"] == "running"

    run(work())


def test_a_worker_that_dies_interrupts_the_load(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            await talk.ask("follow", run_id="r1", epoch=1)
            scripted.made[0].tick()
            scripted.made[0].die("load worker 0 ended before the load did: killed by SIGKILL")
            ended = await talk.until("ended")
            assert (ended["state"], ended["seconds"]) == ("interrupted", 1)
            assert "killed by SIGKILL" in ended["reason"]
            result = await talk.ask("result", run_id="r1", epoch=1)
            assert (result["final"], result["seconds"]) == (None, 1)
            await talk.ask("prepare", run_id="r2", epoch=1, plan=plan())

    run(work())


def test_lines_that_cannot_be_kept_stop_the_load_and_say_why(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            await talk.ask("follow", run_id="r1", epoch=1)
            scripted.made[0].tick()
            await talk.until("second")
            held = agent.service._keeper._held["r1"]
            assert held.record is not None
            full = os.open("/dev/full", os.O_RDWR)
            os.dup2(full, held.record._fd)
            os.close(full)
            scripted.made[0].tick()
            scripted.made[0].tick()
            ended = await talk.until("ended")
            assert (ended["state"], ended["seconds"]) == ("stopped", 1)
            assert ended["reason"] == "cannot keep line 2: No space left on device"
            assert (await talk.ask("result", run_id="r1", epoch=1))["reason"] == ended["reason"]
            assert lines_of(agent).count(b"\n") == 1

    run(work())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_an_agent_survives_a_full_disk(scripted: Loads, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "none", data], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.strip()}")

    async def work() -> None:
        async with local_agent(data=data) as agent:
            talk = await agent.running("r1")
            await talk.ask("follow", run_id="r1", epoch=1)
            while not (lines := scripted.made[0]).killed and lines.seconds < 500:
                lines.tick()
                if lines._over.is_set():
                    break
                await asyncio.sleep(0)
            ended = await talk.until("ended")
            assert ended["state"] == "stopped"
            assert ended["reason"] == f"cannot keep line {ended['seconds'] + 1}: No space left on device"
            assert talk.stored() == lines_of(agent)
            assert all(isinstance(decode_reply(line), Second) for line in talk.raw[:-1] if b'"second",' in line[:20])
            # Its result does not fit either, and waits in memory.
            result = HostResult.model_validate(await talk.ask("result", run_id="r1", epoch=1))
            assert (result.state, result.seconds, result.final is not None) == ("stopped", ended["seconds"], True)
            found = (await talk.ask("preflight"))["findings"]
            assert [f["level"] for f in found if f["check"] == "disk"] == ["unfit"]
            await talk.ask("ack", run_id="r1", epoch=1)
            await talk.ask("prepare", run_id="r2", epoch=1, plan=plan())

    try:
        run(work())
    finally:
        subprocess.run(["umount", data], check=True)


def test_many_channels_at_once_are_bounded(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talks = [await agent.talk() for _ in range(64)]
            reader, writer = await asyncio.open_unix_connection(agent.socket)
            assert await reader.read() == b""
            writer.close()
            await talks[0].close()
            await eventually(lambda: len(agent.service._channels) < 64)
            await (await agent.talk()).ask("list")

    run(work())

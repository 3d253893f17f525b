"""Who may tell an agent what: one load at a time, each request idempotent by run and epoch."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.wsnode.agents import ScriptedLoad, eventually, local_agent, plan, run, scripted
from wsnode.core.protocol import PROTOCOL

__all__ = ["scripted"]

Loads = type[ScriptedLoad]


def soon() -> int:
    return time.time_ns() + 20_000_000


def test_the_agent_speaks_first_and_says_what_it_can(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent, local_agent("server", role="server") as server:
            hellos = []
            for path in (agent.socket, server.socket):
                reader, writer = await asyncio.open_unix_connection(path)
                hellos.append(await reader.readline())
                writer.close()
        assert b'"type":"hello","protocol":%d,' % PROTOCOL in hellos[0]
        assert b'"name":"load-1"' in hellos[0]
        assert b'"capabilities":["observe","load"]' in hellos[0]
        assert b'"capabilities":["observe"]' in hellos[1]

    run(work())


def test_repeated_requests_of_one_epoch_change_nothing(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.talk()
            of = {"run_id": "r1", "epoch": 1}
            first = await talk.ask("prepare", **of, plan=plan())
            assert first["workers"] == 2
            assert await talk.ask("prepare", **of, plan=plan()) == first
            start = soon()
            assert await talk.ask("go", **of, start_at=start) == {"start_at": start}
            assert await talk.ask("go", **of, start_at=start + 500_000_000) == {"start_at": start}
            assert await talk.ask("prepare", **of, plan=plan()) == first
            assert len(scripted.made) == 1
            stopped = await talk.ask("stop", **of, reason="enough")
            assert stopped == {"state": "stopped", "reason": "enough", "seconds": 0}
            assert await talk.ask("stop", **of, reason="again") == stopped
            result = await talk.ask("result", **of)
            assert result == await talk.ask("result", **of)
            assert (result["state"], result["reason"], result["start_at_ns"]) == ("stopped", "enough", start)
            assert await talk.ask("ack", **of) == {"known": True}
            assert await talk.ask("ack", **of) == {"known": False}
            assert await talk.ask("list") == {"loads": []}
            assert not (agent.data / "runs" / "r1").exists()

    run(work())


def test_a_newer_epoch_adopts_the_running_load_and_closes_the_older_channel(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            old = await agent.running("r1", epoch=3)
            await old.ask("follow", run_id="r1", epoch=3)
            scripted.made[0].tick()
            await old.until("second")
            new = await agent.talk()
            await new.ask("follow", run_id="r1", epoch=4)
            refusal = await old.until("refusal")
            assert (refusal["id"], refusal["code"]) == (None, "old_epoch")
            assert await old.line() == {}, "the older channel was not closed"
            scripted.made[0].tick()
            assert [(await new.until("second"))["second"] for _ in range(2)] == [1, 2]
            assert len(scripted.made) == 1, "the load was started again"
            assert (await new.ask("list"))["loads"][0]["epoch"] == 4

    run(work())


def test_an_older_epoch_is_refused_whatever_it_asks(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            await agent.running("r1", epoch=7)
            old = await agent.talk()
            asked: dict[str, dict[str, Any]] = {
                "prepare": {"plan": plan()},
                "go": {"start_at": soon()},
                "follow": {},
                "stop": {},
                "result": {},
                "ack": {},
            }
            for kind, fields in asked.items():
                code, message = await old.refused(kind, run_id="r1", epoch=6, **fields)
                assert code == "old_epoch", kind
                assert "epoch 7" in message
            assert (await old.ask("list"))["loads"][0]["state"] == "running"

    run(work())


def test_another_run_is_told_busy_and_may_still_look(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            await agent.running("r1")
            other = await agent.talk()
            code, message = await other.refused("prepare", run_id="r2", epoch=1, plan=plan())
            assert code == "busy"
            assert "run r1" in message
            assert [row["run_id"] for row in (await other.ask("list"))["loads"]] == ["r1"]
            assert (await other.ask("preflight", plan=plan().model_dump(mode="json")))["fit"] is True
            times = await other.ask("clock")
            assert abs(times["received_ns"] - time.time_ns()) < 5e9
            assert times["received_ns"] <= times["sent_ns"]

    run(work())


def test_requests_about_an_unknown_run_say_so(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.talk()
            for kind, fields in {"go": {"start_at": soon()}, "follow": {}, "stop": {}, "result": {}}.items():
                code, message = await talk.refused(kind, run_id="r9", epoch=1, **fields)
                assert code == "unknown_run", kind
                assert "r9" in message

    run(work())


def test_go_is_refused_in_the_past_and_far_ahead(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.talk()
            of = {"run_id": "r1", "epoch": 1}
            await talk.ask("prepare", **of, plan=plan())
            for ahead_s, words in ((-0.5, "ago"), (3600, "in 3,")):
                code, message = await talk.refused("go", **of, start_at=time.time_ns() + int(ahead_s * 1e9))
                assert code == "bad_request"
                assert words in message
                assert "within the next 60 s" in message
            assert (await talk.ask("list"))["loads"][0]["state"] == "prepared"

    run(work())


def test_go_is_converted_to_the_monotonic_clock(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.talk()
            of = {"run_id": "r1", "epoch": 1}
            await talk.ask("prepare", **of, plan=plan())
            start = time.time_ns() + 3_000_000_000
            expected = time.monotonic_ns() + start - time.time_ns()
            await talk.ask("go", **of, start_at=start)
            assert scripted.made[0].origin_ns is not None
            assert abs(scripted.made[0].origin_ns - expected) < 1_000_000

    run(work())


def test_a_released_load_is_forgotten_and_its_epoch_is_not(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.talk()
            await talk.ask("prepare", run_id="r1", epoch=5, plan=plan())
            released = await talk.ask("stop", run_id="r1", epoch=5, reason="load-2 was not ready")
            assert released == {"state": "stopped", "reason": "load-2 was not ready", "seconds": 0}
            assert scripted.made[0].killed
            assert await talk.ask("stop", run_id="r1", epoch=5) == released
            assert (await talk.ask("list"))["loads"] == []
            assert (await talk.refused("go", run_id="r1", epoch=5, start_at=soon()))[0] == "unknown_run"
            assert (await talk.refused("prepare", run_id="r1", epoch=4, plan=plan()))[0] == "old_epoch"
            await talk.ask("prepare", run_id="r1", epoch=5, plan=plan())
            assert len(scripted.made) == 2

    run(work())


def test_a_stored_run_is_not_prepared_again(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            await talk.ask("stop", run_id="r1", epoch=1)
            code, message = await talk.refused("prepare", run_id="r1", epoch=1, plan=plan())
            assert (code, "has stopped already" in message) == ("wrong_state", True)
            await talk.ask("ack", run_id="r1", epoch=1)
            code, message = await talk.refused("prepare", run_id="r1", epoch=1, plan=plan())
            assert (code, "is stored" in message) == ("wrong_state", True)

    run(work())


def test_a_run_keeps_the_plan_it_was_prepared_with(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.talk()
            await talk.ask("prepare", run_id="r1", epoch=1, plan=plan())
            code, message = await talk.refused("prepare", run_id="r1", epoch=1, plan=plan(interval_ms=50))
            assert (code, "another plan" in message) == ("bad_request", True)

    run(work())


def test_a_prepare_that_two_channels_ask_for_happens_once(scripted: Loads) -> None:
    async def work() -> None:
        scripted.ready = asyncio.Event()
        async with local_agent() as agent:
            first, second = await agent.talk(), await agent.talk()
            first.send("prepare", run_id="r1", epoch=1, plan=plan())
            await eventually(lambda: scripted.made)
            number = second.send("prepare", run_id="r1", epoch=2, plan=plan())
            assert (await first.until("refusal"))["code"] == "old_epoch"
            scripted.ready.set()
            assert (await second.reply(number))["data"]["workers"] == 2
            assert len(scripted.made) == 1
            assert (await second.ask("list"))["loads"][0]["epoch"] == 2

    run(work())


def test_a_stop_ends_a_preparation(scripted: Loads) -> None:
    async def work() -> None:
        scripted.ready = asyncio.Event()
        async with local_agent() as agent:
            talk = await agent.talk()
            number = talk.send("prepare", run_id="r1", epoch=1, plan=plan())
            await eventually(lambda: scripted.made)
            stopping = talk.send("stop", run_id="r1", epoch=1, reason="never mind")
            refusal = await talk.reply(number)
            assert refusal["code"] == "failed"
            assert "never mind" in refusal["message"]
            assert (await talk.reply(stopping))["data"]["state"] == "stopped"
            assert (await talk.ask("list"))["loads"] == []
            scripted.ready.set()
            await talk.ask("prepare", run_id="r2", epoch=1, plan=plan())

    run(work())


def test_a_load_that_cannot_be_prepared_leaves_the_agent_free(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            scripted.refuses = "worker 0 could not start: exit code 1"
            talk = await agent.talk()
            refused = await talk.refused("prepare", run_id="r1", epoch=1, plan=plan())
            assert refused == ("failed", "worker 0 could not start: exit code 1")
            scripted.refuses = None
            await talk.ask("prepare", run_id="r2", epoch=1, plan=plan())

    run(work())


def test_a_result_is_refused_before_the_end_and_an_ack_too(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.running("r1")
            for kind in ("result", "ack"):
                assert (await talk.refused(kind, run_id="r1", epoch=1))[0] == "wrong_state"

    run(work())


def test_a_servers_agent_observes_and_carries_no_load(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent("server", role="server") as agent:
            talk = await agent.talk()
            code, message = await talk.refused("prepare", run_id="r1", epoch=1, plan=plan())
            assert (code, "generates no load" in message) == ("not_allowed", True)
            seen = await talk.ask("preflight")
            assert seen["fit"] is True
            assert seen["environment"]["stable"]["agent_name"] == "server"

    run(work())


@pytest.mark.parametrize("run_id", ["../../etc", "a/b", "", "x" * 65, "r1\n", "."])
def test_a_run_id_that_is_no_name_is_refused(scripted: Loads, run_id: str) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.talk()
            code, message = await talk.refused("prepare", run_id=run_id, epoch=1, plan=plan())
            assert code == "bad_request"
            assert "run_id" in message
            assert list((agent.data / "runs").iterdir()) == []

    run(work())

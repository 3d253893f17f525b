"""An agent that dies, is stopped, or finds what another has left. Real processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.wsnode.agents import AgentProcess, Local, ScriptedLoad, Talk, agents, plan, run, scripted, short_folder
from tests.wsnode.serving import Server, eventually, is_gone, scrape, serving
from wsnode.agent.config import Config
from wsnode.agent.store import Store
from wsnode.core.protocol import HostResult, Second, decode_reply

__all__ = ["scripted"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--workers", "1") as running:
        yield running


async def begun(agent: AgentProcess, url: str, run_id: str = "r1", duration_s: int = 30) -> Talk:
    talk, _ = await Talk.open(agent.socket)
    await talk.ask("prepare", run_id=run_id, epoch=1, plan=plan(url, duration_s=duration_s, reply_timeout_s=0.5))
    await talk.ask("go", run_id=run_id, epoch=1, start_at=time.time_ns() + 100_000_000)
    await talk.ask("follow", run_id=run_id, epoch=1)
    return talk


def test_a_killed_agent_takes_its_workers_along_and_its_successor_says_how_far_it_got(server: Server) -> None:
    async def work(agent: AgentProcess) -> None:
        talk = await begun(agent, server.url())
        while (await talk.until("second"))["second"] < 2:
            pass
        workers = [worker.pid for worker in agent.workers()]
        assert workers
        agent.kill()
        eventually(lambda: [pid for pid in workers if not is_gone(pid)], lambda left: left == [])
        while await talk.line():
            pass
        await talk.close()
        path = agent.data / "runs" / "r1" / "lines.jsonl"
        assert path.read_bytes() == talk.stored()
        with path.open("ab") as file:
            file.write(b'{"type":"second","second":')  # as a write that was cut short leaves it
        agent.start()
        agent.ready()
        again, hello = await Talk.open(agent.socket)
        assert hello["agent_start_id"]
        seconds = talk.stored().count(b"\n")
        reason = f"the agent restarted; the last whole second is {seconds}"
        [row] = (await again.ask("list"))["loads"]
        assert (row["state"], row["seconds"], row["reason"], row["epoch"]) == ("interrupted", seconds, reason, 1)
        await again.ask("follow", run_id="r1", epoch=2)
        ended = await again.until("ended")
        assert ended == {
            "type": "ended",
            "run_id": "r1",
            "state": "interrupted",
            "reason": reason,
            "seconds": seconds,
        }
        assert again.stored() == talk.stored()
        result = HostResult.model_validate(await again.ask("result", run_id="r1", epoch=2))
        assert (result.final, result.seconds, result.state) == (None, seconds, "interrupted")
        assert result.environment_begin["stable"]["boot_id"] == result.environment_end["stable"]["boot_id"]
        await again.ask("prepare", run_id="r2", epoch=1, plan=plan(server.url()))
        await again.ask("ack", run_id="r1", epoch=2)
        await again.close()

    with agents("load-1") as [agent]:
        run(work(agent))


def test_sigterm_ends_the_load_and_leaves_its_result(server: Server) -> None:
    async def work(agent: AgentProcess) -> None:
        talk = await begun(agent, server.url())
        await talk.until("second")
        begin = time.monotonic()
        agent.process.terminate()
        ended = await talk.until("ended")
        assert (ended["state"], ended["reason"]) == ("stopped", "the agent was stopped")
        assert await talk.line() == {}
        assert agent.process.wait(10) == 0
        assert time.monotonic() - begin < 8
        await talk.close()
        store = Store(agent.data)
        [record] = store.records()
        result = record.result()
        assert result is not None
        assert (record.state.state, result.state) == ("stopped", "stopped")
        assert result.final is not None
        assert result.final.counters.messages_due > 0
        assert result.final.counters.connections_open == 0
        record.close()
        store.close()

    with agents("load-1") as [agent]:
        run(work(agent))


def test_a_load_of_real_workers_is_carried_out_shown_and_counted(server: Server) -> None:
    async def work(agent: AgentProcess) -> None:
        metrics = f"http://127.0.0.1:{port}/metrics"
        talk = await begun(agent, server.url(), "run-7", duration_s=3)
        assert scrape(metrics).value("ws_simulator_run_info", run_id="run-7") == 1
        listed = await asyncio.to_thread(agent.command, "list")
        assert listed.returncode == 0
        assert listed.stdout.splitlines()[0].split()[:3] == ["RUN", "STATE", "SECONDS"]
        assert listed.stdout.splitlines()[1].split()[:2] == ["run-7", "running"]
        ended = await talk.until("ended")
        assert (ended["state"], ended["seconds"]) == ("finished", 3)
        lines = [decode_reply(line) for line in talk.stored().splitlines(keepends=True)]
        assert all(isinstance(line, Second) for line in lines)
        result = HostResult.model_validate(await talk.ask("result", run_id="run-7", epoch=1))
        assert result.final is not None
        counters = result.final.counters
        assert counters.messages_due == plan(duration_s=3).scenario.pacing().offered(plan().share, 3_000_000_000)
        assert counters.messages_due == counters.messages_received + counters.messages_unsent
        assert counters.connections_closed == 10
        assert 0 <= (result.first_connect_begun_ns or -1) < 1_000_000_000
        assert set(result.environment_begin) == {"floor", "stable", "volatile"}
        samples = eventually(
            lambda: scrape(metrics), lambda s: s.value("ws_simulator_messages_sent_total") == counters.messages_sent
        )
        assert samples.total("ws_simulator_run_info") == 0
        assert samples.total("ws_simulator_connections") == 0
        await talk.close()

    port = _free_port()
    with agents("load-1", options=("--metrics-port", str(port))) as [agent]:
        run(work(agent))


def test_a_person_ends_a_load_by_hand(server: Server) -> None:
    async def work(agent: AgentProcess) -> None:
        talk = await begun(agent, server.url())
        unknown = await asyncio.to_thread(agent.command, "stop", "r9")
        assert (unknown.returncode, "no run 'r9' at load-1; known: r1" in unknown.stderr) == (1, True)
        stopped = await asyncio.to_thread(agent.command, "stop", "r1")
        assert stopped.returncode == 0
        assert stopped.stdout.startswith("r1 stopped after ")
        ended = await talk.until("ended")
        assert ended["state"] == "stopped"
        assert ended["reason"].startswith("stopped by hand on ")
        await talk.close()

    with agents("load-1") as [agent]:
        run(work(agent))


def test_a_prepared_load_of_a_dead_agent_is_forgotten(scripted: type[ScriptedLoad]) -> None:
    async def work() -> None:
        with short_folder() as folder:
            first = Local(folder, "load-1")
            await first.start()
            talk = await first.talk()
            await talk.ask("prepare", run_id="r1", epoch=1, plan=plan())
            kept = (first.data / "runs" / "r1" / "state.json").read_text()
            await first.stop()
            # As a crash leaves it: SIGTERM has released the load above.
            (first.data / "runs" / "r1").mkdir()
            (first.data / "runs" / "r1" / "state.json").write_text(kept)
            (first.data / "runs" / "r1" / "plan.json").write_text(plan().model_dump_json())
            second = Local(folder, "load-1")
            await second.start()
            assert (await (await second.talk()).ask("list"))["loads"] == []
            await second.stop()

    run(work())


def test_after_a_reboot_it_says_that_the_host_restarted(
    scripted: type[ScriptedLoad], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        with short_folder() as folder:
            first = Local(folder, "load-1")
            await first.start()
            await first.running("r1")
            scripted.made[0].tick()
            state = first.data / "runs" / "r1" / "state.json"
            before = state.read_text()
            await first.stop()
            state.write_text(before)
            (state.parent / "result.json").unlink()
            monkeypatch.setattr("wsnode.agent.keeper.boot_id", lambda: "another-boot")
            second = Local(folder, "load-1")
            await second.start()
            [row] = (await (await second.talk()).ask("list"))["loads"]
            assert (row["state"], row["seconds"]) == ("interrupted", 1)
            assert row["reason"] == "the host restarted; the last whole second is 1"
            await second.stop()

    run(work())


def test_results_that_nobody_fetched_are_pruned(scripted: type[ScriptedLoad]) -> None:
    async def work() -> None:
        with short_folder() as folder:
            agent = Local(folder, "load-1", config=Config(keep_results=2))
            await agent.start()
            for number in range(4):
                talk = await agent.running(f"r{number}")
                await talk.ask("stop", run_id=f"r{number}", epoch=1)
            rows = (await talk.ask("list"))["loads"]
            assert [row["run_id"] for row in rows] == ["r1", "r2", "r3"]  # pruned when the next one begins
            code, message = await talk.refused("result", run_id="r0", epoch=1)
            assert (code, "pruned" in message) == ("unknown_run", True)
            await agent.stop()

    run(work())


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

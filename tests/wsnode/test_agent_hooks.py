"""Hooks: chosen by name, never typed; done once for a run; a restart is one only where another start answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wsnode.agents import eventually, local_agent, plan, run, scripted
from tests.wsnode.hooks import DONE, hook
from tests.wsnode.serving import serving
from wsnode.agent import hooks as hooks_module
from wsnode.agent.hooks import Hooks, start_id
from wsnode.core.protocol import ProtocolError, decode_request, encode

__all__ = ["scripted"]

ASK = {"run_id": "r1", "epoch": 1, "name": "warm_cache"}


@pytest.mark.parametrize(
    "name",
    [
        "warm_cache; reboot", "../restart_server", "/bin/sh", "$(reboot)", "`reboot`", "warm_cache\n", "warm cache", "",
        "x" * 33, "Warm_cache", "warm-cache", "1st", "_x", "wärm", "warm_cache\0", "-rf", "warm_cache@x", "%i",
    ],
)  # fmt: skip
def test_a_name_that_is_more_than_a_word_is_no_request_and_reaches_no_hook(name: str) -> None:
    async def work() -> None:
        async with local_agent("server", role="server") as agent, hook(agent.folder / "hooks", "warm_cache") as asked:
            talk = await agent.talk()
            code, message = await talk.refused("hook", **{**ASK, "name": name})
            assert (code, message.partition(":")[0]) == ("bad_request", "hook.name")
            assert asked.asked == 0

    run(work())


@given(st.text())
def test_whatever_is_typed_a_hooks_name_is_lower_case_letters_digits_and_underscores(name: str) -> None:
    line = json.dumps({"type": "hook", "id": 1, **ASK, "name": name}).encode()
    try:
        request: Any = decode_request(line)
    except ProtocolError:
        return
    assert set(request.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert 1 <= len(request.name) <= 32
    assert encode(request)


def test_a_hook_is_asked_by_connecting_and_nothing_is_ever_sent_to_it() -> None:
    async def work() -> None:
        async with local_agent("server", role="server") as agent:
            async with hook(agent.folder / "hooks", "warm_cache", f"a\nb\n{DONE}") as asked:
                done = await (await agent.talk()).ask("hook", **ASK)
            assert (done["words"], done["server_before"], done["server_after"]) == ("a\nb", None, None)
            assert 0 <= done["took_s"] < 5
            assert (asked.asked, asked.heard) == (1, b"")

    run(work())


def test_a_run_has_a_hook_done_once_however_often_and_from_wherever_it_asks() -> None:
    async def work() -> None:
        release = asyncio.Event()

        async def slow() -> str:
            await release.wait()
            return DONE

        async with (
            local_agent("server", role="server") as agent,
            hook(agent.folder / "hooks", "warm_cache", slow) as asked,
        ):
            first, second = await agent.talk(), await agent.talk()
            first.send("hook", **ASK)
            await eventually(lambda: asked.asked == 1)
            await first.close()  # who asked has gone: what was begun goes on
            waiting = second.send("hook", **{**ASK, "epoch": 2})
            code, message = await second.refused("hook", **ASK)
            assert (code, message) == ("old_epoch", "run r1 is in the hands of epoch 2; epoch 1 is too old")
            code, message = await second.refused("hook", **{**ASK, "epoch": 2, "name": "other"})
            assert (code, message) == ("bad_request", "run r1 has asked for the hook warm_cache already")
            release.set()
            assert (await second.reply(waiting))["type"] == "answer"
            assert (await second.ask("hook", **{**ASK, "epoch": 3}))["words"] == ""
            assert asked.asked == 1
            await second.ask("hook", **{**ASK, "run_id": "r2"})
            assert asked.asked == 2

    run(work())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("no disk\nwslab-hook: exit-code exited 1\n", "warm_cache failed (exit-code exited 1): no disk"),
        ("wslab-hook: timeout killed TERM\n", "warm_cache failed (timeout killed TERM)"),
        ("wslab-hook: success exited 0\nand then", "warm_cache did not come to its end (cut off, or another one runs): "
         "wslab-hook: success exited 0\nand then"),
        ("wslab-hook: success exited 0", "warm_cache did not come to its end (cut off, or another one runs): "
         "wslab-hook: success exited 0"),
        ("not wslab-hook: success exited 0\n", "warm_cache did not come to its end (cut off, or another one runs): "
         "not wslab-hook: success exited 0"),
    ],
)  # fmt: skip
def test_a_hook_that_does_not_end_well_is_refused_with_its_words(said: str, message: str) -> None:
    async def work() -> None:
        async with local_agent("server", role="server") as agent, hook(agent.folder / "hooks", "warm_cache", said):
            assert await (await agent.talk()).refused("hook", **ASK) == ("failed", message)

    run(work())


def test_of_a_hook_that_talks_much_the_end_is_kept() -> None:
    async def work() -> None:
        async with local_agent("server", role="server") as agent:
            async with hook(agent.folder / "hooks", "warm_cache", "x" * 3_000_000 + f"\nlast\n{DONE}"):
                words = (await (await agent.talk()).ask("hook", **ASK))["words"]
            assert len(words) == 2000
            assert words.endswith("xx\nlast")

    run(work())


def test_a_socket_that_nobody_listens_at_and_a_file_are_told(tmp_path: Path) -> None:
    async def work() -> None:
        async with local_agent("server", role="server") as agent:
            folder = agent.folder / "hooks"
            async with hook(folder, "warm_cache"):
                pass
            (folder / "a_file").write_text("")
            (folder / "Odd-Name").write_text("")
            talk = await agent.talk()
            known = await talk.refused("hook", **ASK)
            assert known == ("not_allowed", "there is no hook warm_cache on this host; known: none")
            assert (await talk.refused("hook", **{**ASK, "run_id": "r2", "name": "a_file"}))[0] == "not_allowed"

    run(work())
    assert Hooks(tmp_path / "nowhere").names() == []


def test_there_is_no_hook_during_a_load(scripted: Any) -> None:
    async def work() -> None:
        async with local_agent() as agent, hook(agent.folder / "hooks", "warm_cache") as asked:
            talk = await agent.running(a_plan=plan())
            code, message = await talk.refused("hook", **{**ASK, "run_id": "r2"})
            assert (code, message) == ("busy", "load-1 is busy with run r1; no hook during a load")
            assert asked.asked == 0

    run(work())


def test_a_restart_is_done_once_another_start_of_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "ANSWER_AGAIN_S", 0.5)

    async def work(health: str, restart: Any) -> None:
        async with local_agent("server", role="server") as agent:
            agent._options["hooks"] = Hooks(agent.folder / "hooks", health)
            await agent.stop()
            await agent.start()
            folder, ask = agent.folder / "hooks", {**ASK, "name": "restart_server"}
            async with hook(folder, "restart_server", DONE):  # says so, and does nothing
                code, message = await (await agent.talk()).refused("hook", **ask)
                assert code == "failed"
                assert message.startswith(f"the server at {health} is still the one that was there before (start id ")
            async with hook(folder, "restart_server", restart) as asked:
                before = start_id(health)
                monkeypatch.setattr(hooks_module, "ANSWER_AGAIN_S", 20)
                done = await (await agent.talk()).ask("hook", **{**ask, "run_id": "r2"})
                assert asked.asked == 1
                assert done["server_before"] == before is not None
                assert done["server_after"] == start_id(health) not in (None, before)

    with serving("--workers", "1") as first:
        port, again = first.port, []

        async def restart() -> str:
            def now() -> None:
                first.process.terminate()
                first.process.wait(20)
                another = serving("--workers", "1", "--port", str(port))
                another.__enter__()
                again.append(another)

            await asyncio.to_thread(now)
            return DONE

        try:
            run(work(f"http://127.0.0.1:{port}/healthz", restart))
        finally:
            for server in again:
                server.__exit__(None, None, None)


def test_who_answers_that_no_server_of_ours_does_has_no_start_id() -> None:
    async def work() -> None:
        async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
            writer.close()

        async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert await asyncio.to_thread(start_id, f"http://127.0.0.1:{port}/healthz") is None

    run(work())
    assert start_id("http://127.0.0.1:9/healthz") is None

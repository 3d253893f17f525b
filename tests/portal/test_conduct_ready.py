"""The same state before each run: a hook that was asked for, and hosts that have settled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from portal.conductor.job import Said, Waiting
from tests.portal.hosts import lab, paced, quick
from tests.wsnode.agents import ScriptedLoad, eventually, run, scripted
from tests.wsnode.hooks import hook
from wsnode import environment

__all__ = ["quick", "scripted"]

Loads = type[ScriptedLoad]
pytestmark = pytest.mark.usefixtures("quick")


class Server:
    """A port, and connections to it whose both ends are here."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._listener.getsockname()[1]
        self.ends: list[socket.socket] = []

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self.port))
            self.ends += [client, self._listener.accept()[0]]

    def close(self) -> None:
        """Both ends of all, the client's first: it is left in TIME-WAIT."""
        for end in self.ends:
            end.close()
        self.ends.clear()

    def end(self) -> None:
        self.close()
        self._listener.close()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.end()


def test_a_hook_is_done_once_before_anything_is_prepared_and_its_words_are_kept(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted)
        async with lab(2) as hosts:
            made_before: list[int] = []

            async def warm() -> str:
                made_before.append(len(scripted.made))
                return "cache is warm\nwslab-hook: success exited 0\n"

            async with hook(hosts.agents["server"].folder / "hooks", "warm_cache", warm) as asked:
                conducted = hosts.conduct(hosts.job(hook="warm_cache"))
                outcome = await conducted.outcome()
            assert (outcome.state, outcome.reason) == ("finished", None)
            assert (asked.asked, asked.heard, made_before) == (1, b"", [0])
            assert "server: warm_cache is done, in 0.0 s: cache is warm" in conducted.said
            assert [event.reason for event in conducted.of(Waiting)] == ["waits for server: warm_cache"]

    run(work())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("no such disk\nwslab-hook: exit-code exited 3\n", "warm_cache failed (exit-code exited 3): no such disk"),
        ("wslab-hook: timeout killed TERM\n", "warm_cache failed (timeout killed TERM)"),
        ("half a", "warm_cache did not come to its end (cut off, or another one runs): half a"),
        ("", "warm_cache did not come to its end (cut off, or another one runs)"),
    ],
)
def test_a_hook_that_fails_fails_the_run_before_anything_is_prepared(scripted: Loads, said: str, words: str) -> None:
    async def work() -> None:
        async with lab(1) as hosts, hook(hosts.agents["server"].folder / "hooks", "warm_cache", said):
            outcome = await hosts.conduct(hosts.job(hook="warm_cache")).outcome()
            assert (outcome.state, outcome.reason) == ("failed", f"server: before the run: {words}")
            assert scripted.made == []

    run(work())


def test_a_hook_that_the_servers_host_does_not_have_is_refused_with_those_it_has(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(1) as hosts, hook(hosts.agents["server"].folder / "hooks", "warm_cache") as other:
            outcome = await hosts.conduct(hosts.job(hook="cool_cache")).outcome()
            reason = "server: before the run: there is no hook cool_cache on this host; known: warm_cache"
            assert (outcome.state, outcome.reason) == ("failed", reason)
            assert (scripted.made, other.asked) == ([], 0)

    run(work())


def test_a_conductor_that_takes_over_meets_the_hook_that_was_begun_and_begins_no_other(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted)
        async with lab(1) as hosts:
            release = asyncio.Event()

            async def slow() -> str:
                await release.wait()
                return "wslab-hook: success\n"

            async with hook(hosts.agents["server"].folder / "hooks", "warm_cache", slow) as asked:
                first = hosts.conduct(hosts.job(hook="warm_cache"))
                await eventually(lambda: asked.asked == 1)
                first.control.abandon.set()
                await first.outcome()
                second = hosts.conduct(hosts.job(epoch=2, hook="warm_cache"))
                await eventually(lambda: second.of(Waiting))
                release.set()
                assert (await second.outcome()).state == "finished"
                assert asked.asked == 1

    run(work())


def test_a_run_waits_for_connections_of_an_earlier_one_and_says_so(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted)
        with serving() as server:
            server.connect(3)
            async with lab(2) as hosts:
                conducted = hosts.conduct(hosts.job(port=server.port, settle_s=20))
                await eventually(lambda: len(conducted.of(Waiting)) >= 2 or conducted.task.done())
                # Both ends are on this machine: each host counts its own, the server the accepted ones.
                held = f"3 connections of port {server.port}"
                assert conducted.of(Waiting)[0].reason == (
                    f"waits for the hosts to settle, 0 of 20 s: server has {held}; load-1 has {held}; load-2 has {held}"
                )
                assert (conducted.stages, scripted.made) == ([], [])
                server.close()
                outcome = await conducted.outcome()
                assert (outcome.state, outcome.reason) == ("finished", None)
                assert any(event.text.startswith("settled after ") for event in conducted.of(Said))

    run(work())


def test_hosts_that_do_not_settle_in_time_are_refused_with_the_numbers(scripted: Loads) -> None:
    async def work() -> None:
        with serving() as server:
            server.connect(1)
            async with lab(1) as hosts:
                outcome = await hosts.conduct(hosts.job(port=server.port, settle_s=1)).outcome()
                held = f"1 connection of port {server.port}"
                assert (outcome.state, outcome.reason) == (
                    "failed",
                    f"not settled within 1 s (settle_s), server has {held}; load-1 has {held}: end what holds them, "
                    "or wait longer",
                )
                assert scripted.made == []

    run(work())


def test_time_wait_above_a_twentieth_of_the_source_ports_is_not_settled_and_below_it_is(scripted: Loads) -> None:
    ports = environment.source_ports()
    assert ports is not None

    async def work() -> None:
        paced(scripted)
        with serving() as server:
            server.connect(ports // 20 - 50)
            server.close()
            async with lab(1) as hosts:
                # Settled, if not at once: the kernel closes the ends one after the other.
                assert (await hosts.conduct(hosts.job(port=server.port, settle_s=5)).outcome()).state == "finished"
                server.connect(100)
                server.close()
                job = hosts.job(port=server.port, settle_s=0, run_id="r-next")
                outcome = await hosts.conduct(job).outcome()
                assert outcome.state == "failed"
                assert outcome.reason is not None
                assert f" in TIME-WAIT, more than 5% of {ports:,} source ports" in outcome.reason
                assert len(scripted.made) == 1

    run(work())


def test_a_run_that_waits_can_be_cancelled_at_once(scripted: Loads) -> None:
    async def work() -> None:
        with serving() as server:
            server.connect(1)
            async with lab(1) as hosts:
                conducted = hosts.conduct(hosts.job(port=server.port, settle_s=600))
                await eventually(lambda: conducted.of(Waiting))
                begun = time.monotonic()
                conducted.control.cancel.set()
                assert (await conducted.outcome()).state == "cancelled"
                assert time.monotonic() - begun < 2
                assert scripted.made == []

    run(work())

"""The way over SSH, through real sshds: who is let in, who is believed, and what a cut does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from portal.conductor.channel import BadAgent, Broken, Channel
from portal.conductor.conduct import acknowledge, conduct
from portal.conductor.job import Control, Counted, Event, Job, JobHost, Said, SshLogin
from portal.conductor.ssh import SshTransport
from portal.conductor.transport import LineTooLong, Unreachable
from tests.portal.sshd import Sshd, needs_sshd, sshds, to_agent
from tests.wsnode.agents import agents, eventually, local_agent, run
from tests.wsnode.serving import serving
from wsnode.core import protocol
from wsnode.core.merge import broken_identities
from wsnode.core.protocol import MAX_LINE_BYTES
from wsnode.core.scenario import Plan, Scenario

pytestmark = needs_sshd
NS = 1_000_000_000


def place(name: str, login: SshLogin | None, plan: Plan | None = None) -> JobHost:
    return JobHost(name, "load_generator", "ssh", "/run/wsnode/agent.sock", plan, login)


def test_the_agent_at_the_other_end_speaks_and_answers() -> None:
    async def work() -> None:
        async with local_agent("load-1") as agent:
            with sshds(to_agent(agent.socket)) as [sshd]:
                channel = await Channel.open(SshTransport(sshd.key), place("load-1", sshd.login()))
                assert channel.hello.name == "load-1"
                answer = await channel.ask(protocol.Clock, 5)
                assert answer["received_ns"] <= answer["sent_ns"]
                await channel.close()

    run(work())


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_another_host_key_is_refused_with_the_one_wanted_and_the_one_found(kind: str) -> None:
    wanted = asyncssh.generate_private_key(kind)

    async def work() -> None:
        with sshds("restrict") as [sshd]:
            login = sshd.login(host_keys=(wanted.export_public_key().decode(),))
            with pytest.raises(BadAgent, match="is not who lab") as refused:
                await Channel.open(SshTransport(sshd.key), place("load-1", login))
            found = asyncssh.import_public_key(sshd.host_key)
            assert wanted.get_fingerprint() in str(refused.value)
            assert found.get_fingerprint() in str(refused.value)
            assert "Accepted publickey" not in sshd.log.read_text()

    run(work())


@pytest.mark.parametrize(
    ("login", "words"),
    [
        (None, "no SSH login"),
        (SshLogin("127.0.0.1", "wslab", 9), "no host key of it; enroll it"),
        (SshLogin("127.0.0.1", "wslab", 9, ("ssh-ed25519 rubbish",)), "cannot be read"),
    ],
)
def test_without_a_known_host_key_nobody_is_even_asked(tmp_path: Path, login: SshLogin | None, words: str) -> None:
    async def work() -> None:
        with pytest.raises(BadAgent, match=words):
            await Channel.open(SshTransport(tmp_path / "none"), place("load-1", login))

    run(work())


def test_a_key_that_the_host_does_not_know_is_named(tmp_path: Path) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    stranger.write_private_key(tmp_path / "id")

    async def work() -> None:
        with sshds("restrict") as [sshd]:
            with pytest.raises(Unreachable, match="does not let the conductor's key in") as refused:
                await SshTransport(tmp_path / "id").open(place("load-1", sshd.login()))
            assert stranger.get_fingerprint() in str(refused.value)
            with pytest.raises(Unreachable, match=r"key .*missing cannot be read: No such file"):
                await SshTransport(tmp_path / "missing").open(place("load-1", sshd.login()))

    run(work())


def test_a_host_that_is_not_there_is_named_with_its_address(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "id")

    async def work() -> None:
        login = SshLogin("127.0.0.1", "wslab", 9, (key.export_public_key().decode(),))
        with pytest.raises(Unreachable, match=r"wslab@127\.0\.0\.1:9: Connection refused"):
            await SshTransport(tmp_path / "id").open(place("load-1", login))

    run(work())


def test_the_last_words_of_the_other_side_say_why_there_is_no_agent() -> None:
    async def work() -> None:
        with sshds(to_agent("/nonexistent/agent.sock")) as [sshd], pytest.raises(Broken, match="no agent at /nonex"):
            await Channel.open(SshTransport(sshd.key), place("load-1", sshd.login()))

    run(work())


def test_the_way_may_lead_over_another_host_whose_key_is_checked_too() -> None:
    async def work() -> None:
        async with local_agent("load-1") as agent:
            with sshds(to_agent(agent.socket), "restrict,port-forwarding") as [behind, gate]:
                # One conductor's key for both: the gate lets it in to pass on, and no more.
                key = asyncssh.read_private_key(behind.key)
                gate.authorize(gate.log.parent, "restrict,port-forwarding", key)
                channel = await Channel.open(SshTransport(behind.key), place("load-1", behind.login(jump=gate.login())))
                assert channel.hello.name == "load-1"
                await channel.close()
                assert "Accepted publickey" in gate.log.read_text()
                forged = replace(gate.login(), host_keys=(behind.host_key,))
                with pytest.raises(BadAgent, match=f":{gate.port} is not who lab.json says"):
                    await Channel.open(SshTransport(behind.key), place("load-1", behind.login(jump=forged)))

    run(work())


def test_lines_come_whole_up_to_the_limit_and_an_endless_one_is_refused() -> None:
    length = MAX_LINE_BYTES - 1
    endless = f"restrict,command=\"head -c {length} /dev/zero | tr '\\0' x; echo; head -c 3000000 /dev/zero\""

    async def work() -> None:
        with sshds(endless) as [sshd]:
            pipe = await SshTransport(sshd.key).open(place("load-1", sshd.login()))
            assert await pipe.read_line() == b"x" * length + b"\n"
            with pytest.raises(LineTooLong):
                await pipe.read_line()
            await pipe.close()

    run(work())


def test_a_writer_waits_for_a_reader_that_is_slow() -> None:
    async def work() -> None:
        with sshds('restrict,command="sleep 1; wc -c"') as [sshd]:
            pipe = await SshTransport(sshd.key).open(place("load-1", sshd.login()))
            for _ in range(40):
                await pipe.write(b"x" * 262_144)
            pipe._channel.write_eof()  # type: ignore[attr-defined]
            assert int(await pipe.read_line()) == 40 * 262_144
            await pipe.close()

    run(work())


def test_a_way_that_falls_silent_is_given_up_within_eight_seconds() -> None:
    async def work() -> None:
        async with local_agent("load-1") as agent:
            with sshds(to_agent(agent.socket)) as [sshd]:
                async with _passing(sshd) as (port, silence):
                    login = replace(sshd.login(), port=port)
                    channel = await Channel.open(SshTransport(sshd.key), place("load-1", login))
                    silence()
                    begun = time.monotonic()
                    with pytest.raises(Broken):
                        await channel.ended
                    assert time.monotonic() - begun < 9  # 8, and what a busy machine adds
                    await channel.close()

    run(work())


def test_a_run_over_ssh_counts_every_message_once_though_its_ways_break() -> None:
    scenario = Scenario(
        clients=40, interval_ms=100, ramp_up_s=1, duration_s=6, rate_per_s=100, reply_timeout_s=0.5, drain_s=1
    )

    async def work(url: str, ways: list[tuple[str, Sshd]]) -> None:
        # Both sshds let the same key in, as a lab's hosts do.
        key = ways[0][1].key
        for _, sshd in ways[1:]:
            text = (sshd.log.parent / "authorized_keys").read_text()
            options = text[: text.index(" ssh-ed25519 ")]
            sshd.authorize(sshd.log.parent, options, asyncssh.read_private_key(key))
        plans = Plan.divide(scenario, url, len(ways))
        hosts = [place(name, sshd.login(), plan) for (name, sshd), plan in zip(ways, plans, strict=True)]
        job = Job("r-ssh", 1, scenario, hosts)
        transports = {"ssh": SshTransport(key)}
        events: list[Event] = []
        task = asyncio.create_task(conduct(job, events.append, Control(), transports))
        await eventually(lambda: sum(isinstance(event, Counted) for event in events) >= 2)
        assert ways[0][1].cut() > 0
        outcome = await task
        assert (outcome.state, outcome.reason) == ("finished", None)
        said = [event.text for event in events if isinstance(event, Said)]
        assert any(line.startswith("load-1: ") and "going on from second" in line for line in said), said
        assert [event.second.second for event in events if isinstance(event, Counted)] == list(range(1, 7))
        for host, plan in zip(outcome.hosts, plans, strict=True):
            assert host.run is not None
            assert host.run.result.final is not None
            counters = host.run.result.final.counters
            assert counters.messages_due == scenario.pacing().offered(plan.share, scenario.duration_s * NS)
            assert broken_identities(counters) == []
            assert host.start_skew_s is not None
            assert host.clock_begin is not None
            assert abs(host.start_skew_s) < 0.05 + host.clock_begin.bound_s
        assert await acknowledge(job, 5, transports) == []

    with (
        serving("--workers", "1") as running,
        agents("load-1", "load-2", options=("--cores", "1")) as started,
        sshds(*(to_agent(agent.socket) for agent in started)) as gates,
    ):
        run(work(running.url(), [(agent.name, gate) for agent, gate in zip(started, gates, strict=True)]))


@contextlib.asynccontextmanager
async def _passing(sshd: Sshd) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A way to an sshd through which, once told so, nothing passes any more; and nobody is told."""
    silent = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if silent.is_set():
                await asyncio.Event().wait()
            writer.write(data)

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", sshd.port)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(joined, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], silent.set
    finally:
        server.close()

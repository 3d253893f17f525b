"""Many load generators at once over SSH: nothing lost, nothing counted twice.

What that costs for 200 of them is told by `tests/benchmarks/conductor_scale.py`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncssh
import pytest

from portal.conductor import ssh
from portal.conductor.conduct import acknowledge, conduct
from portal.conductor.job import Control, Counted, Event, Job, JobHost, Said, SshLogin
from portal.conductor.ssh import SshTransport
from tests.portal.hosts import quick
from tests.portal.replay import Recording, Replay
from tests.wsnode.agents import eventually, run, second
from wsnode.core.histogram import Histogram
from wsnode.core.merge import merge
from wsnode.core.scenario import Plan, Scenario

__all__ = ["quick"]

SECONDS = 4
RECORDED = Recording(
    Scenario(clients=10, interval_ms=500, ramp_up_s=1, rate_per_s=10, duration_s=SECONDS, drain_s=1, reply_timeout_s=1),
    [second(number) for number in range(1, SECONDS + 1)],
    second(SECONDS),
)


@pytest.mark.usefixtures("quick")
def test_twelve_hosts_are_followed_at_once_and_each_second_of_each_is_merged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "LOGINS", 3)
    key, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    client.write_private_key(tmp_path / "client")
    (tmp_path / "client").chmod(0o600)
    names = [f"load-{number}" for number in range(1, 13)]
    scenario = RECORDED.for_hosts(len(names))

    async def work() -> None:
        replay = Replay(RECORDED, names)
        async with await replay.listen(key, client) as acceptor:
            known = (key.export_public_key().decode().strip(),)
            hosts = [
                JobHost(
                    name, "load_generator", "ssh", "/", plan, SshLogin("127.0.0.1", name, acceptor.get_port(), known)
                )
                for name, plan in zip(names, Plan.divide(scenario, "ws://127.0.0.1:9", len(names)), strict=True)
            ]
            job = Job("r-many", 1, scenario, hosts)
            events: list[Event] = []
            transports = {"ssh": SshTransport(tmp_path / "client")}
            conducting = asyncio.create_task(conduct(job, events.append, Control(), transports))
            # All ways break in the middle, in the middle of lines as it may be: each host is asked for the rest.
            await eventually(lambda: any(isinstance(event, Counted) for event in events) or conducting.done())
            assert replay.cut() == len(names)
            outcome = await conducting
            assert (outcome.state, outcome.reason) == ("finished", None)
            assert sum("going on from second" in event.text for event in events if isinstance(event, Said)) >= len(
                names
            )
            counted = [event.second for event in events if isinstance(event, Counted)]
            assert [line.second for line in counted] == list(range(1, SECONDS + 1))
            for line in counted:
                parts = [replay.hosts[name].recording.lines[line.second - 1] for name in names]
                assert line.counters == merge(parts).counters
                assert line.counters.messages_due == len(names) * 10 * line.second
                pooled = Histogram()
                for part in parts:
                    pooled.add(part.histogram("response_time"))
                assert line.histogram("response_time") == pooled
            assert [host.run is not None and len(host.run.series) for host in outcome.hosts] == [SECONDS] * len(names)
            assert await acknowledge(job, 5, transports) == []
            assert all(replay.hosts[name].acknowledged for name in names)
            assert (replay.most_logging_in, replay.logging_in) == (3, 0)

    run(work())

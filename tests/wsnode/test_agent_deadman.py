"""An agent that nobody looks after ends its load by itself, and does not go beyond what its owner allows."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.wsnode.agents import ScriptedLoad, eventually, local_agent, plan, run, scripted
from wsnode.agent import held
from wsnode.agent.config import Config, ConfigError

__all__ = ["scripted"]

Loads = type[ScriptedLoad]


def test_a_load_that_nobody_follows_is_stopped(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent(deadman_s=0.3) as agent:
            talk = await agent.running("r1")
            await talk.ask("follow", run_id="r1", epoch=1)
            begin = time.monotonic()
            await talk.close()
            await eventually(scripted.made[0]._over.is_set)
            assert 0.25 < time.monotonic() - begin < 3
            talk = await agent.talk()
            await talk.ask("follow", run_id="r1", epoch=1)
            ended = await talk.until("ended")
            assert ended["state"] == "stopped"
            assert ended["reason"] == "deadman: nobody has followed the load for 0.3 s"

    run(work())


def test_a_follower_that_is_never_heard_from_does_not_count(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent(deadman_s=0.3) as agent:
            talk = await agent.running("r1")
            await talk.ask("follow", run_id="r1", epoch=1)
            # A cut way looks like this from the host: open, and silent.
            assert (await talk.until("ended"))["reason"].startswith("deadman: ")

    run(work())


def test_a_follower_that_is_heard_from_keeps_the_load(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent(deadman_s=0.3) as agent:
            talk = await agent.running("r1")
            await talk.ask("follow", run_id="r1", epoch=1)
            for _ in range(10):
                await asyncio.sleep(0.1)
                await talk.ask("clock")
            assert not scripted.made[0]._over.is_set()

    run(work())


def test_a_prepared_load_without_a_go_is_released(scripted: Loads) -> None:
    async def work() -> None:
        async with local_agent(deadman_s=0.2) as agent:
            talk = await agent.talk()
            await talk.ask("prepare", run_id="r1", epoch=1, plan=plan())
            await eventually(lambda: scripted.made[0].killed)
            code, message = await talk.refused("go", run_id="r1", epoch=1, start_at=time.time_ns() + 50_000_000)
            assert code == "unknown_run"
            assert "deadman: no go within 0.2 s" in message
            await talk.ask("prepare", run_id="r2", epoch=1, plan=plan())

    run(work())


def test_a_load_that_goes_on_after_its_scenario_is_killed(scripted: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "OVERTIME_S", 0.2)

    async def work() -> None:
        async with local_agent() as agent:
            short = plan(duration_s=1, drain_s=1, ramp_up_s=0.1, warm_up_s=0)
            talk = await agent.running("r1", a_plan=short)
            await talk.ask("follow", run_id="r1", epoch=1)
            ended = await talk.until("ended")
            assert scripted.made[0].killed
            assert ended["state"] == "interrupted"
            assert ended["reason"] == "deadman: it went on for 0.2 s after its scenario's end"

    run(work())


@pytest.mark.parametrize(
    ("config", "a_plan", "words"),
    [
        ({"max_clients": 9}, {}, "10 clients are asked of this host, its agent allows 9 (max_clients)"),
        ({"max_duration_s": 4}, {}, "5 s of duration are asked of this host, its agent allows 4 (max_duration_s)"),
        ({"max_rate_per_s": 19.9}, {}, "20 new connections per second are asked"),
        ({"max_messages_per_s": 99}, {}, "100 messages per second are asked"),
        ({"allow_targets": ["198.18.0.0/24"]}, {}, "127.0.0.1 is not within this agent's allow_targets (198.18.0.0/24"),
        ({"allow_targets": []}, {}, "allow_targets (none)"),
        ({"allow_ports": ["3000", "8000-8100"]}, {}, "port 9 is not within this agent's allow_ports (3000, 8000-8100)"),
        ({}, {"url": "ws://192.0.2.1:80/echo"}, "192.0.2.1 is not within this agent's allow_targets (127.0.0.0/8"),
        ({}, {"url": "ws://[::ffff:192.0.2.1]:80/echo"}, "::ffff:192.0.2.1 is not within"),
        ({}, {"url": "ws://0.0.0.0:80/echo"}, "0.0.0.0 is not within"),
    ],
)
def test_what_is_beyond_caps_or_targets_is_refused_before_anything_starts(
    scripted: Loads, config: dict[str, Any], a_plan: dict[str, Any], words: str
) -> None:
    async def work() -> None:
        async with local_agent(config=Config(**config)) as agent:
            talk = await agent.talk()
            code, message = await talk.refused("prepare", run_id="r1", epoch=1, plan=plan(**a_plan))
            assert code == "not_allowed"
            assert words in message
            assert scripted.made == []
            seen = await talk.ask("preflight", plan=plan(**a_plan).model_dump(mode="json"))
            assert seen["fit"] is False
            assert [f["check"] for f in seen["findings"] if f["level"] == "unfit"] in (["caps"], ["allowed target"])

    run(work())


@pytest.mark.parametrize(
    "config",
    [
        {"max_clients": 10, "max_duration_s": 5, "max_rate_per_s": 20, "max_messages_per_s": 100},
        {"allow_targets": ["127.0.0.1/32"], "allow_ports": [9]},
    ],
)
def test_what_is_just_within_them_is_allowed(scripted: Loads, config: dict[str, Any]) -> None:
    async def work() -> None:
        async with local_agent(config=Config(**config)) as agent:
            talk = await agent.talk()
            await talk.ask("prepare", run_id="r1", epoch=1, plan=plan())

    run(work())


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("ws://name.invalid/echo", "unfit", "name.invalid has no address"),
        ("ws://user:secret@127.0.0.1/echo", "bad_request", "not supported"),
        ("ws:///echo", "bad_request", "expected ws://HOST:PORT"),
    ],
)
def test_a_target_that_is_none_is_refused(scripted: Loads, url: str, code: str, words: str) -> None:
    async def work() -> None:
        async with local_agent() as agent:
            talk = await agent.talk()
            refused = await talk.refused("prepare", run_id="r1", epoch=1, plan=plan(url=url))
            assert refused[0] == code
            assert words in refused[1]

    run(work())


def test_every_address_of_a_name_must_be_allowed() -> None:
    config = Config(allow_targets=("127.0.0.0/8",))
    assert config.may_aim(["127.0.0.1", "127.9.9.9"], 80).refused is None
    assert config.may_aim(["::ffff:127.0.0.1"], 80).refused is None
    assert "192.0.2.7" in (config.may_aim(["127.0.0.1", "192.0.2.7"], 80).refused or "")
    assert "::1" in (config.may_aim(["::1"], 80).refused or "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_client = 5", "max_client: no such key; known: allow_targets"),
        ("max_clients = 0", "max_clients: 0 is refused"),
        ('allow_targets = ["198.18.0.0/33"]', "allow_targets: ['198.18.0.0/33'] is refused"),
        ('allow_targets = ["everywhere"]', "everywhere"),
        ('allow_ports = ["80-"]', "not a port or a range"),
        ("allow_ports = [0]", "within 1-65535"),
        ("allow_ports = [", "agent.toml: "),
    ],
)
def test_a_config_that_is_not_understood_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        Config.read(str(file))
    assert words in str(error.value)
    assert str(file) in str(error.value)


def test_a_config_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('allow_targets = ["198.18.0.0/24"]\nallow_ports = [3000, "8000-8100"]\nmax_clients = 5000\n')
    config = Config.read(str(file))
    assert config.may_aim(["198.18.0.10"], 8050).refused is None
    assert config.max_clients == 5000
    assert Config.read(None).may_aim(["127.0.0.1", "::1"], 3000).refused is None

"""Loads that aim outside the lab: at the address they were given, allowed by root's list, wanted by the server."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.wsnode.agents import ScriptedLoad, Talk, agents, local_agent, plan, run, scripted
from tests.wsnode.peers import new_identity
from tests.wsnode.teams import TOKEN, Team, team
from wsnode.agent.config import Allowed, Config, ConfigError
from wsnode.agent.consent import PATH, withheld
from wsnode.core.scenario import Plan

__all__ = ["scripted"]

OTHER = "wslab-fedcba9876543210"


def at(shop: Team, path: str = "/live", address: str = "127.0.0.1", consent: str | None = TOKEN, **fields: Any) -> Plan:
    made = plan(shop.url(path=path), **fields)
    return made.model_copy(update={"address": address, "consent": consent})


def only(shop: Team, *, consent: bool = True, networks: tuple[str, ...] = ("127.0.0.1/32",)) -> Config:
    """Nothing is allowed but the team's server."""
    allowed = Allowed(networks=networks, ports=(str(shop.port),), consent=consent)
    return Config(allow_targets=(), allow_ports=(), targets=(allowed,), consent_token=TOKEN)


async def verdicts(config: Config, a_plan: Plan) -> tuple[str, str]:
    """What an agent says to a plan: why preflight finds it unfit, and why prepare refuses it; empty: neither."""
    async with local_agent(config=config) as agent:
        talk = await agent.talk()
        found = (await talk.ask("preflight", plan=a_plan))["findings"]
        unfit = "; ".join(finding["value"] for finding in found if finding["level"] == "unfit")
        reply = await talk.reply(talk.send("prepare", run_id="r1", epoch=1, plan=a_plan))
        return unfit, reply.get("message", "")


def test_a_server_that_shows_the_token_is_loaded_after_it_was_asked(scripted: type[ScriptedLoad]) -> None:
    async def work() -> None:
        async with team() as shop:
            assert await verdicts(only(shop), at(shop)) == ("", "")
            # Once for each of the two, by the name that it goes by.
            assert shop.requests == [(PATH, f"shop.invalid:{shop.port}")] * 2
            [load] = scripted.made
            assert load.plan.address == "127.0.0.1"

    run(work())


@pytest.mark.parametrize(
    ("consent", "words"),
    [
        ((404, "no such thing", {}), "answers 404; wanted: 200 and the line"),
        ((200, "<html>all is well</html>", {}), "does not show this lab's token"),
        ((200, OTHER, {}), "does not show this lab's token"),
        ((200, f"x{TOKEN}", {}), "does not show this lab's token"),
        ((200, "\n" * 9000 + TOKEN, {}), "does not show this lab's token"),
        ((302, "", {"Location": "/elsewhere"}), "answers 302, a redirect, which is not followed"),
        ((401, TOKEN, {}), "answers 401"),
        ((500, TOKEN, {}), "answers 500"),
    ],
)
def test_a_server_that_does_not_show_the_token_is_not_loaded(
    scripted: type[ScriptedLoad], consent: tuple[int, str, dict[str, str]], words: str
) -> None:
    async def work() -> None:
        async with team() as shop:
            shop.consent = consent
            unfit, message = await verdicts(only(shop), at(shop))
            where = f"http://shop.invalid:{shop.port}{PATH} at 127.0.0.1 "
            assert unfit.startswith(where)
            assert words in unfit
            assert message == f"no consent to be loaded: {unfit}"
            assert (scripted.made, set(shop.paths)) == ([], {PATH})

    run(work())


def test_roots_list_asks_for_consent_whatever_the_plan_says(scripted: type[ScriptedLoad]) -> None:
    async def work() -> None:
        async with team() as shop:
            shop.consent = (200, OTHER, {})
            for consent in (None, OTHER):  # a conductor's own token is not root's
                _, message = await verdicts(only(shop), at(shop, consent=consent))
                assert message.endswith(f"wanted: 200 and the line {TOKEN}, put there by whoever owns the server")
            assert scripted.made == []
            # And where root asks for none, the plan's is asked for all the same.
            _, message = await verdicts(only(shop, consent=False), at(shop))
            assert "does not show this lab's token" in message
            shop.requests.clear()
            assert await verdicts(only(shop, consent=False), at(shop, consent=None)) == ("", "")
            assert shop.requests == []

    run(work())


def test_a_server_that_is_silent_is_not_loaded(scripted: type[ScriptedLoad], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsnode.agent.consent.TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        why = withheld(f"ws://shop.invalid:{port}/live", "127.0.0.1", TOKEN)
        assert why is not None
        assert f"http://shop.invalid:{port}{PATH} at 127.0.0.1 does not answer (timed out)" in why
    why = withheld(f"ws://[::1]:{port}/live", "127.0.0.1", TOKEN)
    assert why is not None
    assert f"http://[::1]:{port}{PATH} at 127.0.0.1 does not answer (Connection refused)" in why


@pytest.mark.parametrize(
    ("networks", "address", "port_off", "words"),
    [
        (("192.0.2.0/24",), "127.0.0.1", 0, "127.0.0.1 is not within this agent's allow_targets (none), nor one of"),
        (("127.0.0.1/32",), "127.0.0.2", 0, "127.0.0.2 is not within this agent's allow_targets (none), nor one of"),
        (("127.0.0.1/32",), "::1", 0, "::1 is not within this agent's allow_targets (none), nor one of its targets"),
        (("127.0.0.1/32",), "127.0.0.1", 1, "127.0.0.1 is not within this agent's allow_targets (none), nor one of"),
    ],
)
def test_an_address_that_root_does_not_allow_is_refused_whoever_looked_it_up(
    scripted: type[ScriptedLoad], networks: tuple[str, ...], address: str, port_off: int, words: str
) -> None:
    async def work() -> None:
        async with team() as shop:
            config = only(shop, networks=networks)
            shop.port += port_off
            unfit, message = await verdicts(config, at(shop, address=address))
            assert words in unfit
            assert words in message
            assert (scripted.made, shop.requests) == ([], [])

    run(work())


def test_a_target_and_its_ports_are_allowed_together_only() -> None:
    config = Config(
        allow_targets=("198.51.100.1/32",),
        allow_ports=("3000",),
        targets=(
            Allowed(networks=("203.0.113.0/24",), ports=("443", "8443-8450")),
            Allowed(networks=("203.0.113.9/32",), ports=("80",), consent=False),
        ),
        consent_token=TOKEN,
    )
    assert config.may_aim(["198.51.100.1"], 3000) == (None, False)
    assert config.may_aim(["203.0.113.9"], 8444) == (None, True)
    assert config.may_aim(["203.0.113.9"], 80) == (None, False)
    assert config.may_aim(["198.51.100.1"], 443).refused is not None
    assert config.may_aim(["203.0.113.8"], 80).refused is not None
    assert config.may_aim(["203.0.113.9"], 3000).refused is not None
    # All of a name's addresses are to be allowed, and one that asks for consent asks for it.
    assert config.may_aim(["198.51.100.1", "203.0.113.9"], 3000).refused is not None
    assert config.may_aim(["203.0.113.9", "203.0.113.8"], 443) == (None, True)


def test_consent_that_nobody_could_show_is_no_config(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('targets = [{networks = ["203.0.113.0/24"], ports = ["443"]}]\n')
    with pytest.raises(ConfigError, match="targets whose consent is asked for need consent_token"):
        Config.read(str(file))
    file.write_text('targets = [{networks = ["203.0.113.1/24"], ports = ["443"], consent = false}]\n')
    with pytest.raises(ConfigError, match=r"targets\.0\.networks: .* has host bits set"):
        Config.read(str(file))


async def whole(talk: Talk, a_plan: Plan) -> dict[str, Any]:
    """A load's counters, after its end."""
    await talk.ask("prepare", run_id="r1", epoch=1, plan=a_plan)
    await talk.ask("go", run_id="r1", epoch=1, start_at=time.time_ns() + 200_000_000)
    await talk.ask("follow", run_id="r1", epoch=1)
    await talk.until("ended")
    result = await talk.ask("result", run_id="r1", epoch=1)
    final: dict[str, Any] = result["final"]
    return final


def test_a_real_load_goes_to_the_given_address_by_the_servers_own_name_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = new_identity(tmp_path / "shop.pem", "shop.invalid")
    monkeypatch.setenv("SSL_CERT_FILE", str(identity))

    async def work() -> None:
        async with team(identity) as shop:
            config = tmp_path / "agent.toml"
            config.write_text(
                f'allow_targets = []\nallow_ports = []\nconsent_token = "{TOKEN}"\n'
                f'targets = [{{networks = ["127.0.0.1/32"], ports = ["{shop.port}"]}}]\n'
            )
            with agents("load-1", options=("--config", str(config))) as [agent]:
                talk, _ = await Talk.open(agent.socket)
                final = await whole(talk, at(shop, duration_s=2))
                await talk.close()
            counters = final["counters"]
            assert counters["connections_opened"] == counters["connections_attempted"] == 10
            assert counters["messages_received"] == counters["messages_sent"] > 100
            assert shop.names == {"shop.invalid"}
            assert shop.requests[0] == (PATH, f"shop.invalid:{shop.port}")
            assert set(shop.requests[1:]) == {("/live", f"shop.invalid:{shop.port}")}

    run(work())


def test_a_load_that_is_sent_elsewhere_does_not_follow() -> None:
    async def work() -> None:
        async with team() as shop:
            with agents("load-1") as [agent]:
                talk, _ = await Talk.open(agent.socket)
                final = await whole(talk, at(shop, "/moved", consent=None, duration_s=2, reconnect=False))
                await talk.close()
            counters = final["counters"]
            assert counters["connections_failed"] == counters["connections_attempted"] == 10
            assert final["errors"] == {"handshake_rejected": 10}
            assert set(shop.paths) == {"/moved"}

    run(work())

"""Secrets: where they come from, and that they are nowhere but where they are used."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from portal.conductor.conduct import conduct
from portal.conductor.job import Control, Counted, Event, Job, JobHost, Outcome
from tests.wsnode.agents import AgentProcess, agents, run
from tests.wsnode.clerk import clerk
from wsnode.core.protocol import Prepare, decode_request, encode
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.template import secret_of
from wsnode.load.secret import SecretError, gather

VALUE = "open-sesame-5f21868e"
LOGIN = ('> {"type": "login", "client": "${client}", "token": "${secret:TOKEN}"}', '< json:/type == "welcome"')
SCENARIO = Scenario(
    clients=10,
    interval_ms=100,
    ramp_up_s=0.5,
    duration_s=3,
    rate_per_s=100,
    reply_timeout_s=1,
    drain_s=1,
    first_messages=LOGIN,
    payload='{"answer": {"to": ${seq}}, "id": ${seq}, "sign": "${secret:TOKEN}"}',
    match="json:/answer/to",
)


def test_a_file_goes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a value\n")
    environ = {"WSNODE_SECRET_TOKEN": "of the environment", "WSNODE_SECRET_OTHER": "x"}
    assert gather(("OTHER", "TOKEN"), [f"TOKEN={file}"], environ) == {"TOKEN": "a value", "OTHER": "x"}
    assert gather((), [f"TOKEN={file}"], environ) == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "the scenario needs the secret TOKEN: give --secret TOKEN=FILE, or set WSNODE_SECRET_TOKEN"),
        (["TOKEN"], "--secret TOKEN…: expected NAME=FILE"),
        (["token=hush"], "--secret token…: expected NAME=FILE"),
        (["TOKEN=/does/not/exist"], "--secret TOKEN=/does/not/exist: No such file or directory"),
        (["TOKEN=/dev/null"], "--secret TOKEN=/dev/null: 0 bytes, wanted 1 to 16,384"),
    ],
)
def test_a_secret_that_cannot_be_had_is_named_with_the_repair(given: list[str], said: str) -> None:
    with pytest.raises(SecretError, match=re.escape(said)) as refused:
        gather(("TOKEN",), given, {})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfehush", b"hush" * 5000])
def test_what_is_no_secret_is_refused_without_showing_it(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"wanted 1 to|not UTF-8") as refused:
        secret_of(content)
    assert "hush" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_only_the_line_to_the_agent_shows_the_value() -> None:
    request = Prepare(id=1, run_id="r1", epoch=1, plan=Plan.whole(SCENARIO, "ws://x"), secrets={"TOKEN": VALUE})
    assert VALUE not in repr(request)
    assert VALUE not in str(request.model_dump())
    assert decode_request(encode(request)) == request


def cmdlines() -> str:
    found = []
    for process in psutil.process_iter():
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return "\n".join(found)


def test_the_command_line_takes_it_from_a_file_and_shows_it_nowhere(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{VALUE}\n")
    (tmp_path / "scenario.yaml").write_text(SCENARIO.model_dump_json())
    with clerk("plain", VALUE) as server:
        command = [sys.executable, "-m", "wsnode", "load", server.url, "--scenario", str(tmp_path / "scenario.yaml")]
        command += ["--secret", f"TOKEN={tmp_path / 'token'}", "--workers", "2", "--json", "-"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        seen = cmdlines()
        out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 3), err  # a busy machine may make it invalid
    assert "wsnode load" in seen
    # The clerk itself is given it as an argument.
    assert [line for line in seen.splitlines() if VALUE in line and "tests.wsnode.clerk" not in line] == []
    assert '"connections_opened": 10' in out
    assert '"login_failed"' not in out
    assert VALUE not in out + err
    assert server.seen["requests"] > 100


def test_an_agent_keeps_the_plan_and_never_the_secret() -> None:
    async def work(url: str, agent: AgentProcess) -> tuple[Outcome, str, str]:
        place = JobHost(agent.name, "load_generator", "local", agent.socket, Plan.whole(SCENARIO, url))
        events: list[Event] = []
        seen = []

        def take(event: Event) -> None:
            events.append(event)
            if isinstance(event, Counted) and not seen:
                seen.append(cmdlines())

        job = Job("r-secret", 1, SCENARIO, [place], secrets=request.secrets)
        assert VALUE not in repr(job)
        outcome = await asyncio.wait_for(conduct(job, take, Control()), 50)
        return outcome, seen[0], "\n".join(map(repr, events))

    request = Prepare(id=1, run_id="r1", epoch=1, plan=Plan.whole(SCENARIO, "ws://x"), secrets={"TOKEN": VALUE})
    with clerk("plain", VALUE) as server, agents("load-1", options=("--cores", "1")) as [agent]:
        results: list[tuple[Outcome, str, str]] = []

        async def whole() -> None:
            results.append(await work(server.url, agent))

        run(whole())
        [(outcome, seen, events)] = results
        assert (outcome.state, outcome.reason) == ("finished", None)
        [host] = outcome.hosts
        assert host.run is not None
        assert host.run.result.final is not None
        assert host.run.result.final.counters.connections_opened == 10
        kept = {file: file.read_bytes() for file in agent.data.rglob("*") if file.is_file()}
        log = agent.log.read_text()
    assert {"plan.json", "state.json", "lines.jsonl", "result.json"} <= {file.name for file in kept}
    assert any(b"${secret:TOKEN}" in content for content in kept.values())
    assert [file.name for file, content in kept.items() if VALUE.encode() in content] == []
    assert VALUE not in log + events + repr(outcome)
    assert [line for line in seen.splitlines() if VALUE in line and "tests.wsnode.clerk" not in line] == []

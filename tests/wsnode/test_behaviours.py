"""Behaviours that a package brings: the example of docs/behaviours.md is installed and runs, and one that fails is
named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests.wsnode.agents import AgentProcess, Talk, run, short_folder
from tests.wsnode.clerk import clerk
from wsnode import __version__
from wsnode.core.scenario import BUILT_IN

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "behaviours.md").read_text()
[PROJECT] = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
[CODE] = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
USUAL = ("--clients", "10", "--interval", "100", "--ramp-up", "0.5", "--duration", "3", "--rate", "100", "--quiet")


def install(folder: Path, code: str, project: str = PROJECT) -> dict[str, str]:
    """What an installer leaves of the package, and the environment in which it is found."""
    said = tomllib.loads(project)["project"]
    points = said["entry-points"]["wsnode.behaviours"]
    folder.mkdir(parents=True, exist_ok=True)
    for target in points.values():
        (folder / f"{target.partition(':')[0]}.py").write_text(code)
    info = folder / f"{said['name'].replace('-', '_')}-{said['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {said['name']}\nVersion: {said['version']}\n")
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (info / "entry_points.txt").write_text(f"[wsnode.behaviours]\n{lines}")
    return {**os.environ, "PYTHONPATH": str(folder)}


def wsnode(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wsnode", *words],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def load(environ: dict[str, str], url: str, *options: str) -> tuple[int, dict[str, Any], str]:
    done = wsnode(environ, "load", url, *USUAL, "--workers", "1", "--json", "-", *options)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_the_example_of_the_docs_runs_and_every_message_is_accounted_for(tmp_path: Path) -> None:
    environ = install(tmp_path, CODE)
    listed = wsnode(environ, "behaviours")
    assert [line.split(None, 1) for line in listed.stdout.splitlines()] == [
        *([name, "built in"] for name in BUILT_IN),
        ["shopping", "shop-load 1.0, shop_load:Shopping"],
    ]
    with clerk("swap") as server:
        code, result, said = load(environ, server.url, "--behaviour", "shopping")
    counters = result["counters"]
    assert code in (0, 3), said  # a busy machine may make it invalid
    assert server.seen["paths"] == ["/shop"]
    assert server.seen["logins"] == counters["connections_opened"] == 10
    assert counters["messages_sent"] == server.seen["requests"] > 200
    assert counters["messages_sent"] - counters["messages_received"] <= 10  # the clerk may hold one of each pair
    assert counters["messages_unexpected"] == 0
    assert counters["errors"] == {}
    assert counters["bytes_sent"] == server.seen["request_bytes"] + server.seen["login_bytes"]
    assert "messages are made by the installed behaviour shopping: size_bytes is not used" in result["notes"]


def test_an_exception_in_its_code_is_the_generators_fault_by_its_name(tmp_path: Path) -> None:
    code = CODE.replace("article = (", "assert seq % 10, 'no tenth'\n        article = (")
    with clerk("plain") as server:
        exit_code, result, said = load(install(tmp_path, code), server.url, "--behaviour", "shopping")
    counters = result["counters"]
    failed = counters["errors"]["behaviour_failed"]
    assert exit_code == 3
    assert counters["unsent"]["behaviour_failed"] == failed >= 20
    assert counters["messages_sent"] == counters["messages_received"] == server.seen["requests"]
    assert counters["messages_due"] == counters["messages_sent"] + counters["messages_unsent"]
    assert result["validity"] == "invalid"
    assert f"invalid: the behaviour shopping failed {failed} times: its own code, not the server" in result["reasons"]
    assert "the behaviour shopping has failed; further failures are only counted" in said
    assert said.count("AssertionError: no tenth") == 1


def test_a_reply_that_its_code_cannot_read_is_its_own_fault_too(tmp_path: Path) -> None:
    code = CODE.replace('["answer"]["to"]', '["answer"]["too"]')
    with clerk("plain") as server:
        exit_code, result, _ = load(install(tmp_path, code), server.url, "--behaviour", "shopping")
    counters = result["counters"]
    assert (exit_code, result["validity"]) == (3, "invalid")
    assert counters["errors"] == {"behaviour_failed": server.seen["requests"]}
    assert counters["messages_lost"] + counters["messages_in_flight"] == counters["messages_sent"]
    assert counters["messages_unexpected"] == counters["messages_sent"]


def test_two_messages_with_one_key_are_refused_before_one_is_lost(tmp_path: Path) -> None:
    code = CODE.replace('"article": article}), seq', '"article": article}), 7')
    with clerk("swap") as server:
        _, result, said = load(install(tmp_path, code), server.url, "--behaviour", "shopping")
    assert result["counters"]["unsent"]["behaviour_failed"] > 0
    assert "has no key of its own: 7" in said


def test_what_is_not_installed_or_cannot_be_made_is_refused_with_what_is(tmp_path: Path) -> None:
    code, _, said = load(dict(os.environ), "ws://127.0.0.1:9", "--behaviour", "shopping")
    assert code == 2
    assert "the behaviour 'shopping' is not installed here; installed: echo, broadcast" in said
    environ = install(tmp_path, CODE.replace("def key", "def keyed"))
    code, _, said = load(environ, "ws://127.0.0.1:9", "--behaviour", "shopping")
    assert code == 2
    assert "the behaviour 'shopping' (shop_load:Shopping) has no key" in said


def test_an_agent_tells_what_it_has() -> None:
    with short_folder() as folder:
        agent = AgentProcess(folder, "load-1", environment=install(folder / "packages", CODE)).ready()
        try:

            async def hello() -> dict[str, Any]:
                talk, said = await Talk.open(agent.socket)
                await talk.close()
                return said

            said = run(hello())
        finally:
            agent.end()
    assert (said["wsnode"], said["behaviours"]) == (__version__, [*BUILT_IN, "shopping"])

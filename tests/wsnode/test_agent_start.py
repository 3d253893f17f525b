"""The way in: the socket, `agent connect`, and what a service says when it cannot start."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wsnode.agents import ROOT, agent_command, agents, short_folder
from wsnode.cli import main


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_connect_joins_its_input_and_output_to_the_agent() -> None:
    with agents("server", role="server") as [agent]:
        assert stat.S_IMODE(Path(agent.socket).stat().st_mode) == 0o660
        asked = agent_command(
            "connect", "--socket", agent.socket, stdin='{"type":"clock","id":1}\n{"type":"list","id":2}\n'
        )
        assert (asked.returncode, asked.stderr) == (0, "")
        hello, *answers = lines(asked.stdout)
        assert (hello["type"], hello["name"], hello["capabilities"]) == ("hello", "server", ["observe"])
        assert {answer["id"] for answer in answers} == {1, 2}
        # It ends with the agent, too, though its input stays open.
        with subprocess.Popen(
            [sys.executable, "-m", "wsnode", "agent", "connect", "--socket", agent.socket],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as bridge:
            assert bridge.stdout is not None
            assert b"hello" in bridge.stdout.readline()
            agent.end()
            assert bridge.wait(10) == 0
        assert not Path(agent.socket).exists()
        listed = agent.command("list")
        assert (listed.returncode, listed.stderr.count("\n")) == (2, 1)


def test_connect_says_in_one_line_why_there_is_no_agent() -> None:
    with short_folder() as folder:
        missing = agent_command("connect", "--socket", str(folder / "none.sock"))
        assert (missing.returncode, missing.stdout) == (2, "")
        assert missing.stderr == (
            f"wsnode agent connect: no agent at {folder}/none.sock: the socket does not exist; is the agent service"
            " running?\n"
        )
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(folder / "dead.sock"))
        dead.close()
        refused = agent_command("connect", "--socket", str(folder / "dead.sock"))
        assert refused.returncode == 2
        assert "nobody answers there" in refused.stderr


def test_connect_imports_next_to_nothing() -> None:
    script = (
        "import sys; sys.argv = ['wsnode', 'agent', 'connect', '--socket', '/nowhere/agent.sock']\n"
        "from wsnode.cli import main\n"
        "assert main() == 2\n"
        "heavy = {'pydantic', 'asyncio', 'uvloop', 'websockets', 'prometheus_client', 'psutil', 'yaml', 'ssl'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_service_that_cannot_start_says_why_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with agents("load-1") as [agent]:
        common = ("agent", "service", "--name", "x", "--role", "server")
        config = tmp_path / "agent.toml"
        config.write_text("max_client = 5\n")
        cases = {
            "another agent answers there": ("--socket", agent.socket, "--data", str(tmp_path / "a")),
            "another agent uses": ("--socket", str(tmp_path / "s"), "--data", str(agent.data)),
            "give a shorter --socket": ("--socket", "/tmp/" + "x" * 120, "--data", str(tmp_path / "b")),
            "does its folder exist": ("--socket", f"{agent.data}/no/s", "--data", str(tmp_path / "c")),
            "max_client: no such key": (
                *("--socket", f"{agent.data}/s", "--data", str(tmp_path / "d")),
                *("--config", str(config)),
            ),
        }
        for words, options in cases.items():
            assert main([*common, *options]) == 2, words
            said = capsys.readouterr().err
            assert words in said
            assert said.count("\n") == 1, said


def test_a_socket_that_a_dead_agent_left_is_replaced() -> None:
    with agents("load-1") as [agent]:
        agent.kill()
        assert Path(agent.socket).exists()
        agent.start()
        agent.ready()
        listed = agent.command("list", "--json")
        assert json.loads(listed.stdout) == {"agent": "load-1", "loads": []}

"""What a service tells systemd, and the checks of configuration files that are made before one is put in place."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wsnode.agents import PATIENCE_S, agent_command, agents, short_folder
from tests.wsnode.serving import serving
from wsnode.cli import main
from wsnode.readiness import READY, notify


@contextlib.contextmanager
def manager(monkeypatch: pytest.MonkeyPatch, name: str | None = None) -> Iterator[socket.socket]:
    """A service manager's end: an abstract socket, or one in a folder."""
    with short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = name or str(folder / "notify")
        listener.bind(path.replace("@", "\0", 1))
        listener.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield listener


def test_a_server_is_ready_once_it_answers_and_stopping_while_it_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    with manager(monkeypatch) as told, serving("--workers", "2") as server:
        assert told.recv(100) == b"READY=1"
        assert server.get("/healthz")[0] == 200
        assert server.terminate() == 0
        assert told.recv(100) == b"STOPPING=1"
        told.setblocking(False)
        with pytest.raises(BlockingIOError):  # its workers, which know the socket, told nothing
            told.recv(100)


def test_an_agent_is_ready_once_it_answers_and_stopping_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with manager(monkeypatch, "@wsnode-test-notify") as told, agents("load-1") as [agent]:
        assert told.recv(100) == b"READY=1"
        listed = agent_command("list", "--socket", agent.socket)
        assert (listed.returncode, listed.stdout) == (0, "load-1: no loads\n")
        agent.end()
        assert told.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nowhere/notify"])
def test_who_asks_for_nothing_or_is_gone_is_told_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify(READY)


def test_a_server_s_file_is_checked_without_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("port = 3000\nping_interval_s = 0.0\n")
    with socket.create_server(("127.0.0.1", 0)) as other:  # whether the port is free is not asked
        assert main(["serve", "--check", "--config", str(config), "--port", str(other.getsockname()[1])]) == 0
    assert capsys.readouterr() == ("", "")
    config.write_text("prot = 3000\n")
    assert main(["serve", "--check", "--config", str(config)]) == 2
    assert f"{config}: unknown key 'prot'; known are host, port" in capsys.readouterr().err


def test_an_agent_s_file_is_checked_without_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('allow_targets = ["192.0.2.0/24"]\nallow_ports = ["3000"]\n')
    assert main(["agent", "check", "--config", str(config)]) == 0
    assert capsys.readouterr() == ("", "")
    config.write_text('allow_targets = ["192.0.2.1/24"]\n')
    assert main(["agent", "check", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"wsnode agent check: {config}: allow_targets: ")
    assert "192.0.2.1/24 has host bits set" in said
    assert said.count("\n") == 1

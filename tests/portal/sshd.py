"""Real sshds on free ports, run by whoever runs the tests, whose keys are bound to one agent each."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import psutil
import pytest

from portal.conductor.job import SshLogin
from tests.wsnode.agents import PATIENCE_S, ROOT, short_folder

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")

needs_sshd = pytest.mark.skipif(SSHD is None, reason="no sshd: apt install openssh-server")


class Sshd:
    """An sshd that lets one key in, to do what its entry in authorized_keys says."""

    def __init__(self, folder: Path, entry: str) -> None:
        """`entry`: options before the key in authorized_keys."""
        assert SSHD is not None
        folder.mkdir()
        self.port = _free_port()
        self.key = folder / "id"
        client = asyncssh.generate_private_key("ssh-ed25519")
        client.write_private_key(self.key)
        self.key.chmod(0o600)
        host = asyncssh.generate_private_key("ssh-ed25519")
        host.write_private_key(folder / "host")
        (folder / "host").chmod(0o600)
        self.host_key = host.export_public_key().decode().strip()
        self.authorize(folder, entry, client)
        config = folder / "config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
            "LogLevel VERBOSE\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [SSHD, "-D", "-f", config, "-E", self.log], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + PATIENCE_S
        while not (self.log.exists() and "Server listening" in self.log.read_text()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.02)

    def authorize(self, folder: Path, entry: str, key: asyncssh.SSHKey) -> None:
        (folder / "authorized_keys").write_text(f"{entry} {key.export_public_key().decode()}")

    def login(self, *, host_keys: tuple[str, ...] | None = None, jump: SshLogin | None = None) -> SshLogin:
        keys = (self.host_key,) if host_keys is None else host_keys
        return SshLogin("127.0.0.1", getpass.getuser(), self.port, keys, jump)

    def cut(self) -> int:
        """End every session, as a failing network does when both sides notice. How many there were."""
        sessions = psutil.Process(self.process.pid).children()
        for session in sessions:
            with contextlib.suppress(psutil.NoSuchProcess):
                session.kill()
        return len(sessions)

    def end(self) -> None:
        self.cut()
        self.process.terminate()
        self.process.wait(PATIENCE_S)


def to_agent(agent_socket: str) -> str:
    """The options that bind a key to an agent, as the role `wsnode` writes them."""
    command = f"cd {shlex.quote(str(ROOT))} && exec {shlex.quote(sys.executable)} -m wsnode agent connect"
    escaped = f"{command} --socket {agent_socket}".replace('"', '\\"')
    return f'restrict,command="{escaped}"'


@contextlib.contextmanager
def sshds(*entries: str) -> Iterator[list[Sshd]]:
    """One sshd an entry."""
    started: list[Sshd] = []
    with short_folder() as folder:
        try:
            for number, entry in enumerate(entries):
                started.append(Sshd(folder / str(number), entry))
            yield started
        finally:
            for sshd in started:
                sshd.end()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port

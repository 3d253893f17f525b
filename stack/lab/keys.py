"""SSH keys of the lab: one for whoever runs Ansible, one per host; known_hosts is written, never learned."""

import contextlib
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from stack.lab.layout import Host


class Keys(NamedTuple):
    """Where the lab's keys lie. They outlive a lab: what knows a host's key still does after `down` and `up`."""

    folder: Path

    @property
    def private(self) -> Path:
        """The key that logs in as root on every host."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Every host's key by name and address."""
        return self.folder / "known_hosts"

    @property
    def config(self) -> Path:
        """For `ssh -F`."""
        return self.folder / "config"

    def host_key(self, host: Host) -> Path:
        """A host's own private key; its public one has the suffix .pub."""
        return self.folder / "hosts" / f"{host.name}_ed25519"


def _generate(path: Path, comment: str) -> None:
    if path.exists() and path.with_suffix(".pub").exists():
        return
    for old in (path, path.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip


def _quoted(path: Path) -> str:
    """A path as ssh_config takes it: in double quotes, with its percent signs doubled."""
    return '"' + str(path).replace("%", "%%") + '"'


def make(keys: Keys, hosts: list[Host], owner: tuple[int, int]) -> None:
    """Make what is missing; write known_hosts and config. All is given to `owner` (uid, gid), who may not be root."""
    (keys.folder / "hosts").mkdir(mode=0o700, parents=True, exist_ok=True)
    _generate(keys.private, "wslab-lab")
    known, sections = [], []
    for host in hosts:
        own = keys.host_key(host)
        _generate(own, host.machine)
        kind, key = own.with_suffix(".pub").read_text(encoding="ascii").split()[:2]
        known.append(f"{host.name},{host.address} {kind} {key}\n")
        sections.append(f"Host {host.name}\n    HostName {host.address}\n")
    keys.known_hosts.write_text("".join(known), encoding="ascii")
    keys.config.write_text(
        "".join(sections)
        + "Host *\n    User root\n    IdentitiesOnly yes\n    StrictHostKeyChecking yes\n    LogLevel ERROR\n"
        + f"    IdentityFile {_quoted(keys.private)}\n    UserKnownHostsFile {_quoted(keys.known_hosts)}\n"
        + "    GlobalKnownHostsFile /dev/null\n    ServerAliveInterval 5\n    ServerAliveCountMax 3\n",
        encoding="utf-8",
    )
    for path in (keys.folder, *keys.folder.rglob("*")):
        with contextlib.suppress(OSError):
            os.chown(path, *owner)

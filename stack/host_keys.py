"""Which host keys a host shows, and whether they are those already trusted. playbooks/enroll.yml asks, once per host:

    python -m stack.host_keys --known-hosts FILE --port 22 [--ssh-arguments '-J jump'] ADDRESS

ssh itself asks the host: so jumps and aliases of ~/.ssh/config hold, and the name beside a key is the
one that ssh will look for.
"""

import argparse
import base64
import binascii
import hashlib
import json
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512,rsa-sha2-256")
"""Asked for one after the other: a connection shows one key."""

TIMEOUT_S = 10


class HostKey(NamedTuple):
    """A line of known_hosts. `name` is `address` or `[address]:port`, `key` is base64."""

    name: str
    kind: str
    key: str

    @property
    def line(self) -> str:
        return f"{self.name} {self.kind} {self.key}"

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        digest = hashlib.sha256(base64.b64decode(self.key)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class Judged(NamedTuple):
    """`known`: a trusted key was shown and none that differs. `changed`: another of a trusted kind, or none."""

    state: Literal["new", "known", "changed"]
    wanted: list[HostKey]
    """Trusted keys that were not shown."""


def parse(text: str) -> list[HostKey]:
    """Keys of a known_hosts file; comments, markers (`@revoked`) and broken lines are left out."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or words[0].startswith(("#", "@")):
            continue
        try:
            base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        found.append(HostKey(*words[:3]))
    return found


def judge(shown: Sequence[HostKey], trusted: Sequence[HostKey]) -> Judged:
    """Compare the keys of one host by kind. `shown` is not empty."""
    if not trusted:
        return Judged("new", [])
    by_kind = {key.kind: key.key for key in shown}
    missed = [key for key in trusted if by_kind.get(key.kind) != key.key]
    differs = any(key.kind in by_kind for key in missed)
    agrees = len(missed) < len(trusted)
    return Judged("known" if agrees and not differs else "changed", missed)


def _options(algorithm: str, file: Path) -> list[str]:
    """They come first, and with ssh the first one counts."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": TIMEOUT_S,
        "ControlPath": "none",
        "GlobalKnownHostsFile": "/dev/null",
        "HashKnownHosts": "no",
        "HostKeyAlgorithms": algorithm,
        "PreferredAuthentications": "none",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": file,
    }
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def show(address: str, port: int, arguments: Sequence[str]) -> tuple[list[HostKey], str]:
    """The keys that the host shows, and what ssh said if it shows none."""
    shown: list[HostKey] = []
    for algorithm in ALGORITHMS:
        with tempfile.TemporaryDirectory(prefix="wslab-") as folder:
            file = Path(folder) / "known_hosts"  # an own one each: ssh does not add to a name that it knows
            done = subprocess.run(
                ["ssh", *_options(algorithm, file), *arguments, "-p", str(port), "--", address, "true"],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
            if file.exists():
                shown += parse(file.read_text(encoding="utf-8"))
            elif "no matching host key type" not in done.stderr:
                return [], (done.stderr.strip().splitlines() or [f"ssh ended with {done.returncode}"])[-1]
    return shown, "" if shown else f"none of the kinds {', '.join(ALGORITHMS)}"


def trusted(known_hosts: Path, name: str) -> list[HostKey]:
    """What the file says of this name, hashed lines too."""
    if not known_hosts.exists():
        return []
    found = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(known_hosts)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    return parse(found.stdout)


def report(address: str, port: int, arguments: Sequence[str], known_hosts: Path) -> dict[str, object]:
    """What enroll.yml shows and writes: `state` (`unreachable`, too), `keys`, `wanted` and `error`."""
    shown, said = show(address, port, arguments)
    if not shown:
        return {"state": "unreachable", "keys": [], "wanted": [], "error": said}
    judged = judge(shown, trusted(known_hosts, shown[0].name))
    described = [{"line": key.line, "kind": key.kind, "fingerprint": key.fingerprint} for key in shown]
    wanted = [f"{key.kind} {key.fingerprint}" for key in judged.wanted] if judged.state == "changed" else []
    return {"state": judged.state, "keys": described, "wanted": wanted, "error": ""}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report as JSON; 0 whatever the state is."""
    parser = argparse.ArgumentParser(prog="python -m stack.host_keys", description=__doc__)
    parser.add_argument("--known-hosts", type=Path, required=True)
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--ssh-arguments", default="", help="further words for ssh, quoted as in a shell")
    parser.add_argument("address")
    given = parser.parse_args(argv)
    print(json.dumps(report(given.address, given.port, shlex.split(given.ssh_arguments), given.known_hosts)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

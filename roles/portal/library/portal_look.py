#!/usr/bin/python
"""Looks at a control host before anything is touched: is it fit for the portal, and what is there? Changes nothing."""

import contextlib
import hashlib
import os
import ssl
import stat
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: portal_look
short_description: Look whether a host is fit for the portal, and what of the portal is there
options:
  python:
    description: Interpreter for the environment.
    type: str
    required: true
  root:
    description: Folder of releases and environments.
    type: path
    required: true
  units:
    description: Units to look at.
    type: list
    elements: str
    default: []
  ports:
    description: TCP ports that are to be listened on, each with the unit that may have it already.
    type: dict
    default: {}
  certificate:
    description: PEM file with the chain; empty for no TLS.
    type: str
    default: ""
  key:
    description: PEM file of its private key.
    type: str
    default: ""
  server_name:
    description: The name that the certificate is for.
    type: str
    default: ""
author:
  - wslab
"""

EXAMPLES = r"""
- name: Look
  portal_look:
    python: /usr/bin/python3
    root: /opt/wslab/portal
    ports: {"8000": wslab-portal.service}
"""

RETURN = r"""
python:
  description: Version of the interpreter, such as 3.13.
  returned: success
  type: str
machine:
  description: As uname has it.
  returned: success
  type: str
releases:
  description: Complete releases below the root.
  returned: success
  type: list
  elements: str
environments:
  description: Complete environments below the root.
  returned: success
  type: list
  elements: str
running:
  description: Those of the units that run, and will after a reboot.
  returned: success
  type: list
  elements: str
certificate:
  description: SHA-256 of the certificate file; empty without one.
  returned: success
  type: str
"""

OLDEST = (3, 12)
"""What Django 6.1 needs at least."""


class Unfit(Exception):
    """Why the host will not do: what was found, what is wanted, how to mend it."""


class Certificate(NamedTuple):
    """What a PEM file's first certificate says."""

    names: tuple[str, ...]
    ends: float
    """Seconds since the epoch."""


def python_version(program: str) -> tuple[int, int]:
    """Of an interpreter that can make environments.

    Raises:
        Unfit: it is missing, too old, or has no venv.
    """
    wanted = f"wanted {OLDEST[0]}.{OLDEST[1]} or newer (a control host is Debian 13 or Ubuntu 24.04)"
    try:
        done = subprocess.run(
            [program, "-c", "import sys; print(*sys.version_info[:2]); import venv, sqlite3"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30, check=False,
        )  # fmt: skip
    except OSError as error:
        raise Unfit(f"portal_python is {program}, which cannot be run ({error.strerror}), {wanted}") from None
    try:
        major, minor = (int(part) for part in done.stdout.split())
    except ValueError:
        raise Unfit(f"portal_python is {program}, which does not say its version: {last(done.stderr)}") from None
    if (major, minor) < OLDEST:
        raise Unfit(f"portal_python is {program}, Python {major}.{minor}, {wanted}")
    if done.returncode:
        raise Unfit(f"portal_python is {program}, which lacks a part: {last(done.stderr)}; wanted venv and sqlite3")
    return major, minor


def last(text: str) -> str:
    """The last line of what a program said."""
    return (text.strip().splitlines() or ["no word"])[-1]


def listening(port: int) -> set[str]:
    """Inodes of the sockets that listen on a TCP port, of the loopback address or of all."""
    near = {"00000000", "0100007F", "0" * 32, f"{'0' * 24}01000000"}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                address, _, number = words[1].partition(":")
                if words[3] == "0A" and int(number, 16) == port and address in near:
                    found.add(words[9])
    return found


def holder(port: int, unit: str) -> str:
    """Which process that is not the unit's listens on a port; empty for none."""
    sockets = {f"socket:[{inode}]" for inode in listening(port)}
    for folder in Path("/proc").glob("[0-9]*") if sockets else ():
        try:
            links = {os.readlink(entry) for entry in (folder / "fd").iterdir()}
            if links & sockets and unit not in (folder / "cgroup").read_text(encoding="utf-8"):
                return f"{(folder / 'comm').read_text(encoding='utf-8').strip()} (pid {folder.name})"
        except OSError:  # it has ended meanwhile
            continue
    return ""


def says(verb: str, unit: str) -> bool:
    """Whether systemctl, if there is one, says yes to `is-active`, `is-enabled`."""
    try:
        return subprocess.run(["systemctl", "--quiet", verb, unit], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def read_certificate(file: str) -> Certificate:
    """The first certificate of a PEM file.

    Raises:
        Unfit: there is none.
    """
    try:
        # The one place of the standard library that reads one without a connection.
        said: dict[str, Any] = ssl._ssl._test_decode_cert(file)  # type: ignore[attr-defined]
        ends = ssl.cert_time_to_seconds(said["notAfter"])
    except (OSError, ValueError, KeyError, ssl.SSLError) as error:
        raise Unfit(f"portal_tls_certificate is {file}, which holds no certificate: {error}") from None
    return Certificate(tuple(value for kind, value in said.get("subjectAltName", ()) if kind == "DNS"), ends)


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate is this one (RFC 6125: a star stands for one whole label)."""
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:]
    return pattern == name


def check_tls(file: str, key: str, server_name: str) -> str:
    """SHA-256 of a certificate file that can serve.

    Raises:
        Unfit: it cannot, or its key lies open.
    """
    for variable, path in (("portal_tls_certificate", file), ("portal_tls_key", key)):
        try:
            found = os.stat(path)
        except OSError as error:
            raise Unfit(f"{variable} is {path}: {error.strerror}; wanted a PEM file on this host") from None
        if not stat.S_ISREG(found.st_mode):
            raise Unfit(f"{variable} is {path}, which is no file; wanted a PEM file on this host")
        if variable == "portal_tls_key" and found.st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            raise Unfit(
                f"portal_tls_key is {path} with mode {stat.S_IMODE(found.st_mode):04o}, open to others; "
                f"fix: chmod 0600 {path}"
            )
    certificate = read_certificate(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise Unfit(f"portal_tls_key is {key}, which is not the key of {file}, or has a passphrase: {error}") from None
    if certificate.ends < time.time():
        day = time.strftime("%Y-%m-%d", time.gmtime(certificate.ends))
        raise Unfit(f"portal_tls_certificate is {file}, which has expired on {day}; fix: renew it")
    if not any(covers(name, server_name) for name in certificate.names):
        raise Unfit(
            f"portal_server_name is {server_name}, but {file} is for {', '.join(certificate.names) or 'no DNS name'}; "
            "wanted a name that it is for"
        )
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def complete(folder: Path) -> list[str]:
    """What module portal_release has finished there."""
    return sorted(path.parent.name for path in folder.glob("[!.]*/.complete"))


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """What the module returns.

    Raises:
        Unfit: see there.
    """
    major, minor = python_version(asked["python"])
    for port, unit in asked["ports"].items():
        if other := holder(int(port), unit):
            raise Unfit(f"port {port} is wanted for {unit}, but {other} listens there; fix: end that, or another port")
    tls = asked["certificate"]
    return {
        "python": f"{major}.{minor}",
        "machine": os.uname().machine,
        "releases": complete(Path(asked["root"], "releases")),
        "environments": complete(Path(asked["root"], "venvs")),
        "running": [unit for unit in asked["units"] if says("is-active", unit) and says("is-enabled", unit)],
        "certificate": check_tls(tls, asked["key"], asked["server_name"]) if tls else "",
    }


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "units": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "dict", "default": {}},
            "certificate": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": False},
            "server_name": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **look(module.params))
    except Unfit as unfit:
        module.fail_json(msg=str(unfit))


if __name__ == "__main__":
    main()

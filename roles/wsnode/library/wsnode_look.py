#!/usr/bin/python
"""Looks at a host and at what wsnode is to be there, and names what cannot work. Changes nothing.

A module, and not a row of tasks: one round trip tells what would take ten, and says all that is wrong at once.
"""

import contextlib
import ipaddress
import json
import math
import os
import pwd
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: wsnode_look
short_description: See whether wsnode can be on this host as asked
options:
  values:
    description: Variables by name, those of O(bounds), O(ports) and O(listen) among them.
    type: dict
    required: true
  bounds:
    description: Least, most or above of a number, by the variable's name.
    type: dict
    required: true
  ports:
    description: Variables whose ports one host has.
    type: list
    elements: str
    required: true
  listen:
    description: Variables whose addresses are listened on.
    type: list
    elements: str
    required: true
  load:
    description: Whether the host makes load, so that O(targets) matter.
    type: bool
    required: true
  targets:
    description: Where loads may aim - inventory hosts, addresses, networks, names.
    type: list
    elements: str
    required: true
  target_ports:
    description: Ports that loads may aim at, or ranges.
    type: list
    elements: str
    required: true
  servers:
    description: Servers that are allowed beside both, each with name, host and ports, and maybe networks and consent.
    type: list
    elements: dict
    required: true
  hooks:
    description: Commands by the names of hooks.
    type: dict
    required: true
  addresses:
    description: Addresses of inventory hosts by name.
    type: dict
    required: true
  python:
    description: The interpreter for wsnode's environment.
    type: path
    required: true
  root:
    description: Folder of the environments.
    type: path
    required: true
  users:
    description: Users of the role, with the comment that tells them from others of that name.
    type: dict
    required: true
  units:
    description: Units whose presence is looked for.
    type: list
    elements: str
    required: true
author:
  - wslab
"""

EXAMPLES = r"""
- name: Look
  wsnode_look:
    values: {wsnode_server_port: 3000}
    bounds: {wsnode_server_port: {least: 1, most: 65535}}
    ports: [wsnode_server_port]
    listen: []
    load: true
    targets: [server-1, 198.51.100.0/24]
    target_ports: ["3000"]
    servers: []
    hooks: {warm_cache: [/usr/local/sbin/warm-cache]}
    addresses: {server-1: 192.0.2.20}
    python: /usr/bin/python3
    root: /opt/wsnode
    users: {wsnode: services of wslab}
    units: [wsnode-agent.service]
"""

RETURN = r"""
problems:
  description: What cannot work, with what was found and what was wanted.
  returned: always
  type: list
  elements: str
loads:
  description: Runs that this host's agent is carrying out.
  returned: always
  type: list
  elements: str
python:
  description: Version of the interpreter, as 3.13.
  returned: always
  type: str
machine:
  description: As uname -m has it.
  returned: always
  type: str
nr_open:
  description: Most descriptors that the kernel allows a process.
  returned: always
  type: int
venvs:
  description: Environments that are there and whole.
  returned: always
  type: list
  elements: str
entries:
  description: All that lies beside them, and they.
  returned: always
  type: list
  elements: str
units:
  description: Those of the units that are there.
  returned: always
  type: list
  elements: str
allow_targets:
  description: Networks that loads may aim at.
  returned: always
  type: list
  elements: str
allow_ports:
  description: Ports that loads may aim at.
  returned: always
  type: list
  elements: str
servers:
  description: Servers beside both, each with networks, ports and consent.
  returned: always
  type: list
  elements: dict
hooks:
  description: Names of the hooks that are there.
  returned: always
  type: list
  elements: str
"""

HOOK = re.compile("[a-z][a-z0-9_]{0,31}")
UNITS = Path("/etc/systemd/system")
ACTIVE = ("prepared", "running")
OLDEST = (3, 11)
PATIENCE_S = 15


def out_of_bounds(values: dict[str, Any], bounds: dict[str, Any]) -> Iterator[str]:
    """Numbers that the program would refuse."""
    for name, bound in bounds.items():
        value = values.get(name)
        if value is None:
            continue
        least, most, above = (bound.get(key) for key in ("least", "most", "above"))
        if above is not None:
            wanted = f"more than {above}"
        elif most is not None:
            wanted = f"{least} to {most}"
        else:
            wanted = f"{least} or more"
        try:
            number = float(value)
        except (TypeError, ValueError):
            yield f"{name} is {value}, wanted {wanted}"
            continue
        low = number <= above if above is not None else number < least
        if low or (most is not None and number > most) or math.isnan(number):
            yield f"{name} is {value}, wanted {wanted}"


def shared_ports(values: dict[str, Any], names: list[str]) -> Iterator[str]:
    """Ports that two listeners of one host would have."""
    holders: dict[int, list[str]] = {}
    for name in names:
        value = values.get(name)
        if value is not None and str(value).isdigit():
            holders.setdefault(int(value), []).append(name)
    for port, sharing in sorted(holders.items()):
        if len(sharing) > 1:
            yield f"{' and '.join(sharing)} are {port}, wanted different ports"


def foreign_addresses(values: dict[str, Any], names: list[str]) -> Iterator[str]:
    """Addresses to listen on that are none of this host's."""
    for name in names:
        value = values.get(name)
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                value, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
        except (OSError, TypeError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            yield f"{name} is {value!r}, wanted an address of this host, or 0.0.0.0 for all ({why})"


def networks(name: str, entry: str, addresses: dict[str, Any]) -> list[str]:
    """What an entry stands for, as networks. Raises ValueError, in words."""
    text = str(addresses.get(entry, entry))
    try:
        if "/" in text:
            return [str(ipaddress.ip_network(text))]
        return [str(ipaddress.ip_network(ipaddress.ip_address(text)))]
    except ValueError as error:
        if "/" in text:
            raise ValueError(f"{name} holds {entry!r}, wanted a network such as 198.51.100.0/24 ({error})") from None
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        wanted = "an inventory host, an address, a network or a name"
        raise ValueError(f"{name} holds {entry!r}, which has no address here ({why}); wanted {wanted}") from None
    return sorted({str(ipaddress.ip_network(str(item[4][0]).partition("%")[0])) for item in found})


def wrong_port(text: str) -> bool:
    """Whether it is neither a port nor a range of ports."""
    low, dash, high = text.partition("-")
    if not (low.isdigit() and (high.isdigit() or not dash)):
        return True
    return not 1 <= int(low) <= int(high or low) <= 65535


def allowed(params: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Networks, ports, and what is wrong with them."""
    if not params["load"]:
        return [], [], []
    found: list[str] = []
    ports: list[str] = []
    problems: list[str] = []
    for port in params["target_ports"]:
        if wrong_port(port):
            problems.append(f"wsnode_agent_allow_ports holds {port!r}, wanted a port, or a range as 8000-8100")
        else:
            ports.append(port)
    for entry in params["targets"]:
        try:
            found += networks("wsnode_agent_allow_targets", entry, params["addresses"])
        except ValueError as error:
            problems.append(str(error))
    return list(dict.fromkeys(found)), list(dict.fromkeys(ports)), problems


def servers(params: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Servers that loads may aim at under conditions of their own, and what is wrong with them."""
    if not params["load"]:
        return [], []
    variable = "wsnode_agent_targets"
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for server in params["servers"]:
        ports = str(server.get("ports"))
        if wrong_port(ports):
            problems.append(f"{variable} holds the ports {ports!r}, wanted a port, or a range as 8000-8100")
        within: list[str] = []
        for entry in server.get("networks") or [server.get("host")]:
            try:
                within += networks(variable, str(entry), params["addresses"])
            except ValueError as error:
                problems.append(str(error))
        found.append({"networks": within, "ports": [ports], "consent": bool(server.get("consent", True))})
    return found, problems


def root_alone(path: str) -> str | None:
    """Why somebody else than root could change what a path leads to; None: nobody can."""
    try:
        real = Path(path).resolve(strict=True)
        for place in (real, *real.parents, *Path(path).parents):
            seen = place.stat()
            if seen.st_uid != 0:
                return f"{place} is not root's"
            if seen.st_mode & 0o022:
                return f"others than root may write to {place}"
        if not real.is_file() or not os.access(real, os.X_OK):
            return f"{path} is no program"
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def wrong_hooks(hooks: dict[str, Any]) -> Iterator[str]:
    """Hooks that are not to be: by their name, or by what they would run as root."""
    for name, command in hooks.items():
        if not HOOK.fullmatch(str(name)):
            yield f"wsnode_hooks holds the name {name!r}, wanted up to 32 letters a-z, digits and _, the first a letter"
        elif not (isinstance(command, list) and command and all(isinstance(word, str) for word in command)):
            yield f"wsnode_hooks holds {name}: {command!r}, wanted a list of words, a program's path first"
        elif not all(word and word.isprintable() for word in command):
            yield f"wsnode_hooks holds {name}: {command!r}, wanted words of visible characters"
        elif not command[0].startswith("/"):
            yield f"wsnode_hooks holds {name}: {command[0]!r}, wanted the absolute path of a program"
        elif why := root_alone(command[0]):
            yield f"wsnode_hooks holds {name}: {command[0]!r}, wanted a program that is root's alone to change ({why})"


def foreign_users(users: dict[str, str]) -> Iterator[str]:
    """Users who have a name of the role's and are somebody else's."""
    for name, comment in users.items():
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name).pw_gecos
            if found != comment:
                yield f"user {name} is there and not the role's (its comment is {found!r}), wanted none of that name"


def interpreter(python: str) -> str:
    """Version of an interpreter that can make environments. Raises ValueError, in words."""
    wanted = f"wanted Python {OLDEST[0]}.{OLDEST[1]} or newer with its module venv"
    try:
        said = subprocess.run(
            [python, "-I", "-c", "import sys, venv; print(*sys.version_info[:2], sep='.')"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"wsnode_python is {python}, {wanted} ({error})") from None
    version = said.stdout.strip()
    if said.returncode:
        raise ValueError(f"wsnode_python is {python}, {wanted} ({version.rpartition(chr(10))[2] or 'no word'})")
    if tuple(map(int, version.split("."))) < OLDEST:
        raise ValueError(f"wsnode_python is {python}, which is Python {version}, {wanted}")
    return version


def loads(command: str) -> list[str]:
    """Runs that the agent is carrying out; none where there is no agent to ask."""
    try:
        said = subprocess.run(
            [command, "agent", "list", "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        return [load["run_id"] for load in json.loads(said.stdout)["loads"] if load["state"] in ACTIVE]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return []


def look(params: dict[str, Any]) -> dict[str, Any]:
    """All of it."""
    root, values = Path(params["root"]), params["values"]
    problems = list(out_of_bounds(values, params["bounds"]))
    problems += shared_ports(values, params["ports"])
    problems += foreign_addresses(values, params["listen"])
    targets, ports, wrong = allowed(params)
    problems += wrong
    beside, wrong = servers(params)
    problems += wrong
    problems += wrong_hooks(params["hooks"])
    problems += foreign_users(params["users"])
    try:
        python = interpreter(params["python"])
    except ValueError as error:
        python = ""
        problems.append(str(error))
    return {
        "problems": problems,
        "loads": loads(str(root / "venv" / "bin" / "wsnode")),
        "python": python,
        "machine": os.uname().machine,
        "nr_open": int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii")),
        "venvs": sorted(path.parent.name for path in root.glob("venvs/*/.complete")),
        "entries": sorted(path.name for path in root.glob("venvs/*")),
        "units": [unit for unit in params["units"] if (UNITS / unit).exists()],
        "allow_targets": targets,
        "allow_ports": ports,
        "servers": beside,
        "hooks": sorted(path.stem.removeprefix("wsnode-hook-") for path in UNITS.glob("wsnode-hook-*.socket")),
    }


def main() -> None:
    """The module."""
    texts = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "values": {"type": "dict", "required": True},
            "bounds": {"type": "dict", "required": True},
            "ports": texts,
            "listen": texts,
            "load": {"type": "bool", "required": True},
            "targets": texts,
            "target_ports": texts,
            "servers": {"type": "list", "elements": "dict", "required": True},
            "hooks": {"type": "dict", "required": True},
            "addresses": {"type": "dict", "required": True},
            "python": {"type": "path", "required": True},
            "root": {"type": "path", "required": True},
            "users": {"type": "dict", "required": True},
            "units": texts,
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **look(module.params))


if __name__ == "__main__":
    main()

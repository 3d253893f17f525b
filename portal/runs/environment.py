"""What was found on a host, as lines that can be read and compared: within a run, and between two.

A reading has two parts (`wsnode.environment`): `stable` facts, which are compared, and `volatile` ones, which move by
nature.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

Facts = Mapping[str, Any]


class Change(NamedTuple):
    """A fact that was not the same at the end as at the begin."""

    name: str
    begin: str
    end: str


def part(reading: Mapping[str, Any], kind: Literal["stable", "volatile"] = "stable") -> dict[str, str]:
    """One part of a reading as text, in order of name; empty where nobody has read the host."""
    found = reading.get(kind)
    return {name: text(value) for name, value in sorted(found.items())} if isinstance(found, Mapping) else {}


def changes(begin: Facts, end: Facts) -> list[Change]:
    """The facts that differ between two parts; none where either was not read."""
    if not begin or not end:
        return []
    return [
        Change(name, text(begin.get(name)), text(end.get(name)))
        for name in sorted(begin.keys() | end.keys())
        if text(begin.get(name)) != text(end.get(name))
    ]


def text(value: object) -> str:
    """A fact as it is shown: what this kernel does not have is `absent`."""
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value))
    return str(value)


# --- two runs ---------------------------------------------------------------------------------------------------------

OF_A_MOMENT = frozenset({"agent_name", "agent_started_at", "boot_id", "network_namespace", "server.start_id"})
"""Facts that name a boot or a process. They are stable within a run, differ between any two, and say nothing there."""
OF_AN_INSTALLATION = frozenset({"hostname", "machine_id"})
"""Shown where they differ between two runs. Not in the digest: a host that was made anew alike is alike, and those of
the virtual lab are made anew at each `lab up`."""
OF_THE_SUBJECT = frozenset({"server.engine", "server.wsnode", "wsnode"})
"""Facts of a server's host that are what is measured, not what it is measured on. A run has them beside its digest."""
DERIVED = frozenset({"fs.file-max", "memory_bytes", "net.ipv4.tcp_mem", "net.netfilter.nf_conntrack_max"})
"""What the kernel works out at boot from the memory that is free then: alike where two significant digits are."""
_NIC = re.compile(r"^nic\.[^ ]+\.([a-z_]+)$")


class HostReading(NamedTuple):
    """A host of a run, and what was found there when the run began."""

    name: str
    role: str
    reading: Mapping[str, Any]

    @property
    def stable(self) -> Facts:
        """Its stable facts; empty where nobody has read it."""
        found = self.reading.get("stable")
        return found if isinstance(found, Mapping) else {}


class RunDifference(NamedTuple):
    """One line in which the environments of two runs differ, and on which hosts."""

    name: str
    base: str
    contender: str
    hosts: tuple[str, ...]

    def __str__(self) -> str:
        """Such as `kernel 6.8.0-45 → 6.8.0-51 (server)`."""
        return f"{self.name} {self.base} → {self.contender} ({', '.join(self.hosts)})"


def run_differences(base: Iterable[HostReading], contender: Iterable[HostReading]) -> list[RunDifference]:
    """What two runs' hosts differ in, the server's first; hosts with the same difference share a line.

    Hosts are paired by role and name; those left over by role, in order of name (`old → new` names the pair). One that
    has no counterpart is a line of its own; of a host that one of the runs has not read, nothing is said. Facts that
    name a boot or a process are left out, as is what the kernel works out from memory where it is alike.
    """
    lines: dict[tuple[str, str, str], list[str]] = {}
    for before, after in _paired(list(base), list(contender)):
        if before is None or after is None:
            here = before or after
            assert here is not None
            says = ("present", "absent") if before is not None else ("absent", "present")
            lines.setdefault((f"host {here.name}, {here.role.replace('_', ' ')}", *says), []).append(here.name)
            continue
        if not before.stable or not after.stable:
            continue
        name = before.name if before.name == after.name else f"{before.name} → {after.name}"
        for key in sorted((before.stable.keys() | after.stable.keys()) - OF_A_MOMENT):
            one, other = before.stable.get(key), after.stable.get(key)
            if not _alike(key, one, other):
                lines.setdefault((key, text(one), text(other)), []).append(name)
    return [RunDifference(*line, tuple(hosts)) for line, hosts in lines.items()]


def environment_digest(hosts: Iterable[HostReading]) -> str:
    """SHA-256, in hex, of what makes runs comparable: equal where hosts, in whatever order and by whatever name, have
    the same roles and the same stable facts. Empty where a host was not read: then nobody can say.

    Left out: `OF_A_MOMENT`, `OF_AN_INSTALLATION`, and of servers `OF_THE_SUBJECT`. Interfaces count by what they are,
    not by their names; `DERIVED` by two significant digits. A load generator's own version does count: another
    generator measures otherwise.
    """
    found = []
    for host in hosts:
        if not host.stable:
            return ""
        left_out = OF_A_MOMENT | OF_AN_INSTALLATION | (OF_THE_SUBJECT if host.role == "server" else frozenset())
        facts = [
            (_NIC.sub(r"nic.\1", key), text(_rounded(key, value)))
            for key, value in host.stable.items()
            # What this kernel lacks and what an older agent did not ask for are the same: nothing.
            if key not in left_out and value is not None
        ]
        found.append((host.role, sorted(facts)))
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest() if found else ""


def engine_of(hosts: Iterable[HostReading]) -> str:
    """The engine of the server, as its host told; empty where it did not."""
    said = [host.stable.get("server.engine") for host in hosts if host.role == "server"]
    return next((str(engine) for engine in said if engine), "")


def _paired(
    base: list[HostReading], contender: list[HostReading]
) -> Iterator[tuple[HostReading | None, HostReading | None]]:
    def by_name(hosts: list[HostReading]) -> dict[tuple[str, str], HostReading]:
        # Servers first: what differs there weighs most.
        return {
            (host.role, host.name): host for host in sorted(hosts, key=lambda h: (h.role != "server", h.role, h.name))
        }

    before, after = by_name(base), by_name(contender)
    rest = [host for key, host in after.items() if key not in before]
    for key, host in before.items():
        other = after.get(key)
        if other is None and (other := next((one for one in rest if one.role == host.role), None)) is not None:
            rest.remove(other)
        yield host, other
    for host in rest:
        yield None, host


def _alike(key: str, one: object, other: object) -> bool:
    return text(_rounded(key, one)) == text(_rounded(key, other))


def _rounded(key: str, value: object) -> object:
    if key not in DERIVED or value is None:
        return value
    return " ".join(f"{float(word):.1e}" if word.isdecimal() else word for word in str(value).split())

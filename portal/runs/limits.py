"""What a plan takes against what its hosts have and have done: warnings in words. Pure. The agents' own preflight
(`wsnode.preflight`) decides when the run begins; this tells beforehand what it will find."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from portal.labs.lab import HostFacts, Lab
from portal.runs.figures import count, number, size
from wsnode.core.scenario import Scenario

if TYPE_CHECKING:
    from portal.runs.plan import Part

USUAL_SOURCE_PORTS = 60_999 - 32_768 + 1
"""Linux' default net.ipv4.ip_local_port_range: connections from one address to one server before it is widened."""
PORT_RANGE = "net.ipv4.ip_local_port_range"
RESERVED = "net.ipv4.ip_local_reserved_ports"
ROOM = 0.8
"""Share of a limit above which there is a warning, as in `wsnode.preflight`."""
BEYOND = 1.05
"""So much more than a host has ever achieved is more than the spread from run to run."""

# By estimate, each as in `wsnode.preflight` and `wsnode.workers`, which measure where this only foresees.
SPARE_DESCRIPTORS = 64
FILL = 0.9
CONNECTION_BYTES = 48 << 10
SERVER_CONNECTION_BYTES = 24 << 10
"""The `websockets` engine's 12 KiB and the kernel's side of it, rounded up."""
WORKER_BYTES = 64 << 20
MESSAGES_PER_CORE = 15_000
CONNECTS_PER_CORE = 1_500

EASY_MESSAGES_PER_S, EASY_CONNECTS_PER_S = MESSAGES_PER_CORE / 5, CONNECTS_PER_CORE / 5
"""What any host does: nobody need have seen it."""

SEGMENT_BYTES = 1448
"""Payload of a TCP segment on Ethernet, with time stamps."""
SEGMENT_OVERHEAD_BYTES = 14 + 20 + 32 + 24
"""Of Ethernet, IPv4 and TCP with time stamps; and Ethernet's preamble, checksum and gap."""
LINK_BITS_PER_S = 1e9
"""A usual link: the lab does not know its own."""


class Best(NamedTuple):
    """The most that a host has done in a believed run, and in which."""

    per_s: float
    run_id: str


class Achieved(NamedTuple):
    """What a load generator has done in stored runs; None: in none."""

    messages: Best | None = None
    connects: Best | None = None
    too_many: Best | None = None
    """The least messages/s at which a run was not believed by its generators' fault."""


def limits(
    scenario: Scenario,
    parts: Sequence[Part],
    lab: Lab | None,
    achieved: Mapping[str, Achieved],
    takes: int | None = None,
) -> list[str]:
    """What will not go, or only just, on these hosts; in the order of the hosts. `takes`: connections that the server
    has said to take at once."""
    if not parts:
        return ["The lab has no load generator: the run would fail its preflight."]
    facts = {host.name: host.facts for host in lab.hosts if host.facts is not None} if lab else {}
    found: list[str] = []
    for part in parts:
        seen = facts.get(part.generator)
        found += _ports(part, seen)
        found += _descriptors(part, seen)
        found += _memory(part, seen)
        found += _estimated(part, seen, achieved.get(part.generator, Achieved()))
        found += _refused(part, achieved.get(part.generator, Achieved()))
    found += _unseen(parts, achieved)
    if lab is not None:
        found += _server(scenario, facts.get(lab.server.name), takes)
        if any(host.transport == "ssh" for host in lab.hosts):
            found += _bandwidth(scenario, parts)
    return found


def source_ports(facts: HostFacts | None) -> int | None:
    """Ports from which one address can connect, by the sysctls in force; None where nobody looked."""
    words = (facts.tuned.get(PORT_RANGE, "") if facts is not None else "").split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None
    low, high = map(int, words)
    assert facts is not None
    reserved = 0
    for part in facts.tuned.get(RESERVED, "").split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            reserved += max(0, min(high, int(last or first)) - max(low, int(first)) + 1)
    return max(0, high - low + 1 - reserved)


def wire_bits(payload_bytes: int) -> int:
    """What a message takes on the wire in one direction, by estimate: its frame, and a segment's headers for each
    piece of it."""
    frame = payload_bytes + (6 if payload_bytes < 126 else 8 if payload_bytes < 1 << 16 else 14)
    return 8 * (frame + SEGMENT_OVERHEAD_BYTES * math.ceil(frame / SEGMENT_BYTES))


def _ports(part: Part, facts: HostFacts | None) -> Iterator[str]:
    have = source_ports(facts)
    if have is None:
        if part.connections > USUAL_SOURCE_PORTS:
            yield (
                f"{part.generator} opens {count(part.connections)} connections: more than the {USUAL_SOURCE_PORTS:,} "
                "source ports of one address that Linux allows by default. The preflight tells whether this host has "
                "more."
            )
    elif part.connections > have:
        yield (
            f"{part.generator} opens {count(part.connections)} connections, and one address has {count(have)} source "
            f"ports there ({PORT_RANGE}): the preflight will refuse it. Fewer clients, or more load generators."
        )
    elif part.connections > ROOM * have:
        yield (
            f"{part.generator} opens {count(part.connections)} connections of the {count(have)} that one address has "
            f"source ports for ({PORT_RANGE}): connections of a run before, still in TIME_WAIT, may lack."
        )


def _descriptors(part: Part, facts: HostFacts | None) -> Iterator[str]:
    if facts is None or facts.open_files is None:
        return
    if facts.open_files < SPARE_DESCRIPTORS + 1024:
        yield (
            f"{part.generator} allows a process {count(facts.open_files)} open files: wanted at least "
            f"{SPARE_DESCRIPTORS + 1024:,}, raise LimitNOFILE of its agent."
        )
        return
    cores = facts.cpu_count or 1
    processes = math.ceil(part.connections / (FILL * (facts.open_files - SPARE_DESCRIPTORS)))
    if processes > 2 * cores:
        yield (
            f"{part.generator} needs {count(processes)} processes for {count(part.connections)} connections, since "
            f"each may have {count(facts.open_files)} open files, and has {_cores(cores)}: raise LimitNOFILE of its "
            "agent."
        )


def _memory(part: Part, facts: HostFacts | None) -> Iterator[str]:
    if facts is None or facts.memory_bytes is None or not part.connections:
        return
    wanted = part.connections * CONNECTION_BYTES + (facts.cpu_count or 1) * WORKER_BYTES
    if wanted > ROOM * facts.memory_bytes:
        yield (
            f"{part.generator} needs about {size(wanted)} of memory for {count(part.connections)} connections and has "
            f"{size(facts.memory_bytes)}."
        )


def _unseen(parts: Sequence[Part], achieved: Mapping[str, Achieved]) -> Iterator[str]:
    """What is more than hosts have shown, all of them in one line: it is no limit, only not known to go."""
    hosts = []
    for part in parts:
        done = achieved.get(part.generator, Achieved())
        more = [
            f"{verb} {number(per_s)} {noun}/s (so far {number(best.per_s)}/s, {best.run_id})"
            for verb, noun, per_s, best, easy in (
                ("send", "messages", part.messages_per_s, done.messages, EASY_MESSAGES_PER_S),
                ("make", "connects", part.connect_per_s, done.connects, EASY_CONNECTS_PER_S),
            )
            if best is not None and per_s > easy and per_s > BEYOND * best.per_s
        ]
        if more:
            hosts.append(f"{part.generator} is to {' and '.join(more)}")
    if hosts:
        yield f"More than has been achieved in a run that can be believed: {'; '.join(hosts)}."


def _refused(part: Part, done: Achieved) -> Iterator[str]:
    bad = done.too_many
    if bad is not None and part.messages_per_s >= bad.per_s and (not done.messages or done.messages.per_s < bad.per_s):
        yield (
            f"{part.generator} was not believed at {number(bad.per_s)} messages/s in run {bad.run_id}, by its own "
            f"fault; here it is to send {number(part.messages_per_s)}/s."
        )


def _estimated(part: Part, facts: HostFacts | None, done: Achieved) -> Iterator[str]:
    """By the cores, where nothing is known of what the host has done."""
    cores = facts.cpu_count if facts is not None else None
    if cores is None:
        return
    for verb, noun, per_s, best, per_core in (
        ("send", "messages", part.messages_per_s, done.messages, MESSAGES_PER_CORE),
        ("make", "connects", part.connect_per_s, done.connects, CONNECTS_PER_CORE),
    ):
        if best is None and per_s > cores * per_core:
            yield (
                f"{part.generator} is to {verb} {number(per_s)} {noun}/s on {_cores(cores)}; about "
                f"{count(per_core)}/s of each is what to expect, and nothing is stored of what it has achieved."
            )


def _server(scenario: Scenario, facts: HostFacts | None, takes: int | None) -> Iterator[str]:
    connections = scenario.connected_by_end
    if takes is not None and connections > takes:
        yield (
            f"The server takes {count(takes)} connections at once, as its host told last, and {count(connections)} are "
            "asked of it: it refuses the rest. Give it a higher max_connections, or fewer clients."
        )
    if facts is None:
        return
    if takes is None and facts.open_files is not None:
        cores = facts.cpu_count or 1
        holds = round(cores * FILL * (facts.open_files - SPARE_DESCRIPTORS))
        if connections > holds:
            yield (
                f"The server is to hold {count(connections)} connections; with {_cores(cores)} and "
                f"{count(facts.open_files)} open files a process it has room for about {count(max(0, holds))}, unless "
                "it was set up with more workers."
            )
    if facts.memory_bytes is not None and connections * SERVER_CONNECTION_BYTES > ROOM * facts.memory_bytes:
        yield (
            f"The server needs about {size(connections * SERVER_CONNECTION_BYTES)} of memory for {count(connections)} "
            f"connections and has {size(facts.memory_bytes)}."
        )


def _bandwidth(scenario: Scenario, parts: Sequence[Part]) -> Iterator[str]:
    bits = sum(part.messages_per_s for part in parts) * wire_bits(scenario.size_bytes)
    if bits > ROOM * LINK_BITS_PER_S:
        yield (
            f"About {number(bits / 1e9)} Gbit/s pass the server's link each way: a link of 1 Gbit/s does not carry "
            "that, and the lab does not know which one it has."
        )


def _cores(n: int) -> str:
    return f"{n} core" if n == 1 else f"{n} cores"

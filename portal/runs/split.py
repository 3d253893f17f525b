"""Dividing a run's clients over its load generators: evenly, or by what each of them can carry. Pure.

What is known of a host comes from `lab.json`, from what its agent told when it last took part in a run, and from what
it has achieved there. It may be old: the agents' own preflight decides, before the first connection, and names limit
and need. This tells the same beforehand, and keeps every host within its limits as long as all of them have room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from portal.labs.lab import HostFacts
from portal.runs.figures import count, size
from portal.runs.limits import (
    CONNECTION_BYTES,
    CONNECTS_PER_CORE,
    FILL,
    MESSAGES_PER_CORE,
    PORT_RANGE,
    RESERVED,
    SPARE_DESCRIPTORS,
    WORKER_BYTES,
    Achieved,
    Best,
    source_ports,
)
from wsnode.core.scenario import Scenario

MOST_PROCESSES = 256
"""Of a load, as `wsnode.telemetry.MAX_SLOTS`."""


class Limit(NamedTuple):
    """How many clients of this scenario a host has room for, and by what."""

    most: int
    by: str
    of_agent: bool = False
    """Whether it is its agent's configuration that says so, and not what the host is."""


class Capacity(NamedTuple):
    """What a load generator can carry of a scenario, as far as that is known."""

    name: str
    power: float | None
    """Clients that its processors carry, by estimate or because it did so before; None: nobody knows."""
    words: str
    """What it has, such as `8 cores, 16 GB`; empty where nobody knows."""
    limits: tuple[Limit, ...] = ()

    @property
    def tightest(self) -> Limit | None:
        """The limit that is reached first; None where none is known."""
        return min(self.limits, default=None)


def capacity(
    name: str,
    scenario: Scenario,
    facts: HostFacts | None = None,
    reading: Mapping[str, Any] | None = None,
    done: Achieved | None = None,
) -> Capacity:
    """What a host can carry: by `lab.json`, by the stable facts that it told last, and by what it has achieved."""
    reading, done = reading or {}, done or Achieved()
    facts = facts or _told(reading)
    cores = _least(facts.cpu_count, reading.get("agent.cores"))
    words = []
    if cores is not None:
        words.append(f"{cores} core" if cores == 1 else f"{cores} cores")
    if facts.memory_bytes is not None:
        words.append(str(size(facts.memory_bytes)))
    if done.messages is not None:
        words.append(f"{count(round(done.messages.per_s))} messages/s achieved")
    return Capacity(name, _power(scenario, cores, done), ", ".join(words), tuple(_limits(scenario, facts, reading)))


def split(clients: int, capacities: Sequence[Capacity], how: Literal["capacity", "even"]) -> list[int]:
    """How many clients each load generator has: in proportion to their power, no host beyond its tightest limit.

    Evenly where that is asked for, or where the power of one of them is not known; limits are heeded all the same where
    the split is by capacity. What the hosts have no room for all together is dealt in proportion to their room, so that
    each refuses its part. Whole numbers that add up to `clients`; which host has how many does not depend on the order
    of the hosts.
    """
    powers = [one.power for one in capacities]
    known = [Fraction(power) for power in powers if power]
    even = how == "even" or len(known) < len(powers)
    weights = [Fraction(1)] * len(powers) if even else known
    names = [one.name for one in capacities]
    if how == "even":
        return _rounded(clients, weights, names)
    room = [clients if one.tightest is None else one.tightest.most for one in capacities]
    if sum(room) < clients:
        return _rounded(clients, [Fraction(most) for most in room] if any(room) else weights, names)
    given = [0] * len(names)
    open_places = list(range(len(names)))
    left = clients
    while open_places:
        total = sum(weights[place] for place in open_places)
        full = [place for place in open_places if weights[place] * left / total >= room[place]]
        if not full:
            shares = _rounded(left, [weights[place] for place in open_places], [names[place] for place in open_places])
            for place, share in zip(open_places, shares, strict=True):
                given[place] = share
            break
        for place in full:
            given[place] = room[place]
            left -= room[place]
        open_places = [place for place in open_places if place not in full]
    return given


def beyond(counts: Sequence[int], capacities: Sequence[Capacity]) -> list[str]:
    """What does not fit, a line a host that names need and limit; the last says what would help. Of what a host is,
    `portal.runs.limits` tells more: those lines are left to it."""
    lines, fits = [], True
    for clients, one in zip(counts, capacities, strict=True):
        limit = one.tightest
        if limit is None or clients <= limit.most:
            continue
        fits = False
        if limit.of_agent:
            room_for = count(limit.most)
            lines.append(f"{one.name} would have {count(clients)} clients, and room for {room_for}: {limit.by}.")
    room = [one.tightest.most for one in capacities if one.tightest is not None]
    if not fits and len(room) == len(capacities):
        if sum(room) >= sum(counts):
            lines.append(f"With split 'capacity' all {count(sum(counts))} clients have room.")
        else:
            together = f"{count(sum(room))} of {count(sum(counts))}"
            lines.append(f"All load generators together have room for {together} clients.")
    return lines


def _told(reading: Mapping[str, Any]) -> HostFacts:
    """What a host's agent told, in the inventory's words."""
    ports = {key: reading[key] for key in (PORT_RANGE, RESERVED) if isinstance(reading.get(key), str) and reading[key]}
    numbers = {
        "cpu_count": reading.get("cpus_usable"),
        "memory_bytes": reading.get("memory_bytes"),
        "open_files": reading.get("open_file_limit"),
    }
    return HostFacts.model_construct(tuned=ports, **numbers)


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _power(scenario: Scenario, cores: int | None, done: Achieved) -> float | None:
    needs = [
        (scenario.offered_per_s / scenario.clients, MESSAGES_PER_CORE, done.messages, done.too_many),
        (scenario.connects_per_s / scenario.clients, CONNECTS_PER_CORE, done.connects, None),
    ]
    found = []
    for need, per_core, best, too_many in needs:
        if need:
            can = _can(cores, per_core, best, too_many)
            if can is None:
                return None
            found.append(can / need)
    return min(found, default=None if cores is None else float(cores))


def _can(cores: int | None, per_core: int, best: Best | None, too_many: Best | None) -> float | None:
    """What a host carries a second: what its cores should, less where that was too much, more where it did more."""
    if cores is None:
        return None  # what it once achieved says what it can at least, and nothing beside others' cores
    can = float(cores * per_core)
    if too_many is not None:
        can = min(can, too_many.per_s)
    return can if best is None else max(can, best.per_s)


def _limits(scenario: Scenario, facts: HostFacts, reading: Mapping[str, Any]) -> list[Limit]:
    found = []
    ports = source_ports(facts)
    if ports is not None:
        addresses = int(reading.get("agent.source_addresses") or 1)
        each = "one address" if addresses == 1 else f"one address from each of {count(addresses)}"
        found.append(Limit(addresses * ports, f"{count(ports)} source ports to {each} ({PORT_RANGE})"))
    if facts.open_files is not None:
        holds = int(MOST_PROCESSES * FILL * max(0, facts.open_files - SPARE_DESCRIPTORS))
        found.append(
            Limit(holds, f"{count(facts.open_files)} open files in each of at most {MOST_PROCESSES} processes")
        )
    if facts.memory_bytes is not None:
        holds = max(0, facts.memory_bytes - (facts.cpu_count or 1) * WORKER_BYTES) // CONNECTION_BYTES
        found.append(Limit(holds, f"{size(facts.memory_bytes)} of memory, at {size(CONNECTION_BYTES)} a client"))
    caps = {
        "max_clients": 1.0,
        "max_rate_per_s": scenario.connects_per_s / scenario.clients,
        "max_messages_per_s": scenario.offered_per_s / scenario.clients,
    }
    for cap, of_each in caps.items():
        most = reading.get(f"agent.{cap}")
        if most is not None and of_each:
            found.append(Limit(int(most / of_each + 1e-9), f"its agent allows {most:,.6g} ({cap})", of_agent=True))
    longest = reading.get("agent.max_duration_s")
    if longest is not None and scenario.duration_s > longest:
        found.append(Limit(0, f"its agent allows {longest:,.6g} s of duration (max_duration_s)", of_agent=True))
    return found


def _rounded(whole: int, weights: Sequence[Fraction], names: Sequence[str]) -> list[int]:
    """`whole` in proportion to the weights: whole parts, what is left over to the largest remainders, by name."""
    total = sum(weights)
    exact = [whole * weight / total for weight in weights]
    parts = [int(share) for share in exact]
    order = sorted(range(len(parts)), key=lambda place: (parts[place] - exact[place], names[place]))
    for place in order[: whole - sum(parts)]:
        parts[place] += 1
    return parts

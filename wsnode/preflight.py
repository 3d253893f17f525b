"""Is this host fit for a load? Looks, and generates none."""

from __future__ import annotations

import argparse
import json
import math
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from wsnode import environment
from wsnode.core.scenario import Plan
from wsnode.telemetry import MAX_SLOTS
from wsnode.workers import SPARE_DESCRIPTORS, cores, raise_descriptor_limit, worker_count

Level = Literal["ok", "warn", "unfit"]

CONNECTION_BYTES = 48 << 10
"""Memory for one client connection: its Python objects and the kernel's socket, rounded up from measurements."""
WORKER_BYTES = 64 << 20
"""Memory for a worker process before its first connection."""
MESSAGES_PER_CORE = 15_000
"""Messages per second that one core sends and matches with some room left (FACTS: 27 µs each at best)."""
CONNECTS_PER_CORE = 1_500
"""Handshakes per second that one core makes with some room left."""
ROOM = 0.8
"""Share of a limit above which a warning is due."""
GOOD_CLOCKSOURCES = frozenset({"tsc", "kvm-clock", "xen", "hyperv_clocksource_tsc_page", "arch_sys_counter"})
"""Read without a system call. With another one each time stamp costs about a microsecond."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    value: str
    wanted: str
    fix: str = ""

    @property
    def message(self) -> str:
        """All of it in a line."""
        fix = f": {self.fix}" if self.fix and self.level != "ok" else ""
        return f"{self.value}; wanted {self.wanted}{fix}"

    def to_wire(self) -> dict[str, str]:
        """The form in the protocol."""
        return {**asdict(self), "message": self.message}


class Need(NamedTuple):
    """What a host is asked for."""

    clients: int
    messages_per_s: float = 0
    connects_per_s: float = 0
    url: str | None = None
    sources: tuple[str, ...] = ()
    """Addresses to connect from; none: the one that the kernel chooses."""

    @classmethod
    def of(cls, plan: Plan) -> Need:
        """A plan's."""
        scenario = plan.scenario
        share = plan.count / scenario.clients
        return cls(plan.count, scenario.offered_per_s * share, scenario.connects_per_s * share, plan.url)


def findings(need: Need | None = None) -> list[Finding]:
    """Everything that decides whether this host can do what is needed; without a need, whether it is in order.

    Resolves the target's name and so may block for as long as the resolver does.
    """
    return [
        *_descriptors(need),
        *source_ports(need),
        *_processors(need),
        *_memory(need),
        *_conntrack(need),
        *_interpreter(),
        *_target(need),
    ]


def fit(found: list[Finding]) -> bool:
    """Whether a load may start: nothing is unfit. Warnings do not forbid it."""
    return all(finding.level != "unfit" for finding in found)


def _level(need: float, limit: float) -> Level:
    if need > limit:
        return "unfit"
    return "warn" if need > ROOM * limit else "ok"


def _descriptors(need: Need | None) -> Iterator[Finding]:
    limit = raise_descriptor_limit()
    clients = need.clients if need else 0
    workers = max(1, min(worker_count(clients, cores(), limit), clients))
    wanted = f"at least {SPARE_DESCRIPTORS + 1024:,} for each process"
    if need:
        wanted += f"; {clients:,} clients take {workers} processes"
    if workers > MAX_SLOTS:
        wanted += f", and there can be {MAX_SLOTS}"
    yield Finding(
        "open files",
        "unfit" if workers > MAX_SLOTS else "ok" if limit >= SPARE_DESCRIPTORS + 1024 else "warn",
        f"{limit:,} in force for each process",
        wanted,
        "raise LimitNOFILE of the service, or `ulimit -Hn`",
    )
    file_max, opened = environment.natural("/proc/sys/fs/file-max"), environment.files_open()
    if file_max is not None and opened is not None:
        yield Finding(
            "open files of the machine",
            _level(clients + workers * SPARE_DESCRIPTORS, file_max - opened),
            f"{opened:,} of {file_max:,} in use",
            f"{clients:,} more for the clients",
            "raise fs.file-max",
        )


def source_ports(need: Need | None) -> Iterator[Finding]:
    """Whether the addresses to connect from are this host's, and have ports enough."""
    for source in need.sources if need else ():
        if why := _not_ours(source):
            yield Finding("source addresses", "unfit", f"{source}: {why}", "addresses of this host", "correct the list")
    ports = environment.source_ports()
    if ports is None:
        return
    addresses = max(1, len(need.sources)) if need else 1
    ports *= addresses
    clients = need.clients if need else 0
    waiting = environment.sockstat().get("tw", 0)
    level = _level(clients, ports)
    if level == "ok" and clients and clients + waiting > ports:
        level = "warn"
    yield Finding(
        "source ports",
        level,
        f"{ports:,} for {'one address' if addresses == 1 else f'{addresses} addresses'}, "
        f"{waiting:,} connections in TIME_WAIT",
        f"one for each of {clients:,} clients" if need else "one for each client",
        "widen net.ipv4.ip_local_port_range (1024 65535), give this host more addresses (`--source`, "
        "`source_addresses` of agent.toml), use more load generators, or fewer clients",
    )


def _not_ours(source: str) -> str | None:
    """Why this host cannot connect from an address; None: it can."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((source, 0))
    except OSError as error:
        return str(error.strerror)
    return None


def _processors(need: Need | None) -> Iterator[Finding]:
    usable = cores()
    messages, connects = (need.messages_per_s, need.connects_per_s) if need else (0.0, 0.0)
    wanted = max(1, math.ceil(messages / MESSAGES_PER_CORE), math.ceil(connects / CONNECTS_PER_CORE))
    yield Finding(
        "processors",
        "ok" if usable >= wanted else "warn",
        f"{usable} usable",
        f"{wanted} for {messages:,.0f} messages/s and {connects:,.0f} connects/s, by estimate" if need else "1",
        "use more load generators, a longer interval_ms or a lower rate_per_s",
    )
    source = environment.clocksource()
    if source is not None:
        yield Finding(
            "clock source",
            "ok" if source in GOOD_CLOCKSOURCES else "warn",
            source,
            "one that is read without a system call",
            "see /sys/devices/system/clocksource/clocksource0/available_clocksource",
        )


def _memory(need: Need | None) -> Iterator[Finding]:
    available = environment.meminfo().get("MemAvailable")
    if available is None:
        return
    limit = environment.cgroup_limit("memory.max")
    if limit is not None:
        available = min(available, int(limit))
    clients = need.clients if need else 0
    wanted = clients * CONNECTION_BYTES + cores() * WORKER_BYTES
    yield Finding(
        "memory",
        _level(wanted, available),
        f"{available >> 20:,} MiB available",
        f"{wanted >> 20:,} MiB for {clients:,} clients, by estimate",
        "use more load generators or fewer clients",
    )


def _conntrack(need: Need | None) -> Iterator[Finding]:
    limit = environment.natural("/proc/sys/net/netfilter/nf_conntrack_max")
    count = environment.natural("/proc/sys/net/netfilter/nf_conntrack_count")
    if limit is None or count is None:
        return
    # Only while a firewall rule needs it does the kernel track at all: an empty table limits nothing.
    level = _level(2 * need.clients, limit - count) if need and count else "ok"
    yield Finding(
        "tracked connections",
        "warn" if level == "unfit" else level,
        f"{count:,} of {limit:,}",
        "room for twice the clients, since closed ones stay for two minutes",
        "raise net.netfilter.nf_conntrack_max, or do not track the lab's ports",
    )


def _interpreter() -> Iterator[Finding]:
    try:
        import uvloop  # noqa: F401
    except ImportError as error:
        yield Finding("uvloop", "unfit", str(error), "uvloop", "install wsnode with its dependencies")
    else:
        yield Finding("uvloop", "ok", version("uvloop"), "any version")


def _target(need: Need | None) -> Iterator[Finding]:
    if need is None or need.url is None:
        return
    try:
        host, addresses = resolve(need.url)
    except (OSError, ValueError) as error:
        yield Finding("target", "unfit", f"{need.url}: {error}", "an address", "correct the URL or the resolver")
    else:
        yield Finding("target", "ok", f"{host} is {', '.join(addresses)}", "an address")


def resolve(url: str) -> tuple[str, list[str]]:
    """A WebSocket URL's host and port as written, and every address that it stands for now.

    Raises:
        ValueError: the URL is not one that a load may have.
        OSError: the name has no address.
    """
    host, port = target_of(url)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return f"{host}:{port}", sorted({str(address[4][0]) for address in found})


def target_of(url: str) -> tuple[str, int]:
    """Host and port of a WebSocket URL. Raises ValueError, saying what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError("expected ws://HOST:PORT/PATH or wss://…")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a user name or password in the URL: not supported, it would end up in results and logs")
    return parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)


# --- command line -----------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wsnode preflight`."""
    parser.add_argument("--clients", type=_natural, metavar="N", help="clients that this host is to run")
    parser.add_argument("--url", type=_url, help="where they would connect to")
    parser.add_argument("--json", action="store_true", help="print findings and environment as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found. 0: fit, 1: unfit."""
    asked = arguments.clients is not None or arguments.url is not None
    found = findings(Need(arguments.clients or 0, url=arguments.url) if asked else None)
    fits = fit(found)
    if arguments.json:
        document: dict[str, Any] = {
            "fit": fits,
            "findings": [finding.to_wire() for finding in found],
            "environment": environment.environment(),
        }
        json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        width = max(len(finding.check) for finding in found)
        for finding in found:
            print(f"{finding.level.upper():<6}{finding.check:<{width}}  {finding.message}")
        print("fit" if fits else "unfit: no load can start here as asked")
    return 0 if fits else 1


def _natural(value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of clients (1 or more)")
    return int(value)


def _url(value: str) -> str:
    try:
        target_of(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r}: {error}") from error
    return value

"""Where a run aims: at the lab's own server, or at a target that an admin has allowed, looked up once for all hosts."""

from __future__ import annotations

import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from portal.labs.lab import Lab, Target
from wsnode.core.scenario import own_path

RESOLVE_S = 5.0
LONGEST = 70
"""Characters of a target as a run names it: its name, and maybe a port."""
_CHOICE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})(?::([0-9]{1,5}))?")


class AimError(ValueError):
    """A run cannot aim there. The message begins with the field."""


class Choice(NamedTuple):
    """A target and a port of it."""

    target: Target
    port: int

    def url(self, behaviour: str) -> str:
        """Where its clients connect."""
        return self.target.at(self.port, own_path(behaviour))


class Aim(BaseModel):
    """Where a run's clients connect, as it was when the run was first claimed: kept with it, whatever changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    address: str | None = None
    """None: each load generator looks the lab's own server up."""
    consent: str | None = None
    """What the target has to show."""
    watched: bool = True
    """Whether the server's host is one of the lab's, and takes part."""
    own: bool = True
    """Whether it is the lab's own server."""

    @property
    def port(self) -> int:
        """Of the server."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "wss" else 80)


def choose(lab: Lab, text: str) -> Choice:
    """The target that a run names: `shop`, or with one of its ports `shop:8444`.

    Raises:
        AimError: it is none that this lab allows.
    """
    found = _CHOICE.fullmatch(text)
    known = ", ".join(target.name for target in lab.targets) or "none; an admin allows them in the inventory"
    target = next((target for target in lab.targets if found and target.name == found[1]), None)
    if found is None or target is None:
        raise AimError(f"target: {text[:LONGEST]!r} is none of this lab's; known: {known}")
    port = int(found[2]) if found[2] else target.port_range[0]
    if port not in target.port_range:
        raise AimError(f"target: port {port} of {target.name} is refused (allowed: {target.ports})")
    return Choice(target, port)


def own_server(lab: Lab, behaviour: str) -> Aim:
    """The lab's own."""
    return Aim(url=lab.run_url(behaviour))


def aim_at(lab: Lab, text: str, behaviour: str) -> Aim:
    """A target, looked up now. Blocks for some seconds at most.

    Raises:
        AimError: it is none that this lab allows, has no address, or one that it must not have.
    """
    choice = choose(lab, text)
    target = choice.target
    address = look_up(target.host, choice.port)
    if why := refused(target, address):
        raise AimError(f"target: {target.name} is at {address}, which is refused: {why}")
    return Aim(
        url=choice.url(behaviour),
        address=address,
        consent=lab.consent_token if target.consent else None,
        watched=target.runs_on is not None,
        own=False,
    )


def look_up(host: str, port: int) -> str:
    """The first address of a host.

    Raises:
        AimError: it has none, or the resolver takes too long.
    """
    looking = ThreadPoolExecutor(1)
    try:
        found = looking.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(RESOLVE_S)
    except TooLong as error:
        raise AimError(f"target: {host} could not be resolved within {RESOLVE_S:g} s") from error
    except (OSError, UnicodeError) as error:
        raise AimError(f"target: {host} has no address: {getattr(error, 'strerror', None) or error}") from error
    finally:
        looking.shutdown(wait=False)
    return str(found[0][4][0]).partition("%")[0]


def refused(target: Target, address: str) -> str | None:
    """Why a target must not be at an address; None: it may.

    A name may come to mean anything: unless the admin said within which networks, it must not mean this machine or
    nobody's address. What load generators may aim at, root's own list there says once more.
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if target.networks:
        if any(found in ipaddress.ip_network(network) for network in target.networks):
            return None
        return f"not within {', '.join(target.networks)}"
    if address == target.host:
        return None
    for what, is_so in (
        ("a loopback address", found.is_loopback),
        ("a link-local address", found.is_link_local),
        ("a multicast address", found.is_multicast),
        ("no host's address", found.is_unspecified or found.is_reserved),
    ):
        if is_so:
            return f"{what}; say in its networks if that is meant"
    return None

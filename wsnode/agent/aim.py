"""Where a plan's load would go, and whether it may: looked up or given, allowed by root's own list, wanted there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from wsnode import preflight
from wsnode.agent.config import Config, Leave
from wsnode.agent.consent import withheld
from wsnode.agent.refused import Refused
from wsnode.core.scenario import Plan

RESOLVE_TIMEOUT_S = 5.0

Address = tuple[int, tuple[Any, ...]]
"""Family and socket address."""


class Aim(NamedTuple):
    """What a plan's URL stands for now: given in the plan, or looked up."""

    url: str
    port: int
    found: list[Address]

    @property
    def addresses(self) -> list[str]:
        """As text."""
        return [str(sockaddr[0]) for _, sockaddr in self.found]


async def aim_of(plan: Plan) -> Aim:
    """Look a plan's target up, unless its address is given.

    Raises:
        Refused: it is no WebSocket URL, or its host has no address.
    """
    try:
        host, port = preflight.target_of(plan.url)
    except ValueError as error:
        raise Refused("bad_request", f"{plan.url}: {error}") from error
    given = plan.address is not None
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                plan.address or host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST if given else 0
            )
    except TimeoutError as error:
        raise Refused("unfit", f"{host} could not be resolved within {RESOLVE_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise Refused("unfit", f"{plan.address or host} has no address: {error.strerror}") from error
    return Aim(plan.url, port, [(entry[0], entry[4]) for entry in found])


async def admitted(config: Config, plan: Plan) -> Address:
    """The address to aim at.

    Raises:
        Refused: there is none, this host's agent does not allow it, or who owns the server does not want it.
    """
    aim = await aim_of(plan)
    leave = config.may_aim(aim.addresses, aim.port)
    if leave.refused:
        raise Refused("not_allowed", f"{plan.url}: {leave.refused}")
    if no := await _no_consent(config, plan, aim, leave):
        raise Refused("not_allowed", f"no consent to be loaded: {no}")
    return aim.found[0]


def told(aim: Aim) -> preflight.Finding:
    """Where the load would go, as a finding."""
    return preflight.Finding("target", "ok", f"{aim.url} is at {', '.join(aim.addresses)}", "an address")


async def findings(config: Config, plan: Plan, aim: Aim) -> list[preflight.Finding]:
    """The same as findings: what is in the way, and a consent that was given."""
    leave = config.may_aim(aim.addresses, aim.port)
    if leave.refused:
        return [preflight.Finding("allowed target", "unfit", leave.refused, "an allowed one", "see agent.toml")]
    if not _asks(plan, leave):
        return []
    no = await _no_consent(config, plan, aim, leave)
    if no is None:
        return [preflight.Finding("consent", "ok", f"{aim.addresses[0]} shows the lab's token", "consent")]
    return [preflight.Finding("consent", "unfit", no, "the target's consent", 'see docs/operating.md, "Targets"')]


def _asks(plan: Plan, leave: Leave) -> bool:
    return leave.consent or plan.consent is not None


async def _no_consent(config: Config, plan: Plan, aim: Aim, leave: Leave) -> str | None:
    """Why what is asked of the server is not there; None: it is, or nothing is asked.

    What root's list asks for is asked whatever the plan says, and by root's own token.
    """
    for token in _tokens(config, plan, leave):
        # Blocks, on sockets and on the resolver of nobody: the address is known.
        if no := await asyncio.to_thread(withheld, plan.url, aim.addresses[0], token):
            return no
    return None


def _tokens(config: Config, plan: Plan, leave: Leave) -> Iterator[str]:
    wanted = [config.consent_token if leave.consent else None, plan.consent]
    yield from dict.fromkeys(token for token in wanted if token is not None)

"""What an agent may do: caps and allowed targets from its root-owned file. Without a file: loopback targets only."""

from __future__ import annotations

import ipaddress
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from wsnode.core.scenario import CONSENT, Plan
from wsnode.preflight import Need

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(ValueError):
    """A config file that cannot be used. The message names file, key and value."""


def _cidr(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ipaddress.ip_network(network)
    return value


def _words_of_ports(value: object) -> object:
    return [str(port) for port in value] if isinstance(value, (list, tuple)) else value


def _ports(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        low, high = _port_range(text)
        if not 1 <= low <= high <= 65535:
            raise ValueError(f"{text!r} is not a port or a range of ports within 1-65535")
    return value


def _addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(str(ipaddress.ip_address(address)) for address in value)
    if len(set(found)) < len(found):
        raise ValueError("an address stands there twice")
    return found


Addresses = Annotated[tuple[str, ...], AfterValidator(_addresses)]
Networks = Annotated[tuple[str, ...], AfterValidator(_cidr)]
Ports = Annotated[tuple[str, ...], BeforeValidator(_words_of_ports), AfterValidator(_ports)]


class Allowed(BaseModel):
    """Servers that loads may aim at under conditions of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: Networks
    ports: Ports
    consent: bool = True
    """Whether the server has to show `consent_token` (`wsnode.agent.consent`)."""


class Config(BaseModel):
    """Caps are of this host's share of a run; none is set by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_targets: Networks = ("127.0.0.0/8", "::1/128")
    """Networks (CIDR) that loads may aim at, at `allow_ports`."""
    allow_ports: Ports = ("1-65535",)
    """Ports that loads may aim at there: `3000`, or a range `8000-8100`."""
    targets: tuple[Allowed, ...] = ()
    """Servers beyond these, each with its own networks and ports."""
    consent_token: Annotated[str, Field(pattern=CONSENT)] | None = None
    """What those of `targets` whose consent is asked for have to show."""
    source_addresses: Addresses = ()
    """This host's addresses that clients are dealt to connect from, where one has too few ports; those of the target's
    family are used. Empty: the kernel chooses one, and for a target on 127.0.0.0/8 as many of that are taken as needed.
    """
    ca_file: Annotated[str, Field(pattern=r"^/")] | None = None
    """Certificates (PEM) of the authorities that wss targets may be certified by; not set: the system's."""
    max_clients: Annotated[int, Field(ge=1)] | None = None
    max_duration_s: Annotated[int, Field(ge=1)] | None = None
    max_rate_per_s: Annotated[float, Field(gt=0)] | None = None
    """New connections per second."""
    max_messages_per_s: Annotated[float, Field(gt=0)] | None = None
    cores: Annotated[int, Field(ge=1)] | None = None
    """Cores to count on where others share this machine: a load has as many processes, more where open files demand
    it. Not set: all that the agent may use."""
    keep_results: Annotated[int, Field(ge=1)] = 20
    """Results that nobody has acknowledged: more than this many, the oldest go."""
    keep_days: Annotated[float, Field(gt=0)] = 14
    """Results that nobody has acknowledged go after this time."""

    @model_validator(mode="after")
    def _can_ask(self) -> Self:
        if self.consent_token is None and any(allowed.consent for allowed in self.targets):
            raise ValueError("targets whose consent is asked for need consent_token, which they have to show")
        return self

    @classmethod
    def read(cls, path: str | None) -> Config:
        """The file's config, or the default without a path.

        Raises:
            ConfigError: it cannot be read, or a key or value is not known.
        """
        if path is None:
            return cls()
        try:
            return cls.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error
        except ValidationError as error:
            raise ConfigError(f"{path}: " + "; ".join(_words(error))) from error

    def over_caps(self, plan: Plan) -> Iterator[str]:
        """Each cap that a plan breaks, in words."""
        need = Need.of(plan)
        for key, value, what in (
            ("max_clients", need.clients, "clients"),
            ("max_duration_s", plan.scenario.duration_s, "s of duration"),
            ("max_rate_per_s", need.connects_per_s, "new connections per second"),
            ("max_messages_per_s", need.messages_per_s, "messages per second"),
        ):
            cap = getattr(self, key)
            if key == "max_messages_per_s" and cap is not None and plan.scenario.pace == "closed" and not value:
                yield f"a closed pace has no bound on its messages, its agent allows {cap:,.6g} a second ({key})"
            if cap is not None and value > cap:
                yield f"{value:,.6g} {what} are asked of this host, its agent allows {cap:,.6g} ({key})"

    def may_aim(self, addresses: list[str], port: int) -> Leave:
        """Whether a load may aim there. Every address must be allowed, not just one, and what one asks for all must."""
        consent = False
        for text in addresses:
            refused = _without(text, port, self.allow_targets, self.allow_ports)
            if refused is None:
                continue
            allowed = [one for one in self.targets if _without(text, port, one.networks, one.ports) is None]
            if not allowed:
                return Leave(f"{refused}{', nor one of its targets' if self.targets else ''}")
            consent = consent or all(one.consent for one in allowed)
        return Leave(None, consent)


class Leave(NamedTuple):
    """What a load may do."""

    refused: str | None
    """Why it may not aim there; None: it may."""
    consent: bool = False
    """Whether the server has to be asked first."""


def _without(text: str, port: int, allow_targets: Iterable[str], allow_ports: Iterable[str]) -> str | None:
    """Why networks and ports do not allow an address; None: they do."""
    networks: list[Network] = [ipaddress.ip_network(network) for network in allow_targets]
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if not any(address in network for network in networks):
        return f"{text} is not within this agent's allow_targets ({', '.join(allow_targets) or 'none'})"
    if not any(low <= port <= high for low, high in map(_port_range, allow_ports)):
        return f"port {port} is not within this agent's allow_ports ({', '.join(allow_ports) or 'none'})"
    return None


def check(path: str) -> int:
    """`wsnode agent check`. 0: a service would start with this file, 2: it would not (said in one line)."""
    try:
        Config.read(path)
    except ConfigError as error:
        sys.stderr.write(f"wsnode agent check: {error}\n")
        return 2
    return 0


def _port_range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        return int(low), int(high if dash else low)
    except ValueError:
        raise ValueError(f"{text!r} is not a port or a range of ports such as 8000-8100") from None


def _words(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        key = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            yield f"{key}: no such key; known: {', '.join(Config.model_fields)}"
        else:
            given: Any = item["input"]
            yield f"{key}: {given!r} is refused: {item['msg'].removeprefix('Value error, ')}"

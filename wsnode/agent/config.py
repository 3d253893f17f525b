"""What an agent may do: caps and allowed targets from its root-owned file. Without a file: loopback targets only."""

from __future__ import annotations

import ipaddress
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wsnode.core.scenario import Plan
from wsnode.preflight import Need

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(ValueError):
    """A config file that cannot be used. The message names file, key and value."""


class Config(BaseModel):
    """Caps are of this host's share of a run; none is set by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_targets: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks (CIDR) that loads may aim at."""
    allow_ports: tuple[str, ...] = ("1-65535",)
    """Ports that loads may aim at: `3000`, or a range `8000-8100`."""
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

    @field_validator("allow_targets")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    @field_validator("allow_ports", mode="before")
    @classmethod
    def _port_words(cls, value: object) -> object:
        return [str(port) for port in value] if isinstance(value, (list, tuple)) else value

    @field_validator("allow_ports")
    @classmethod
    def _ports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            low, high = _port_range(text)
            if not 1 <= low <= high <= 65535:
                raise ValueError(f"{text!r} is not a port or a range of ports within 1-65535")
        return value

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
            if cap is not None and value > cap:
                yield f"{value:,.6g} {what} are asked of this host, its agent allows {cap:,.6g} ({key})"

    def target_refused(self, addresses: list[str], port: int) -> str | None:
        """Why a load may not aim there; None: it may. Every address must be allowed, not just one."""
        networks: list[Network] = [ipaddress.ip_network(network) for network in self.allow_targets]
        for text in addresses:
            address = ipaddress.ip_address(text.partition("%")[0])
            if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
                address = address.ipv4_mapped
            if not any(address in network for network in networks):
                return f"{text} is not within this agent's allow_targets ({', '.join(self.allow_targets) or 'none'})"
        if not any(low <= port <= high for low, high in map(_port_range, self.allow_ports)):
            return f"port {port} is not within this agent's allow_ports ({', '.join(self.allow_ports) or 'none'})"
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

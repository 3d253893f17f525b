"""`lab.json`: the hosts as the portal knows them. The inventory's export or the embedded stack writes it; this model is
its one definition, and it holds no secret.

A change of shape raises `SCHEMA_VERSION` and the golden file in `tests/contract/` in the same commit.
"""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wsnode.core.protocol import HOOK
from wsnode.core.scenario import CONSENT, own_path

SCHEMA_VERSION: Literal[3] = 3

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$", max_length=500)]
WsUrl = Annotated[str, Field(pattern=r"^wss?://[^\s/]+\S*$", max_length=500)]
ScrapeJob = Literal["wsnode-server", "wsnode-agent", "node"]
HookName = Annotated[str, Field(pattern=HOOK)]
Text = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,98}[!-~])?$")]
"""One line of ASCII, without blanks at its ends."""
Sysctl = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*([./][A-Za-z0-9_-]+)+$", max_length=128)]


class LabError(ValueError):
    """`lab.json` cannot be used. The message names the file, what is wrong with it and how to get a right one."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HostFacts(_Part):
    """What the inventory's export saw of a host; each is None where it was not seen."""

    distribution: Text | None = None
    """With its version: `Debian 13.1`."""
    kernel: Text | None = None
    architecture: Text | None = None
    cpu_count: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    memory_bytes: Annotated[int, Field(ge=1, le=1 << 60)] | None = None
    python: Text | None = None
    """Version of the interpreter that wsnode runs on."""
    virtualization: Text | None = None
    """As systemd names it: `kvm`, `systemd-nspawn`, `none` on bare metal."""
    wsnode: Text | None = None
    """Its version there."""
    open_files: Annotated[int, Field(ge=1, le=1 << 60)] | None = None
    """Descriptors that one process of the service may have, as in force."""
    tuning_profile: Literal["baseline", "tuned"] | None = None
    tuned: Annotated[dict[Sysctl, Text], Field(max_length=200)] = {}
    """Values in force of the sysctls that the profile is about; several numbers are parted by one blank."""
    provisioned_at: AwareDatetime | None = None
    """In UTC."""

    @field_validator("provisioned_at")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.utcoffset() != timedelta(0):
            raise ValueError("wanted UTC, such as 2026-11-24T08:20:00Z")
        return value


class LabHost(_Part):
    """A host that takes part in runs."""

    name: Name
    role: Literal["server", "load_generator"]
    transport: Literal["local", "ssh"]
    address: Annotated[str, Field(min_length=1, max_length=255)]
    port: Port | None = None
    """SSH port."""
    user: str | None = None
    host_keys: tuple[str, ...] = ()
    """OpenSSH public keys, verified at enrolment."""
    proxy_jump: Name | None = None
    """Name of the jump host over which SSH leads."""
    socket: Annotated[str, Field(pattern=r"^/")]
    """The agent's Unix socket on that host."""
    metrics_ports: dict[ScrapeJob, Port] = {}
    ws_url: WsUrl | None = None
    """Where a server takes connections; a behaviour's path is appended."""
    hooks: Annotated[tuple[HookName, ...], Field(max_length=32)] = ()
    """What its agent can have done before a run: `restart_server`, and what an admin has set up by name."""
    facts: HostFacts | None = None
    """None: nobody looked, as in the embedded stack."""


class JumpHost(_Part):
    """A host that SSH leads over, and no more: the conductor's key may forward there, not log in to a shell."""

    name: Name
    address: Annotated[str, Field(min_length=1, max_length=255)]
    port: Port = 22
    user: Annotated[str, Field(min_length=1, max_length=64)]
    host_keys: tuple[str, ...]
    """As of a host."""


class Target(_Part):
    """A team's own server, which runs may aim at instead of the lab's: what an admin has allowed of it."""

    name: Name
    scheme: Literal["ws", "wss"]
    host: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$|^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+$")
    ]
    """A name, or an address; one of IPv6 without brackets."""
    ports: Annotated[str, Field(pattern=r"^[0-9]{1,5}(-[0-9]{1,5})?$")]
    """`8443`, or a range of which a run chooses one: `8000-8100`. The first is taken where none is chosen."""
    path: Annotated[str, Field(pattern=r"^/[!-~]{0,499}$")] | None = None
    """Where its clients connect; None: at the behaviour's own path, as wsnode's."""
    consent: bool = True
    """Whether the server itself has to show the lab's token before a load (`wsnode.agent.consent`)."""
    networks: tuple[str, ...] = ()
    """Within which its address must be (CIDR); none given: any but those that are nobody's, or this machine's own."""
    runs_on: Name | None = None
    """The server of this lab on whose host it runs: that host is then observed, and its hooks may be asked for."""

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: str) -> str:
        low, _, high = value.partition("-")
        if not 1 <= int(low) <= int(high or low) <= 65535:
            raise ValueError(f"{value!r} is not a port or a range of ports within 1-65535")
        return value

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    @property
    def text(self) -> str:
        """Where it is and what it asks for, for people."""
        return f"{self.at(self.ports)}{', with its consent' if self.consent else ''}"

    def at(self, port: int | str, path: str = "") -> str:
        """Its URL; `path` where it has none of its own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{port}{self.path or path}"

    @property
    def port_range(self) -> range:
        """Every port that a run may choose."""
        low, _, high = self.ports.partition("-")
        return range(int(low), int(high or low) + 1)


class Lab(_Part):
    """A lab: hosts on one physical machine or several, and where its monitoring answers."""

    schema_version: Literal[3] = SCHEMA_VERSION
    lab: Name
    machine: Name
    """What the physical machine is called: one run at a time is active on it."""
    hosts: Annotated[tuple[LabHost, ...], Field(min_length=1)]
    jump_hosts: tuple[JumpHost, ...] = ()
    targets: tuple[Target, ...] = ()
    consent_token: Annotated[str, Field(pattern=CONSENT)] | None = None
    """What a target shows as a sign that its owner wants this lab's load. No secret."""
    prometheus_url: HttpUrl | None = None
    grafana_url: HttpUrl | None = None

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        twice = [name for name, n in Counter(host.name for host in self.hosts).items() if n > 1]
        if twice:
            raise ValueError(f"hosts: the name {twice[0]!r} is there twice")
        servers = [host for host in self.hosts if host.role == "server"]
        if len(servers) != 1:
            raise ValueError(f"hosts: {len(servers)} with the role server, wanted exactly one")
        if servers[0].ws_url is None:
            raise ValueError(f"hosts: the server {servers[0].name} has no ws_url, such as ws://127.0.0.1:3000")
        if not self.load_generators:
            raise ValueError("hosts: none with the role load_generator, wanted at least one")
        jumps = {jump.name for jump in self.jump_hosts}
        for host in self.hosts:
            if host.proxy_jump is not None and host.proxy_jump not in jumps:
                raise ValueError(f"hosts: {host.name} is reached over {host.proxy_jump!r}, which is not in jump_hosts")
            if host.transport == "ssh" and not host.user:
                raise ValueError(f"hosts: {host.name} is reached by ssh and has no user to log in as")
        return self

    @model_validator(mode="after")
    def _can_aim(self) -> Self:
        twice = [name for name, n in Counter(target.name for target in self.targets).items() if n > 1]
        if twice:
            raise ValueError(f"targets: the name {twice[0]!r} is there twice")
        for target in self.targets:
            if target.consent and self.consent_token is None:
                raise ValueError(f"targets: {target.name} is to show consent_token, and the lab has none")
            if target.runs_on not in (None, self.server.name):
                raise ValueError(f"targets: {target.name} runs on {target.runs_on!r}, which is not the lab's server")
        return self

    @property
    def server(self) -> LabHost:
        """The host of the measured server."""
        return next(host for host in self.hosts if host.role == "server")

    @property
    def load_generators(self) -> tuple[LabHost, ...]:
        """In the order in which clients are dealt to them."""
        return tuple(host for host in self.hosts if host.role == "load_generator")

    def jump_host(self, name: str) -> JumpHost:
        """The jump host of a name that a host's `proxy_jump` has."""
        return next(jump for jump in self.jump_hosts if jump.name == name)

    def run_url(self, behaviour: str) -> str:
        """Where the clients of a scenario connect to."""
        assert self.server.ws_url is not None
        return f"{self.server.ws_url.rstrip('/')}{own_path(behaviour)}"


def load_lab(file: Path) -> Lab:
    """Read `lab.json`.

    Raises:
        LabError: it is missing, no JSON, of another schema version, or a value in it is wrong.
    """
    repair = "start the stack (./wslab up) or export the inventory (playbooks/export_lab.yml), or set WSLAB_LAB"
    try:
        content = file.read_bytes()
        data = json.loads(content)
    except OSError as error:
        raise LabError(f"{file}: {error.strerror}; {repair}") from error
    except ValueError as error:
        raise LabError(f"{file} is not JSON: {error}; {repair}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise LabError(f"{file}: schema_version is {version!r}, wanted {SCHEMA_VERSION}; {repair}")
    try:
        return Lab.model_validate_json(content)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" if item["loc"] else item["msg"]
            for item in error.errors(include_url=False)
        ]
        raise LabError(f"{file}: {'; '.join(lines)}") from error

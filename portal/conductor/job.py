"""What the conductor is given, what it tells on the way, and what it comes back with: plain values.

The portal turns a Run row into a `Job`, hands it to `conduct` in a thread with its own event loop, stores each event
from the task's own thread, and judges the `Outcome`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import SecretStr

from wsnode.core.protocol import Live, Second
from wsnode.core.result import Aborted
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.summary import HostRun


@dataclass(frozen=True)
class SshLogin:
    """Where to log in, as whom, and who has to answer there."""

    address: str
    user: str
    port: int = 22
    host_keys: Sequence[str] = ()
    """OpenSSH public keys, any of which it may show."""
    jump: SshLogin | None = None
    """The host over which the way leads."""


@dataclass(frozen=True)
class JobHost:
    """A lab host that takes part; the fields of `lab.json` that the conductor needs."""

    name: str
    role: Literal["server", "load_generator"]
    transport: Literal["local", "ssh"]
    socket: str
    plan: Plan | None
    """None for a server: it is observed only."""
    login: SshLogin | None = None
    """For the transport `ssh`."""
    port: int | None = None
    """Of the aimed server: connections of earlier runs there are looked for. None: they are not."""


@dataclass(frozen=True)
class Job:
    """One run under one epoch."""

    run_id: str
    epoch: int
    scenario: Scenario
    hosts: Sequence[JobHost]
    stage: Literal["preflight", "preparing", "running", "collecting"] = "preflight"
    """Where to begin: later than preflight when a dead conductor's run is taken over."""
    start_at_ns: int | None = None
    """The origin on the first conductor's wall clock, once it was set."""
    from_second: int = 1
    """First merged second not yet stored."""
    hook: str | None = None
    """What the server's host is asked to have done before the load, by name."""
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    """What the scenario's secrets stand for: sent with the plan, kept nowhere."""
    notes: Sequence[str] = ()
    """What a reader of the result must know of where it aims."""


@dataclass(frozen=True)
class Staged:
    """The run enters a stage."""

    stage: Literal["preflight", "preparing", "running", "collecting"]
    start_at_ns: int | None = None
    """With `running`: the origin on the conductor's wall clock (ns since the epoch)."""


@dataclass(frozen=True)
class Said:
    """A line for the run's log."""

    text: str
    level: Literal["info", "warning", "error"] = "info"
    confirms: str = ""
    """The host that says with this line that no load of the run is left on it."""


@dataclass(frozen=True)
class Waiting:
    """What the run waits for now, for whoever looks at it."""

    reason: str


@dataclass(frozen=True)
class Counted:
    """One merged second over all load generators, cumulative and final."""

    second: Second


@dataclass(frozen=True)
class Seen:
    """The unstored live line, merged over all load generators that have sent one; percentiles are the worst host's."""

    live: Live


Event = Staged | Said | Waiting | Counted | Seen


@dataclass(frozen=True)
class ClockReading:
    """A host's clock minus the conductor's (s), known within ± bound."""

    offset_s: float
    bound_s: float


@dataclass(frozen=True)
class HostOutcome:
    """What one host has come to."""

    name: str
    role: Literal["server", "load_generator"]
    clock_begin: ClockReading | None = None
    clock_end: ClockReading | None = None
    start_skew_s: float | None = None
    environment_begin: dict[str, Any] = field(default_factory=dict)
    environment_end: dict[str, Any] = field(default_factory=dict)
    run: HostRun | None = None
    """A load generator's lines and result; None for servers and for lost hosts."""
    lost: str | None = None
    """Why nobody can say what this host's load did."""
    clock_started: ClockReading | None = None
    """Just after the start, which it brackets with `clock_begin`; None where that could not be had."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, as far as the conductor can tell."""

    state: Literal["finished", "failed", "cancelled", "lost"]
    reason: str | None
    hosts: Sequence[HostOutcome]
    start_at_ns: int | None
    aborted: Aborted | None = None
    """The rule of the scenario by which the load was ended."""


class Control:
    """How the task's thread reaches the conductor: set from any thread, read by the conductor's loop.

    `cancel`: stop the load on every host, confirmed, and come back with `cancelled`. `abandon`: another conductor has
    the run (the lease was lost); leave at once and touch no host.
    """

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self.abandon = threading.Event()

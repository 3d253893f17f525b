"""What conductor and agent say to each other: JSON lines of at most 1 MiB over one channel per host and run.

The agent speaks first (`Hello`). Then the conductor sends requests, each answered by one `Answer` or `Refusal` with
the same `id`. `follow` also starts a stream of `Second`, `Live` and one final `Ended` line. Every request about a load
is idempotent by (run_id, epoch): an older epoch is refused, a newer one adopts the running load and closes the older
channel.

A change here bumps `PROTOCOL` and the golden files in `tests/contract/` in the same commit.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from wsnode.core.broadcast import Room
from wsnode.core.histogram import Histogram
from wsnode.core.scenario import Plan
from wsnode.core.template import SECRET_NAME

T = TypeVar("T")

PROTOCOL = 4
MAX_LINE_BYTES = 1 << 20
DEADMAN_S = 60
"""An agent whose load has had no follower for this long stops it."""

HISTOGRAMS = ("response_time", "service_time", "scheduler_lag", "write_wait", "handshake", "one_way")

ErrorKind = Literal[
    "connect_refused",
    "connect_timeout",
    "connect_failed",
    "handshake_rejected",
    "handshake_failed",
    "certificate_refused",
    "closed_by_server",
    "reset",
    "protocol_error",
    "source_ports_exhausted",
    "descriptors_exhausted",
    "login_failed",
    "behaviour_failed",
]
"""Why a connect failed or a connection broke. `login_failed`: a first message was not answered as awaited. Exhaustion
and `behaviour_failed`, an exception in an installed behaviour's code, are the generator's own."""
UnsentReason = Literal[
    "not_open", "connection_down", "max_in_flight", "write_blocked", "generator_late", "behaviour_failed", "client_kind"
]
"""Why a due message was not sent: before the client was ready for the first time, while the connection was down, by the
bound on in-flight messages, because the server did not read, because the generator's schedule never reached it, or
because an installed behaviour did not make it. `client_kind`: whatever the reason, its client is of a kind that asks
for it (`wsnode.core.kinds`)."""
GENERATOR_FAULTS: frozenset[str] = frozenset({"generator_late", "behaviour_failed"})
NOBODYS_FAULTS: frozenset[str] = frozenset({"client_kind"})
"""Unsent by intent: in no ratio and no percentile."""
CROWDED = 0.05
"""Share of the source ports that may be in TIME-WAIT when a run begins."""
HOOK = r"^[a-z][a-z0-9_]{0,31}$"
"""What a hook's name looks like: nothing that a shell or a path would read as more than a word."""
RESTART_SERVER = "restart_server"
"""The hook that every server of a lab's own offers."""
HOOK_PATIENCE_S = 300
"""How long a hook may take, and how long its answer is waited for."""
LONGEST_REASON = 200
"""Characters of the reason with which a load is stopped."""
LoadState = Literal["prepared", "running", "finished", "stopped", "interrupted"]


class ProtocolError(ValueError):
    """A line that is not of the protocol. The message says what is wrong with it."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counters(_Line):
    """Counts of one load since its begin. Identities (DESIGN.md): each term has an event of its own.

    `messages_*` but `unexpected` count by the second in which a message was *due*; the others by when they happened.
    """

    connections_attempted: int = 0
    connections_opened: int = 0
    connections_failed: int = 0
    connections_pending: int = 0
    connections_closed: int = 0
    connections_open: int = 0
    connects_late: int = 0
    """Connects begun more than 50 ms after they were due."""
    messages_due: int = 0
    messages_sent: int = 0
    messages_unsent: int = 0
    messages_received: int = 0
    messages_lost: int = 0
    messages_in_flight: int = 0
    """Sent, and neither answered nor given up when the load ended."""
    messages_no_reply: int = 0
    """Sent with no reply awaited."""
    messages_unexpected: int = 0
    """Replies that match nothing outstanding."""
    deliveries: int = 0
    """Messages of a broadcast that came, whatever their fate in its account (`Second.rooms`)."""
    bytes_sent: int = 0
    """Payload bytes of sent messages."""
    bytes_received: int = 0
    reconnects: int = 0
    """Connects tried again after a failure or a break; each is also an attempt."""


class HostSecond(_Line):
    """What the load generator's machine did, cumulative (s)."""

    worker_cpu_s: tuple[float, ...] = ()
    """CPU time of each worker process."""
    steal_s: float = 0
    """CPU time stolen by the hypervisor, all cores."""
    throttled_s: float = 0
    """Time in which the cgroup was throttled."""
    core_s: float = 0
    """Elapsed time × cores: what steal and throttling are a share of."""


class Second(_Line):
    """Line n of a load: all counters and histograms of what was due up to second n, settled, never changed again."""

    type: Literal["second"] = "second"
    second: int
    counters: Counters
    errors: dict[ErrorKind, int] = {}
    unsent: dict[UnsentReason, int] = {}
    kinds: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}\.[a-z_]{1,40}$")], int] = {}
    """Counts of what clients that are not normal did and met, by kind and event, such as `slow_reader.opened`
    (`wsnode.load.kinds`)."""
    histograms: dict[str, Histogram] = {}
    """By name, see `HISTOGRAMS`; cumulative. A missing one is empty."""
    host: HostSecond = HostSecond()
    rooms: tuple[Room, ...] | None = None
    """Of a broadcast, and only of a whole load: what became of all deliveries."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    @field_validator("histograms", mode="before")
    @classmethod
    def _read_histograms(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, dict):
            return value
        if unknown := value.keys() - set(HISTOGRAMS):
            raise ValueError(f"no histograms named {sorted(unknown)}")
        plain = info.context is _PLAIN
        return {k: v if isinstance(v, Histogram) else Histogram.from_wire(v, plain=plain) for k, v in value.items()}

    @field_serializer("histograms")
    def _write_histograms(self, value: dict[str, Histogram]) -> dict[str, Any]:
        return {name: histogram.to_wire() for name, histogram in value.items()}

    def histogram(self, name: str) -> Histogram:
        """A histogram by name, empty where nothing was recorded."""
        return self.histograms.get(name) or Histogram()


class Live(_Line):
    """Unstored, for the live page: counts by arrival at a whole second, and the last second's response times."""

    type: Literal["live"] = "live"
    second: int
    connections_open: int
    sent: int
    received: int
    outstanding: int
    errors: int
    recent: Annotated[
        dict[str, int | None], Field(description="p50_ns, p95_ns, p99_ns of replies that came last second")
    ]


class Ended(_Line):
    """No more seconds will come."""

    type: Literal["ended"] = "ended"
    run_id: str
    state: Literal["finished", "stopped", "interrupted"]
    reason: str | None = None
    seconds: int


class HostResult(_Line):
    """Everything a load generator has to say about a run, kept until `ack`."""

    run_id: str
    host: str
    state: Literal["finished", "stopped", "interrupted"]
    reason: str | None = None
    """Why it was stopped or interrupted."""
    seconds: int
    """Lines 1 … seconds exist."""
    final: Second | None
    """The whole load, drain included; null where the agent or its host died before the end."""
    workers: int
    start_at_ns: int
    """Origin as asked for, on the host's own clock (ns since the epoch)."""
    first_connect_due_ns: int | None
    """Origin-relative (ns) due time of the first connect, and when it began on the same scale."""
    first_connect_begun_ns: int | None
    environment_begin: dict[str, Any]
    environment_end: dict[str, Any]


class Hello(_Line):
    """The agent's first line."""

    type: Literal["hello"] = "hello"
    protocol: int = PROTOCOL
    wsnode: str
    name: str
    boot_id: str
    agent_start_id: str
    capabilities: tuple[Literal["observe", "load"], ...]
    behaviours: tuple[str, ...] = ("echo", "broadcast")


class _Request(_Line):
    id: int


class Clock(_Request):
    """Answered with `received_ns` and `sent_ns`, the host's wall clock (ns since the epoch)."""

    type: Literal["clock"] = "clock"


class Preflight(_Request):
    """Answered with `fit`, `findings` (each `{level: ok|warn|unfit, check, message}`) and `environment`; with a port
    also with `remains`, see `Remains`."""

    type: Literal["preflight"] = "preflight"
    plan: Plan | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Of the server that the run aims at: what earlier runs have left there is counted."""


class Remains(_Line):
    """TCP connections of a host that have the aimed server's port at either end. A plan's host counts those to the
    plan's address alone, if it has one."""

    connections: int
    """In any state but LISTEN and TIME-WAIT."""
    time_wait: int
    source_ports: int | None
    """How many there are for one pair of addresses; None where this kernel does not say."""

    @property
    def settled(self) -> bool:
        """Whether nothing of an earlier run is left that a next one would notice."""
        return not self.connections and not self.crowded

    @property
    def crowded(self) -> bool:
        """Whether TIME-WAIT has more than a twentieth of the source ports."""
        return self.source_ports is not None and self.time_wait > CROWDED * self.source_ports


class _Of(_Request):
    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    epoch: Annotated[int, Field(ge=0)]


class Hook(_Of):
    """Do what an admin has set up on this host under that name. Answered with `HookDone` once it is done."""

    type: Literal["hook"] = "hook"
    name: Annotated[str, Field(pattern=HOOK)]


class HookDone(_Line):
    """What a hook came to. A hook that failed is a refusal, with its words."""

    took_s: float
    words: str = ""
    """The end of what it printed."""
    server_before: str | None = None
    """Start id of the server on this host before and after; None where it has none, or did not answer."""
    server_after: str | None = None


class Prepare(_Of):
    """Starts the workers and waits until they are ready. Answered with `workers` and `environment`."""

    type: Literal["prepare"] = "prepare"
    plan: Plan
    secrets: dict[Annotated[str, Field(pattern=f"^{SECRET_NAME}$")], SecretStr] = {}
    """The values of the plan's secrets, which are for the workers' memory alone."""

    @field_serializer("secrets", when_used="json")
    def _reveal(self, value: dict[str, SecretStr]) -> dict[str, str]:
        return revealed(value)


class Go(_Of):
    """Start at a moment of the host's own clock. Answered with `start_at`: the one in force."""

    type: Literal["go"] = "go"
    start_at: int


class Follow(_Of):
    """Stream the lines from `from_second` on."""

    type: Literal["follow"] = "follow"
    from_second: Annotated[int, Field(ge=1)] = 1


class Stop(_Of):
    """End the load now: no more sends, replies awaited, connections closed. Answered with `state` once ended."""

    type: Literal["stop"] = "stop"
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = "stopped by the conductor"
    drain: bool = True
    """Whether outstanding replies are awaited."""


class GetResult(_Of):
    """Answered with a `HostResult`."""

    type: Literal["result"] = "result"


class Ack(_Of):
    """The result is stored: the agent may forget the load."""

    type: Literal["ack"] = "ack"


class ListLoads(_Request):
    """Answered with `loads`: `{run_id, epoch, state, reason, seconds, start_at}` of each load known."""

    type: Literal["list"] = "list"


class Answer(_Line):
    """A request that was carried out."""

    type: Literal["answer"] = "answer"
    id: int
    data: dict[str, Any] = {}


RefusalCode = Literal[
    "bad_request", "old_epoch", "busy", "unknown_run", "wrong_state", "unfit", "not_allowed", "failed"
]


class Refusal(_Line):
    """A request that was not: nothing has changed."""

    type: Literal["refusal"] = "refusal"
    id: int | None
    code: RefusalCode
    message: str


Request = Annotated[
    Clock | Preflight | Hook | Prepare | Go | Follow | Stop | GetResult | Ack | ListLoads, Field(discriminator="type")
]
Reply = Annotated[Hello | Answer | Refusal | Second | Live | Ended, Field(discriminator="type")]
_PLAIN = "plain"
"""Context of a text without minus signs and truth values: see `Histogram.from_wire`."""
_requests: TypeAdapter[Request] = TypeAdapter(Request)
_replies: TypeAdapter[Reply] = TypeAdapter(Reply)


def revealed(secrets: dict[str, SecretStr]) -> dict[str, str]:
    """Secrets as they are, for whoever needs them so."""
    return {name: value.get_secret_value() for name, value in secrets.items()}


def encode(line: BaseModel) -> bytes:
    """One line, newline included.

    Raises:
        ProtocolError: it would be longer than 1 MiB.
    """
    data = line.model_dump_json().encode() + b"\n"
    if len(data) > MAX_LINE_BYTES:
        raise ProtocolError(f"a line of {len(data):,} bytes: the limit is {MAX_LINE_BYTES:,}")
    return data


def decode_request(data: bytes) -> Request:
    """Read a line of the conductor's.

    Raises:
        ProtocolError: it is not a request; says why.
    """
    return _decode(_requests, data)


def decode_reply(data: bytes) -> Reply:
    """Read a line of the agent's.

    Raises:
        ProtocolError: it is not a reply; says why.
    """
    # Looked for in the text, since looking at each of a million numbers a second is dear.
    truths = b"true" in data or b"false" in data
    reply = _decode(_replies, data, None if truths or b"-" in data else _PLAIN)
    if truths and isinstance(reply, Second):
        raise ProtocolError("second: a truth value where a number was expected")
    return reply


def _decode(adapter: TypeAdapter[T], data: bytes, context: object = None) -> T:
    if len(data) > MAX_LINE_BYTES:
        raise ProtocolError(f"a line of more than {MAX_LINE_BYTES:,} bytes")
    try:
        return adapter.validate_json(data, context=context)
    except ValidationError as error:
        item = error.errors(include_url=False, include_input=False)[0]
        raise ProtocolError(f"{'.'.join(map(str, item['loc'])) or 'line'}: {item['msg']}") from error


def request_id(data: bytes) -> int | None:
    """The id of a line that could not be decoded, for its refusal."""
    try:
        value = json.loads(data).get("id")
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, int) else None

"""What a run does: its fields, limits, defaults and help, for CLI, YAML, web form, API and docs alike."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from wsnode.core.abort import AbortRule
from wsnode.core.broadcast import HEAD_BYTES, Layout, Publishers
from wsnode.core.churn import MOST_SESSIONS, Churn, Session, Storm
from wsnode.core.header import TOKEN, Header
from wsnode.core.kinds import Cast, Kind
from wsnode.core.pacing import Pacing, Share
from wsnode.core.pointer import Pointer
from wsnode.core.script import Step
from wsnode.core.sizes import GRAMMAR as SIZES_GRAMMAR
from wsnode.core.sizes import Sizes
from wsnode.core.stages import GRAMMAR, STEP_S, Stage, climb_s, highest, parse_stages, steepest_per_s
from wsnode.core.template import Template
from wsnode.core.think import FIXED, Think
from wsnode.core.think import GRAMMAR as THINK_GRAMMAR
from wsnode.core.threshold import Threshold, check_metric

NS = 1_000_000_000
LONGEST_VALUE = 100
"""Characters of a refused value that an error line shows."""
PREFIX_BYTES = 24
"""Longest client-and-sequence prefix of a payload: two hexadecimal numbers with their separators."""
LONGEST_TEMPLATE = 1 << 16
"""Characters of a payload's template."""
BEHAVIOUR = r"^[a-z][a-z0-9_]{0,31}$"
"""What a behaviour's name looks like."""
BUILT_IN = ("echo", "broadcast")
"""Behaviours that every wsnode has; each has a path of its own name on a lab's server."""
CONSENT = r"^[A-Za-z0-9._-]{16,128}$"
"""What a token of consent looks like."""


def _unit(unit: str) -> dict[str, Any]:
    return {"unit": unit}


class NoWindow(ValueError):
    """The ramp-up leaves no time to measure. The message names what would connect and each repair."""


class Scenario(BaseModel):
    """A load, complete and free of paths, code and addresses. The defaults are the seed's *basic* test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$",
            title="Name",
            description="Lower-case letters, digits, '_', '.', '-'.",
        ),
    ] = "custom"
    description: Annotated[
        str, Field(max_length=500, title="Description", description="What this load is for, in a sentence.")
    ] = ""
    behaviour: Annotated[
        str,
        Field(
            pattern=BEHAVIOUR,
            title="Behaviour",
            description="What clients do: 'echo' sends to /echo and awaits each reply; 'broadcast' publishes to "
            "/broadcast/<room> and accounts for every delivery to every client; others are installed on the load "
            "generators under a name of lower-case letters, digits and '_' (wsnode behaviours lists them).",
        ),
    ] = "echo"
    clients: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            title="Clients",
            description="Connections to open, over all load generators.",
            json_schema_extra=_unit("connections"),
        ),
    ] = 1000
    interval_ms: Annotated[
        int,
        Field(
            ge=0,
            le=3_600_000,
            title="Message interval",
            description="Time between two messages of one client. 0: connections stay idle.",
            json_schema_extra=_unit("ms"),
        ),
    ] = 1000
    ramp_up_s: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            allow_inf_nan=False,
            title="Ramp-up",
            description="Time over which the clients connect; longer where the connect rate needs it.",
            json_schema_extra=_unit("s"),
        ),
    ] = 20
    duration_s: Annotated[
        int,
        Field(
            ge=1,
            le=604_800,
            title="Duration",
            description="Total time of the load, ramp-up included; the drain comes after it.",
            json_schema_extra=_unit("s"),
        ),
    ] = 80
    rate_per_s: Annotated[
        float,
        Field(
            gt=0,
            le=100_000,
            allow_inf_nan=False,
            title="Connect rate",
            description="New connections per second at most, over all load generators.",
            json_schema_extra=_unit("1/s"),
        ),
    ] = 50
    stages: Annotated[
        tuple[str, ...],
        Field(
            max_length=100,
            title="Stages",
            description="The number of connected clients over time instead of one ramp-up, one stage a line: "
            f"{GRAMMAR}; a step takes {STEP_S} s. Clients, ramp-up, duration and connect rate follow from them: leave "
            "those empty. Who comes last leaves first. Each hold is also reported on its own.",
        ),
    ] = ()
    warm_up_s: Annotated[
        int,
        Field(
            ge=0,
            le=86_400,
            title="Warm-up",
            description="Time between the end of the ramp-up and the measured window.",
            json_schema_extra=_unit("s"),
        ),
    ] = 0
    drain_s: Annotated[
        int,
        Field(
            ge=1,
            le=600,
            title="Drain",
            description="Time after the duration in which replies are awaited; at least the reply timeout.",
            json_schema_extra=_unit("s"),
        ),
    ] = 5
    reply_timeout_s: Annotated[
        float,
        Field(
            ge=0.1,
            le=600,
            allow_inf_nan=False,
            title="Reply timeout",
            description="A message without a reply for this long is lost.",
            json_schema_extra=_unit("s"),
        ),
    ] = 5
    connect_timeout_s: Annotated[
        float,
        Field(
            ge=0.1,
            le=600,
            allow_inf_nan=False,
            title="Connect timeout",
            description="A connect whose handshake takes longer has failed.",
            json_schema_extra=_unit("s"),
        ),
    ] = 10
    size_bytes: Annotated[
        int,
        Field(
            ge=1,
            le=1 << 20,
            title="Message size",
            description="Payload of each message.",
            json_schema_extra=_unit("bytes"),
        ),
    ] = 64
    sizes: Annotated[
        str | None,
        Field(
            max_length=500,
            title="Message sizes",
            description=f"Sizes by a distribution, drawn by the seed: {SIZES_GRAMMAR}. The message size is then their "
            "mean: leave it empty. Empty: all messages have one size.",
        ),
    ] = None
    message_type: Annotated[
        Literal["text", "binary"],
        Field(title="Message type", description="WebSocket opcode of the messages."),
    ] = "text"
    payload: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=LONGEST_TEMPLATE,
            title="Payload",
            description="Text of each message, such as '{\"id\": ${seq}}', with ${seq}, ${client} and ${secret:NAME} "
            "in it. Empty: client and sequence, filled up to the message size.",
        ),
    ] = None
    first_messages: Annotated[
        tuple[str, ...],
        Field(
            max_length=50,
            title="First messages",
            description="What a client says before it is ready, and what it awaits: '> TEXT' sends, '< any', "
            "'< text TEXT', '< json:/POINTER' and '< json:/POINTER == VALUE' await an answer, with ${client} and "
            "${secret:NAME} in them.",
        ),
    ] = ()
    match: Annotated[
        str,
        Field(
            pattern=r"^(prefix|order|none|json:(/\S*)?)$",
            max_length=200,
            title="Reply matching",
            description="'prefix': by client and sequence at the payload's start, or as an installed behaviour does; "
            "'json:/POINTER': by the value there, as in json:/id; 'order': n-th reply to the n-th message; 'none': no "
            "reply is awaited.",
        ),
    ] = "prefix"
    phase: Annotated[
        Literal["spread", "random", "aligned"],
        Field(
            title="Phase",
            description="How clients' messages lie in the interval: evenly, at random (by seed), or all at once.",
        ),
    ] = "spread"
    seed: Annotated[
        int,
        Field(ge=0, lt=1 << 32, title="Seed", description="Seed of random phases, think times and sizes."),
    ] = 0
    pace: Annotated[
        Literal["open", "closed"],
        Field(
            title="Pace",
            description="'open': messages are due at fixed times whatever the server does; 'closed': a client sends "
            "its next message on a reply, without an interval (but see think time): what a server takes at most, "
            "reported as service time, never comparable with open runs.",
        ),
    ] = "open"
    in_flight: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            title="In flight",
            description="Closed pace: messages that a connection keeps awaiting replies. Empty: 1.",
            json_schema_extra=_unit("messages"),
        ),
    ] = None
    think: Annotated[
        str,
        Field(
            max_length=100,
            title="Think time",
            description=f"Time between a client's messages, whether they are answered or not, drawn by the seed: "
            f"{THINK_GRAMMAR}. The message interval is then their mean: leave it empty. Phases apply to 'fixed' only.",
        ),
    ] = FIXED
    while_down: Annotated[
        Literal["skip", "queue"],
        Field(
            title="While down",
            description="Messages due while a client's connection is down: 'skip' counts them unsent, 'queue' "
            "sends them after the reconnect.",
        ),
    ] = "skip"
    max_in_flight: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            title="Most in flight",
            description="Messages a connection may await replies for; more are unsent. Empty: no limit.",
            json_schema_extra=_unit("messages"),
        ),
    ] = None
    rooms: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            title="Rooms",
            description="Rooms of a broadcast over which the clients are spread; each run has rooms of its own.",
            json_schema_extra=_unit("rooms"),
        ),
    ] = 1
    publishers: Annotated[
        str,
        Field(
            max_length=20,
            title="Publishers",
            description="Clients of a broadcast that publish, spread over its rooms: 'all', a number such as '5', or a "
            "share such as '2%'. Every client gets what its room publishes, its own messages too.",
        ),
    ] = "all"
    reconnect: Annotated[
        bool,
        Field(title="Reconnect", description="Whether a client whose connection broke or failed tries again."),
    ] = True
    reconnect_delay_s: Annotated[
        float,
        Field(
            ge=0.01,
            le=3600,
            allow_inf_nan=False,
            title="Reconnect delay",
            description="Time before a client tries to connect again.",
            json_schema_extra=_unit("s"),
        ),
    ] = 1
    headers: Annotated[
        tuple[str, ...],
        Field(
            max_length=20,
            title="Headers",
            description="Lines of each opening handshake, such as 'Origin: https://example.org' or 'Authorization: "
            "Bearer ${secret:TOKEN}', with ${client} and ${secret:NAME} in them.",
        ),
    ] = ()
    subprotocols: Annotated[
        tuple[str, ...],
        Field(
            max_length=20,
            title="Subprotocols",
            description="Offered in each opening handshake, the first one preferred. A server may choose one of them "
            "or none; another one fails the handshake.",
        ),
    ] = ()
    tls_verify: Annotated[
        bool,
        Field(
            title="Verify TLS",
            description="Whether a wss server's certificate must be valid and of the URL's host.",
        ),
    ] = True
    kinds: Annotated[
        tuple[str, ...],
        Field(
            max_length=4,
            title="Client kinds",
            description="Shares of the clients that are not as they should be: 'slow_reader 5%' (with '4096 B/s'; 1024 "
            "unless said), 'never_reads 1%', 'half_open 1%' (never ends its request), 'idle_pings 10%' (with '30 s'; "
            "20 unless said). The rest is normal, and response times are theirs alone.",
        ),
    ] = ()
    reconnect_jitter: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            allow_inf_nan=False,
            title="Reconnect jitter",
            description="Part of the reconnect delay that is added at most, by lot (seed), so that clients do not all "
            "come back at once; 1: up to twice the delay.",
        ),
    ] = 0
    reconnect_backoff: Annotated[
        float,
        Field(
            ge=1,
            le=10,
            allow_inf_nan=False,
            title="Reconnect backoff",
            description="What the reconnect delay is multiplied by with each failure in a row, up to 60 s.",
        ),
    ] = 1
    session: Annotated[
        str | None,
        Field(
            max_length=30,
            title="Session",
            description="How long connections last before they close in order and come back after the reconnect "
            "delay: 'fixed 5s', or 'exp 5s' for times drawn by the seed. Empty: until the end.",
        ),
    ] = None
    storms: Annotated[
        tuple[str, ...],
        Field(
            max_length=50,
            title="Storms",
            description="When clients leave all at once, to come back after the reconnect delay: 'at 30s', or "
            "'50% at 30s' for a share of them. The connect rate does not bound that.",
        ),
    ] = ()
    split: Annotated[
        Literal["capacity", "even"],
        Field(
            title="Split",
            description="How clients are dealt to load generators: 'capacity': by their cores, limits and memory and "
            "by what they have achieved, as far as that is known; 'even': the same number to each.",
        ),
    ] = "capacity"
    before: Annotated[
        str,
        Field(
            pattern=r"^(none|restart_server|hook:[a-z][a-z0-9_]{0,31})$",
            title="Before the run",
            description="What is done so that each run begins from the same state: 'none'; 'restart_server': the lab's "
            "server is restarted; 'hook:NAME': what an admin has set up under that name on the server's host.",
        ),
    ] = "none"
    settle_s: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            title="Settle",
            description="Time to wait at most, before the load, until no load and no connection of an earlier "
            "run is left and TIME-WAIT (60 s on Linux) has freed the source ports.",
            json_schema_extra=_unit("s"),
        ),
    ] = 90
    thresholds: Annotated[
        tuple[str, ...],
        Field(
            max_length=50,
            title="Thresholds",
            description="Demands that decide the verdict, such as 'response_time.p99 < 50ms'.",
        ),
    ] = ()
    abort_on: Annotated[
        tuple[str, ...],
        Field(
            max_length=10,
            title="Abort on",
            description="Conditions that end the load early and fail the run, such as 'error_ratio > 50% for 10s after "
            "20s': true of so many seconds in a row, looked at from that second of the load on.",
        ),
    ] = ()
    primary_metric: Annotated[
        str | None,
        Field(
            max_length=50,
            title="Primary metric",
            description="What a comparison of runs is decided by. Empty: 'response_time.p99'; where nothing is sent "
            "'handshake.p99'; with a closed pace 'received_per_s'; where no reply is awaited 'sent_per_s'.",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _what_follows(cls, data: Any) -> Any:
        """Fill in the fields that follow from others. Given ones may say the same, as those of a stored scenario do."""
        if not isinstance(data, dict):
            return data
        for field, follow in _FOLLOW.items():
            if value := data.get(field):
                try:
                    follows = follow(value)
                except (ValueError, TypeError, AttributeError):
                    continue  # the field's own check says what is wrong
                data = _derive(data, field, follows)
        if data.get("pace") == "closed" and str(data.get("think") or FIXED).strip() == FIXED:
            data = _derive(data, "pace closed", {"interval_ms": 0})
        return data

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        # YAML reads `clients: yes` as true, which pydantic would take for 1.
        if isinstance(value, bool) and allowed_range(info.field_name or ""):
            raise PydanticCustomError("not_a_switch", "Input should not be true or false")
        return value

    @field_validator("stages")
    @classmethod
    def _stages_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(stage.text for stage in parse_stages(value))

    @field_validator("think")
    @classmethod
    def _think_parses(cls, value: str) -> str:
        think = Think.parse(value)
        return FIXED if think is None else think.text

    @field_validator("sizes")
    @classmethod
    def _sizes_parse(cls, value: str | None) -> str | None:
        return value if value is None else Sizes.parse(value).text

    @field_validator("session")
    @classmethod
    def _session_parses(cls, value: str | None) -> str | None:
        return value if value is None else Session.parse(value).text

    @field_validator("storms")
    @classmethod
    def _storms_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(Storm.parse(text).text for text in value)

    @field_validator("publishers")
    @classmethod
    def _publishers_parse(cls, value: str) -> str:
        return Publishers.parse(value).text

    @field_validator("thresholds")
    @classmethod
    def _thresholds_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(Threshold.parse(text).text for text in value)

    @field_validator("abort_on")
    @classmethod
    def _abort_rules_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(AbortRule.parse(text).text for text in value)

    @field_validator("payload")
    @classmethod
    def _payload_parses(cls, value: str | None) -> str | None:
        return value if value is None else Template.parse(value).text

    @field_validator("first_messages")
    @classmethod
    def _first_messages_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(Step.parse(line).text for line in value)

    @field_validator("match")
    @classmethod
    def _pointer_parses(cls, value: str) -> str:
        if value.startswith("json:"):
            Pointer.parse(value.removeprefix("json:"))
        return value

    @field_validator("headers")
    @classmethod
    def _headers_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(Header.parse(text).text for text in value)

    @field_validator("subprotocols")
    @classmethod
    def _subprotocols_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(TOKEN, name):
                raise ValueError(f"{name!r} is no subprotocol: expected letters, digits and !#$%&'*+.^_`|~-")
            if value.count(name) > 1:
                raise ValueError(f"{name} is offered {value.count(name)} times, expected once")
        return value

    @field_validator("kinds")
    @classmethod
    def _kinds_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        texts = tuple(Kind.parse(text).text for text in value)
        Cast.of(texts, 100)
        return texts

    @field_validator("primary_metric")
    @classmethod
    def _primary_metric_exists(cls, value: str | None) -> str | None:
        return value if value is None else check_metric(value)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.drain_s < self.reply_timeout_s:
            raise ValueError(
                f"drain_s is {self.drain_s} s but reply_timeout_s is {self.reply_timeout_s:g} s: the drain must be "
                f"at least as long, so that every reply can still be awaited (drain_s >= "
                f"{math.ceil(self.reply_timeout_s)}, or reply_timeout_s <= {self.drain_s})"
            )
        self._check_pace()
        self._check_churn()
        if self.behaviour == "broadcast":
            self._check_broadcast()
        else:
            self._check_conversation()
        talks = [name for name in ("payload", "first_messages") if getattr(self, name)]
        talks += [] if self.behaviour == "echo" else [f"behaviour {self.behaviour}"]
        if self.kinds and talks:
            raise ValueError(
                f"kinds do not go with {' and '.join(talks)}: clients that are not normal send size_bytes and "
                "log in nowhere; leave out the one or the other"
            )
        return self

    def _check_pace(self) -> None:
        """Whether what is asked for exists at this pace. Raises ValueError."""
        if self.pace == "open":
            if self.in_flight is not None:
                raise ValueError(
                    f"in_flight is {self.in_flight} but pace is open: leave in_flight empty (max_in_flight bounds an "
                    "open load), or let pace be closed"
                )
            return
        for field, value in (
            ("match", self.match if self.match == "none" else None),
            ("while_down", self.while_down if self.while_down == "queue" else None),
            ("behaviour", self.behaviour if self.behaviour != "echo" else None),
            *((name, getattr(self, name)) for name in ("max_in_flight", "payload", "first_messages", "kinds")),
        ):
            if value:
                raise ValueError(
                    f"{field} is {value!r} but pace is closed, which sends the usual messages on each reply: leave "
                    f"{field} at its default, or let pace be open"
                )
        asked = [("thresholds", text, Threshold.parse(text).metric) for text in self.thresholds]
        asked += [("abort_on", text, AbortRule.parse(text).threshold.metric) for text in self.abort_on]
        if self.primary_metric is not None:
            asked.append(("primary_metric", self.primary_metric, self.primary_metric))
        for field, text, metric in asked:
            if metric.partition(".")[0] in ("response_time", "scheduler_lag", "offered_per_s"):
                raise ValueError(
                    f"{field}: {text!r} does not exist with pace closed, where nothing is due before it is sent: use "
                    "service_time or received_per_s, or let pace be open"
                )

    def _check_conversation(self) -> None:
        """Whether what is sent can be matched with what comes. Raises ValueError."""
        if self.sizes is not None and (self.payload is not None or self.behaviour not in BUILT_IN):
            maker = "the payload" if self.payload is not None else f"behaviour {self.behaviour}"
            raise ValueError(f"sizes is {self.sizes!r} but {maker} makes the messages: leave one of them empty")
        if self.sizes is not None and self.first_messages:
            raise ValueError("sizes do not go with first_messages: a client that logs in sends messages of one size")
        if self.behaviour not in BUILT_IN:
            if self.payload is not None:
                raise ValueError(f"payload: behaviour {self.behaviour} makes its messages itself; leave payload empty")
            if self.key_pointer is not None:
                raise ValueError(
                    f"match: behaviour {self.behaviour} knows its replies itself: match is 'prefix' (as it does), "
                    "'order' or 'none'"
                )
        elif self.payload is None:
            if self.key_pointer is not None:
                raise ValueError(f"match: {self.match} needs a payload that is JSON, such as '{{\"id\": ${{seq}}}}'")
        elif self.match == "prefix":
            raise ValueError(
                "match: a payload of one's own has no prefix: match is 'json:/POINTER' (such as json:/id), 'order' or "
                "'none'"
            )
        elif self.key_pointer is not None:
            payload = Template.parse(self.payload)
            try:
                self.key_pointer.key_of(payload, dict.fromkeys(payload.secrets, "0"))
            except ValueError as error:
                raise ValueError(f"match: {self.match} does not fit the payload: {error}") from None

    @property
    def key_pointer(self) -> Pointer | None:
        """Of `match: json:/…`: where a message's key is."""
        return Pointer.parse(self.match.removeprefix("json:")) if self.match.startswith("json:") else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets that it needs, in order."""
        names: set[str] = set()
        if self.payload is not None:
            names |= Template.parse(self.payload).secrets
        for line in self.first_messages:
            names |= Step.parse(line).secrets
        for line in self.headers:
            names |= Header.parse(line).value.secrets
        return tuple(sorted(names))

    @property
    def churn(self) -> Churn | None:
        """When clients leave and come back; None: they do not."""
        return Churn.of(self.session, self.storms, self.reconnect_delay_s, self.reconnect_jitter, self.seed)

    def _check_churn(self) -> None:
        churn = self.churn
        if churn is None:
            return
        if self.stages:
            raise ValueError("session and storms do not go with stages: leave out the one or the other")
        if self.pace == "closed":
            raise ValueError("session and storms are planned, and pace is closed: leave them out, or let pace be open")
        if (planned := churn.sessions(self.clients, self.duration_s * NS)) > MOST_SESSIONS:
            raise ValueError(
                f"about {planned:,.0f} connections would come and go, the most is {MOST_SESSIONS:,}: longer sessions, "
                "fewer clients or a shorter duration"
            )

    def _check_broadcast(self) -> None:
        if self.size_bytes < HEAD_BYTES:
            raise ValueError(
                f"size_bytes is {self.size_bytes}: a broadcast's messages need {HEAD_BYTES} bytes for their publisher, "
                f"sequence and time (size_bytes >= {HEAD_BYTES})"
            )
        if self.rooms > self.clients:
            raise ValueError(
                f"{self.rooms:,} rooms for {self.clients:,} clients: some would be empty (rooms <= clients)"
            )
        if Publishers.parse(self.publishers).of(self.clients) > self.clients:
            raise ValueError(f"publishers {self.publishers!r} of {self.clients:,} clients: there are not so many")
        if self.max_in_flight is not None:
            raise ValueError("max_in_flight bounds awaited replies, and a broadcast awaits none: leave it empty")
        if self.payload is not None or self.first_messages or self.sizes is not None:
            raise ValueError("payload, first_messages and sizes: a broadcast's messages are its own; leave them empty")

    @property
    def planned_ramp_s(self) -> float:
        """Time the connects take: ramp-up, or longer where the connect rate needs it; with stages the first climb."""
        return self.ramp_up_s if self.stages else max(self.ramp_up_s, self.clients / self.rate_per_s)

    @property
    def connects_per_s(self) -> float:
        """New connections per second of the ramp-up; with stages of the steepest climb."""
        return self.rate_per_s if self.stages else self.clients / self.planned_ramp_s

    @property
    def staged(self) -> tuple[Stage, ...]:
        """The stages, read."""
        return parse_stages(self.stages)

    def holds_until(self, last_s: int) -> list[tuple[int, int, int]]:
        """(from, to, clients) of each hold (s from the origin), as far as it is after the warm-up and was reached."""
        parts = [
            (max(stage.begin_s, self.window_open_s), min(stage.end_s, last_s), stage.clients)
            for stage in self.staged
            if stage.is_hold
        ]
        return [(begin, end, clients) for begin, end, clients in parts if begin < end]

    @property
    def window_open_s(self) -> int:
        """First whole second after ramp-up and warm-up, at least 1: windows are cut at whole seconds, so that they can
        be cut exactly from the stored per-second histograms."""
        return math.ceil(round(self.planned_ramp_s + self.warm_up_s, 6))

    @property
    def window_s(self) -> int:
        """Length of the measured window (s); 0 or less: there is none."""
        return self.duration_s - self.window_open_s

    @property
    def connected_by_end(self) -> int:
        """Clients whose connect is due within the duration."""
        return min(self.clients, self.pacing().connects_due(self.duration_s * NS))

    @property
    def distribution(self) -> Sizes | None:
        """`sizes`, read."""
        return None if self.sizes is None else Sizes.parse(self.sizes)

    @property
    def smallest_bytes(self) -> int:
        """Payload of the smallest message."""
        return self.size_bytes if (sizes := self.distribution) is None else sizes.smallest_bytes

    @property
    def layout(self) -> Layout:
        """Who is in which room of a broadcast, and who publishes."""
        return Layout(self.clients, self.rooms, Publishers.parse(self.publishers).of(self.clients))

    @property
    def awaits_replies(self) -> bool:
        """Whether sent messages are to be answered, one by one."""
        return self.behaviour != "broadcast" and self.match != "none"

    @property
    def effective_match(self) -> str:
        """`match`, or 'order' where the payload is too small for a prefix."""
        short = self.match == "prefix" and self.smallest_bytes < PREFIX_BYTES and self.behaviour in BUILT_IN
        return "order" if short else self.match

    @property
    def effective_primary_metric(self) -> str:
        """`primary_metric`, or the one that says most about this kind of load."""
        if self.primary_metric is not None:
            return self.primary_metric
        if self.pace == "closed":
            # By Little's law throughput and time are one figure here, and of the two throughput is what was asked.
            return "received_per_s"
        if not self.interval_ms:
            return "handshake.p99"
        if self.behaviour == "broadcast":
            return "one_way.p99"
        return "sent_per_s" if self.match == "none" else "response_time.p99"

    @property
    def offered_per_s(self) -> float:
        """Messages per second that all clients together offer once connected; with stages, while most are. With a
        closed pace the most that their think times allow, 0 where they do not think: nobody knows."""
        if not self.interval_ms:
            return 0.0
        think = self.thinking
        senders = self.layout.publishers if self.behaviour == "broadcast" else self.cast.senders
        each_ns = self.interval_ms * 1_000_000 if think is None else think.mean_ns
        return senders * (self.in_flight or 1) * NS / each_ns

    @property
    def thinking(self) -> Think | None:
        """`think`, read."""
        return Think.parse(self.think)

    @property
    def sends(self) -> bool:
        """Whether there are messages at all."""
        return self.pace == "closed" or self.interval_ms > 0

    @property
    def cast(self) -> Cast:
        """Which clients are of which kind."""
        return Cast.of(self.kinds, self.clients)

    def pacing(self) -> Pacing:
        """The run's timetable."""
        return Pacing(
            clients=self.clients,
            interval_ns=self.interval_ms * 1_000_000 if self.pace == "open" else 0,
            ramp_ns=round(self.planned_ramp_s * NS),
            end_ns=self.duration_s * NS,
            phase=self.phase,
            seed=self.seed,
            stages=self.staged,
            churn=self.churn,
            think=self.thinking,
        )

    @property
    def due_in_window(self) -> int:
        """About how many messages are due in the measured window."""
        if self.pace == "closed" or not self.interval_ms or self.window_s < 1:
            return 0
        if not self.stages:
            return round(self.offered_per_s * self.window_s)
        client_s = sum(
            (stage.before + stage.clients) / 2 * (stage.end_s - stage.begin_s)
            for stage in self.staged
            if stage.begin_s >= self.ramp_up_s
        )
        return round((client_s - self.warm_up_s * self.clients) * self.offered_per_s / self.clients)

    def check_window(self) -> None:
        """Refuse a scenario whose ramp-up leaves nothing to measure.

        Raises:
            NoWindow: names what would connect by when, and each repair.
        """
        if self.window_s >= 1:
            return
        if self.stages:
            raise NoWindow(
                f"no measured window: the stages end after {self.duration_s:,} s, with the first climb and "
                f"{self.warm_up_s:,} s of warm-up. Repairs: let the stages go on, such as with 'hold 60s'"
                + (", or warm_up_s <= 0" if self.warm_up_s and self.duration_s > self.ramp_up_s else "")
                + "; or accept a run that is ramp-up only (--accept-partial), which gets no verdict"
            )
        warm_up = f" and {self.warm_up_s:,} s of warm-up" if self.warm_up_s else ""
        raise NoWindow(
            f"no measured window: {self.clients:,} clients (ramp-up {_seconds(self.ramp_up_s)} s, at most "
            f"{self.rate_per_s:g}/s) are connected after {_seconds(self.planned_ramp_s)} s{warm_up}, but the duration "
            f"is {self.duration_s:,} s; {self.connected_by_end:,} would connect by then. Repairs: "
            + ", or ".join(self._repairs())
            + "; or accept a run that is ramp-up only (--accept-partial), which gets no verdict"
        )

    def _repairs(self) -> list[str]:
        """The ways to a window, each as `FIELD >= N` or `FIELD <= N`, joined by ' with ' where it takes two fields."""
        repairs = []
        if self.window_open_s + 1 <= _most("duration_s"):
            repairs.append(f"duration_s >= {self.window_open_s + 1}")
        room = self.duration_s - 1 - self.warm_up_s
        if room >= 1:
            shorter = [f"ramp_up_s <= {room}"] if self.ramp_up_s > room else []
            if self.clients <= room * self.rate_per_s:
                repairs += shorter
            else:
                if (faster := math.ceil(self.clients / room)) <= _most("rate_per_s"):
                    repairs.append(" with ".join([*shorter, f"rate_per_s >= {faster}"]))
                if (fewer := math.floor(room * self.rate_per_s)) >= 1:
                    repairs.append(" with ".join([*shorter, f"clients <= {fewer}"]))
        sooner = self.duration_s - 1 - math.ceil(round(self.planned_ramp_s, 6))
        if self.warm_up_s and sooner >= 0:
            repairs.append(f"warm_up_s <= {sooner}")
        if not repairs:
            # Within the fields' limits no change of one does it; this always does.
            rate = math.ceil(self.clients / max(self.ramp_up_s, 10))
            opens = self.model_copy(update={"rate_per_s": rate}).window_open_s
            repairs.append(f"rate_per_s >= {rate} with duration_s >= {opens + 1}")
        return repairs

    def notes(self) -> list[str]:
        """What a reader of the result must know about this scenario."""
        if self.behaviour == "broadcast":
            return ["one-way delays are of the deliveries whose publisher is on the subscriber's own load generator"]
        notes = []
        if self.pace == "closed":
            notes.append(
                f"closed pace, {self.in_flight or 1} in flight a connection: what is sent follows from the replies, so "
                "that a stall shows in the throughput and not in the times; never compare it with open runs"
            )
        if self.effective_match != self.match:
            notes.append(
                f"replies are matched by order: {self.smallest_bytes} bytes are too few for a prefix of {PREFIX_BYTES} "
                "bytes, so a loss cannot be placed"
            )
        elif self.match == "order":
            notes.append("replies are matched by order, so a loss cannot be placed")
        if self.payload is not None:
            notes.append("messages are as long as their payload makes them: size_bytes is not used")
        if self.behaviour not in BUILT_IN:
            notes.append(f"messages are made by the installed behaviour {self.behaviour}: size_bytes is not used")
        if not self.tls_verify:
            notes.append("the server's certificate was not verified")
        if self.kinds:
            counts = ", ".join(f"{n:,} {name}" for name, n in self.cast.counts().items())
            notes.append(
                f"of {self.clients:,} clients these are not normal: {counts}; replies to them are not awaited, so that "
                "response and service times are of normal clients alone"
            )
        return notes


class Plan(BaseModel):
    """What one load generator is asked to do: a scenario, where to, and which of its clients."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: Scenario
    url: Annotated[str, Field(pattern=r"^wss?://", max_length=2000)]
    begin: Annotated[int, Field(ge=0)] = 0
    end: Annotated[int, Field(ge=0)]
    """The places `begin` … `end` − 1 of its clients (`wsnode.core.pacing.Share`)."""
    address: Annotated[str, Field(max_length=45)] | None = None
    """Where to connect, looked up once for all load generators; None: each looks the URL's host up."""
    consent: Annotated[str, Field(pattern=CONSENT)] | None = None
    """What the server has to show before a load (`wsnode.agent.consent`); None: nothing, as a lab's own need not."""

    @field_validator("address")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        return value if value is None else str(ipaddress.ip_address(value))

    @model_validator(mode="after")
    def _within(self) -> Self:
        if not self.begin <= self.end <= self.scenario.clients:
            raise ValueError(f"places {self.begin} to {self.end} of {self.scenario.clients} clients")
        return self

    @property
    def count(self) -> int:
        """How many clients."""
        return self.end - self.begin

    @property
    def share(self) -> Share:
        """The clients, as numbers over all hosts."""
        return Share(self.scenario.clients, self.begin, self.end)

    @classmethod
    def whole(cls, scenario: Scenario, url: str) -> Plan:
        """All of a scenario's clients."""
        return cls(scenario=scenario, url=url, end=scenario.clients)

    @classmethod
    def divide(cls, scenario: Scenario, url: str, weights: int | Sequence[int]) -> list[Plan]:
        """One plan for each load generator, in proportion to the weights, or evenly over so many of them; each client
        is in exactly one plan.

        Raises:
            ValueError: there is no load generator.
        """
        return cls.whole(scenario, url)._dealt([1] * weights if isinstance(weights, int) else weights)

    def divide_among(self, workers: int) -> list[Plan]:
        """This plan's clients over a host's workers."""
        return self._dealt([1] * workers)

    def _dealt(self, weights: Sequence[int]) -> list[Plan]:
        return [self.model_copy(update={"begin": s.begin, "end": s.end}) for s in self.share.deal(weights)]


def _of_stages(value: Any) -> dict[str, float]:
    if isinstance(value, str):
        raise TypeError("stages are several lines")
    stages = parse_stages(value)
    return {
        "clients": highest(stages),
        "ramp_up_s": climb_s(stages),
        "duration_s": stages[-1].end_s,
        "rate_per_s": steepest_per_s(stages),
    }


def _of_think(value: Any) -> dict[str, float]:
    think = Think.parse(value)
    return {} if think is None else {"interval_ms": think.interval_ms}


def _of_sizes(value: Any) -> dict[str, float]:
    return {"size_bytes": round(Sizes.parse(value).mean_bytes)}


_FOLLOW: dict[str, Callable[[Any], dict[str, float]]] = {
    "stages": _of_stages,
    "think": _of_think,
    "sizes": _of_sizes,
}
"""What follows from a field for others."""


def _derive(data: dict[str, Any], source: str, follows: dict[str, float]) -> dict[str, Any]:
    """`data` with what follows from one of its fields; empty values count as not given.

    Raises:
        ValueError: a field was given and says something else.
    """
    for field, value in follows.items():
        given = data.get(field)
        if given not in (None, "") and (
            isinstance(given, bool) or not isinstance(given, int | float) or given != value
        ):
            raise ValueError(
                f"{field} is {given!r} but by {source} it is {value:g}: leave {field} empty, or let it say the same"
            )
    return data | follows


def own_path(behaviour: str) -> str:
    """Of a behaviour on a lab's server; '' for an installed one, whose code says it."""
    return f"/{behaviour}" if behaviour in BUILT_IN else ""


def error_lines(error: ValidationError) -> list[str]:
    """A validation error for people: one line each with field, value and what is allowed."""
    lines = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        value = repr(item["input"])
        if len(value) > LONGEST_VALUE:
            value = value[:LONGEST_VALUE] + "…"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"{field}: no such field; known: {', '.join(Scenario.model_fields)}")
        elif not field or item["type"] == "value_error":
            lines.append(f"{field}: {message}" if field else message)
        else:
            if item["type"] == "string_pattern_mismatch" and (info := Scenario.model_fields.get(field)):
                message = f"allowed: {(info.description or '').rstrip('.')}"
            lines.append(f"{field}: {value} is refused: {message}{allowed_range(field)}")
    return lines


def allowed_range(field: str) -> str:
    """` (allowed: 1 to 3,600,000 ms)` of a numeric scenario field, '' for others."""
    info = Scenario.model_fields.get(field)
    if info is None:
        return ""
    bounds = {type(m).__name__: m for m in info.metadata}
    low = bounds.get("Ge") or bounds.get("Gt")
    high = bounds.get("Le") or bounds.get("Lt")
    if low is None or high is None:
        return ""
    low_text = f"{low.ge:g}" if hasattr(low, "ge") else f"above {low.gt:g}"
    high_text = f"{high.le:,}" if hasattr(high, "le") else f"below {high.lt:,}"
    extra = info.json_schema_extra
    unit = f" {extra['unit']}" if isinstance(extra, dict) and "unit" in extra else ""
    return f" (allowed: {low_text} to {high_text}{unit})"


def _most(field: str) -> float:
    return next(float(m.le) for m in Scenario.model_fields[field].metadata if hasattr(m, "le"))


def _seconds(value: float) -> str:
    return f"{value:,.3f}".rstrip("0").rstrip(".")

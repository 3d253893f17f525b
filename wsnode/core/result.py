"""The machine-readable result: one schema for CLI, API, archive and pages, with upgrades of older ones.

A missing value is null with its reason in `nulls` (evidence: in its own row), never 0.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, field_validator, model_validator

from wsnode.core.histogram import Histogram, nearest_rank
from wsnode.core.protocol import Counters
from wsnode.core.scenario import Scenario
from wsnode.core.threshold import COUNTS, DELIVERIES, LATENCIES, RATES, RATIOS, STATISTICS

SCHEMA_VERSION = 2
"""`Result.schema_version`; a change of shape raises it and teaches `read_result` the old one."""
QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p999": 0.999}
SAMPLES_BEYOND = 10
"""A percentile is given only with at least this many samples beyond it."""
TOO_FEW = "too few samples"
NOTHING_DUE = "nothing was due"
NO_REPLY = "no reply is awaited"
NO_BROADCAST = "the behaviour is not 'broadcast'"
CLOSED = "closed pace"
NOT_JUDGED = frozenset({TOO_FEW, NOTHING_DUE, NO_REPLY, NO_BROADCAST, CLOSED})
"""Reasons of a null that say nothing of the server: a threshold on it is not judged. On any other it fails."""

State = Literal["finished", "failed", "cancelled", "lost"]
Verdict = Literal["passed", "failed", "none"]
Validity = Literal["valid", "suspect", "invalid"]
Better = Literal["lower", "higher"]


class Definition(NamedTuple):
    """What a figure of the result means: for tables, comparisons and docs."""

    title: str
    unit: str
    better: Better | None
    text: str


_OVER = "over the messages due in the measured window; unsent, lost and in-flight ones rank above every answered one"
DEFINITIONS: dict[str, Definition] = {
    "latency_s.response_time": Definition(
        "Response time", "s", "lower", f"From the moment a message's turn came to its reply, {_OVER}."
    ),
    "latency_s.service_time": Definition(
        "Service time", "s", "lower", "From handing a message to the kernel to its reply, over the sent ones."
    ),
    "latency_s.scheduler_lag": Definition(
        "Scheduler lag", "s", "lower", "From a message's due time to its turn: the load generator's own delay."
    ),
    "latency_s.write_wait": Definition(
        "Write wait", "s", "lower", "From a message's turn to handing it to the kernel: the server's or the network's."
    ),
    "latency_s.handshake": Definition(
        "Handshake", "s", "lower", "From the begin of a connect to the end of its handshake, over the whole run."
    ),
    "latency_s.one_way": Definition(
        "One-way delay",
        "s",
        "lower",
        "From the moment a broadcast message's turn came to its delivery to a client, over the deliveries that came in "
        "the measured window to clients on the publisher's own load generator, whose clock times both.",
    ),
    "rates.connect_per_s": Definition(
        "Connect rate", "1/s", "higher", "Connections opened per second, over the whole seconds of the ramp-up."
    ),
    "rates.offered_per_s": Definition(
        "Offered", "1/s", None, "Messages due per second of the measured window: what the scenario asked for."
    ),
    "rates.sent_per_s": Definition(
        "Sent", "1/s", "higher", "Messages due in the measured window and sent, per second."
    ),
    "rates.received_per_s": Definition(
        "Throughput", "1/s", "higher", "Messages due in the measured window and answered, per second."
    ),
    "broadcast.deliveries_per_s": Definition(
        "Deliveries", "1/s", "higher", "Deliveries of a broadcast that came in the measured window, per second."
    ),
    "error_ratio": Definition(
        "Error ratio", "ratio", "lower", "Messages lost, or unsent by the server's fault, of those due in the window."
    ),
    "connect_error_ratio": Definition(
        "Connect error ratio", "ratio", "lower", "Failed connects of those attempted, over the whole run."
    ),
    "broadcast.delivery_loss_ratio": Definition(
        "Delivery loss ratio",
        "ratio",
        "lower",
        "Lost deliveries of a broadcast of those expected, over the whole run and all clients that were in the room "
        "from before the message's turn until the reply timeout after it.",
    ),
    "counters.connections_peak": Definition(
        "Connections, peak", "connections", "higher", "Most connections open at the end of any second, over all hosts."
    ),
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Latency(_Part):
    """Seconds. `count`, `min`, `mean` and `max` are of what was answered; percentiles are over all `due`."""

    due: int
    count: int
    min: float | None
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    max: float | None


class Latencies(_Part):
    response_time: Latency
    service_time: Latency
    scheduler_lag: Latency
    write_wait: Latency
    handshake: Latency
    one_way: Latency | None = None


class MessageTimes(_Part):
    """Those of `Latencies` that a stretch of a run has of its own."""

    response_time: Latency
    service_time: Latency
    scheduler_lag: Latency
    write_wait: Latency


class RunCounters(Counters):
    """Whole run, all load generators."""

    connections_peak: int | None = None
    errors: dict[str, int] = {}
    unsent: dict[str, int] = {}
    kinds: dict[str, int] = {}
    """What clients of each kind did and met (`Second.kinds`), by `KIND.EVENT`; empty where all are normal."""


class Rates(_Part):
    """Per second; null where there was no time to count over."""

    connect_per_s: float | None
    offered_per_s: float | None
    sent_per_s: float | None
    received_per_s: float | None


class MessageRates(_Part):
    """Per second of a stretch."""

    offered_per_s: float | None
    sent_per_s: float | None
    received_per_s: float | None


class Broadcast(_Part):
    """Deliveries of the whole run: `expected = received + lost`. Out of order and late ones are part of `received`;
    `indeterminate` came around a join or a close, where nobody can say whether they had to."""

    expected: int
    received: int
    lost: int
    duplicate: int
    out_of_order: int
    late: int
    indeterminate: int
    deliveries_per_s: float | None
    """That came in the measured window."""
    delivery_loss_ratio: float | None
    """Lost of expected."""

    @property
    def adds_up(self) -> bool:
        """Whether its identity holds."""
        return self.expected == self.received + self.lost


class Window(_Part):
    """The measured window. Clock times are the conductor's; the seconds count from the run's origin."""

    start: AwareDatetime
    end: AwareDatetime
    from_s: int
    to_s: int

    @field_validator("start", "end")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(UTC)


class Held(_Part):
    """A hold of the scenario's stages, as far as it was carried out: what was due in it. Seconds from the origin."""

    from_s: int
    to_s: int
    clients: int
    messages_due: int
    rates: MessageRates
    error_ratio: float | None
    latency_s: MessageTimes


class Subject(_Part):
    """What was measured."""

    name: str
    version: str
    source: Literal["given", "probed", "own"]


class Judged(_Part):
    """A threshold and what became of it; `passed` is null where it could not be judged."""

    expr: str
    value: float | None
    passed: bool | None


class Aborted(_Part):
    """The rule of the scenario that ended the load early. `value` is of that second; null where too many of its
    messages were never answered."""

    expr: str
    second: int
    value: float | None


class Floor(_Part):
    """Response times (s) of a load worker against the least server that there can be, on the generator's own host: what
    it would tell of a server that takes no time."""

    p50: float
    p90: float | None
    p95: float | None
    p99: float
    rate_per_s: float
    """Of the one worker that was tried."""
    connections: int
    size_bytes: int
    samples: int
    measured_at: AwareDatetime


class Host(_Part):
    name: str
    role: Literal["server", "load_generator"]
    start_skew_s: float | None = None
    clock_offset_s: float | None = None
    clock_bound_s: float | None = None
    counters: RunCounters | None = None
    floor: Floor | None = None
    """Of a load generator; null with its reason in the result's `nulls`."""
    environment: dict[str, Any] = {}


class Evidence(_Part):
    """One figure of what a host did, from Prometheus."""

    name: str
    value: float | None
    unit: str
    no_data: str | None = None
    promql: str
    window_s: float
    step_s: float
    samples: int
    grafana_url: str | None = None

    @model_validator(mode="after")
    def _no_value_has_a_reason(self) -> Self:
        if (self.value is None) == (self.no_data is None):
            raise ValueError(f"evidence {self.name!r}: expected a value, or no value and the reason in no_data")
        return self


class Result(_Part):
    """A run, as everybody reads it."""

    schema_version: Literal[2] = 2
    run_id: str
    state: State
    verdict: Verdict
    validity: Validity
    reasons: list[str]
    """Why the validity is not `valid`, or the state not `finished`."""
    notes: list[str]
    subject: Subject | None
    scenario: Scenario
    window: Window | None
    counters: RunCounters
    broadcast: Broadcast | None = None
    rates: Rates
    error_ratio: float | None
    connect_error_ratio: float | None
    latency_s: Latencies
    stages: list[Held] = []
    """Each hold on its own; none where the scenario has no stages."""
    thresholds: list[Judged]
    aborted: Aborted | None = None
    hosts: list[Host]
    evidence: list[Evidence]
    nulls: dict[str, str]
    url: str | None = None


class UnknownSchema(ValueError):
    """A result of a schema version that this wsnode does not know."""


def read_result(data: object) -> Result:
    """Validate a result, upgrading older schema versions.

    Raises:
        UnknownSchema: it is newer than this wsnode, or names no version.
        pydantic.ValidationError: it is not of the schema it names.
    """
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise UnknownSchema(f"result schema_version {version!r}: this wsnode reads 1 to {SCHEMA_VERSION}")
    assert isinstance(data, dict)
    # Version 2 has only gained fields, each of which may be missing.
    return Result.model_validate(data | {"schema_version": SCHEMA_VERSION})


FLOORS = 3
"""A percentile below so many times the generator's own is more the generator's than the server's."""


def near_floor(result: Result) -> dict[str, float]:
    """The percentiles (`response_time.p50`, …) that are below `FLOORS` times the generators' own, with that floor (s):
    of several load generators the highest. Nothing where no floor is known."""
    floors = [host.floor for host in result.hosts if host.floor is not None]
    near = {}
    for name in ("response_time", "service_time"):
        for statistic in ("p50", "p90", "p95", "p99"):
            value = getattr(getattr(result.latency_s, name), statistic)
            own = max((x for floor in floors if (x := getattr(floor, statistic)) is not None), default=None)
            if value is not None and own is not None and value < FLOORS * own:
                near[f"{name}.{statistic}"] = own
    return near


def figures(result: Result) -> dict[str, float | None]:
    """The value of each metric that a threshold can name, in its base unit; null where the result has none."""
    values: dict[str, float | None] = {
        f"{name}.{statistic}": getattr(getattr(result.latency_s, name), statistic, None)
        for name in LATENCIES
        for statistic in STATISTICS
    }
    values |= {name: getattr(result, name) for name in RATIOS}
    values |= {name: getattr(result.rates, name) for name in RATES}
    values |= {name: getattr(result.broadcast, name, None) for name in DELIVERIES}
    return values | {name: getattr(result.counters, name) for name in COUNTS}


def latency(histogram: Histogram, due: int, missing: str = "unanswered") -> tuple[Latency, dict[str, str]]:
    """Figures (s) of a histogram (ns) of which `due` should have come; and why some are null.

    Nearest rank over all due: what never came ranks above all that did, and is said to be `missing`. A percentile needs
    `SAMPLES_BEYOND` samples beyond it; among what never came it needs that many of those.

    Raises:
        ValueError: more came than were due.
    """
    if histogram.count > due:
        raise ValueError(f"{histogram.count} recorded of {due} due")
    figures: dict[str, float | None] = {}
    nulls: dict[str, str] = {}
    for name, quantile in QUANTILES.items():
        rank = nearest_rank(quantile, due)
        value = None
        if due == 0:
            nulls[name] = NOTHING_DUE
        elif histogram.count < rank and due - histogram.count >= SAMPLES_BEYOND:
            nulls[name] = f"more than {round(100 * (1 - quantile), 4):g} % {missing}"
        elif due - rank < SAMPLES_BEYOND:
            nulls[name] = TOO_FEW
        else:
            value = histogram.value_at_rank(rank)
            if value is None:
                nulls[name] = "beyond the histogram's range"
        figures[name] = None if value is None else value / 1e9
    if histogram.count == 0:
        nulls |= dict.fromkeys(("min", "mean", "max"), f"all {due:,} {missing}" if due else NOTHING_DUE)
    mean = histogram.mean_ns
    return (
        Latency(
            due=due,
            count=histogram.count,
            min=None if histogram.min_ns is None else histogram.min_ns / 1e9,
            mean=None if mean is None else mean / 1e9,
            max=None if histogram.max_ns is None else histogram.max_ns / 1e9,
            **figures,
        ),
        nulls,
    )

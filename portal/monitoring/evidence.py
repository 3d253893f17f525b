"""What Prometheus saw of a run: the rows of its evidence, and how far Prometheus itself can be trusted over it.

Host series come from here and from nowhere else; what clients saw never does.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from portal.monitoring import queries
from portal.monitoring.links import Page, panel_link
from portal.monitoring.prometheus import Prometheus, PrometheusError, Series
from portal.monitoring.queries import QUERIES, STEP_S, Aggregation, Expression, Job, Query, selector
from portal.monitoring.samples import Samples, around, gain, quantile, rate, ratio, resets, total

MIN_SAMPLES = 4
NO_PROMETHEUS = "the lab has no Prometheus"
HOST_CHARS = 100
"""Of a row's host (`portal.runs.record.EvidenceRow`)."""


class Target(NamedTuple):
    """Something that Prometheus scrapes for this run."""

    job: Job
    host: str
    role: Literal["server", "load_generator"]

    def __str__(self) -> str:
        return f"{self.host} ({self.job})"


class Span(NamedTuple):
    """A stretch of time (s since the epoch, on the conductor's clock)."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """In seconds."""
        return self.end - self.start


class Kernel(NamedTuple):
    """On what a host runs, as it told; None: nobody knows, and then it shares nothing."""

    boot_id: str | None
    network: str | None
    """Its network namespace there."""


class Place(NamedTuple):
    """What a row is of."""

    hosts: list[str]
    """Those that are asked for."""
    sharers: tuple[str, ...] = ()
    """All hosts of the run whose figure it is, where they are several that share a kernel: then it is the machine's."""


class Row(NamedTuple):
    """One figure, or why there is none."""

    name: str
    host: str
    """That it is of; `machine of …` where several hosts share it."""
    value: float | None
    unit: str
    no_data: str | None
    promql: str
    window_s: float
    step_s: float
    samples: int
    """Of the series that has fewest."""
    grafana_url: str | None


class Seen(NamedTuple):
    """How Prometheus saw one target over the window."""

    target: Target
    expected: int
    failed: int
    missing: int


@dataclass
class Watched:
    """Everything that Prometheus has to say about a run."""

    rows: list[Row] = field(default_factory=list)
    series: list[tuple[str, list[Series]]] = field(default_factory=list)
    """Each row's selectors and the raw samples behind it."""
    seen: list[Seen] = field(default_factory=list)
    received: float | None = None
    """Messages that the server received over the whole run; None where no sample lies on both sides of it."""
    opened: float | None = None
    """Connections that the server opened over the whole run."""
    restarts: int = 0
    """Times that the server's counters began anew."""
    fault: str | None = None
    """Why Prometheus could not be asked."""


def watch(
    prometheus_url: str | None,
    targets: Sequence[Target],
    *,
    window: Span,
    whole: Span,
    page: Page | None = None,
    kernels: Mapping[str, Kernel] | None = None,
    patience_s: float = 4.0,
    outside: str | None = None,
    clock: Callable[[], float] = time.time,
) -> Watched:
    """Ask Prometheus about a run's window, and about the whole run where totals are compared.

    Waits up to `patience_s` for each target's first sample after the run. A Prometheus that is absent or out of order
    costs figures, never the run: every row then says why it is empty. `page` is where rows link to panels from.
    `kernels`, by host: what node_exporter counts of a whole kernel is asked for and kept once, as the machine's.
    `outside`: that what was measured is not the lab's own server, in words for the rows that would be of that one.
    """
    watched = Watched()
    asked = [(query, place) for query in QUERIES for place in _places(query, targets, kernels or {})]
    found: list[list[list[Series]]] = []
    if prometheus_url is None:
        watched.fault = NO_PROMETHEUS
    else:
        try:
            with Prometheus(prometheus_url) as prometheus:
                _await_samples(prometheus, targets, whole.end, patience_s, clock)
                for query, place in asked:
                    texts = query.what.selectors(place.hosts)
                    found.append([prometheus.series(text, *window) if place.hosts else [] for text in texts])
                    watched.series += zip(texts, found[-1], strict=True)
                watched.seen = [_seen(prometheus, target, window) for target in targets]
                _totals(prometheus, targets, whole, watched)
        except PrometheusError as error:
            watched = Watched(fault=str(error), seen=[_unseen(target, window) for target in targets])
    rows = Counter(query.name for query, _ in asked)
    for number, (query, place) in enumerate(asked):
        several = rows[query.name] > 1
        row = _row(query, place, found[number] if watched.fault is None else [], window, watched.fault, several)
        if outside is not None and watched.fault is None and query.what.job == "wsnode-server":
            row = row._replace(no_data=f"no data: {outside}")
        if page is not None:
            link = panel_link(page, query.dashboard, query.panel, place.hosts, whole.start, window.start, window.end)
            row = row._replace(grafana_url=link)
        watched.rows.append(row)
    return watched


def missing_targets(prometheus_url: str, targets: Sequence[Target], patience_s: float) -> list[str]:
    """Targets that Prometheus does not see as up, after waiting `patience_s` for them; a line each.

    Raises:
        PrometheusError: it does not answer.
    """
    deadline = time.monotonic() + patience_s
    with Prometheus(prometheus_url) as prometheus:
        while True:
            up = {
                (labels.get("job"), labels.get("host")): value
                for labels, value in prometheus.values(queries.UP, time.time())
            }
            down = [target for target in targets if up.get((target.job, target.host)) != 1]
            if not down or time.monotonic() >= deadline:
                return [
                    f"{target} is {'down' if (target.job, target.host) in up else 'not scraped yet'}" for target in down
                ]
            time.sleep(0.25)


def _places(query: Query, targets: Sequence[Target], kernels: Mapping[str, Kernel]) -> list[Place]:
    """What each row of a query is of; a query always gives a row, if only to say that nobody is asked."""
    hosts = [target.host for target in targets if target.job == query.what.job and query.role in (None, target.role)]
    if not query.per_host or not hosts:
        return [Place(hosts)]
    places: list[Place] = []
    told: set[str] = set()
    for host in hosts:
        if host not in told:
            sharers = _sharers(query, host, kernels)
            places.append(Place([host], sharers if len(sharers) > 1 else ()))
            told.update(sharers)
    return places


def _sharers(query: Query, host: str, kernels: Mapping[str, Kernel]) -> tuple[str, ...]:
    """The hosts, this one included, of which the kernel gives the same figure."""
    own = kernels.get(host, Kernel(None, None))
    if own.boot_id is None or (query.of == "network" and own.network is None):
        return (host,)
    if query.of == "machine":
        return tuple(name for name, kernel in kernels.items() if kernel.boot_id == own.boot_id)
    return tuple(name for name, kernel in kernels.items() if kernel == own)


def _await_samples(
    prometheus: Prometheus, targets: Sequence[Target], after: float, patience_s: float, clock: Callable[[], float]
) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        latest = {
            (labels.get("job"), labels.get("host")): value
            for labels, value in prometheus.values(f"timestamp({queries.UP})", clock())
        }
        late = [target for target in targets if latest.get((target.job, target.host), 0.0) < after]
        if not late or time.monotonic() >= deadline:
            return
        time.sleep(0.25)


def _expected(window: Span) -> int:
    return int(window.length / STEP_S)


def _seen(prometheus: Prometheus, target: Target, window: Span) -> Seen:
    series = prometheus.series(selector(queries.UP, target.job, [target.host]), window.start, window.end)
    values = [value for one in series for _, value in one.samples]
    failed = sum(value != 1 for value in values)
    return Seen(target, _expected(window), failed, max(0, _expected(window) - len(values)))


def _unseen(target: Target, window: Span) -> Seen:
    return Seen(target, _expected(window), 0, _expected(window))


def _totals(prometheus: Prometheus, targets: Sequence[Target], whole: Span, watched: Watched) -> None:
    servers = [target.host for target in targets if target.job == "wsnode-server"]
    if not servers:
        return
    # Room for the last sample before and the first one after; Prometheus looks no further than what it has.
    room = 10 * STEP_S

    def of(metric: str) -> list[Series]:
        text = selector(metric, "wsnode-server", servers)
        return prometheus.series(text, whole.start - room, whole.end + room)

    watched.received = _gained(of(queries.RECEIVED), whole)
    watched.opened = _gained(of(queries.OPENED), whole)
    lives = [around(series.samples, whole.start, whole.end) or series.samples for series in of(queries.STARTED)]
    watched.restarts = sum(resets(samples) for samples in lives)


def _gained(series: Sequence[Series], whole: Span) -> float | None:
    stretches = [around(one.samples, whole.start, whole.end) for one in series]
    known = [gain(stretch) for stretch in stretches if stretch is not None]
    return sum(known) if known and len(known) == len(stretches) else None


def _row(
    query: Query,
    place: Place,
    found: Sequence[Sequence[Series]],
    window: Span,
    fault: str | None,
    several: bool,
) -> Row:
    value: float | None = None
    hosts = place.hosts
    host, count = hosts[0] if len(hosts) == 1 else "", 0
    no_data = fault
    if no_data is None and not hosts:
        no_data = f"no {query.role or 'host'} of this lab is scraped as {query.what.job}".replace("_", " ")
    if no_data is None:
        count = min((min((len(one.samples) for one in series), default=0) for series in found), default=0)
        if count < MIN_SAMPLES:
            no_data = f"no data: {count} samples in {window.length:g} s"
        else:
            value, host = _figure(query.what, found, host)
            if not math.isfinite(value):
                value, no_data = None, _nothing(query.what)
    return Row(
        name=_name(query, place, several),
        host=_machine_of(place.sharers) if place.sharers else host,
        value=value,
        unit=query.unit,
        no_data=no_data,
        promql=query.what.over_window(hosts, window.length, window.end),
        window_s=window.length,
        step_s=STEP_S,
        samples=count,
        grafana_url=None,
    )


def _name(query: Query, place: Place, several: bool) -> str:
    if place.sharers:
        return f"{query.name} (machine of {place.hosts[0]})" if several else f"{query.name} (machine)"
    return f"{query.name} ({place.hosts[0]})" if several else query.name


def _machine_of(sharers: Sequence[str]) -> str:
    text = f"machine of {', '.join(sharers)}"
    return text if len(text) <= HOST_CHARS else f"machine of {sharers[0]} and {len(sharers) - 1} more"


def _nothing(what: Expression) -> str:
    if what.aggregation == "quantile":
        return "no data: nothing was timed in the window"
    return f"no data: {what.over or what.metric} was 0" if what.over else "no data: the samples are no numbers"


def _figure(what: Expression, found: Sequence[Sequence[Series]], host: str) -> tuple[float, str]:
    """The figure, and the host that it is of: where one series decides, that one's."""
    series = found[0]
    if what.aggregation == "sum of rates":
        return sum(rate(one.samples) for one in series), host
    if what.aggregation == "largest sum":
        return max(value for _, value in total(one.samples for one in series)), host
    if what.aggregation == "quantile":
        buckets: dict[float, float] = defaultdict(float)
        for one in series:
            buckets[float(one.labels["le"])] += rate(one.samples)
        return quantile(what.quantile, buckets.items()), host
    if what.over:
        series = _divided(series, found[1])
    figure = _RANKED[what.aggregation]
    ranked = sorted((figure(one.samples), one.labels.get("host", host)) for one in series if one.samples)
    return ranked[0 if what.aggregation == "smallest" else -1] if ranked else (math.nan, host)


def _divided(series: Sequence[Series], over: Sequence[Series]) -> list[Series]:
    """Each series by the one of the same labels."""
    by = {_identity(one): one.samples for one in over}
    return [Series(one.labels, tuple(ratio(one.samples, by.get(_identity(one), ())))) for one in series]


def _identity(series: Series) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in series.labels.items() if name != "__name__")


def _largest(samples: Samples) -> float:
    return max(value for _, value in samples)


def _smallest(samples: Samples) -> float:
    return min(value for _, value in samples)


def _mean(samples: Samples) -> float:
    return sum(value for _, value in samples) / len(samples)


def _last(samples: Samples) -> float:
    return samples[-1][1]


_RANKED: dict[Aggregation, Callable[[Samples], float]] = {
    "largest rate": rate,
    "largest": _largest,
    "largest mean": _mean,
    "largest last": _last,
    "smallest": _smallest,
}

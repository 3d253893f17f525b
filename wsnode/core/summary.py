"""What a run reached: counts, rates and latencies of its measured window and of the whole, from its hosts' words."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from wsnode.core import merge
from wsnode.core.broadcast import Deliveries
from wsnode.core.histogram import Histogram
from wsnode.core.protocol import GENERATOR_FAULTS, NOBODYS_FAULTS, HostResult, Second
from wsnode.core.result import (
    CLOSED,
    NO_REPLY,
    NOTHING_DUE,
    Broadcast,
    Held,
    Latencies,
    Latency,
    MessageRates,
    MessageTimes,
    Rates,
    RunCounters,
    latency,
)
from wsnode.core.scenario import Scenario
from wsnode.core.threshold import DELIVERIES

_MISSING = {"scheduler_lag": "without a turn", "write_wait": "not sent", "handshake": "not opened"}


class Series(Sequence[Second]):
    """Lines that can be read without their histograms, which are most of what a line takes."""

    @property
    @abstractmethod
    def bare(self) -> Sequence[Second]:
        """The same lines, their histograms empty."""


class HostRun(NamedTuple):
    """One load generator's part: its lines 1 … n and its result."""

    name: str
    series: Sequence[Second]
    result: HostResult

    @property
    def counted(self) -> Sequence[Second]:
        """The lines as far as counts and the machine go: nobody may look at their histograms."""
        return self.series.bare if isinstance(self.series, Series) else self.series

    @property
    def total(self) -> Second | None:
        """The whole load; of an interrupted one its last line; None where not even one line came."""
        return self.result.final or (self.series[-1] if self.series else None)


class Hold(NamedTuple):
    """What was due in a hold of the stages."""

    from_s: int
    to_s: int
    clients: int
    measured: Second


class Summary(NamedTuple):
    """Everything that is counted, merged over all hosts."""

    scenario: Scenario
    series: list[Second]
    """Merged cumulative lines, as far as all hosts have them. Without their histograms, which of a long run would take
    gigabytes."""
    total: Second
    """The whole run, drain included."""
    window: tuple[int, int] | None
    """Measured window (s from the origin, whole); None: ramp-up only."""
    measured: Second
    """What was due in the window; without a window, the whole run."""
    peak: int | None
    holds: tuple[Hold, ...] = ()
    """Of the scenario's stages, as far as all hosts have their seconds."""

    @property
    def window_s(self) -> float | None:
        """Length of the window (s)."""
        return None if self.window is None else self.window[1] - self.window[0]

    @property
    def server_fault_unsent(self) -> int:
        """Unsent messages of the window that are the server's fault, or the network's."""
        return sum(n for why, n in self.measured.unsent.items() if why not in GENERATOR_FAULTS | NOBODYS_FAULTS)

    @property
    def generator_fault_unsent(self) -> int:
        """Unsent messages of the window that are the generator's own."""
        return sum(n for why, n in self.measured.unsent.items() if why in GENERATOR_FAULTS)

    @property
    def error_ratio(self) -> float | None:
        """Lost or unsent by the server's fault, of those due in the window; None where none was due."""
        due = self.measured.counters.messages_due
        return (self.measured.counters.messages_lost + self.server_fault_unsent) / due if due else None

    @property
    def connect_error_ratio(self) -> float | None:
        """Failed connects of those attempted in the whole run; None where none was."""
        counters = self.total.counters
        return counters.connections_failed / counters.connections_attempted if counters.connections_attempted else None

    def broadcast(self) -> Broadcast | None:
        """The account of all deliveries; None where there are none to tell of, or not every load generator has told."""
        if self.scenario.behaviour != "broadcast" or self.total.rooms is None:
            return None
        counts, length = Deliveries.of(self.total.rooms), self.window_s
        return Broadcast(
            **counts._asdict(),
            deliveries_per_s=self.measured.counters.deliveries / length if length else None,
            delivery_loss_ratio=counts.lost / counts.expected if counts.expected else None,
        )

    def counters(self) -> RunCounters:
        """Whole run."""
        return run_counters(self.total, self.peak)

    def rates(self) -> Rates:
        """Of the measured window; the connect rate of the ramp-up's whole seconds, as far as they were counted."""
        counters, length = self.measured.counters, self.window_s
        ramp_s = min(math.floor(round(self.scenario.planned_ramp_s, 6)), len(self.series))
        return Rates(
            connect_per_s=self.series[ramp_s - 1].counters.connections_opened / ramp_s if ramp_s else None,
            offered_per_s=counters.messages_due / length if length and self.scenario.pace == "open" else None,
            sent_per_s=counters.messages_sent / length if length else None,
            received_per_s=counters.messages_received / length if length else None,
        )

    def recorded(self) -> dict[str, tuple[Histogram, int]]:
        """Of each latency what was recorded, and how many should have been."""
        window, total = self.measured, self.total
        due, sent, no_reply = (getattr(window.counters, f"messages_{name}") for name in ("due", "sent", "no_reply"))
        aside = sum(n for why, n in window.unsent.items() if why in NOBODYS_FAULTS)
        replies = self.scenario.awaits_replies
        dues = {
            "response_time": due - no_reply - aside if replies else 0,
            "service_time": sent - no_reply if replies else 0,
            "scheduler_lag": due,
            "write_wait": due - self.generator_fault_unsent - aside,
        }
        if self.scenario.behaviour == "broadcast":
            dues["one_way"] = window.histogram("one_way").count
        if self.scenario.pace == "closed":  # nothing of it is due before it is sent
            dues["response_time"] = dues["scheduler_lag"] = 0
        recorded = {name: (window.histogram(name), n) for name, n in dues.items()}
        return recorded | {"handshake": (total.histogram("handshake"), total.counters.connections_attempted)}

    def latencies(self) -> tuple[Latencies, dict[str, str]]:
        """Figures, and why some are null (keys `latency_s.response_time.p99`)."""
        figures: dict[str, Latency] = {}
        nulls: dict[str, str] = {}
        for name, (histogram, due) in self.recorded().items():
            # More recorded than due is a broken account: judge.py's to tell, and no reason to have no figures at all.
            figures[name], why = latency(histogram, max(due, histogram.count), _MISSING.get(name, "unanswered"))
            if not self.scenario.awaits_replies and name in ("response_time", "service_time"):
                why = dict.fromkeys(why, NO_REPLY)
            if self.scenario.pace == "closed" and name in ("response_time", "scheduler_lag"):
                why = dict.fromkeys(why, CLOSED)
            nulls |= {f"latency_s.{name}.{statistic}": reason for statistic, reason in why.items()}
        return Latencies(**figures), nulls

    def stages(self) -> tuple[list[Held], dict[str, str]]:
        """Each hold on its own, judged as the measured window is; and why figures are null (keys
        `stages.0.latency_s.response_time.p99`)."""
        found: list[Held] = []
        nulls: dict[str, str] = {}
        for place, hold in enumerate(self.holds):
            alone = self._replace(window=(hold.from_s, hold.to_s), measured=hold.measured, holds=())
            times, why = alone.latencies()
            rates = alone.rates()
            held = Held(
                from_s=hold.from_s,
                to_s=hold.to_s,
                clients=hold.clients,
                messages_due=hold.measured.counters.messages_due,
                rates=MessageRates(**{name: getattr(rates, name) for name in MessageRates.model_fields}),
                error_ratio=alone.error_ratio,
                latency_s=MessageTimes(**{name: getattr(times, name) for name in MessageTimes.model_fields}),
            )
            why |= alone.nulls()
            found.append(held)
            nulls |= {f"stages.{place}.{key}": text for key, text in why.items() if _has(held, key)}
        return found, nulls

    def nulls(self) -> dict[str, str]:
        """Why figures beside the latencies are null."""
        rates = self.rates()
        nulls = {f"rates.{name}": "no measured window" for name, rate in rates if rate is None}
        if self.scenario.behaviour == "broadcast":
            nulls |= self._broadcast_nulls()
        if self.scenario.pace == "closed":
            nulls["rates.offered_per_s"] = CLOSED
        if rates.connect_per_s is None:
            nulls["rates.connect_per_s"] = (
                "the ramp-up is shorter than a second" if self.series else "no whole second was counted"
            )
        if self.peak is None:
            nulls["counters.connections_peak"] = "no whole second was counted"
        if self.error_ratio is None:
            nulls["error_ratio"] = "no messages were due"
        if self.connect_error_ratio is None:
            nulls["connect_error_ratio"] = "no connect was attempted"
        return nulls

    def _broadcast_nulls(self) -> dict[str, str]:
        broadcast = self.broadcast()
        if broadcast is None:
            why = "a load generator was lost, and only all together know what was published"
            return dict.fromkeys(("broadcast", *(f"broadcast.{name}" for name in DELIVERIES)), why)
        nulls = {}
        if broadcast.delivery_loss_ratio is None:
            nulls["broadcast.delivery_loss_ratio"] = NOTHING_DUE
        if broadcast.deliveries_per_s is None:
            nulls["broadcast.deliveries_per_s"] = "no measured window"
        return nulls


def _has(held: Held, key: str) -> bool:
    """Whether a hold has the figure of this key."""
    part: object = held
    for name in key.split("."):
        if not hasattr(part, name):
            return False
        part = getattr(part, name)
    return True


def run_counters(total: Second, peak: int | None) -> RunCounters:
    """A whole load's counters in the result's form."""
    return RunCounters(
        **total.counters.model_dump(),
        connections_peak=peak,
        errors={str(kind): n for kind, n in total.errors.items()},
        unsent={str(why): n for why, n in total.unsent.items()},
        kinds=dict(total.kinds),
    )


def summarise(scenario: Scenario, hosts: Sequence[HostRun]) -> Summary | None:
    """Merge the hosts of a run. O(hosts × seconds × non-empty buckets).

    None where no host has counted anything; a host that has counted nothing is left out. A load that was stopped or
    cut short has its window end at the last second that all hosts have; with less than one second of window left it
    has none.
    """
    counting = [(host, total) for host in hosts if (total := host.total) is not None]
    if not counting:
        return None
    last = max(total.second for _, total in counting)
    total = merge.merge(total.model_copy(update={"second": last}) for _, total in counting)
    common = min(len(host.series) for host, _ in counting)
    bare = [host.counted for host, _ in counting]

    def merged(second: int) -> Second:
        return merge.merge(host.series[second] for host, _ in counting)

    series = [
        merge.merge(lines[second].model_copy(update={"histograms": {}}) for lines in bare) for second in range(common)
    ]
    opens, closes = scenario.window_open_s, min(scenario.duration_s, common)
    window = (opens, closes) if closes > opens else None
    measured = total
    if window is not None:
        measured = merge.since(merged(closes - 1), merged(opens - 1))
    peak = max((line.counters.connections_open for line in series), default=None)
    holds = tuple(
        Hold(begin, end, clients, merge.since(merged(end - 1), merged(begin - 1)))
        for begin, end, clients in scenario.holds_until(common)
    )
    return Summary(scenario, series, total, window, measured, peak, holds)

"""What a run reached: counts, rates and latencies of its measured window and of the whole, from its hosts' words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wsnode.core import merge
from wsnode.core.protocol import GENERATOR_FAULTS, HostResult, Second
from wsnode.core.result import Latencies, Latency, Rates, RunCounters, latency
from wsnode.core.scenario import Scenario


class HostRun(NamedTuple):
    """One load generator's part: its lines 1 … n and its result."""

    name: str
    series: Sequence[Second]
    result: HostResult

    @property
    def total(self) -> Second | None:
        """The whole load; of an interrupted one its last line; None where not even one line came."""
        return self.result.final or (self.series[-1] if self.series else None)


class Summary(NamedTuple):
    """Everything that is counted, merged over all hosts."""

    scenario: Scenario
    series: list[Second]
    """Merged cumulative lines, as far as all hosts have them."""
    total: Second
    """The whole run, drain included."""
    window: tuple[int, int] | None
    """Measured window (s from the origin, whole); None: ramp-up only."""
    measured: Second
    """What was due in the window; without a window, the whole run."""
    peak: int | None

    @property
    def window_s(self) -> float | None:
        """Length of the window (s)."""
        return None if self.window is None else self.window[1] - self.window[0]

    @property
    def server_fault_unsent(self) -> int:
        """Unsent messages of the window that are the server's fault, or the network's."""
        return sum(n for why, n in self.measured.unsent.items() if why not in GENERATOR_FAULTS)

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

    def counters(self) -> RunCounters:
        """Whole run."""
        return run_counters(self.total, self.peak)

    def rates(self) -> Rates:
        """Of the measured window; the connect rate until it opened."""
        counters, length = self.measured.counters, self.window_s
        opened_by, ramp_s = None, self.scenario.planned_ramp_s
        if self.window is not None and self.window[0] >= 1 and ramp_s:
            opened_by = self.series[self.window[0] - 1].counters.connections_opened
        return Rates(
            connect_per_s=None if opened_by is None else opened_by / ramp_s,
            offered_per_s=counters.messages_due / length if length else None,
            sent_per_s=counters.messages_sent / length if length else None,
            received_per_s=counters.messages_received / length if length else None,
        )

    def latencies(self) -> tuple[Latencies, dict[str, str]]:
        """Figures, and why some are null (keys `latency_s.response_time.p99`)."""
        window, total = self.measured, self.total
        awaited = window.counters.messages_due - window.counters.messages_no_reply
        dues = {
            "response_time": (window, awaited),
            "service_time": (window, window.counters.messages_sent - window.counters.messages_no_reply),
            "scheduler_lag": (window, window.counters.messages_due),
            "write_wait": (window, window.counters.messages_due - self.generator_fault_unsent),
            "handshake": (total, total.counters.connections_attempted),
        }
        figures: dict[str, Latency] = {}
        nulls: dict[str, str] = {}
        for name, (of, due) in dues.items():
            figures[name], why = latency(of.histogram(name), due)
            nulls |= {f"latency_s.{name}.{statistic}": reason for statistic, reason in why.items()}
        return Latencies(**figures), nulls


def run_counters(total: Second, peak: int | None) -> RunCounters:
    """A whole load's counters in the result's form."""
    return RunCounters(
        **total.counters.model_dump(),
        connections_peak=peak,
        errors={str(kind): n for kind, n in total.errors.items()},
        unsent={str(why): n for why, n in total.unsent.items()},
    )


def summarise(scenario: Scenario, hosts: Sequence[HostRun]) -> Summary | None:
    """Merge the hosts of a run. O(hosts × seconds × non-empty buckets).

    None where no host has counted anything. A load that was stopped or cut short has its window end at the last
    second that all hosts have; with less than one second of window left it has none.
    """
    totals = [host.total for host in hosts]
    if not totals or any(total is None for total in totals):
        return None
    last = max(total.second for total in totals if total is not None)
    total = merge.merge([t.model_copy(update={"second": last}) for t in totals if t is not None])
    common = min(len(host.series) for host in hosts)
    series = [merge.merge([host.series[second] for host in hosts]) for second in range(common)]
    opens, closes = scenario.window_open_s, min(scenario.duration_s, common)
    window = (opens, closes) if closes > opens else None
    measured = total
    if window is not None:
        measured = merge.since(series[closes - 1], series[opens - 1] if opens else None)
    peak = max((line.counters.connections_open for line in series), default=None)
    return Summary(scenario, series, total, window, measured, peak)

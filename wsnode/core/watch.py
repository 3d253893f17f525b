"""Watching a load for what its rules forbid, second by second.

A rule is looked at on merged lines of all load generators, so that it says the same of a run whoever follows it: a
conductor that takes over finds the same second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wsnode.core.abort import AbortRule
from wsnode.core.histogram import Histogram, nearest_rank
from wsnode.core.merge import since
from wsnode.core.protocol import GENERATOR_FAULTS, LONGEST_REASON, Second
from wsnode.core.result import QUANTILES, Aborted
from wsnode.core.threshold import LATENCIES

BY_RULE = "abort_on "
"""What such a reason begins with."""


def told(aborted: Aborted) -> str:
    """What the load generators are told, and tell, as the reason of their end."""
    return f"{BY_RULE}{aborted.expr}: it was so at second {aborted.second}"[:LONGEST_REASON]


class AbortWatch:
    """Looks at each merged second once, in order. O(1) a rule and second, and of the histograms that are asked for
    their buckets: what merging them took before."""

    def __init__(self, rules: Sequence[str]) -> None:
        self._rules = [AbortRule.parse(text) for text in rules]
        self._bad_s = [0] * len(self._rules)
        self._names = frozenset(rule.threshold.metric.partition(".")[0] for rule in self._rules)
        self._before: Second | None = None
        self.aborted: Aborted | None = None
        """The first rule that came true; it stays so."""

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return bool(self._rules)

    def look(self, second: Second) -> Aborted | None:
        """The next cumulative second. Returns the abort once, at the second that brings it."""
        if self.aborted is not None or not self._rules:
            return None
        # Only the histograms that a rule names are needed, and they are most of the work.
        kept = {name: histogram for name, histogram in second.histograms.items() if name in self._names}
        bare = second.model_copy(update={"histograms": kept})
        gained, self._before = since(bare, self._before), bare
        for place, rule in enumerate(self._rules):
            value = reached(rule.threshold.metric, gained)
            bad = second.second > rule.after_s and value is not None and rule.threshold.holds(value)
            self._bad_s[place] = self._bad_s[place] + 1 if bad else 0
            if self._bad_s[place] >= rule.for_s and value is not None:
                self.aborted = Aborted(
                    expr=rule.text, second=second.second, value=value if math.isfinite(value) else None
                )
                return self.aborted
        return None


def reached(metric: str, gained: Second) -> float | None:
    """A metric of one second (s, a share, per second, a count); None where nothing of the kind happened in it.

    A percentile is the nearest rank over all that were due, also of few; infinite where its rank was never answered.
    """
    counters = gained.counters
    name, _, statistic = metric.partition(".")
    if name in LATENCIES:
        due = {
            "response_time": counters.messages_due - counters.messages_no_reply,
            "service_time": counters.messages_sent - counters.messages_no_reply,
            "scheduler_lag": counters.messages_due,
            "write_wait": counters.messages_due - sum(n for why, n in gained.unsent.items() if why in GENERATOR_FAULTS),
            "handshake": counters.connections_opened + counters.connections_failed,
            "one_way": gained.histogram("one_way").count,
        }[name]
        return _statistic(gained.histogram(name), due, statistic)
    if name == "error_ratio":
        unsent = sum(n for why, n in gained.unsent.items() if why not in GENERATOR_FAULTS)
        return (counters.messages_lost + unsent) / counters.messages_due if counters.messages_due else None
    if name == "connect_error_ratio":
        # Of those that came to an end in this second: they were attempted in an earlier one.
        ended = counters.connections_opened + counters.connections_failed
        return counters.connections_failed / ended if ended else None
    return float(
        {
            "connect_per_s": counters.connections_opened,
            "offered_per_s": counters.messages_due,
            "sent_per_s": counters.messages_sent,
            "received_per_s": counters.messages_received,
            "deliveries_per_s": counters.deliveries,
            "connections_peak": counters.connections_open,
        }[name]
    )


def _statistic(histogram: Histogram, due: int, statistic: str) -> float | None:
    if due <= 0:
        return None
    if statistic in QUANTILES:
        value = histogram.value_at_rank(nearest_rank(QUANTILES[statistic], due))
        return math.inf if value is None else value / 1e9
    if not histogram.count:
        return math.inf
    found = {"min": histogram.min_ns, "mean": histogram.mean_ns, "max": histogram.max_ns}[statistic]
    return None if found is None else found / 1e9

"""A run cut into its phases: a message belongs to the one in which it was due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wsnode.core.merge import since
from wsnode.core.protocol import Second
from wsnode.core.result import Latency, latency
from wsnode.core.scenario import Scenario


class Phase(NamedTuple):
    """What was due in one stretch of the run (s from the origin), and what became of it."""

    name: str
    from_s: int
    to_s: int | None
    """None: until the last reply was in or lost."""
    stretch: Second
    response_time: Latency
    nulls: dict[str, str]


def phases(scenario: Scenario, lines: Sequence[Second], total: Second, window: tuple[int, int] | None) -> list[Phase]:
    """Ramp-up (warm-up included), measured window, and what came after it; without a window only the last two."""
    cuts = [("Ramp-up", window[0]), ("Measured window", window[1])] if window else [("Ramp-up", len(lines))]
    if scenario.warm_up_s and window:
        cuts.insert(1, ("Warm-up", window[0]))
        cuts[0] = ("Ramp-up", min(window[0], round(scenario.planned_ramp_s)))
    found, begin, before = [], 0, None
    for name, end in cuts:
        if end > begin:
            line = lines[end - 1]
            found.append(_phase(name, begin, end, since(line, before)))
            begin, before = end, line
    found.append(_phase("Drain", begin, None, since(total, before)))
    return found


def _phase(name: str, begin: int, end: int | None, stretch: Second) -> Phase:
    awaited = stretch.counters.messages_due - stretch.counters.messages_no_reply
    times, nulls = latency(stretch.histogram("response_time"), awaited)
    if awaited == 0:
        nulls = dict.fromkeys(nulls, "no message was due")
    return Phase(name, begin, end, stretch, times, nulls)

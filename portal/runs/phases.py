"""A run cut into its phases: a message belongs to the one in which it was due."""

from __future__ import annotations

from collections.abc import Callable
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


def phases(
    scenario: Scenario,
    stretch: Callable[[int, int], Second],
    seconds: int,
    total: Second,
    window: tuple[int, int] | None,
) -> list[Phase]:
    """Ramp-up, warm-up if there is one, measured window, and what came after it; without a window ramp-up and the rest.

    `stretch(a, b)` is what the seconds a + 1 to b added, of the `seconds` that are known; `total` the whole load.
    """
    if window is None:
        cuts = [("Ramp-up", seconds)]
    else:
        connected = min(window[0], round(scenario.planned_ramp_s)) if scenario.warm_up_s else window[0]
        cuts = [("Ramp-up", connected), ("Warm-up", window[0]), ("Measured window", window[1])]
    found, begin = [], 0
    for name, end in cuts:
        if begin < end <= seconds:
            found.append(_phase(name, begin, end, stretch(begin, end)))
            begin = end
    found.append(_phase("Drain", begin, None, since(total, stretch(0, begin) if begin else None)))
    return found


def _phase(name: str, begin: int, end: int | None, stretch: Second) -> Phase:
    awaited = stretch.counters.messages_due - stretch.counters.messages_no_reply
    times, nulls = latency(stretch.histogram("response_time"), awaited)
    if awaited == 0:
        nulls = dict.fromkeys(nulls, "no message was due")
    return Phase(name, begin, end, stretch, times, nulls)

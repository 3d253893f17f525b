"""A run cut into its phases: a message belongs to the one in which it was due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from portal.runs.deltas import Line, add_up
from portal.runs.series import RESPONSE_TIME
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
    scenario: Scenario, seconds: Sequence[Line], total: Second | None, window: tuple[int, int] | None
) -> list[Phase]:
    """Ramp-up, warm-up if there is one, measured window, and what came after it; without a window ramp-up and the rest.

    `seconds` as archived (`portal.runs.deltas`); `total` is the whole load, None where nobody could tell it.
    """
    if window is None:
        cuts = [("Ramp-up", len(seconds))]
    else:
        connected = min(window[0], round(scenario.planned_ramp_s)) if scenario.warm_up_s else window[0]
        cuts = [("Ramp-up", connected), ("Warm-up", window[0]), ("Measured window", window[1])]
    found, stretches, begin = [], [], 0
    for name, end in cuts:
        if begin < end <= len(seconds):
            stretches.append(add_up(seconds[begin:end], RESPONSE_TIME))
            found.append(_phase(name, begin, end, Second.model_validate(stretches[-1])))
            begin = end
    if total is not None:
        before = Second.model_validate(add_up(stretches, RESPONSE_TIME)) if stretches else None
        found.append(_phase("Drain", begin, None, since(total, before)))
    return found


def _phase(name: str, begin: int, end: int | None, stretch: Second) -> Phase:
    awaited = stretch.counters.messages_due - stretch.counters.messages_no_reply
    times, nulls = latency(stretch.histogram("response_time"), awaited)
    return Phase(name, begin, end, stretch, times, nulls)

"""A run cut into its phases: a message belongs to the one in which it was due."""

from __future__ import annotations

from typing import Any, NamedTuple

from portal.runs.columns import Columns
from wsnode.core.merge import since
from wsnode.core.protocol import Second
from wsnode.core.result import Latency, latency
from wsnode.core.scenario import Scenario

RESPONSE_TIME = ("response_time",)


class Phase(NamedTuple):
    """What was due in one stretch of the run (s from the origin), and what became of it."""

    name: str
    from_s: int
    to_s: int | None
    """None: until the last reply was in or lost."""
    stretch: Second
    """Without its histograms."""
    response_time: Latency
    nulls: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As a digest keeps it."""
        return {
            **self._asdict(),
            "stretch": self.stretch.model_dump(mode="json"),
            "response_time": self.response_time.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Phase:
        """`to_json`'s form."""
        stretch, times = Second.model_validate(data["stretch"]), Latency.model_validate(data["response_time"])
        return cls(**{**data, "stretch": stretch, "response_time": times})


def phases(scenario: Scenario, columns: Columns, total: Second | None, window: tuple[int, int] | None) -> list[Phase]:
    """Ramp-up, warm-up if there is one, measured window, and what came after it; without a window ramp-up and the rest.

    `total` is the whole load, None where nobody could tell it.
    """
    if window is None:
        cuts = [("Ramp-up", columns.last)]
    else:
        connected = min(window[0], round(scenario.planned_ramp_s)) if scenario.warm_up_s else window[0]
        cuts = [("Ramp-up", connected), ("Warm-up", window[0]), ("Measured window", window[1])]
    found, begin = [], 0
    for name, end in cuts:
        if begin < end <= columns.last:
            found.append(_phase(name, begin, end, Second.model_validate(columns.stretch(begin, end, RESPONSE_TIME))))
            begin = end
    if total is not None:
        before = Second.model_validate(columns.stretch(0, begin, RESPONSE_TIME)) if begin else None
        found.append(_phase("Drain", begin, None, since(total, before)))
    return found


def _phase(name: str, begin: int, end: int | None, stretch: Second) -> Phase:
    awaited = stretch.counters.messages_due - stretch.counters.messages_no_reply
    times, nulls = latency(stretch.histogram("response_time"), awaited)
    return Phase(name, begin, end, stretch.model_copy(update={"histograms": {}}), times, nulls)

"""How far a run is, in stages and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from portal.runs.figures import span
from portal.runs.models import Run, RunEvent
from portal.runs.series import of_line
from portal.runs.states import ACTIVE, State
from wsnode.core.histogram import nearest_rank
from wsnode.core.protocol import Live, Second
from wsnode.core.scenario import Scenario


class Stage(NamedTuple):
    """A stage, and whether the run has it behind it, is in it, or has it before it."""

    name: str
    when: Literal["past", "now", "next"]
    at: datetime | None


class Progress(NamedTuple):
    """How far a run is."""

    stages: list[Stage]
    elapsed_s: float | None
    """Since the origin; None before it."""
    total_s: int
    """Load and drain."""
    phase: str
    """What is going on in the load, in words; '' where none is."""

    @property
    def remaining_s(self) -> float | None:
        """Until the drain is over at the latest."""
        return None if self.elapsed_s is None else max(0.0, self.total_s - self.elapsed_s)


def progress(run: Run, now: datetime) -> Progress:
    """How far `run` is at `now`."""
    scenario = run.scenario_model
    elapsed_s = None
    if run.start_at_ns is not None:
        elapsed_s = min(max(0.0, now.timestamp() - run.start_at_ns / 1e9), scenario.duration_s + scenario.drain_s)
    here = ACTIVE.index(State(run.state)) if run.is_active else -1
    stages = [
        Stage(
            stage.value,
            "past" if i < here else "now" if i == here else "next",
            getattr(run, f"{stage.value}_at") if i <= here else None,
        )
        for i, stage in enumerate(ACTIVE)
    ]
    phase = _phase(scenario, elapsed_s) if run.state == State.RUNNING and elapsed_s is not None else ""
    return Progress(stages, elapsed_s, scenario.duration_s + scenario.drain_s, phase)


def _phase(scenario: Scenario, elapsed_s: float) -> str:
    opens, closes = scenario.window_open_s, scenario.duration_s
    if elapsed_s < min(scenario.planned_ramp_s, closes):
        return f"Ramp-up, {span(min(scenario.planned_ramp_s, closes) - elapsed_s)} to go"
    if scenario.window_s >= 1 and elapsed_s < opens:
        return f"Warm-up, the window opens in {span(opens - elapsed_s)}"
    if elapsed_s < closes:
        return f"Measured window, closes in {span(closes - elapsed_s)}"
    return "Drain: awaiting the last replies"


class Kind(NamedTuple):
    """How often something went wrong: so far, and in the last settled second."""

    name: str
    n: int
    lately: int


class Now(NamedTuple):
    """What the load does at the moment."""

    live: Live | None
    """The latest live line: counts by arrival."""
    second: int | None
    """The latest settled second; the rates are of it."""
    offered_per_s: float | None
    answered_per_s: float | None
    lag_p99_s: float | None
    """Scheduler lag of what was due in it."""
    errors: list[Kind]


def at_present(live: Live | None, lines: Sequence[Second]) -> Now:
    """From the live line and the last two settled seconds, the older first."""
    if not lines:
        return Now(live, None, None, None, None, [])
    last = lines[-1]
    before = lines[-2] if len(lines) > 1 else None
    point = of_line(last, before)
    due = point.counters["messages_due"]
    lag = point.times["scheduler_lag"].value_at_rank(nearest_rank(0.99, due)) if due else None
    errors = [Kind("messages lost", last.counters.messages_lost, point.counters["messages_lost"])]
    errors += [Kind(kind.replace("_", " "), n, point.errors.get(kind, 0)) for kind, n in last.errors.items()]
    errors += [Kind(f"unsent, {why.replace('_', ' ')}", n, point.unsent.get(why, 0)) for why, n in last.unsent.items()]
    return Now(
        live,
        last.second,
        due / point.length_s,
        point.counters["messages_received"] / point.length_s,
        None if lag is None else lag / 1e9,
        [kind for kind in errors if kind.n],
    )


class Word(NamedTuple):
    """What a load generator has said since somebody asked for the run's end."""

    host: str
    at: datetime | None
    """None: it has not said that its load is over."""
    text: str


def words(run: Run, events: Sequence[RunEvent]) -> list[Word]:
    """Each load generator's word on the end of its load."""
    said = {event.confirms: event for event in events if event.confirms}
    found = []
    for host in run.generators:
        event = said.get(host)
        if event is not None:
            found.append(Word(host, event.at, event.text.removeprefix(f"{host}: ")))
        else:
            found.append(Word(host, None, "no word yet" if not run.is_over else "nothing was running there"))
    return found

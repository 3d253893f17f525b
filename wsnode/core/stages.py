"""Stages: how many clients are connected over time, as text (`up to 1000 in 30s`) and as values.

Who comes last leaves first: client i is connected whenever more than i clients are to be. So those connected are
always the clients 0 … n − 1, whose phases are spread evenly whatever n is (`pacing.spread_step`), and a climb, a fall
and a second climb need no memory of who was there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

NS = 1_000_000_000
STEP_S = 1
"""A step's clients come, or go, evenly over this time: so it has a rate, and what follows begins at a whole second."""
MOST_CLIENTS = 1_000_000
LONGEST_S = 604_800
FASTEST_PER_S = 100_000
GRAMMAR = "'up to N in Ds', 'hold Ds', 'step to N' or 'down to N in Ds', D in whole s, m or h"

_LINE = re.compile(r"\s*(?:(up|down)\s+to\s+(\d+)\s+in\s+(\d+)([smh])|(hold)\s+(\d+)([smh])|(step)\s+to\s+(\d+))\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Stage(NamedTuple):
    """One stretch in which the number of connected clients rises, falls or stays. Whole seconds from the origin."""

    begin_s: int
    end_s: int
    before: int
    """Clients connected at its begin."""
    clients: int
    """Clients connected at its end."""
    text: str

    @property
    def is_hold(self) -> bool:
        """Whether the number stays."""
        return self.before == self.clients

    @property
    def per_s(self) -> float:
        """Clients that come or go in a second."""
        return abs(self.clients - self.before) / (self.end_s - self.begin_s)

    @property
    def span_ns(self) -> int:
        """Its length (ns)."""
        return (self.end_s - self.begin_s) * NS

    def comes(self, client: int) -> int | None:
        """When a client's connect is due (ns from the origin); None where this stage does not bring it."""
        if not self.before <= client < self.clients:
            return None
        return self.begin_s * NS + (client - self.before) * self.span_ns // (self.clients - self.before)

    def leaves(self, client: int) -> int | None:
        """From when on nothing of a client is due (ns from the origin); None where this stage does not take it away."""
        if not self.clients <= client < self.before:
            return None
        return self.begin_s * NS + (self.before - 1 - client) * self.span_ns // (self.before - self.clients)

    def come_before(self, moment_ns: int) -> int:
        """How many connects of this stage are due before a moment."""
        more = self.clients - self.before
        if more <= 0:
            return 0
        return min(more, max(0, -(-more * (moment_ns - self.begin_s * NS) // self.span_ns)))


def parse_stages(lines: Iterable[str]) -> tuple[Stage, ...]:
    """Read stages, one a line.

    Raises:
        ValueError: names the line, what stands there and what is wanted.
    """
    stages: list[Stage] = []
    now_s = clients = 0
    for number, text in enumerate(lines, 1):
        where = f"stage {number}, {text!r}"
        match = _LINE.fullmatch(text)
        if match is None:
            raise ValueError(f"{where}: expected {GRAMMAR}")
        way, wanted, climb, climb_unit, hold, still, still_unit, step, stepped = match.groups()
        if hold:
            target, length_s, said = clients, int(still) * _SECONDS[still_unit], f"hold {int(still)}{still_unit}"
        elif step:
            target, length_s, said = int(stepped), STEP_S, f"step to {int(stepped)}"
        else:
            target, length_s = int(wanted), int(climb) * _SECONDS[climb_unit]
            said = f"{way} to {target} in {int(climb)}{climb_unit}"
        stage = Stage(now_s, now_s + length_s, clients, target, said)
        _check(stage, where, way or hold or step)
        stages.append(stage)
        now_s, clients = stage.end_s, target
    return tuple(stages)


def _check(stage: Stage, where: str, kind: str) -> None:
    if stage.begin_s == 0 and kind not in ("up", "step"):
        raise ValueError(f"{where}: nobody is connected yet, so the first stage is 'up to N in Ds' or 'step to N'")
    if stage.end_s == stage.begin_s:
        raise ValueError(f"{where}: it takes no time; expected 1s or more ('step to N' takes {STEP_S} s)")
    if stage.end_s > LONGEST_S:
        raise ValueError(f"{where}: it ends after {stage.end_s:,} s; all stages may take {LONGEST_S:,} s")
    if stage.clients > MOST_CLIENTS:
        raise ValueError(f"{where}: {stage.clients:,} clients; at most {MOST_CLIENTS:,}")
    if kind == "up" and stage.clients <= stage.before:
        raise ValueError(f"{where}: {stage.before:,} are connected by then; expected more, or 'down to'")
    if kind == "down" and stage.clients >= stage.before:
        raise ValueError(f"{where}: {stage.before:,} are connected by then; expected fewer, or 'up to'")
    if kind == "step" and stage.clients == stage.before:
        raise ValueError(f"{where}: {stage.before:,} are connected by then; expected another number, or 'hold Ds'")
    if stage.per_s > FASTEST_PER_S:
        raise ValueError(f"{where}: {stage.per_s:,.0f} clients a second; at most {FASTEST_PER_S:,}")


def climb_s(stages: tuple[Stage, ...]) -> int:
    """When the first climb is over: before the first hold or fall."""
    end_s = 0
    for stage in stages:
        if stage.clients <= stage.before:
            break
        end_s = stage.end_s
    return end_s


def highest(stages: tuple[Stage, ...]) -> int:
    """Most clients connected at a time."""
    return max(stage.clients for stage in stages)


def steepest_per_s(stages: tuple[Stage, ...]) -> float:
    """Most connects due in a second."""
    return max(stage.per_s for stage in stages if stage.clients > stage.before)

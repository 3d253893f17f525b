"""Where a run hurt: its worst seconds, in sentences, each with the stretch to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from portal.runs.charts import BY_KEY, lines
from portal.runs.figures import count, latency, number, ratio
from portal.runs.series import Table

AROUND_S = 2
"""Seconds shown before and after a worst one."""
STANDS_OUT = 2.0
"""A worst second is told where it is so many times the usual one."""
SHORTFALL = 0.99
LAG_S = 0.005
LOOP_LAG_S = 0.1
"""From here on a lagging loop is named: below 100 ms is good."""


class Finding(NamedTuple):
    """What happened, and when."""

    text: str
    from_s: int
    to_s: int


def findings(run: Table, hosts: Table, window: tuple[int, int] | None, last: int) -> list[Finding]:
    """The worst of the measured window (without one, of the run), and where errors began."""
    found = []
    for text, second in _told(run, hosts, window):
        found.append(Finding(text, max(0, round(second) - 1 - AROUND_S), min(last, round(second) + AROUND_S)))
    return [one for one in found if one.to_s > one.from_s]


def _told(run: Table, hosts: Table, window: tuple[int, int] | None) -> Iterator[tuple[str, float]]:
    inside = _inside(run, window)
    if (peak := _peak(run, "p99", inside)) is not None:
        second, worst, usual = peak
        if worst > STANDS_OUT * usual:
            yield (
                (
                    f"Response time was worst in second {count(second)}: p99 {latency(worst)}, "
                    f"{worst / usual:.1f} times the usual {latency(usual)}."
                ),
                second,
            )
        else:
            yield f"Response time was even: p99 at most {latency(worst)}, in second {count(second)}.", second
    silent = [i for i in inside if run["p99"][i] is None and (run["offered"][i] or 0) > 0]
    if silent:
        second = run["second"][silent[0]] or 0
        yield (
            (
                f"In {count(len(silent))} seconds more than 1 % of what was due was never answered, "
                f"first in second {count(second)}."
            ),
            second,
        )
    yield from _shortfall(run, inside)
    for line in lines(BY_KEY["errors"], run):
        # While clients connect, a few messages are due before their handshake has ended: the usual, which hurts nobody.
        looked_at = inside if line.key == "unsent:not_open" else range(len(run["second"]))
        places = [i for i in looked_at if run[line.key][i]]
        if places:
            worst_place = max(places, key=lambda i: run[line.key][i] or 0)
            second = run["second"][worst_place] or 0
            began = f", from second {count(run['second'][places[0]])} on" if len(places) > 1 else ""
            label = line.label[0].upper() + line.label[1:]
            yield (
                f"{label}{began}: most in second {count(second)}, {number(run[line.key][worst_place])}/s.",
                second,
            )
    if (peak := _peak(run, "lag_p99", inside)) is not None and peak[1] > LAG_S:
        yield (
            (
                f"The load generators were latest in second {count(peak[0])}: scheduler lag p99 {latency(peak[1])}. "
                "The response time does not contain it, but a host that is late is short of CPU."
            ),
            peak[0],
        )
    inside = _inside(hosts, window)
    for key in sorted(key for key in hosts if key.startswith("loop_lag:")):
        if (peak := _peak(hosts, key, inside)) is not None and peak[1] >= LOOP_LAG_S:
            yield (
                (f"{key.partition(':')[2]}: an event loop was kept for {latency(peak[1])} in second {count(peak[0])}."),
                peak[0],
            )


def _shortfall(run: Table, inside: Sequence[int]) -> Iterator[tuple[str, float]]:
    shares = {i: (run["answered"][i] or 0) / due for i in inside if (due := run["offered"][i])}
    if shares and (worst := min(shares.values())) < SHORTFALL:
        second = run["second"][min(shares, key=shares.__getitem__)] or 0
        yield f"Least was answered in second {count(second)}: {ratio(worst)} of what was due.", second


def _inside(table: Table, window: tuple[int, int] | None) -> list[int]:
    return [
        i
        for i, second in enumerate(table["second"])
        if second is not None and (window is None or window[0] < second <= window[1])
    ]


def _peak(table: Table, key: str, inside: Sequence[int]) -> tuple[float, float, float] | None:
    """(second, value, median) of the largest; None where there is none."""
    known = {i: value for i in inside if (value := table[key][i]) is not None and value > 0}
    if not known:
        return None
    place = max(known, key=known.__getitem__)
    return table["second"][place] or 0, known[place], median(known.values())

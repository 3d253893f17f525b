"""Adding up: workers to a host, hosts to a run, seconds to a stretch. The same functions for all.

Everything that is merged is a cumulative `Second`. Counters and histograms add; a stretch of time is the difference
of two seconds. Percentiles come from merged counts, never from averages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from wsnode.core.broadcast import Room, merge_rooms
from wsnode.core.histogram import Pool
from wsnode.core.protocol import HISTOGRAMS, Counters, ErrorKind, HostSecond, Second, UnsentReason

K = TypeVar("K", bound=str)


def merge(parts: Iterable[Second]) -> Second:
    """The same second of several workers or hosts as one. O(parts × non-empty buckets).

    Each part is looked at once and not kept, so that those of many hosts need not be there all at the same time.

    Raises:
        ValueError: there are none, or they are of different seconds.
    """
    seconds: set[int] = set()
    counters = dict.fromkeys(Counters.model_fields, 0)
    errors: dict[ErrorKind, int] = {}
    unsent: dict[UnsentReason, int] = {}
    kinds: dict[str, int] = {}
    pools: dict[str, Pool] = {}
    cpu: list[float] = []
    rooms: list[Room] | None = []
    steal_s = throttled_s = core_s = 0.0
    for part in parts:
        seconds.add(part.second)
        for name, n in part.counters:
            counters[name] += n
        _count(errors, part.errors)
        _count(unsent, part.unsent)
        _count(kinds, part.kinds)
        for name, histogram in part.histograms.items():
            if name not in pools:
                pools[name] = Pool()
            pools[name].add(histogram)
        rooms = None if rooms is None or part.rooms is None else [*rooms, *part.rooms]
        cpu += part.host.worker_cpu_s
        steal_s += part.host.steal_s
        throttled_s += part.host.throttled_s
        core_s += part.host.core_s
    if len(seconds) != 1:
        raise ValueError(f"expected parts of one second, got {sorted(seconds)}")
    totals = {name: pools[name].total() for name in HISTOGRAMS if name in pools}
    return Second(
        second=seconds.pop(),
        counters=Counters(**counters),
        errors=dict(sorted(errors.items())),
        unsent=dict(sorted(unsent.items())),
        kinds=dict(sorted(kinds.items())),
        histograms={name: total for name, total in totals.items() if total.count},
        host=HostSecond(worker_cpu_s=tuple(cpu), steal_s=steal_s, throttled_s=throttled_s, core_s=core_s),
        # Only all parts together know what was expected.
        rooms=None if rooms is None else merge_rooms(rooms),
    )


def _count(total: dict[K, int], part: dict[K, int]) -> None:
    for key, n in part.items():
        total[key] = total.get(key, 0) + n


def since(later: Second, earlier: Second | None) -> Second:
    """What happened between two seconds of one load; from its begin where `earlier` is None.

    Gauges (open and pending connections) keep the later value.

    Raises:
        ValueError: the two are not of one load in this order.
    """
    if earlier is None:
        return later
    # Messages in flight are none: they are what a load's end left without a fate, by the second in which it was due.
    gauges = {"connections_open", "connections_pending"}
    counters = {
        name: getattr(later.counters, name) - (0 if name in gauges else getattr(earlier.counters, name))
        for name in Counters.model_fields
    }
    errors = _gained(later.errors, earlier.errors)
    unsent = _gained(later.unsent, earlier.unsent)
    kinds = _gained(later.kinds, earlier.kinds)
    if (
        later.second < earlier.second
        or min(*counters.values(), *errors.values(), *unsent.values(), *kinds.values()) < 0
        or len(earlier.host.worker_cpu_s) != len(later.host.worker_cpu_s)
    ):
        raise ValueError(f"second {earlier.second} is not an earlier one of the load at second {later.second}")
    return Second(
        second=later.second,
        counters=Counters(**counters),
        errors=errors,
        unsent=unsent,
        kinds=kinds,
        histograms={
            name: gained
            for name in HISTOGRAMS
            if (gained := later.histogram(name).since(earlier.histogram(name))).count
        },
        host=HostSecond(
            worker_cpu_s=tuple(b - a for a, b in zip(earlier.host.worker_cpu_s, later.host.worker_cpu_s, strict=True)),
            steal_s=later.host.steal_s - earlier.host.steal_s,
            throttled_s=later.host.throttled_s - earlier.host.throttled_s,
            core_s=later.host.core_s - earlier.host.core_s,
        ),
    )


class Identity(NamedTuple):
    """One accounting identity of DESIGN.md: the left counter is the sum of the right ones."""

    left: str
    right: tuple[str, ...]

    def sides(self, counters: Counters) -> tuple[int, int]:
        """The left count, and what the right ones add up to."""
        return getattr(counters, self.left), sum(getattr(counters, name) for name in self.right)


IDENTITIES = (
    Identity("messages_due", ("messages_sent", "messages_unsent")),
    Identity("messages_sent", ("messages_received", "messages_lost", "messages_in_flight", "messages_no_reply")),
    Identity("connections_attempted", ("connections_opened", "connections_failed", "connections_pending")),
    Identity("connections_opened", ("connections_closed", "connections_open")),
)


def _gained(later: dict[K, int], earlier: dict[K, int]) -> dict[K, int]:
    keys = [*later, *(key for key in earlier if key not in later)]
    return {key: n for key in keys if (n := later.get(key, 0) - earlier.get(key, 0))}


def broken_identities(counters: Counters) -> list[str]:
    """The identities that do not hold, with their numbers."""
    broken = []
    for identity in IDENTITIES:
        left, right = identity.sides(counters)
        if left != right:
            terms = " + ".join(name.partition("_")[2] for name in identity.right)
            broken.append(f"{identity.left} {left:,} is not {terms} {right:,}")
    return broken

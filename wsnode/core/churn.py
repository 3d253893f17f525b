"""Churn: connections that last for a time, and storms in which all leave at once and come back.

All of it is planned: when a client is to be connected is a function of the seed and the client alone, so that any host
and worker draws the same, and what was due is known whatever a server did.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from wsnode.core.draw import share, stream

NS = 1_000_000_000
LENGTHS, DELAYS, STORMS = 0x5E55, 0xDE1A, 0x5708
"""What numbers are drawn for."""
MOST_SESSIONS = 2_000_000
"""That a run may have planned, all clients together."""
_SESSION = re.compile(r"\s*(fixed|exp)\s+([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m)\s*")
_STORM = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?)\s*%\s+)?at\s+([0-9]+(?:\.[0-9]+)?)\s*(s|m)\s*")
_UNITS = {"ms": 1_000_000, "s": NS, "m": 60 * NS}


class Session(NamedTuple):
    """How long a connection lasts by plan."""

    is_drawn: bool
    mean_ns: int
    text: str

    @classmethod
    def parse(cls, text: str) -> Session:
        """Read `fixed 5s`, or `exp 5s` for exponentially distributed times of that mean.

        Raises:
            ValueError: it is neither; says what may stand there.
        """
        match = _SESSION.fullmatch(text)
        mean_ns = round(float(match[2]) * _UNITS[match[3]]) if match else 0
        if match is None or mean_ns < NS // 10:
            raise ValueError(f"session {text!r}: expected 'fixed 5s' or 'exp 5s', of 100ms or more (units ms, s, m)")
        return cls(match[1] == "exp", mean_ns, f"{match[1]} {match[2]}{match[3]}")

    def length_ns(self, part: float) -> int:
        """A length, of a number 0 <= part < 1."""
        return round(-math.log(1 - part) * self.mean_ns) + 1 if self.is_drawn else self.mean_ns


class Storm(NamedTuple):
    """A moment at which clients leave together."""

    at_ns: int
    part: float
    """Of the clients, by lot."""
    text: str

    @classmethod
    def parse(cls, text: str) -> Storm:
        """Read `at 30s`, or `50% at 30s`.

        Raises:
            ValueError: it is neither; says what may stand there.
        """
        match = _STORM.fullmatch(text)
        if match is None or not 0 < float(match[1] or 100) <= 100 or not float(match[2]):
            raise ValueError(f"storm {text!r}: expected 'at 30s', or '50% at 30s' for some (units s, m)")
        part = f"{match[1]}% " if match[1] else ""
        return cls(
            round(float(match[2]) * _UNITS[match[3]]), float(match[1] or 100) / 100, f"{part}at {match[2]}{match[3]}"
        )


def delay_ns(delay: int, jitter: float, part: float) -> int:
    """Time before a client comes back: the delay, and up to `jitter` of it more by a number 0 <= part < 1."""
    return round(delay * (1 + jitter * part))


class Churn(NamedTuple):
    """When clients leave and come back."""

    session: Session | None
    storms: tuple[Storm, ...]
    """In order."""
    delay_ns: int
    jitter: float
    seed: int

    @classmethod
    def of(cls, session: str | None, storms: Iterable[str], delay_s: float, jitter: float, seed: int) -> Churn | None:
        """None: nobody leaves before the end."""
        found = tuple(sorted(Storm.parse(text) for text in storms))
        if session is None and not found:
            return None
        return cls(None if session is None else Session.parse(session), found, round(delay_s * NS), jitter, seed)

    def presences(self, client: int, came: int, end: int) -> list[tuple[int, int]]:
        """From when to when a client is to be connected that comes first at `came` (ns from the origin)."""
        lengths, delays = stream(self.seed, LENGTHS, client), stream(self.seed, DELAYS, client)
        storms = [
            storm.at_ns
            for place, storm in enumerate(self.storms)
            if share(stream(self.seed, STORMS + place, client), 0) < storm.part
        ]
        found: list[tuple[int, int]] = []
        while came < end:
            leaves = end if self.session is None else came + self.session.length_ns(share(lengths, len(found)))
            leaves = min([leaves, end, *(storm for storm in storms if storm > came)])
            found.append((came, leaves))
            came = leaves + delay_ns(self.delay_ns, self.jitter, share(delays, len(found)))
        return found

    def sessions(self, clients: int, end: int) -> float:
        """About how many connections so many clients have until the end."""
        each = 1 + len(self.storms)
        return clients * (each + (end / (self.session.mean_ns + self.delay_ns) if self.session else 0))

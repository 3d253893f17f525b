"""Think times: the time between two messages of a client, as text (`exp 500ms`) and as a draw."""

from __future__ import annotations

import re
from decimal import Decimal
from math import log1p, sqrt
from typing import NamedTuple

from wsnode.core.draw import share, stream

MS = 1_000_000
MOST_NS = 3_600_000 * MS
FIXED = "fixed"
GRAMMAR = "'fixed', 'exp T' or 'uniform T..T', T such as 500ms or 1.5s, from 1ms to 3600s"
_PURPOSE = 1

_TEXT = re.compile(r"\s*(?:exp\s+(T)|uniform\s+(T)\s*\.\.\s*(T))\s*".replace("(T)", r"(\d+(?:\.\d+)?)(ms|s)"))


class Think(NamedTuple):
    """How long a client thinks: exponential where `low_ns` is None, else uniform. All in ns.

    The messages of a client are a stationary renewal process from its connect on: the first one is due after what is
    *left* of a think time at a random moment (D. R. Cox, "Renewal Theory", 1962, ch. 5), so that the offered load has
    its mean from the first moment on. Due times depend on nothing but seed and client: it stays an open model.
    """

    mean_ns: float
    low_ns: int | None
    high_ns: int
    text: str

    @classmethod
    def parse(cls, text: str) -> Think | None:
        """Read `exp T` or `uniform T..T`; `fixed` gives None.

        Raises:
            ValueError: says what stands there and what may.
        """
        if text.strip() == FIXED:
            return None
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"think {text!r}: expected {GRAMMAR}")
        mean, mean_unit, low, low_unit, high, high_unit = match.groups()
        if mean:
            mean_ns = _ns(mean, mean_unit)
            found = cls(mean_ns, None, 0, f"exp {mean}{mean_unit}")
        else:
            low_ns, high_ns = _ns(low, low_unit), _ns(high, high_unit)
            found = cls((low_ns + high_ns) / 2, low_ns, high_ns, f"uniform {low}{low_unit}..{high}{high_unit}")
            if low_ns >= high_ns:
                raise ValueError(f"think {text!r}: {low}{low_unit} is not below {high}{high_unit}")
        if not MS <= found.mean_ns <= MOST_NS or found.high_ns > MOST_NS:
            raise ValueError(f"think {text!r}: expected {GRAMMAR}")
        return found

    @property
    def interval_ms(self) -> int:
        """The mean in whole ms, at least 1."""
        return max(1, round(self.mean_ns / MS))

    def begin(self, seed: int, client: int) -> int:
        """The client's stream, for `first` and `gap`."""
        return stream(seed, _PURPOSE, client)

    def first(self, begin: int, n: int) -> int:
        """From a connect to the first message, by the n-th number of the stream (ns)."""
        u = share(begin, n)
        if self.low_ns is None:
            return int(-self.mean_ns * log1p(-u))
        # The inverse of the residual's distribution function: a line up to `low`, a parabola from there to `high`.
        if u * self.mean_ns < self.low_ns:
            return int(u * self.mean_ns)
        return int(self.high_ns - sqrt(2 * (self.high_ns - self.low_ns) * self.mean_ns * (1 - u)))

    def gap(self, begin: int, n: int) -> int:
        """Between two messages, by the n-th number of the stream (ns, at least 1)."""
        u = share(begin, n)
        if self.low_ns is None:
            return max(1, int(-self.mean_ns * log1p(-u)))
        return max(1, self.low_ns + int(u * (self.high_ns - self.low_ns)))


def _ns(number: str, unit: str) -> int:
    return int(Decimal(number) * (1_000_000_000 if unit == "s" else MS))

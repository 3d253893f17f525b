"""Kinds of clients: shares of a run that do not behave as clients should, as text (`slow_reader 5%`) and as values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import NamedTuple

from wsnode.core.pacing import kind_step

_EXPRESSION = re.compile(r"\s*([a-z_]+)\s+([0-9]+(?:\.[0-9]+)?)\s*%\s*(?:([0-9]+)\s*([A-Za-z/]+)\s*)?")
_DEFAULTS: dict[str, tuple[int, str] | None] = {
    "slow_reader": (1024, "B/s"),
    "never_reads": None,
    "half_open": None,
    "idle_pings": (20, "s"),
}
KINDS = tuple(_DEFAULTS)
SILENT = frozenset({"half_open", "idle_pings"})
"""Kinds that send no messages."""


class Kind(NamedTuple):
    """Some of the clients, and what is special about them.

    - `slow_reader`: sends like any other, and reads at most `amount` bytes a second.
    - `never_reads`: sends like any other, and reads nothing once its handshake has ended.
    - `half_open`: connects, sends the begin of its request and never the rest.
    - `idle_pings`: sends no messages, but a ping every `amount` seconds, whose pong it awaits.
    """

    name: str
    percent: Decimal
    amount: int
    text: str

    @classmethod
    def parse(cls, text: str) -> Kind:
        """Read `NAME SHARE%`, for `slow_reader` also with `N B/s` behind it, for `idle_pings` with `N s`.

        Raises:
            ValueError: says what is wrong and what may stand there.
        """
        match = _EXPRESSION.fullmatch(text)
        if match is None:
            raise ValueError(
                f"kind {text!r}: expected NAME SHARE%, such as 'slow_reader 5%', 'slow_reader 5% 4096 B/s' or "
                "'idle_pings 10% 30 s'"
            )
        name, share, number, unit = match.groups()
        if name not in _DEFAULTS:
            raise ValueError(f"kind {text!r}: no kind {name!r}; known: {', '.join(KINDS)}; the rest is normal")
        percent = Decimal(share)
        if not 0 < percent < 100:
            raise ValueError(f"kind {text!r}: {share} %; expected a share above 0 % and below 100 %")
        default = _DEFAULTS[name]
        if number is not None and (default is None or unit != default[1] or not 0 < int(number) <= 1_000_000):
            wanted = f"1 to 1,000,000 {default[1]}" if default else "nothing"
            raise ValueError(f"kind {text!r}: '{number} {unit}'; {name} takes {wanted} behind its share")
        amount = int(number) if number is not None else default[0] if default else 0
        behind = f" {number} {unit}" if number is not None else ""
        return cls(name, percent, amount, f"{name} {share}%{behind}")


class Cast(NamedTuple):
    """Which clients are of which kind: numbers that are to the client, and exact to one over the whole run."""

    kinds: tuple[Kind, ...]
    clients: int
    bounds: tuple[int, ...]
    """Client i is of kind k where i · `kind_step` mod clients is below bound k and not below bound k − 1; beyond all
    of them it is normal. So each host and worker has its part of every kind, and each kind its part of the ramp-up."""

    @classmethod
    @cache
    def of(cls, texts: tuple[str, ...], clients: int) -> Cast:
        """By the kinds of a scenario.

        Raises:
            ValueError: one is no kind, stands there twice, or nothing is left for normal clients.
        """
        kinds = tuple(Kind.parse(text) for text in texts)
        names = [kind.name for kind in kinds]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"kinds: {name} stands there {names.count(name)} times, expected once")
        total = sum((kind.percent for kind in kinds), Decimal(0))
        if total >= 100:
            raise ValueError(f"kinds: {total} % of the clients; expected less than 100 %, the rest is normal")
        sums = [sum((kind.percent for kind in kinds[: n + 1]), Decimal(0)) for n in range(len(kinds))]
        bounds = tuple(int((clients * s / 100).to_integral_value(ROUND_HALF_UP)) for s in sums)
        return cls(kinds, clients, bounds)

    def kind_of(self, client: int) -> Kind | None:
        """None: a normal one."""
        if not self.kinds:
            return None
        place = client * kind_step(self.clients) % self.clients
        return next((kind for kind, bound in zip(self.kinds, self.bounds, strict=True) if place < bound), None)

    def counts(self) -> dict[str, int]:
        """Clients of each kind."""
        below: Sequence[int] = (0, *self.bounds)
        return {kind.name: self.bounds[n] - below[n] for n, kind in enumerate(self.kinds)}

    @property
    def senders(self) -> int:
        """Clients that send messages."""
        return self.clients - sum(n for name, n in self.counts().items() if name in SILENT)

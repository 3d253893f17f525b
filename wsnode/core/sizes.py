"""Message sizes by a distribution, as text (`exp mean 200 max 4096`) and as a table to draw from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from math import ceil, log1p
from typing import NamedTuple

from wsnode.core.draw import GOLDEN_64, splitmix64, stream

MOST_BYTES = 1 << 20
TABLE = 4096
"""Sizes of a table, each as likely as any other: a share is kept to 1/4096, over any 4,096 messages of a client
exactly."""
GRAMMAR = "'uniform A..B', 'exp mean A max B' or 'choice A:P% B:P% …', whole bytes from 1 to 1,048,576"
_PURPOSE = 2

_UNIFORM = re.compile(r"\s*uniform\s+(\d+)\s*\.\.\s*(\d+)\s*")
_EXP = re.compile(r"\s*exp\s+mean\s+(\d+)\s+max\s+(\d+)\s*")
_CHOICE = re.compile(r"\s*choice((?:\s+\d+:\d+(?:\.\d+)?%)+)\s*")


class Sizes(NamedTuple):
    """A distribution of payload sizes (bytes): sizes with the share of all messages up to each."""

    kind: str
    bounds: tuple[int, ...]
    """`uniform`: lowest and highest; `exp`: mean and highest; `choice`: its sizes."""
    shares: tuple[float, ...]
    """Of `choice`: of messages up to and with each size."""
    text: str

    @classmethod
    def parse(cls, text: str) -> Sizes:
        """Read a distribution.

        Raises:
            ValueError: says what stands there and what may.
        """
        if match := _UNIFORM.fullmatch(text):
            low, high = map(int, match.groups())
            found = cls("uniform", (low, high), (), f"uniform {low}..{high}")
        elif match := _EXP.fullmatch(text):
            low, high = map(int, match.groups())
            found = cls("exp", (low, high), (), f"exp mean {low} max {high}")
        elif match := _CHOICE.fullmatch(text):
            found = cls._choice(match[1].split(), text)
        else:
            raise ValueError(f"sizes {text!r}: expected {GRAMMAR}")
        if found.kind != "choice" and found.bounds[0] > found.bounds[1]:
            raise ValueError(f"sizes {text!r}: {found.bounds[0]} is above {found.bounds[1]}")
        if min(found.bounds) < 1 or max(found.bounds) > MOST_BYTES:
            raise ValueError(f"sizes {text!r}: expected {GRAMMAR}")
        return found

    @classmethod
    def _choice(cls, parts: Sequence[str], text: str) -> Sizes:
        sizes, percents = [], []
        for part in parts:
            size, _, percent = part.rstrip("%").partition(":")
            sizes.append(int(size))
            percents.append(Decimal(percent))
        if sum(percents) != 100:
            raise ValueError(f"sizes {text!r}: the shares add up to {sum(percents)} %, expected 100 %")
        if min(percents) < Decimal("0.1"):
            raise ValueError(f"sizes {text!r}: a share of {min(percents)} % is too small, expected 0.1 % or more")
        sums = tuple(float(sum(percents[: n + 1]) / 100) for n in range(len(percents)))
        said = " ".join(f"{size}:{percent}%" for size, percent in zip(sizes, percents, strict=True))
        return cls("choice", tuple(sizes), sums, f"choice {said}")

    def quantile(self, share: float) -> int:
        """The size that this share of all messages does not exceed, 0 < share < 1; of `choice` in the text's order."""
        if self.kind == "uniform":
            low, high = self.bounds
            return min(high, low + int(share * (high - low + 1)))
        if self.kind == "exp":
            mean, most = self.bounds
            return max(1, min(most, ceil(-mean * log1p(-share))))
        return next(size for size, upto in zip(self.bounds, self.shares, strict=True) if share <= upto)

    def table(self, seed: int) -> tuple[int, ...]:
        """The order in which sizes come, the same for all clients, each of which begins at a place of its own."""
        return _table(self, seed)

    @property
    def mean_bytes(self) -> float:
        """Of the table."""
        return sum(self.table(0)) / TABLE

    @property
    def smallest_bytes(self) -> int:
        """The smallest that comes."""
        return min(self.table(0))


@lru_cache(maxsize=16)
def _table(sizes: Sizes, seed: int) -> tuple[int, ...]:
    drawn = [sizes.quantile((n + 0.5) / TABLE) for n in range(TABLE)]
    begin = stream(seed, _PURPOSE, 0)
    for n in range(TABLE - 1, 0, -1):  # Fisher and Yates' shuffle
        other = splitmix64(begin + n * GOLDEN_64) % (n + 1)
        drawn[n], drawn[other] = drawn[other], drawn[n]
    return tuple(drawn)


def place_of(seed: int, client: int) -> int:
    """Where a client begins in the table: the size of its n-th message is `table[(place_of + n) % TABLE]`."""
    return stream(seed, _PURPOSE, client + 1) % TABLE

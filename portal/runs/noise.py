"""What equal runs differ in, taken from those that were made before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from portal.runs.measures import Measure, value_of
from portal.runs.sides import Member, Side
from portal.runs.statistics import FEWEST_EARLIER

MOST_EARLIER = 30
"""Earlier runs that the noise is taken from, the newest ones."""


class Noise(NamedTuple):
    """Earlier runs equal to the base, whose spread stands for the noise of single runs."""

    members: tuple[Member, ...]
    same_version: bool
    """Whether they are all of the base's version. Where not, their spread holds what versions differ in too."""

    def values(self, of: Measure) -> list[float]:
        """Theirs."""
        found = (value_of(of, member.figures, member.nulls)[0] for member in self.members)
        return [value for value in found if value is not None]


def noise_of(base: Side, contender: Side, earlier: Sequence[Member]) -> Noise:
    """Of the runs equal to the base those before the two: of its version where there are enough of them."""
    one, load = base.representative, base.representative.load
    its_own = {member.id for side in (base, contender) for member in side.members}
    before = max(one.created_at, contender.representative.created_at)
    equal = [
        member
        for member in earlier
        if member.id not in its_own
        and member.created_at < before
        and member.validity == "valid"
        and member.environment_digest == one.environment_digest != ""
        and member.subject[0] == one.subject[0]
        and member.engine == one.engine
        and member.load == load
    ]
    equal.sort(key=lambda member: (member.created_at, member.id), reverse=True)
    same = [member for member in equal if member.subject == one.subject]
    chosen = same if len(same) >= FEWEST_EARLIER else equal
    newest = tuple(chosen[:MOST_EARLIER])
    return Noise(newest, all(member.subject == one.subject for member in newest))

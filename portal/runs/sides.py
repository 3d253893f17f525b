"""What is compared: a run, or a group of runs, with what a comparison reads of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from portal.runs.contrast import Sample
from portal.runs.environment import HostReading
from portal.runs.measures import Measure, value_of
from wsnode.core.scenario import Scenario

LABELS = frozenset({"name", "description", "thresholds", "primary_metric"})
"""Fields of a scenario that say nothing of the load."""


class Member(NamedTuple):
    """A run, as far as a comparison needs it."""

    id: str
    created_at: datetime
    state: str
    validity: str | None
    reasons: tuple[str, ...]
    """Why it is not valid."""
    subject: tuple[str, str]
    """Name and version."""
    engine: str
    scenario: Mapping[str, Any]
    environment_digest: str
    has_window: bool
    figures: Mapping[str, float | None]
    nulls: Mapping[str, str]

    @property
    def counts(self) -> bool:
        """Whether its figures can be believed."""
        return self.state == "finished" and self.validity in ("valid", "suspect")

    @property
    def load(self) -> dict[str, Any]:
        """What of its scenario makes the load."""
        return load_of(self.scenario)


class Side:
    """One of two to five."""

    def __init__(
        self,
        id: str,
        kind: Literal["run", "group"],
        title: str,
        url: str,
        members: list[Member],
        readings: list[HostReading],
        total: int | None = None,
    ) -> None:
        """`members`: oldest first; of a group the newest ones that have a result, `total` being how many have;
        `readings`: of the newest that counts."""
        self.id, self.kind, self.title, self.url = id, kind, title, url
        self.members, self.readings = members, readings
        self.total = len(members) if total is None else total
        self.label = self.representative.subject[1] or title
        """The shortest name that tells it from the others: `name_apart` sees to that."""

    @cached_property
    def counted(self) -> list[Member]:
        """Runs whose figures can be believed: of a single one that is for the reader to see, of a group it alone
        counts."""
        return [member for member in self.members if member.counts]

    @property
    def representative(self) -> Member:
        """The newest run that counts, or the newest."""
        return (self.counted or self.members)[-1]

    @cached_property
    def scenario(self) -> Scenario:
        """As core knows it."""
        return Scenario.model_validate(self.representative.scenario)

    @property
    def subject(self) -> dict[str, str]:
        """What was measured."""
        name, version = self.representative.subject
        named = {"name": name, "version": version, "engine": self.representative.engine}
        return {what: text for what, text in named.items() if text}

    @property
    def is_group(self) -> bool:
        """Whether it is a group of runs."""
        return self.kind == "group"

    def sample(self, measure: Measure) -> Sample:
        """Its values of a measure. A single run that cannot be believed still shows what it has."""
        members = self.counted if self.is_group else self.members
        found = [value_of(measure, member.figures, member.nulls) for member in members]
        values = tuple(value for value, _ in found if value is not None)
        why = next((why for value, why in found if why), "" if members else "no run of it can be believed")
        return Sample(values, len(found) - len(values), why)

    def cautions(self) -> list[str]:
        """What weakens every conclusion from it."""
        if not self.is_group:
            return list(_cautions_of_run(self.id, self.members[0]))
        found = []
        left_out = Counter(
            member.validity if member.state == "finished" else member.state
            for member in self.members
            if not member.counts
        )
        if left_out:
            said = ", ".join(f"{n} {word or 'not judged'}" for word, n in left_out.items())
            found.append(f"Of group {self.title} {said} {'is' if left_out.total() == 1 else 'are'} left out.")
        if self.total > len(self.members):
            found.append(f"Of group {self.title} the newest {len(self.members)} of {self.total} runs are taken.")
        if suspect := sum(member.validity == "suspect" for member in self.counted):
            found.append(f"Of group {self.title} {suspect} of {len(self.counted)} runs are suspect.")
        for what, several in (
            ("environment", {member.environment_digest for member in self.counted}),
            ("load", {str(member.load) for member in self.counted}),
            ("subject", {member.subject for member in self.counted}),
        ):
            if len(several) > 1:
                found.append(f"Within group {self.title} the {what} changed: its runs are not equal ones.")
        return found


def name_apart(sides: Sequence[Side]) -> None:
    """Give sides of the same version each a label of its own: a group its title, or the id."""
    for by_id in (False, True):
        names = Counter(side.label for side in sides)
        for side in sides:
            if names[side.label] > 1:
                side.label = side.title if side.is_group and not by_id else side.id


def load_of(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that make the load; one that an older scenario does not have stands at its default."""
    return {
        name: _plain(scenario.get(name, info.default))
        for name, info in Scenario.model_fields.items()
        if name not in LABELS
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def kind_of(scenario: Scenario) -> dict[str, str]:
    """What makes two loads different in kind, so that a figure of the one does not mean what it does of the other."""
    return {
        # A closed loop's times leave out what a stall keeps from being sent.
        "pace": scenario.pace,
        "behaviour": scenario.behaviour,
        "messages": "sent" if scenario.sends else "none, connections stay idle",
        "replies": "none are awaited" if scenario.match == "none" else "awaited",
    }


def _cautions_of_run(name: str, member: Member) -> list[str]:
    cautions = []
    if member.validity not in ("valid", None):
        reasons = "; ".join(reason.removeprefix(f"{member.validity}: ") for reason in member.reasons)
        cautions.append(f"{name} is {member.validity}: {reasons or 'no reason was given'}.")
    if member.state != "finished":
        cautions.append(f"{name} did not finish: it was {member.state}.")
    if not member.has_window:
        cautions.append(f"{name} has no measured window: its figures are of the whole run.")
    return cautions

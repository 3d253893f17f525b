"""The form of a schedule: the same fields and refusals for the page and the API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo

from portal.runs.create import find_declared
from portal.runs.draft import GivenSubject, Refused, compose, shortened
from portal.runs.purpose import Purpose, read_tags
from portal.schedules.dates import BadDate, Cron, Once, When, find_zone, read_once, zones
from portal.schedules.models import Schedule

SHOWN_DATES = 5
TITLE_CHARS = 200
EXAMPLES = (
    ("0 2 * * *", "every day at 02:00"),
    ("30 6 * * MON-FRI", "Monday to Friday at 06:30"),
    ("0 */6 * * *", "every six hours"),
    ("0 3 * * SUN", "Sundays at 03:00"),
    ("0 4 1 * *", "on the first of each month at 04:00"),
)
FIELDS = (
    "title", "scenario", "subject_declared", "subject_name", "subject_version", "reason", "tags",
    "kind", "cron", "once", "zone", "missed",
)  # fmt: skip
_HOMES = {"scenario": "scenario", "subject": "subject_name", "reason": "reason", "tags": "tags"}
"""The field that a refusal belongs to, by its first word; all others are said on top."""


class Date(NamedTuple):
    """A date in its zone's words and as it is kept."""

    local: str
    at: datetime


def shown_dates(when: When, zone: str, now: datetime) -> list[Date]:
    """The next dates, as people of that zone say them."""
    found = islice(when.after(now), SHOWN_DATES)
    return [Date(f"{date.astimezone(ZoneInfo(zone)):%a %d %b %Y, %H:%M (%Z)}", date) for date in found]


class ScheduleForm:
    """What was typed, checked by `check`: then `errors` by field, and without errors `when`."""

    def __init__(self, values: Mapping[str, str], *, accept_partial: bool = False) -> None:
        self.values = {name: values.get(name, "") for name in FIELDS}
        self.values["kind"] = self.values["kind"] or "cron"
        self.values["zone"] = self.values["zone"] or "UTC"
        self.values["missed"] = self.values["missed"] or "skip"
        self.accept_partial = accept_partial
        self.errors: dict[str, str] = {}
        self.when: When | None = None
        self.dates: list[Date] = []

    @classmethod
    def posted(cls, sent: Mapping[str, str]) -> Self:
        """Of a request."""
        return cls(sent, accept_partial="accept_partial" in sent)

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Of one that there is."""
        declared = bool(schedule.subject_name) and not schedule.subject_version
        local = schedule.once_at and schedule.once_at.astimezone(ZoneInfo(schedule.zone))
        return cls(
            {
                "title": schedule.title,
                "scenario": schedule.scenario_name,
                "subject_declared": schedule.subject_name if declared else "",
                "subject_name": "" if declared else schedule.subject_name,
                "subject_version": schedule.subject_version,
                "reason": schedule.reason,
                "tags": schedule.tags,
                "kind": "once" if local else "cron",
                "cron": schedule.cron,
                "once": f"{local:%Y-%m-%dT%H:%M}" if local else "",
                "zone": schedule.zone,
                "missed": schedule.missed,
            },
            accept_partial=schedule.accept_partial,
        )

    @property
    def zones(self) -> tuple[str, ...]:
        """What can be chosen."""
        return zones()

    @property
    def examples(self) -> tuple[tuple[str, str], ...]:
        """Expressions with what they say."""
        return EXAMPLES

    @property
    def date_error(self) -> str:
        """Why there are no dates."""
        found = (self.errors.get(name) for name in ("zone", "cron", "once"))
        return next((line for line in found if line), "no date to come")

    def check(self, now: datetime) -> bool:
        """Whether it can be kept."""
        self.errors = {}
        self._check_words()
        self._check_what()
        self._check_dates(now)
        return not self.errors

    def _refuse(self, name: str, line: str) -> None:
        self.errors[name] = f"{self.errors[name]}; {line}" if name in self.errors else line

    def _check_words(self) -> None:
        title = self.values["title"] = self.values["title"].strip()
        if not (1 <= len(title) <= TITLE_CHARS and title.isprintable()):
            line = f"title: {shortened(title)} is refused: wanted one line of 1 to {TITLE_CHARS} characters"
            self._refuse("title", line)
        for name, choices in (("kind", ("cron", "once")), ("missed", ("skip", "run_once"))):
            if self.values[name] not in choices:
                line = f"{name}: {shortened(self.values[name])} is refused: wanted {' or '.join(choices)}"
                self._refuse(name, line)

    def _check_what(self) -> None:
        scenario = self.values["scenario"]
        try:
            compose(scenario, {}, accept_partial=self.accept_partial)
        except Refused as refused:
            self._refuse("scenario", "; ".join(refused.lines))
        try:
            Purpose.of(scenario, reason=self.values["reason"], tags=[self.values["tags"]])
        except Refused as refused:
            for line in refused.lines:
                self._refuse(_HOMES.get(line.partition(":")[0], ""), line)
        declared, name, version = (self.values[f"subject_{part}"] for part in ("declared", "name", "version"))
        try:
            if declared:
                find_declared(declared)
            elif name or version:
                GivenSubject(name, version).checked()
        except Refused as refused:
            for line in refused.lines:
                home = line.partition(":")[0].replace(".", "_")
                self._refuse(home if home in FIELDS else "subject_name", line)

    def _check_dates(self, now: datetime) -> None:
        self.when, self.dates = None, []
        zone = self.values["zone"]
        try:
            find_zone(zone)
            if self.values["kind"] == "once":
                self.when = read_once(self.values["once"], zone, now)
            else:
                self.when = Cron.parse(self.values["cron"], zone)
        except BadDate as error:
            self._refuse(str(error).partition(":")[0], str(error))
        else:
            self.dates = shown_dates(self.when, zone, now)

    def put(self, schedule: Schedule, now: datetime) -> None:
        """Write a checked form onto a schedule, and its next date. Not saved."""
        assert self.when is not None
        fields: dict[str, Any] = {
            "title": self.values["title"],
            "scenario_name": self.values["scenario"],
            "accept_partial": self.accept_partial,
            "subject_name": self.values["subject_declared"] or self.values["subject_name"],
            "subject_version": "" if self.values["subject_declared"] else self.values["subject_version"],
            "reason": self.values["reason"].strip(),
            "tags": " ".join(read_tags([self.values["tags"]])),
            "cron": self.when.expression if isinstance(self.when, Cron) else "",
            "once_at": self.when.at if isinstance(self.when, Once) else None,
            "zone": self.values["zone"],
            "missed": self.values["missed"],
        }
        for name, value in fields.items():
            setattr(schedule, name, value)
        schedule.plan_next(now)

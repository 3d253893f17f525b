"""When a schedule's runs are due, and what to do about dates that have passed: functions of values.

Cron expressions are read by cronsim, which treats daylight saving time as Debian's cron does: what is due at a time of
day that is skipped runs as soon as it is over, what is due at one that comes twice runs at the first.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from typing import Literal, NamedTuple

from cronsim import CronSim, CronSimError

CRON_CHARS = 100
GRACE = timedelta(seconds=120)
"""A date that was seen this much later was met; beyond that it was missed."""
MOST_COUNTED = 100
"""Missed dates are counted up to here."""

Missed = Literal["run_once", "skip"]
_RANGES = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31 in one of its months, L or LW",
    "month": "1 to 12 or JAN to DEC",
    "day-of-week": "0 to 7 or SUN to SAT, 5#2, 5L",
}


class BadDate(ValueError):
    """The message begins with the field that is wrong: `cron`, `zone` or `once`."""


class Once(NamedTuple):
    """A single date (UTC)."""

    at: datetime

    def after(self, moment: datetime) -> Iterator[datetime]:
        """It, if it is later than `moment`."""
        if self.at > moment:
            yield self.at

    def words(self) -> str:
        """What it says."""
        return "once"


class Cron(NamedTuple):
    """Five fields, in the local time of a named zone."""

    expression: str
    zone: str

    @classmethod
    def parse(cls, expression: str, zone: str) -> Cron:
        """Check an expression and a zone.

        Raises:
            BadDate: five fields, values in their ranges, dates that come at all, and a known zone are wanted.
        """
        expression = " ".join(expression.split())
        known = find_zone(zone)
        shown = repr(expression[:CRON_CHARS])
        if len(expression) > CRON_CHARS or len(expression.split()) != 5:
            raise BadDate(
                f"cron: {shown} is refused: wanted five fields, MINUTE HOUR DAY-OF-MONTH MONTH DAY-OF-WEEK, "
                f"of at most {CRON_CHARS} characters: `30 2 * * MON-FRI`"
            )
        try:
            next(CronSim(expression, datetime(2024, 1, 1, tzinfo=known)))
        except CronSimError as error:
            field = str(error).removeprefix("Bad ")
            wanted = f"wanted {_RANGES[field]}; *, lists, ranges and steps (*/5)" if field in _RANGES else str(error)
            raise BadDate(f"cron: {shown} is refused: bad {field}, {wanted}") from error
        except StopIteration:
            raise BadDate(f"cron: {shown} is refused: there is no such date in the next 50 years") from None
        return cls(expression, zone)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Its dates later than `moment` (UTC), in their order, each once."""
        last = moment.astimezone(UTC)
        for found in CronSim(self.expression, moment.astimezone(find_zone(self.zone))):
            date = found.astimezone(UTC)
            # Around a change of the clock two local times may be one moment, or an earlier one.
            if date > last:
                last = date
                yield date

    def words(self) -> str:
        """What it says: `At 02:30 on Monday through Friday`."""
        return CronSim(self.expression, datetime(2024, 1, 1, tzinfo=UTC)).explain()


When = Once | Cron


class Turn(NamedTuple):
    """What a tick makes of a schedule whose date has come."""

    due_at: datetime | None
    """The date to queue a run for; None: none."""
    late: bool
    """That date was missed, and is made up for."""
    missed: int
    """Dates that passed and get no run of their own; counted to `MOST_COUNTED`."""
    next_at: datetime | None
    """The first date to come; None: there is none."""


def turn(when: When, next_at: datetime, now: datetime, rule: Missed) -> Turn:
    """What to do at `now` of the dates from `next_at` (<= now) on.

    The newest date of the last `GRACE` is met: one run. If there is none the dates were missed: by `run_once` there is
    one run for all of them, by `skip` none. Dates are never made up for one by one.
    """
    passed = [next_at, *_until(when, next_at, now - GRACE, MOST_COUNTED)]
    # The count of long gone ones is cut; the recent ones are looked at by themselves.
    recent = [date for date in _until(when, max(next_at, now - GRACE), now, None) if date > next_at]
    if next_at > now - GRACE:
        recent.insert(0, next_at)
        passed = []
    coming = next(when.after(now), None)
    if recent:
        return Turn(recent[-1], False, min(len(passed) + len(recent) - 1, MOST_COUNTED), coming)
    if rule == "run_once":
        return Turn(passed[-1], True, len(passed) - 1, coming)
    return Turn(None, False, min(len(passed), MOST_COUNTED), coming)


def _until(when: When, begin: datetime, end: datetime, most: int | None) -> list[datetime]:
    """The first `most` dates in (begin, end]."""
    found = []
    for date in islice(when.after(begin), most):
        if date > end:
            break
        found.append(date)
    return found


@cache
def zones() -> tuple[str, ...]:
    """The names of all time zones, UTC first."""
    named = {name for name in zoneinfo.available_timezones() if "/" in name and not name.startswith(("Etc/", "posix"))}
    return ("UTC", *sorted(named))


def find_zone(name: str) -> zoneinfo.ZoneInfo:
    """The zone of a name.

    Raises:
        BadDate: there is none.
    """
    if name not in zones():
        raise BadDate(f"zone: {name[:64]!r} is not known: wanted a name as UTC or Europe/Berlin")
    return zoneinfo.ZoneInfo(name)


def read_once(text: str, zone: str, now: datetime) -> Once:
    """A local date and time, as a form's field gives it: `2026-11-30T02:30`. One that comes twice is the first.

    Raises:
        BadDate: it is none, does not exist in that zone, or has passed.
    """
    known = find_zone(zone)
    try:
        local = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadDate(f"once: {text[:40]!r} is no date: wanted 2026-11-30T02:30") from None
    if local.tzinfo is None:
        local = local.replace(tzinfo=known)
        if local.astimezone(UTC).astimezone(known) != local:
            raise BadDate(f"once: there is no {text} in {zone}: clocks are put forward there")
    try:
        at = local.astimezone(UTC)
    except OverflowError:
        raise BadDate(f"once: {text[:40]!r} is out of range") from None
    if at <= now:
        raise BadDate(f"once: {text} in {zone} has passed: wanted a date to come")
    return Once(at)

"""Which runs a list shows, and in which order: read from an address, so that every choice is a permalink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from django.db import connection, models
from django.db.models import Exists, F, OuterRef, Q, Subquery

from portal.accounts.models import User
from portal.runs.models import Environment, Note, Run, RunGroup, RunQuerySet, Tag
from portal.runs.states import ACTIVE, OVER, State

MOST_WORDS = 8
"""Of what is searched for."""
MOST_OFFERED = 200
"""Values of one filter that are offered to choose from; any other may be typed into the address."""
ACTIVE_WORD = "active"


class Filter(NamedTuple):
    """One thing that runs can be chosen by."""

    name: str
    """In the address."""
    title: str
    condition: Callable[[str], Q]
    """ValueError: no run can be meant."""
    shown: Callable[[str], str] = str
    """A value in words."""


def _day(text: str) -> datetime:
    """The begin of a day (UTC)."""
    day = date.fromisoformat(text)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _host(name: str) -> Q:
    return Q(Exists(Environment.objects.filter(run=OuterRef("pk"), host=name)))


def _tag(name: str) -> Q:
    tag = Tag.objects.filter(name=name).values("pk")[:1]
    return Q(Exists(Run.tags.through.objects.filter(run=OuterRef("pk"), tag=Subquery(tag))))


def _state(word: str) -> Q:
    return Q(state__in=ACTIVE) if word == ACTIVE_WORD else Q(state=word)


def _group_title(key: str) -> str:
    return RunGroup.objects.filter(pk=key).values_list("title", flat=True).first() or key


FILTERS = (
    Filter("scenario", "Scenario", lambda value: Q(scenario_name=value)),
    Filter("subject", "Subject", lambda value: Q(subject_name=value)),
    Filter("version", "Version", lambda value: Q(subject_version=value)),
    Filter("state", "State", _state),
    Filter("verdict", "Verdict", lambda value: Q(verdict=value)),
    Filter("validity", "Validity", lambda value: Q(validity=value)),
    Filter("tag", "Tag", _tag),
    Filter("author", "By", lambda value: Q(created_by__username=value)),
    Filter("host", "Host", _host),
    Filter("engine", "Engine", lambda value: Q(engine=value)),
    Filter("from", "From", lambda value: Q(created_at__gte=_day(value))),
    Filter("to", "Until", lambda value: Q(created_at__lt=_day(value) + timedelta(days=1))),
    Filter("group", "Group", lambda value: Q(group=value), _group_title),
    Filter(
        "starred", "Starred", lambda value: Q(starred=value != "no"), lambda value: "no" if value == "no" else "yes"
    ),
)
SEARCH = "q"


class Order(NamedTuple):
    """A column that can be sorted by."""

    name: str
    fields: tuple[str, ...]
    descending_first: bool = False
    """What is asked for first: the newest, the most."""


ORDERS = {
    order.name: order
    for order in (
        Order("created", ("created_at",), descending_first=True),
        Order("scenario", ("scenario_name",)),
        Order("subject", ("subject_name", "subject_version")),
        Order("state", ("state",)),
        Order("verdict", ("verdict",)),
        Order("validity", ("validity",)),
        Order("p50", ("summary__p50_s",)),
        Order("p95", ("summary__p95_s",)),
        Order("p99", ("summary__p99_s",)),
        Order("throughput", ("summary__received_per_s",), descending_first=True),
        Order("errors", ("summary__error_ratio",), descending_first=True),
        Order("connections", ("summary__connections_peak",), descending_first=True),
    )
}
NEWEST_FIRST = "-created"


@dataclass(frozen=True)
class Chosen:
    """What an address asks for. Words that mean nothing are left out."""

    values: Mapping[str, str]
    """By a filter's name; only those that choose something."""
    search: str
    sort: str
    """A name of `ORDERS`, with a minus where the greatest come first."""

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Chosen:
        """Of a request's parameters."""
        values = {one.name: value for one in FILTERS if (value := parameters.get(one.name, "").strip()[:200])}
        sort = parameters.get("sort", "")
        known = sort.removeprefix("-") in ORDERS
        return cls(values, parameters.get(SEARCH, "").strip()[:200], sort if known else NEWEST_FIRST)

    @property
    def narrowed(self) -> bool:
        """Whether it asks for less than all."""
        return bool(self.values or self.search)

    def runs(self) -> RunQuerySet:
        """The runs that it asks for, in its order."""
        return self.in_order(self.found())

    def found(self) -> RunQuerySet:
        """The runs that it asks for."""
        runs = Run.objects.all()
        for one in FILTERS:
            if one.name in self.values:
                try:
                    runs = runs.filter(one.condition(self.values[one.name]))
                except ValueError:
                    return runs.none()
        for word in self.search.split()[:MOST_WORDS]:
            runs = runs.filter(_mentions(word))
        return runs

    def in_order(self, runs: RunQuerySet) -> RunQuerySet:
        """The same runs in its order; what has no value comes last whichever way."""
        order, falling = ORDERS[self.sort.removeprefix("-")], self.sort.startswith("-")
        if order.name == "created":
            sign = "-" if falling else ""
            return runs.order_by(f"{sign}created_at", f"{sign}id")
        columns = [F(name).desc(nulls_last=True) if falling else F(name).asc(nulls_last=True) for name in order.fields]
        return runs.order_by(*columns, "-created_at", "-id")

    # --- as addresses -----------------------------------------------------------------------------------------------
    def query(self, **changes: str) -> str:
        """Its permalink's parameters, with some of them otherwise ('' leaves one out); '' where nothing is asked."""
        parts = {**self.values, SEARCH: self.search, "sort": "" if self.sort == NEWEST_FIRST else self.sort, **changes}
        return urlencode({name: value for name, value in parts.items() if value})

    def sorted_by(self, name: str) -> str:
        """The parameters with this column's order; turned round where it is that column's already."""
        order = ORDERS[name]
        first, other = (f"-{name}", name) if order.descending_first else (name, f"-{name}")
        return self.query(sort=other if self.sort == first else first, page="")

    def direction_of(self, name: str) -> str:
        """`ascending` or `descending` where the list is sorted by this column, else ''."""
        if self.sort.removeprefix("-") != name:
            return ""
        return "descending" if self.sort.startswith("-") else "ascending"

    def chips(self) -> list[Chip]:
        """What is asked for in words, each with the parameters that ask for all the rest."""
        chips = [
            Chip(one.title, one.shown(self.values[one.name]), self.query(**{one.name: "", "page": ""}))
            for one in FILTERS
            if one.name in self.values
        ]
        if self.search:
            chips.append(Chip("Search", self.search, self.query(**{SEARCH: "", "page": ""})))
        return chips


class Chip(NamedTuple):
    """A filter in force."""

    title: str
    value: str
    without: str
    """Parameters of the list without it."""


def _mentions(word: str) -> Q:
    """In its name, subject, reason, notes or tags, or its id."""
    return (
        Q(scenario_name__icontains=word)
        | Q(subject_name__icontains=word)
        | Q(subject_version__icontains=word)
        | Q(reason__icontains=word)
        | Q(pk=word.casefold())
        | Q(pk__in=Note.objects.filter(text__icontains=word).values("run"))
    )


# --- what there is to choose from -------------------------------------------------------------------------------------
class Choice(NamedTuple):
    """A filter with the values that are offered for it."""

    name: str
    title: str
    values: list[str]
    chosen: str


def choices(chosen: Chosen) -> list[Choice]:
    """Every filter that is chosen from a list, with what the stored runs have."""
    offered = {
        "scenario": distinct(Run, "scenario_name"),
        "subject": distinct(Run, "subject_name"),
        "verdict": ["passed", "failed", "none"],
        "validity": ["valid", "suspect", "invalid"],
        "state": [ACTIVE_WORD, State.QUEUED.value, *(state.value for state in OVER)],
        "tag": list(Tag.objects.values_list("name", flat=True)[:MOST_OFFERED]),
        "author": list(
            User.objects.filter(Exists(Run.objects.filter(created_by=OuterRef("pk"))))
            .order_by("username")
            .values_list("username", flat=True)[:MOST_OFFERED]
        ),
        "host": distinct(Environment, "host"),
        "engine": distinct(Run, "engine"),
    }
    titles = {one.name: one.title for one in FILTERS}
    return [
        Choice(
            name,
            titles[name],
            values if (now := chosen.values.get(name, "")) in values or not now else [now, *values],
            chosen.values.get(name, ""),
        )
        for name, values in offered.items()
    ]


def versions_of(subject: str) -> list[str]:
    """The versions of a subject that runs have, newest first."""
    runs = Run.objects.filter(subject_name=subject).exclude(subject_version="")
    found = runs.values("subject_version").annotate(last=models.Max("created_at")).order_by("-last")
    return [row["subject_version"] for row in found[:MOST_OFFERED]]


def distinct(model: type[models.Model], field: str) -> list[str]:
    """The values of an indexed column, in order, without the empty one. A step down the index for each of them, however
    many rows there are: both databases would read the whole index for SELECT DISTINCT."""
    quote = connection.ops.quote_name
    table, column = quote(model._meta.db_table), quote(str(model._meta.get_field(field).attname))  # type: ignore[union-attr]
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE step(value, n) AS ("  # noqa: S608  # names of our own models
            f"SELECT MIN({column}), 1 FROM {table} WHERE {column} > '' UNION ALL "
            f"SELECT (SELECT MIN({column}) FROM {table} WHERE {column} > step.value), n + 1 FROM step "
            f"WHERE step.value IS NOT NULL AND n <= %s"
            f") SELECT value FROM step WHERE value IS NOT NULL",
            [MOST_OFFERED],
        )
        return [str(value) for (value,) in cursor.fetchall()]

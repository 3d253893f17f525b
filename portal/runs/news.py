"""What has changed lately: new versions, other hosts, edited scenarios, and scenarios that began or ceased to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from django.db.models import Count, Min, Q, QuerySet

from portal.runs.environment import HostReading, run_differences
from portal.runs.filters import Chosen
from portal.runs.models import Environment, Run, ScenarioVersion
from portal.runs.states import OVER, State

LOOKED_AT = 300
"""Newest runs that are looked through."""
DAYS = 14
"""What is older is no news."""
DOUBTED_DAYS = 7
MOST = 12
MOST_EDITS = 4
MOST_ENVIRONMENTS = 3
MOST_LINES = 4
"""Differences of one change of the hosts that are told."""

Kind = Literal["version", "environment", "scenario", "worse", "better"]


class Item(NamedTuple):
    """One piece of news."""

    kind: Kind
    at: datetime
    text: str
    url: str
    detail: str = ""


class Doubted(NamedTuple):
    """How many runs of the last days one should look at, with the parameters of the list that shows them."""

    title: str
    n: int
    query: str


class _Seen(NamedTuple):
    """Of a run what is looked at."""

    pk: str
    created_at: datetime
    state: str
    verdict: str | None
    validity: str | None
    scenario_name: str
    subject_name: str
    subject_version: str
    machine: str
    generators: list[str]
    environment_digest: str

    @property
    def url(self) -> str:
        return Run(pk=self.pk).get_absolute_url()

    @property
    def measured(self) -> str:
        return f"{self.subject_name} {self.subject_version}".strip()


def news(now: datetime) -> list[Item]:
    """The newest first."""
    since = now - timedelta(days=DAYS)
    newest = Run.objects.filter(state__in=OVER, created_at__gte=since).order_by("-created_at", "-id")
    runs = [_Seen(*row) for row in newest.values_list(*_Seen._fields)[:LOOKED_AT]]
    items = [*_versions(since), *_environments(runs), *_turns(runs), *_edits(since)]
    return sorted(items, key=lambda item: item.at, reverse=True)[:MOST]


def doubted(now: datetime) -> list[Doubted]:
    """What failed, and what cannot be trusted."""
    day = (now - timedelta(days=DOUBTED_DAYS)).date()
    asked = {
        "with a failed verdict": {"verdict": "failed"},
        "that did not finish": {"state": State.FAILED.value},
        "lost": {"state": State.LOST.value},
        "suspect": {"validity": "suspect"},
        "invalid": {"validity": "invalid"},
    }
    lately = Chosen.of({"from": day.isoformat()}).found()
    counts = lately.aggregate(
        **{f"n{place}": Count("pk", filter=Q(**asked[title])) for place, title in enumerate(asked)}
    )
    return [
        Doubted(title, n, Chosen.of({**values, "from": day.isoformat()}).query())
        for place, (title, values) in enumerate(asked.items())
        if (n := counts[f"n{place}"])
    ]


def _versions(since: datetime) -> Iterator[Item]:
    """Versions that ran for the first time ever."""
    ran = Run.objects.exclude(subject_version="").values_list("subject_name", "subject_version").order_by()
    first = {(name, version): at for name, version, at in ran.annotate(at=Min("created_at"))}
    new = {key: at for key, at in first.items() if at >= since}
    versions = Counter(name for name, _ in first)
    for row in Run.objects.filter(created_at__in=set(new.values())).values_list(*_Seen._fields):
        run = _Seen(*row)
        if new.get((run.subject_name, run.subject_version)) == run.created_at:
            what = "New version" if versions[run.subject_name] > 1 else "New subject"
            yield Item("version", run.created_at, f"{what}: {run.measured}", run.url, f"first in {run.scenario_name}")


def _environments(runs: Sequence[_Seen]) -> Iterator[Item]:
    """Where the hosts were no more what they were in the run before with the same load generators."""
    pairs: list[tuple[_Seen, _Seen]] = []
    later: dict[tuple[str, ...], _Seen] = {}
    for run in runs:
        if not run.environment_digest:
            continue
        key = (run.machine, *run.generators)
        after = later.get(key)
        if after is not None and after.environment_digest != run.environment_digest:
            pairs.append((run, after))
        later[key] = run
    pairs = pairs[:MOST_ENVIRONMENTS]
    readings = _readings({run.pk for pair in pairs for run in pair})
    told: set[str] = set()
    for before, after in pairs:
        lines = [
            f"{line.name} {line.base} → {line.contender}"
            for line in run_differences(readings.get(before.pk, ()), readings.get(after.pk, ()))
            # What is measured is told as a version.
            if not line.name.startswith("server.")
        ]
        text = "; ".join(lines[:MOST_LINES]) + (f"; {len(lines) - MOST_LINES} more" if len(lines) > MOST_LINES else "")
        if text and text not in told:
            told.add(text)
            yield Item("environment", after.created_at, "The hosts changed", after.url, text)


def _readings(keys: Iterable[str]) -> dict[str, list[HostReading]]:
    found: dict[str, list[HostReading]] = {}
    rows = Environment.objects.filter(run__in=list(keys)).order_by("run", "id")
    for run, host, role, begin in rows.values_list("run_id", "host", "role", "begin"):
        found.setdefault(run, []).append(HostReading(host, role, begin))
    return found


def _turns(runs: Sequence[_Seen]) -> Iterator[Item]:
    """The last time that a scenario on a subject began or ceased to fail; of runs that can be believed."""
    newer: dict[tuple[str, str], _Seen] = {}
    told: set[tuple[str, str]] = set()
    for run in runs:
        key = run.scenario_name, run.subject_name
        if key in told or run.verdict not in ("passed", "failed") or run.validity == "invalid":
            continue
        after = newer.get(key)
        if after is not None and after.verdict != run.verdict:
            told.add(key)
            worse = after.verdict == "failed"
            text = f"{after.scenario_name} {'fails' if worse else 'passes again'} on {after.measured}"
            detail = f"the run before, on {run.measured}, {'passed' if worse else 'failed'}"
            yield Item("worse" if worse else "better", after.created_at, text, after.url, detail)
        newer[key] = run


def _edits(since: datetime) -> Iterator[Item]:
    edits: QuerySet[ScenarioVersion] = ScenarioVersion.objects.filter(created_at__gte=since, author__isnull=False)
    for version in edits.select_related("scenario", "author").order_by("-created_at")[:MOST_EDITS]:
        assert version.author is not None
        text = f"{version.scenario.name} is now at version {version.number}"
        said = f": {version.message}" if version.message else ""
        url = version.scenario.get_absolute_url()
        yield Item("scenario", version.created_at, text, url, f"by {version.author.username}{said}")

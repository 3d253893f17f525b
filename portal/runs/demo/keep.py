"""The story's runs as rows, with all that is kept of a real one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from itertools import batched
from multiprocessing import get_context
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from portal.accounts.models import User
from portal.labs.lab import LabError, load_lab
from portal.runs import digest
from portal.runs.archive import Opened
from portal.runs.demo.load import Made, Recipe, archive_of, evidence, make
from portal.runs.demo.story import AUTHORS, LINES, Story, Told, tell
from portal.runs.environment import HostReading, engine_of, environment_digest
from portal.runs.models import (
    Archive,
    Environment,
    EvidenceRow,
    NamedScenario,
    Note,
    Run,
    RunEvent,
    RunGroup,
    ScenarioVersion,
    Summary,
    Tag,
    new_run_id,
)
from portal.runs.states import State
from wsnode.core.result import Result, Subject, Window
from wsnode.core.scenario import Scenario

BATCH = 250
IN_THIS_PROCESS = 60
"""Fewer different loads than these are not worth starting processes for."""
BEFORE_LOAD_S = 6
"""From a run's turn to its load."""
Say = Callable[[str], None]


def keep(runs: int, until: datetime, seed: int, say: Say = lambda _: None) -> int:
    """Make up `runs` runs that end at `until` and write them. Returns how many were made; all or none are kept."""
    story = tell(runs, until, seed)
    recipes = list({told.recipe.seed: told.recipe for told in story.runs if told.recipe}.values())
    say(f"{len(recipes):,} different loads are made")
    loads = dict(zip((recipe.seed for recipe in recipes), _made(recipes), strict=True))
    say(f"{len(story.runs):,} runs are written")
    with transaction.atomic():
        _Keeper(story, loads).keep()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return len(story.runs)


def _made(recipes: Sequence[Recipe]) -> Iterator[Made]:
    if len(recipes) < IN_THIS_PROCESS:
        yield from map(make, recipes)
        return
    # Not forked: this process has a database open.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield from pool.map(make, recipes, chunksize=8)


class _Keeper:
    def __init__(self, story: Story, loads: dict[str, Made]) -> None:
        self._story = story
        self._loads = loads
        try:
            self._machine = load_lab(settings.LAB_FILE).machine
        except LabError:
            self._machine = "demo-lab"
        self._users = {name: _user(name, role) for name, role in AUTHORS.items()}
        self._tags: dict[str, Tag] = {}
        self._baselines: dict[str, Run] = {}
        self._digests: dict[int, bytes] = {}

    def keep(self) -> None:
        """Everything, oldest first."""
        first = self._story.runs[0].at
        self._versions = {line.scenario.name: self._version(line.scenario, first) for line in LINES}
        self._groups = self._make_groups()
        for some in batched(self._story.runs, BATCH):
            self._write(some)
        for name, run in self._baselines.items():
            NamedScenario.objects.filter(name=name).update(baseline=run)

    def _version(self, scenario: Scenario, at: datetime) -> ScenarioVersion:
        version = NamedScenario.write(scenario, self._users["edsger"], "for the demo")
        ScenarioVersion.objects.filter(pk=version.pk, created_at__gt=at).update(created_at=at)
        return version

    def _make_groups(self) -> dict[str, RunGroup]:
        begun: dict[str, Told] = {}
        for told in self._story.runs:
            if told.group is not None:
                begun.setdefault(told.group, told)
        groups = {
            key: RunGroup(
                title=series.title,
                kind=series.kind,
                created_by=self._users[begun[key].author],
                created_at=begun[key].at,
            )
            for key, series in self._story.series.items()
            if key in begun
        }
        RunGroup.objects.bulk_create(groups.values())
        paired = []
        for key, group in groups.items():
            partner = self._story.series[key].partner
            if partner in groups:
                group.partner = groups[partner]
                paired.append(group)
        RunGroup.objects.bulk_update(paired, ["partner"])
        return groups

    # --- some runs at a time ----------------------------------------------------------------------------------------
    def _write(self, some: Iterable[Told]) -> None:
        rows: dict[type, list[Any]] = {
            model: [] for model in (Run, Summary, EvidenceRow, Environment, Archive, RunEvent, Note)
        }
        tagged = []
        for told in some:
            run = self._run(told)
            rows[Run].append(run)
            rows[RunEvent] += _log(run, told)
            if told.recipe is not None:
                self._keep_result(run, self._loads[told.recipe.seed], rows)
            if told.is_baseline:
                self._baselines[told.line.scenario.name] = run
            if told.note:
                at = told.at + timedelta(minutes=20)
                rows[Note].append(Note(run=run, author=self._users["grace"], text=told.note, created_at=at))
            tagged += [Run.tags.through(run=run, tag=self._tag(name)) for name in told.tags]
        for model, made in rows.items():
            model.objects.bulk_create(made, batch_size=BATCH)  # type: ignore[attr-defined]
        Run.tags.through.objects.bulk_create(tagged)

    def _tag(self, name: str) -> Tag:
        if name not in self._tags:
            self._tags[name] = Tag.objects.get_or_create(name=name)[0]
        return self._tags[name]

    def _run(self, told: Told) -> Run:
        scenario = told.line.scenario
        state = State(told.trouble) if told.why else State.FINISHED
        turn = told.at + timedelta(seconds=1)
        run = Run(
            id=new_run_id(),
            state=state,
            state_reason=told.why,
            epoch=1,
            conductor="demo",
            machine=self._machine,
            generators=list(told.line.generators),
            weights=[1] * len(told.line.generators),
            scenario_name=scenario.name,
            scenario=scenario.model_dump(mode="json"),
            scenario_version=self._versions[scenario.name],
            subject_name=told.line.subject,
            subject_version=told.version,
            subject_source="own" if told.engine else "given",
            reason=told.reason,
            baseline=self._baselines.get(scenario.name),
            group=self._groups[told.group] if told.group else None,
            group_place=told.place,
            starred=told.starred,
            origin=told.origin,
            created_by=self._users[told.author],
            created_at=told.at,
            preflight_at=turn,
            preparing_at=turn + timedelta(seconds=3),
            finished_at=turn + timedelta(seconds=12),
        )
        if told.recipe is None:
            return run
        begin = turn + timedelta(seconds=BEFORE_LOAD_S)
        end = begin + timedelta(seconds=scenario.duration_s + 1)
        run.start_at_ns = round(begin.timestamp() * 1000) * 1_000_000
        run.running_at, run.collecting_at, run.judging_at = begin, end, end + timedelta(seconds=1)
        run.finished_at = end + timedelta(seconds=3)
        run.last_second = scenario.duration_s
        return run

    def _keep_result(self, run: Run, made: Made, rows: dict[type, list[Any]]) -> None:
        result = _own(made, run)
        readings = [HostReading(host.name, host.role, host.environment) for host in result.hosts]
        run.verdict, run.validity = result.verdict, result.validity
        run.engine, run.environment_digest = engine_of(readings), environment_digest(readings)
        rows[Summary].append(Summary.of(run, result))
        rows[EvidenceRow] += [
            EvidenceRow(run=run, order=order, host=_host_of(row.name), **row.model_dump())
            for order, row in enumerate(result.evidence)
        ]
        rows[Environment] += [
            Environment(run=run, host=host.name, role=host.role, begin=host.environment, end=host.environment)
            for host in result.hosts
        ]
        assert run.start_at_ns is not None
        rows[Archive].append(
            Archive(
                run=run,
                content=archive_of(made, run.pk, run.start_at_ns),
                digest=self._digest(made),
            )
        )

    def _digest(self, made: Made) -> bytes:
        """The same for all runs that share a load: it names neither run nor time."""
        if id(made) not in self._digests:
            window = made.result.window
            cut = (window.from_s, window.to_s) if window else None
            self._digests[id(made)] = digest.make(Opened(made.archive), cut)
        return self._digests[id(made)]


def _own(made: Made, run: Run) -> Result:
    """The load's result as this run's."""
    start_ns = run.start_at_ns
    assert start_ns is not None
    begin = datetime.fromtimestamp(start_ns / 1e9, run.created_at.tzinfo)
    window = made.result.window
    length_s = 0 if window is None else window.to_s - window.from_s
    if window is not None:
        window = Window(
            start=begin + timedelta(seconds=window.from_s),
            end=begin + timedelta(seconds=window.to_s),
            from_s=window.from_s,
            to_s=window.to_s,
        )
    opens_s = start_ns / 1e9 + (window.from_s if window else 0)
    return made.result.model_copy(
        update={
            "run_id": run.pk,
            "subject": Subject(
                name=run.subject_name,
                version=run.subject_version,
                source="own" if run.subject_source == "own" else "given",
            ),
            "window": window,
            "evidence": evidence(made.values, opens_s, length_s),
            "url": run.url,
        }
    )


def _host_of(row: str) -> str:
    """`Host CPU (load-1)` is of load-1."""
    return row.partition("(")[2].removesuffix(")")


def _log(run: Run, told: Told) -> Iterator[RunEvent]:
    assert run.preparing_at is not None
    assert run.finished_at is not None
    for number, name in enumerate(told.line.generators if told.recipe else ()):
        at = run.preparing_at + timedelta(milliseconds=400 * number)
        yield RunEvent(run=run, at=at, text=f"{name}: prepared, workers: 2")
    if told.why:
        level = "info" if told.trouble == "cancelled" else "error"
        yield RunEvent(run=run, at=run.finished_at, text=told.why, level=level)


def _user(name: str, role: str) -> User:
    """A person of the story; nobody can sign in as one that is made here."""
    user, made = User.objects.get_or_create(username=name, defaults={"role": role})
    if made:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return user

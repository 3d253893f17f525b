"""Making runs: the one way for form, API and schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.labs.aim import AimError, choose
from portal.labs.lab import Lab, LabError, load_lab
from portal.runs.draft import GivenSubject, Refused, compose, shortened
from portal.runs.edits import edits
from portal.runs.groups import MOST_TIMES, RunGroup, alternating
from portal.runs.jobs import why_not_before
from portal.runs.models import DeclaredSubject, NamedScenario, Run, ScenarioVersion
from portal.runs.purpose import USUAL, Purpose
from portal.runs.secret import MissingSecret, secrets
from portal.runs.tasks import wake
from wsnode.core.scenario import Scenario

OWN = "wsnode"
"""What our own server is called as a subject; its host tells the version."""
UNKNOWN = "unknown"
"""Version of a target of which nobody gave one."""
TITLE_CHARS = 200


class Order(NamedTuple):
    """A run that is asked for: checked, but for the lab."""

    scenario: Scenario
    accept_partial: bool = False
    subject: GivenSubject | DeclaredSubject | None = None
    """None: the lab's own server, or the target by its name."""
    purpose: Purpose = Purpose()
    target: str = ""
    """At which of the lab's targets it aims, `NAME` or `NAME:PORT`; empty: at the lab's own server."""

    @property
    def measures(self) -> str:
        """The subject in words."""
        if self.subject is None:
            return self.target or "the lab's own server"
        return " ".join(self.subject) if isinstance(self.subject, GivenSubject) else f"{self.subject.name} as it says"


class Place(NamedTuple):
    """Where in a group a run stands, from 1 on; nowhere."""

    group: RunGroup | None = None
    number: int | None = None


def lab_or_refuse() -> Lab:
    """The lab of this portal.

    Raises:
        Refused: there is no usable `lab.json`.
    """
    try:
        return load_lab(settings.LAB_FILE)
    except LabError as error:
        raise Refused([f"lab: {error}"]) from error


def check_lab(lab: Lab, order: Order) -> None:
    """Does a lab allow what a run aims at, and offer what it wants done before?

    Raises:
        Refused: it does not, the line begins with `target` or `before`; or a secret of the scenario is missing.
    """
    try:
        if order.target:
            choose(lab, order.target)
        why = why_not_before(lab, order.scenario.before, order.target)
    except AimError as error:
        raise Refused([str(error)]) from error
    if why is not None:
        raise Refused([why])
    try:
        secrets(order.scenario.secrets)
    except MissingSecret as error:
        raise Refused([str(error)]) from error


def find_declared(name: str) -> DeclaredSubject:
    """The declared subject of a name.

    Raises:
        Refused: there is none.
    """
    found = DeclaredSubject.objects.filter(name=name).first() if name.isprintable() else None
    if found is None:
        known = ", ".join(DeclaredSubject.objects.values_list("name", flat=True)) or "none; an admin declares them"
        raise Refused([f"subject.declared: {shortened(name)} is not declared; known: {known}"])
    return found


def make_order(
    base: str | Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    accept_partial: bool = False,
    subject: GivenSubject | DeclaredSubject | None = None,
    reason: str = "",
    tags: Sequence[str] = (),
    baseline: str = USUAL,
    target: str = "",
) -> Order:
    """What is asked for, checked.

    Raises:
        Refused: see `compose` and `Purpose.of`; also where the subject cannot be used.
    """
    scenario = compose(base, changes or {}, accept_partial=accept_partial)
    purpose = Purpose.of(base if isinstance(base, str) else scenario.name, reason=reason, tags=tags, baseline=baseline)
    checked = subject.checked() if isinstance(subject, GivenSubject) else subject
    return Order(scenario, accept_partial, checked, purpose, target.strip())


def create_run(
    user: User,
    base: str | Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    accept_partial: bool = False,
    subject: GivenSubject | DeclaredSubject | None = None,
    reason: str = "",
    tags: Sequence[str] = (),
    baseline: str = USUAL,
    target: str = "",
    origin: str = "web",
    group: RunGroup | None = None,
) -> Run:
    """Check everything, queue a run and wake a conductor after the commit. With a group it takes the next place there.

    Raises:
        Refused: see `compose` and `Purpose.of`; also where the subject or the lab cannot be used.
    """
    order = make_order(
        base,
        changes,
        accept_partial=accept_partial,
        subject=subject,
        reason=reason,
        tags=tags,
        baseline=baseline,
        target=target,
    )
    return queue_run(user, order, origin=origin, group=group)


def queue_run(user: User, order: Order, *, origin: str = "web", group: RunGroup | None = None) -> Run:
    """Queue a run.

    Raises:
        Refused: the subject or the lab cannot be used, or the lab has not what the run asks of it.
    """
    lab = lab_or_refuse()
    check_lab(lab, order)
    with transaction.atomic():
        place = Place()
        if group is not None:
            # Two that take a place at the same moment must not take the same one.
            RunGroup.objects.select_for_update().get(pk=group.pk)
            # Not their number: runs that have expired leave gaps.
            last = group.runs.aggregate(last=Max("group_place"))["last"] or 0
            place = Place(group, last + 1)
        run = _queue(user, lab, order, version_of(order.scenario), timezone.now(), origin=origin, place=place)
        record(user, "queued", run)
    return run


def queue_series(
    user: User, order: Order, times: int, *, other: Order | None = None, title: str = "", origin: str = "web"
) -> RunGroup:
    """Queue `times` runs as a group; with `other`, two groups of so many, alternating A B B A …, of which the first is
    returned.

    Raises:
        Refused: a number or a title that is out of range, or the subject or the lab cannot be used. Nothing is queued.
    """
    lines = []
    if not 2 <= times <= MOST_TIMES:
        lines.append(f"times: {times} is refused (allowed: 2 to {MOST_TIMES})")
    if len(title) > TITLE_CHARS or not title.isprintable():
        lines.append(f"title: {shortened(title)} is refused: wanted one line of at most {TITLE_CHARS} characters")
    if lines:
        raise Refused(lines)
    lab = lab_or_refuse()
    for one in (order, other):
        if one is not None:
            check_lab(lab, one)
    with transaction.atomic():
        groups = _groups(user, order, other, title)
        # The line goes by this time: what is queued in one go keeps its order whoever else queues runs meanwhile.
        now, places = timezone.now(), dict.fromkeys(groups, 0)
        versions = {id(one): version_of(one.scenario) for one in (order, other) if one is not None}
        for n, letter in enumerate(alternating(times) if other is not None else ["a"] * times):
            group, its_order = (groups[0], order) if letter == "a" or other is None else (groups[1], other)
            places[group] += 1
            at = now + timedelta(microseconds=n)
            place = Place(group, places[group])
            _queue(user, lab, its_order, versions[id(its_order)], at, origin=origin, place=place)
        record(user, "queued", groups[0], f"{sum(places.values())} runs")
    return groups[0]


def _groups(user: User, order: Order, other: Order | None, title: str) -> list[RunGroup]:
    if other is None:
        return [RunGroup.objects.create(title=title or _title(order), kind="repeat", created_by=user)]
    titles = tell_apart(order, other)
    if title:
        titles = (f"{title}: {titles[0]}"[:TITLE_CHARS], f"{title}: {titles[1]}"[:TITLE_CHARS])
    first, second = (RunGroup.objects.create(title=one, kind="alternate", created_by=user) for one in titles)
    for group, partner in ((first, second), (second, first)):
        group.partner = partner
        group.save(update_fields=["partner"])
    return [first, second]


def _title(order: Order) -> str:
    return f"{order.scenario.name} on {order.measures}"[:TITLE_CHARS]


def tell_apart(order: Order, other: Order) -> tuple[str, str]:
    """Two titles that name what differs; `A` and `B` where nothing does."""
    changed = edits(order.scenario.model_dump(mode="json"), other.scenario.model_dump(mode="json"))
    shown = [edit for edit in changed if edit.name not in ("description",)]
    parts: list[tuple[str, str]] = []
    if order.measures != other.measures:
        parts.append((order.measures, other.measures))
    for edit in shown:
        old, new = (" ".join(text.split()) or "none" for text in (edit.before, edit.after))
        parts.append((old, new) if edit.name == "name" else (f"{edit.name}={old}", f"{edit.name}={new}"))
    first, second = (", ".join(pair[side] for pair in parts) for side in (0, 1))
    tail = "" if any(edit.name == "name" for edit in shown) else f" ({order.scenario.name})"
    return (f"A: {first or 'the same as B'}{tail}"[:TITLE_CHARS], f"B: {second or 'the same as A'}{tail}"[:TITLE_CHARS])


def version_of(scenario: Scenario) -> ScenarioVersion | None:
    """The stored version that a scenario is, field by field; None where it is none."""
    row = NamedScenario.objects.filter(name=scenario.name).first()
    return row.version_of(scenario) if row is not None else None


def _queue(
    user: User, lab: Lab, order: Order, version: ScenarioVersion | None, at: datetime, *, origin: str, place: Place
) -> Run:
    subject = order.subject.checked() if isinstance(order.subject, GivenSubject) else order.subject
    declared = isinstance(subject, DeclaredSubject)
    if subject is None and order.target:
        # Nobody said what it is: by its name two runs of it can at least be found together.
        subject = GivenSubject(choose(lab, order.target).target.name, UNKNOWN)
    run = Run.objects.create(
        machine=lab.machine,
        scenario_name=order.scenario.name,
        scenario=order.scenario.model_dump(mode="json"),
        scenario_version=version,
        accept_partial=order.accept_partial,
        target=order.target,
        subject_name=subject.name if subject is not None else OWN,
        subject_version=subject.version if isinstance(subject, GivenSubject) else "",
        subject_source="probed" if declared else "given" if subject is not None else "own",
        reason=order.purpose.reason,
        baseline=order.purpose.baseline,
        group=place.group,
        group_place=place.number,
        origin=origin,
        created_by=user,
        created_at=at,
    )
    if order.purpose.tags:
        run.tags.set(order.purpose.tag_rows())
    wake(run.pk)
    return run

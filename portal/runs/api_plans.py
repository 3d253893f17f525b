"""`/api/v1/` before a run: its plan, groups of runs, scenarios and their versions."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from ninja import Router, Schema
from ninja.errors import HttpError
from ninja.responses import Status
from pydantic import Field, ValidationError

from portal.accounts.audit import record
from portal.accounts.roles import operator, viewer
from portal.runs.api import REFUSALS, RunIn, RunOut, facts_of, user_of
from portal.runs.catalogue import Overtaken
from portal.runs.create import Order, make_order, queue_series
from portal.runs.draft import Refused, shortened
from portal.runs.foresight import foresee
from portal.runs.forms import second_order
from portal.runs.groups import MOST_TIMES
from portal.runs.models import NamedScenario, Run, RunGroup, ScenarioVersion
from portal.runs.purpose import find_baseline
from portal.runs.states import OVER
from portal.runs.views.group import cancel_rest
from wsnode.core.scenario import Scenario, error_lines

router = Router()
MOST_VERSIONS = 200


class OtherSubject(Schema):
    """What the second group measures; without a name, another version of the same."""

    name: str = ""
    version: str = ""


class Alternate(Schema):
    """What the runs of the second group have differently; nothing: both are alike, a look at the noise."""

    scenario: str = Field("", description="Another scenario's name.")
    set: dict[str, Any] = Field({}, description="Fields set differently.")
    subject: OtherSubject = OtherSubject()

    model_config = {"extra": "forbid"}


class SeriesIn(RunIn):
    """Runs to queue as a group, or as two that alternate A B B A …"""

    times: int = Field(1, description=f"Runs of each group, 2 to {MOST_TIMES}; of a plan also 1.")
    title: str = ""
    alternate: Alternate | None = None

    def orders(self) -> list[Order]:
        """The order of the runs, and of the second group's where two alternate.

        Raises:
            Refused: something of it is wrong.
        """
        order = make_order(self.scenario, self.set, **self.wanted)
        if self.alternate is None:
            return [order]
        other = self.alternate
        subject = (other.subject.name, other.subject.version)
        return [order, second_order(order, scenario=other.scenario, changes=other.set, subject=subject)]


class PartOut(Schema):
    """What a load generator would do."""

    generator: str
    connections: int
    connect_per_s: float
    messages_per_s: float
    text: str


class PlanOut(Schema):
    """What would come of it."""

    parts: list[PartOut]
    offered: str
    moments: list[list[str]] = Field(description="When, and what happens then.")
    warnings: list[str]
    no_window: str | None
    runs: int
    total_s: float | None = Field(description="All of them, one after the other; null: there is no lab.")
    ahead: int | None = Field(description="Runs that come first.")
    begins_s: float | None = Field(description="From now.")


class GroupOut(Schema):
    """A group as it stands, and the one that it alternates with."""

    group_id: str
    title: str
    kind: str
    partner: str | None
    created_at: str
    created_by: str
    runs: list[RunOut] = Field(description="In their order; the partner's are the partner's.")
    over: int
    url: str


class ScenarioOut(Schema):
    """A scenario with what is kept of it."""

    scenario: Scenario
    version: int | None
    baseline: str | None
    archived: bool
    url: str


class VersionOut(Schema):
    """A version of a scenario."""

    version: int
    author: str | None = Field(description="null: it came from a file.")
    created_at: str
    message: str
    scenario: dict[str, Any]


class ScenarioIn(Schema):
    """A scenario to write."""

    fields: dict[str, Any] = Field(description="All that are not at their default; `name` may be left out.")
    message: str = Field("", description="What changed, and why.")
    made_from: int | None = Field(
        None, description="The version that it was made from (0: there was none): refused where that is not the newest."
    )

    model_config = {"extra": "forbid"}


class BaselineIn(Schema):
    """What new runs are held against."""

    baseline: str = Field(description="A finished run's id, or `none`.")

    model_config = {"extra": "forbid"}


@router.post("/plan", response={200: PlanOut, **REFUSALS}, summary="What would come of a run")
@operator
def post_plan(request: HttpRequest, body: SeriesIn) -> dict[str, Any]:
    """The plan of a run, or of groups of runs, with warnings. Nothing is queued. Without `accept_partial` a load that
    has no measured window is refused."""
    if not 1 <= body.times <= MOST_TIMES:
        raise Refused([f"times: {body.times} is refused (allowed: 1 to {MOST_TIMES})"])
    orders = body.orders()
    plan, outlook, lab_error = foresee(
        *(order.scenario for order in orders),
        times=body.times,
        accept_partial=body.accept_partial,
        own=orders[0].subject is None and not orders[0].target,
    )
    return {
        "parts": [part._asdict() for part in plan.parts],
        "offered": plan.offered,
        "moments": [list(moment) for moment in plan.moments],
        "warnings": [*([f"lab: {lab_error}"] if lab_error else []), *plan.warnings],
        "no_window": plan.no_window,
        "runs": body.times * len(orders),
        "total_s": outlook.total_s if outlook else None,
        "ahead": outlook.ahead if outlook else None,
        "begins_s": outlook.begins_s if outlook else None,
    }


@router.post("/groups", response={201: GroupOut, **REFUSALS}, summary="Queue a group of runs, or two that alternate")
@operator
def post_group(request: HttpRequest, body: SeriesIn) -> Status[dict[str, Any]]:
    """Queue them all, or none. Whatever else is queued meanwhile, their order stays."""
    orders = body.orders()
    other = orders[1] if len(orders) > 1 else None
    group = queue_series(user_of(request), orders[0], body.times, other=other, title=body.title, origin="api")
    return Status(201, _group_facts(group))


@router.get("/groups/{group_id}", response={200: GroupOut, **REFUSALS}, summary="A group, with its runs")
@viewer
def get_group(request: HttpRequest, group_id: str) -> dict[str, Any]:
    """How a group stands."""
    return _group_facts(_group(group_id))


@router.post("/groups/{group_id}/cancel", response={202: GroupOut, **REFUSALS}, summary="Ask for a group's end")
@operator
def cancel_group(request: HttpRequest, group_id: str) -> Status[dict[str, Any]]:
    """All of its runs that are not over, and of the group that it alternates with."""
    group = _group(group_id)
    if not cancel_rest(group, user_of(request)):
        raise HttpError(409, f"all runs of group {group.pk} are over")
    return Status(202, _group_facts(group))


@router.get("/scenarios/{name}", response={200: ScenarioOut, **REFUSALS}, summary="A scenario, with its version")
@viewer
def get_scenario(request: HttpRequest, name: str) -> dict[str, Any]:
    """One scenario, archived ones too."""
    return _scenario_facts(_row(name))


@router.get(
    "/scenarios/{name}/versions", response={200: list[VersionOut], **REFUSALS}, summary="Versions, newest first"
)
@viewer
def list_versions(request: HttpRequest, name: str) -> list[dict[str, Any]]:
    """Who wrote what when; the newest 200."""
    return [
        {
            "version": one.number,
            "author": one.author.username if one.author else None,
            "created_at": one.created_at.isoformat(),
            "message": one.message,
            "scenario": one.content,
        }
        for one in _row(name).versions.select_related("author").order_by("-number")[:MOST_VERSIONS]
    ]


@router.put("/scenarios/{name}", response={200: ScenarioOut, **REFUSALS}, summary="Write a scenario")
@operator
def put_scenario(request: HttpRequest, name: str, body: ScenarioIn) -> dict[str, Any]:
    """Make these fields the newest version of a scenario, or a new one. What is there already makes no version."""
    given = body.fields.get("name", name)
    if given != name:
        raise Refused([f"name: {shortened(str(given))} is refused: the address says {shortened(name)}"])
    try:
        scenario = Scenario.model_validate(body.fields | {"name": name})
    except ValidationError as error:
        raise Refused(error_lines(error)) from error
    if len(body.message) > 500 or not body.message.isprintable():
        raise Refused(["message: wanted one line of at most 500 characters"])
    user = user_of(request)
    try:
        with transaction.atomic():
            version = NamedScenario.write(scenario, user, body.message, made_from=body.made_from)
            record(user, "wrote", version.scenario, f"version {version.number}: {body.message}")
    except Overtaken as error:
        newest = error.newest.number if error.newest else 0
        raise HttpError(409, f"made_from: {body.made_from} is not the newest version of {name}, {newest} is") from error
    return _scenario_facts(_row(name), version)


@router.put("/scenarios/{name}/baseline", response={200: ScenarioOut, **REFUSALS}, summary="Set the baseline")
@operator
def put_baseline(request: HttpRequest, name: str, body: BaselineIn) -> dict[str, Any]:
    """The run that new ones of a scenario are held against."""
    row = _row(name)
    with transaction.atomic():
        row.baseline = find_baseline(name, body.baseline or "''")
        row.save(update_fields=["baseline"])
        record(user_of(request), "set the baseline of", row, body.baseline)
    return _scenario_facts(row)


@router.post("/scenarios/{name}/archive", response={200: ScenarioOut, **REFUSALS}, summary="Offer it no more")
@operator
def archive_scenario(request: HttpRequest, name: str) -> dict[str, Any]:
    """Its versions and runs stay."""
    return _archived(request, name, archived=True)


@router.post("/scenarios/{name}/restore", response={200: ScenarioOut, **REFUSALS}, summary="Offer it again")
@operator
def restore_scenario(request: HttpRequest, name: str) -> dict[str, Any]:
    """New runs can be made of it then."""
    return _archived(request, name, archived=False)


def _archived(request: HttpRequest, name: str, *, archived: bool) -> dict[str, Any]:
    row = _row(name)
    with transaction.atomic():
        row.archived_at = timezone.now() if archived else None
        row.save(update_fields=["archived_at"])
        record(user_of(request), "archived" if archived else "brought back", row)
    return _scenario_facts(row)


def _row(name: str) -> NamedScenario:
    row = NamedScenario.objects.filter(name=name).first() if name.isprintable() else None
    if row is None:
        raise HttpError(404, f"no scenario {shortened(name)}")
    return row


def _scenario_facts(row: NamedScenario, version: ScenarioVersion | None = None) -> dict[str, Any]:
    newest = version or row.newest
    return {
        "scenario": row.scenario_model,
        "version": newest.number if newest else None,
        "baseline": row.baseline_id,
        "archived": row.archived_at is not None,
        "url": row.url,
    }


def _group(group_id: str) -> RunGroup:
    found = None
    if group_id.isprintable():
        found = RunGroup.objects.select_related("created_by").filter(pk=group_id).first()
    if found is None:
        raise HttpError(404, f"no group {shortened(group_id)}")
    return found


def _group_facts(group: RunGroup) -> dict[str, Any]:
    rows = Run.objects.filter(group=group).select_related("created_by", "scenario_version").prefetch_related("tags")
    runs = list(rows.order_by("created_at", "pk"))
    return {
        "group_id": group.pk,
        "title": group.title,
        "kind": group.kind,
        "partner": group.partner_id,
        "created_at": group.created_at.isoformat(),
        "created_by": group.created_by.username,
        "runs": [facts_of(run) for run in runs],
        "over": sum(run.state in OVER for run in runs),
        "url": group.url,
    }

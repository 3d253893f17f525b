"""What would come of a run, or of several, on this lab as it is now: the plan in plain words, and when."""

from __future__ import annotations

from typing import NamedTuple

from django.conf import settings
from django.utils import timezone

from portal.labs.lab import LabError, load_lab
from portal.runs.achieved import achieved
from portal.runs.capacity import capacities, last_told
from portal.runs.expected import Outlook, outlook
from portal.runs.own_server import own_server
from portal.runs.plan import PlainPlan, plain_plan
from portal.runs.split import split
from wsnode.core.scenario import Scenario


class Foreseen(NamedTuple):
    """A plan; `outlook` and, of its warnings, those about hosts only where there is a lab."""

    plan: PlainPlan
    outlook: Outlook | None
    lab_error: str
    """Why there is no lab."""


def foresee(
    scenario: Scenario, *others: Scenario, times: int = 1, accept_partial: bool = False, own: bool = True
) -> Foreseen:
    """The plan of a scenario; the warnings of others that alternate with it are added, as B's. `times`: of each. `own`:
    it is the lab's own server that is measured."""
    lab, lab_error = None, ""
    try:
        lab = load_lab(settings.LAB_FILE)
    except LabError as error:
        lab_error = str(error)
    names = [host.name for host in lab.load_generators] if lab else []
    done = achieved(lab.machine) if lab else {}
    told = last_told(lab.machine) if lab else {}
    server = own_server(lab.machine) if lab and own else None
    plans = []
    for each in (scenario, *others):
        able = capacities(each, lab, done, told) if lab else []
        plans.append(
            plain_plan(
                each,
                names,
                split(each.clients, able, each.split),
                accept_partial=accept_partial,
                lab=lab,
                achieved=done,
                capacities=able,
                takes=server.takes if server is not None else None,
            )
        )
    first = plans[0]
    added = [f"B: {warning}" for plan in plans[1:] for warning in plan.warnings if warning not in first.warnings]
    when = None
    if lab is not None and times:
        contents = [each.model_dump(mode="json") for each in (scenario, *others)] * times
        when = outlook(lab.machine, contents, timezone.now())
    return Foreseen(first._replace(warnings=[*first.warnings, *added]), when, lab_error)

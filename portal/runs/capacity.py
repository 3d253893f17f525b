"""What the lab's load generators can carry, from `lab.json` and from what is stored of their earlier runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portal.labs.lab import Lab
from portal.runs.achieved import achieved
from portal.runs.limits import Achieved
from portal.runs.models import Environment
from portal.runs.split import Capacity, capacity, split
from wsnode.core.scenario import Scenario


def capacities(
    scenario: Scenario, lab: Lab, done: Mapping[str, Achieved], told: Mapping[str, Mapping[str, Any]]
) -> list[Capacity]:
    """Of each load generator, in the lab's order. `done` and `told`: what `achieved` and `last_told` gave."""
    return [
        capacity(host.name, scenario, host.facts, told.get(host.name), done.get(host.name))
        for host in lab.load_generators
    ]


def weights_of(scenario: Scenario, lab: Lab) -> list[int]:
    """How many of a scenario's clients each load generator has, as a run keeps it."""
    able = capacities(scenario, lab, achieved(lab.machine), last_told(lab.machine))
    return split(scenario.clients, able, scenario.split)


def last_told(machine: str) -> dict[str, dict[str, Any]]:
    """The stable facts that each load generator of the newest run on a machine told. Two queries."""
    rows = Environment.objects.filter(role="load_generator", run__machine=machine)
    newest = rows.order_by("-run__created_at").values_list("run_id", flat=True).first()
    if newest is None:
        return {}
    found = rows.filter(run_id=newest).values_list("host", "begin")
    return {host: begin["stable"] for host, begin in found if isinstance(begin.get("stable"), dict)}

"""Where a run's scenario comes from: a stored version, or one with fields set differently for this run."""

from __future__ import annotations

from typing import NamedTuple

from portal.runs.edits import Edit, edits
from portal.runs.models import Run, ScenarioVersion


class Origin(NamedTuple):
    """The version that a run is, or was made from."""

    version: ScenarioVersion
    edits: list[Edit]
    """What was set differently for the run; empty where it is the version."""


def origin_of(run: Run) -> Origin | None:
    """What a run's scenario was made from; None where no scenario of its name was stored then. A query, or none."""
    if run.scenario_version is not None:
        return Origin(run.scenario_version, [])
    version = (
        ScenarioVersion.objects.filter(scenario__name=run.scenario_name, created_at__lte=run.created_at)
        .select_related("scenario")
        .order_by("-number")
        .first()
    )
    return Origin(version, edits(version.content, run.scenario)) if version is not None else None

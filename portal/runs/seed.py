"""Scenarios from files: `scenarios/*.yaml`, each one scenario, named as its file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from django.db import transaction
from pydantic import ValidationError

from portal.runs.draft import Refused
from portal.runs.models import NamedScenario
from wsnode.core.scenario import Scenario, error_lines


def read_scenario(file: Path) -> Scenario:
    """One scenario file.

    Raises:
        Refused: it is no YAML mapping, or a field is wrong, or its name is not the file's.
    """
    try:
        data = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused([f"{file.name}: {' '.join(str(error).split())}"]) from error
    if not isinstance(data, dict):
        raise Refused([f"{file.name}: wanted fields with values, got {type(data).__name__}"])
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise Refused([f"{file.name}: {line}" for line in error_lines(error)]) from error
    if scenario.name != file.stem:
        raise Refused([f"{file.name}: its name is {scenario.name!r}, wanted {file.stem!r}"])
    return scenario


def read_scenarios(folder: Path) -> list[Scenario]:
    """All scenarios of a folder.

    Raises:
        Refused: a file is wrong, with the lines of all wrong files; or there is none.
    """
    scenarios, lines = [], []
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise Refused([f"{folder}: no *.yaml there"])
    for file in files:
        try:
            scenarios.append(read_scenario(file))
        except Refused as error:
            lines += error.lines
    if lines:
        raise Refused(lines)
    return scenarios


def outdated(scenarios: Iterable[Scenario]) -> list[str]:
    """Names of those that are not stored, or not as they are here."""
    stored = dict(NamedScenario.objects.values_list("name", "content"))
    return [one.name for one in scenarios if stored.get(one.name) != one.model_dump(mode="json")]


def seed_scenarios(folder: Path) -> list[str]:
    """Write all scenarios of a folder, replacing those of the same name. Returns the names. All or none.

    Raises:
        Refused: see `read_scenarios`.
    """
    scenarios = read_scenarios(folder)
    with transaction.atomic():
        for scenario in scenarios:
            NamedScenario.write(scenario, None, "from its file")
    return [scenario.name for scenario in scenarios]

"""Scenarios from files: `scenarios/*.yaml`, each one scenario, named as its file."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import yaml
from django.conf import settings
from django.db import transaction
from pydantic import ValidationError

from portal.runs.draft import Refused
from portal.runs.models import NamedScenario
from wsnode.core.scenario import Scenario, error_lines

log = logging.getLogger("portal.runs")

FROM_FILE = "from its file"
"""Message of a version that nobody here has written."""


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


class Seeded(NamedTuple):
    """What a folder's scenarios have come to."""

    names: list[str]
    """All that the folder has."""
    kept: list[str]
    """Those of them that are stored otherwise, since somebody here has edited them."""


def outdated(scenarios: Iterable[Scenario]) -> list[str]:
    """Names of those that are not stored, or not as they are here; without what was edited or archived here."""
    return [one.name for one in scenarios if _is_for_us(one.name) and not _is_stored(one)]


def seed_scenarios(folder: Path) -> Seeded:
    """Write all scenarios of a folder, all or none; but those that somebody has edited or archived here stay as they
    are.

    Raises:
        Refused: see `read_scenarios`.
    """
    scenarios = read_scenarios(folder)
    kept = []
    with transaction.atomic():
        for scenario in scenarios:
            if _is_for_us(scenario.name):
                NamedScenario.write(scenario, None, FROM_FILE)
            elif not _is_stored(scenario):
                kept.append(scenario.name)
    return Seeded([scenario.name for scenario in scenarios], kept)


def of_file(name: str, folder: Path) -> Scenario | None:
    """What the file of a name says; None where there is none, or it is wrong."""
    file = folder / f"{name}.yaml"
    try:
        seen = file.stat()
    except OSError:
        return None
    return _as_it_is(file, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=256)
def _as_it_is(file: Path, _mtime_ns: int, _size: int) -> Scenario | None:
    """Read once for each time that the file was written: parsing takes longer than all else of a list."""
    try:
        return read_scenario(file)
    except Refused as refused:
        log.warning("%s", refused)
        return None


def kept_line(name: str) -> str:
    """What is said of a scenario that stays as it is."""
    return f"{name} was edited here and stays; its file says otherwise: {settings.PORTAL_URL}/scenarios/{name}/"


def _is_for_us(name: str) -> bool:
    """Whether a file may be written over what is stored: nobody has edited it, nor put it away."""
    row = NamedScenario.objects.filter(name=name).first()
    newest = row.newest if row is not None else None
    return row is None or (row.archived_at is None and (newest is None or newest.author_id is None))


def _is_stored(scenario: Scenario) -> bool:
    row = NamedScenario.objects.filter(name=scenario.name).first()
    try:
        return row is not None and row.scenario_model == scenario
    except ValidationError:
        return False

"""Looks at Grafana's configuration as Grafana would, before it is put in place."""

import configparser
import json
import string
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import yaml

OF_ITSELF = {"grafana", "-- Grafana --", "-- Mixed --", "-- Dashboard --"}
"""Data sources that every Grafana has."""


def environment(text: str) -> dict[str, str]:
    """The variables of a file for systemd's EnvironmentFile, as role grafana writes it: no quotes, no continuations."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def sources(value: Any) -> Iterator[str]:
    """Uids of all data sources that a part of a dashboard names."""
    if isinstance(value, dict):
        named = value.get("datasource")
        if isinstance(named, dict) and named.get("uid"):
            yield str(named["uid"])
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from sources(part)


def dashboard_faults(name: str, text: str, known: set[str]) -> Iterator[str]:
    """What is wrong with one dashboard."""
    try:
        board = json.loads(text)
    except ValueError as error:
        yield f"{name} is no JSON: {error}"
        return
    if not isinstance(board, dict) or board.get("uid") != PurePath(name).stem:
        yield f"{name} has no uid {PurePath(name).stem!r}, by which runs link to it"
    elif not board.get("panels"):
        yield f"{name} has no panels"
    yield from (
        f"{name} names data source {uid!r}, which is not provisioned" for uid in sorted({*sources(board)} - known)
    )


def expanded(value: Any, given: dict[str, str]) -> Any:
    """A YAML document with the environment put in, as Grafana does: in values, after parsing.

    Raises:
        KeyError: a variable is not given.
    """
    if isinstance(value, dict):
        return {name: expanded(part, given) for name, part in value.items()}
    if isinstance(value, list):
        return [expanded(part, given) for part in value]
    return string.Template(value).substitute(given) if isinstance(value, str) else value


class Provisioning:
    """What the files below provisioning/ say, with the environment put in."""

    def __init__(self, files: dict[str, str], given: dict[str, str]) -> None:
        self.faults: list[str] = []
        self.datasources: list[dict[str, Any]] = []
        self.providers: list[dict[str, Any]] = []
        for name, text in sorted(files.items()):
            try:
                said = expanded(yaml.safe_load(text), given)
                self.datasources += said.get("datasources") or []
                self.providers += said.get("providers") or []
            except KeyError as error:
                self.faults.append(f"{name} uses ${error.args[0]}, which the unit's environment lacks")
            except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
                self.faults.append(f"{name} is no provisioning file: {error}")


def grafana_faults(files: dict[str, str], folder: str, prometheus_url: str) -> list[str]:
    """What is wrong with Grafana's files (absolute path -> text; all that matter lie in `folder`); empty: nothing."""
    inside = {
        str(PurePath(path).relative_to(folder)): str(text)
        for path, text in files.items()
        if PurePath(path).is_relative_to(folder)
    }
    given = environment(inside["environment"])
    faults: list[str] = []
    try:
        configparser.ConfigParser(interpolation=None).read_string(inside["grafana.ini"])
    except configparser.Error as error:
        faults.append(f"grafana.ini cannot be read: {error}")
    said = Provisioning({name: text for name, text in inside.items() if name.startswith("provisioning/")}, given)
    faults += said.faults
    if [source.get("url") for source in said.datasources] != [prometheus_url]:
        urls = ", ".join(str(source.get("url")) for source in said.datasources) or "nothing"
        faults.append(f"provisioning/datasources reads from {urls}, wanted {prometheus_url} only")
    if f"{folder}/dashboards" not in [(one.get("options") or {}).get("path") for one in said.providers]:
        faults.append(f"provisioning/dashboards does not read {folder}/dashboards")
    known = OF_ITSELF | {str(source.get("uid")) for source in said.datasources}
    boards = {name: text for name, text in inside.items() if name.startswith("dashboards/")}
    if not boards:
        faults.append("there are no dashboards")
    for name, text in sorted(boards.items()):
        faults += dashboard_faults(name, text, known)
    return faults


class FilterModule:
    """For Ansible."""

    def filters(self) -> dict[str, Any]:
        """By the names that templates use."""
        return {"grafana_faults": grafana_faults}

"""The hosts of a new lab.json, from what was seen now and what was exported last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: lab_hosts
short_description: The hosts of a new lab.json
description:
  - Each name's entry of now, else its entry of the last lab.json; names that have neither are left out.
  - An entry that says the same as the last one keeps the time at which that was first seen, so that nothing changes.
positional: entries, last
options:
  _input: {description: Names in order., type: list, elements: str, required: true}
  entries: {description: Entries of now., type: list, elements: dict, required: true}
  last: {description: Entries of the last lab.json., type: list, elements: dict, required: true}
"""
EXAMPLES = """
hosts: "{{ names | lab_hosts(entries, last) }}"
"""
RETURN = """
_value: {description: Entries in the order of the names., type: list, elements: dict}
"""

Entry = Mapping[str, Any]


def _timeless(entry: Entry) -> dict[str, Any]:
    facts = {key: value for key, value in (entry.get("facts") or {}).items() if key != "provisioned_at"}
    return {**entry, "facts": facts}


def lab_hosts(names: Iterable[str], entries: Iterable[Entry], last: Iterable[Entry]) -> list[Entry]:
    """Entries in the order of `names`; see DOCUMENTATION."""
    now = {entry["name"]: entry for entry in entries}
    then = {entry["name"]: entry for entry in last if isinstance(entry, Mapping) and "name" in entry}
    found = []
    for name in dict.fromkeys(names):
        seen, known = now.get(name), then.get(name)
        if seen is not None and known is not None and _timeless(seen) == _timeless(known):
            found.append(known)
        elif seen is not None or known is not None:
            found.append(seen if seen is not None else known)
    return [entry for entry in found if entry is not None]


def only(value: Entry, fields: Iterable[str]) -> dict[str, Any]:
    """These fields of a mapping, in this order; what it lacks stays out."""
    return {field: value[field] for field in fields if field in value}


TARGET = ("name", "scheme", "host", "ports", "path", "consent", "networks", "runs_on")
"""Fields of a target in lab.json, and of an entry of wslab_targets."""


def lab_target(value: Entry) -> dict[str, Any]:
    """A target as lab.json has it; a single port may have been written as a number."""
    target = only(value, TARGET)
    return {**target, "ports": str(target["ports"])} if "ports" in target else target


def one_line(values: Mapping[str, object]) -> dict[str, str]:
    """Values as text, in which one blank parts what tabs or several blanks did; keys in order, empty ones left out."""
    lines = {key: " ".join(str(values[key]).split()) for key in sorted(values)}
    return {key: line for key, line in lines.items() if line}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"lab_hosts": lab_hosts, "lab_target": lab_target, "one_line": one_line, "only": only}

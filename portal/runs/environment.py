"""What was found on a host, as lines that can be read and compared. A reading has two parts (`wsnode.environment`):
`stable` facts, which are compared, and `volatile` ones, which move by nature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Facts = Mapping[str, Any]


class Change(NamedTuple):
    """A fact that was not the same at the end as at the begin."""

    name: str
    begin: str
    end: str


def part(reading: Mapping[str, Any], kind: Literal["stable", "volatile"] = "stable") -> dict[str, str]:
    """One part of a reading as text, in order of name; empty where nobody has read the host."""
    found = reading.get(kind)
    return {name: text(value) for name, value in sorted(found.items())} if isinstance(found, Mapping) else {}


def changes(begin: Facts, end: Facts) -> list[Change]:
    """The facts that differ between two parts; none where either was not read."""
    if not begin or not end:
        return []
    return [
        Change(name, text(begin.get(name)), text(end.get(name)))
        for name in sorted(begin.keys() | end.keys())
        if text(begin.get(name)) != text(end.get(name))
    ]


def text(value: object) -> str:
    """A fact as it is shown: what this kernel does not have is `absent`."""
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value))
    return str(value)

"""What was found on a host, as lines that can be read and compared (form: `wsnode.core.environment`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Change(NamedTuple):
    """A fact that was not the same at the end as at the begin."""

    name: str
    begin: str
    end: str


def facts(environment: Mapping[str, Any], kind: str = "stable") -> dict[str, str]:
    """The facts of one kind as text, in order of name; `volatile` ones move by nature."""
    return {name: text(value) for name, value in sorted((environment.get(kind) or {}).items())}


def changes(begin: Mapping[str, Any], end: Mapping[str, Any], kind: str = "stable") -> list[Change]:
    """The facts that differ between begin and end; none where either was not read."""
    before, after = facts(begin, kind), facts(end, kind)
    if not before or not after:
        return []
    return [
        Change(name, before.get(name, "absent"), after.get(name, "absent"))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
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

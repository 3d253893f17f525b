"""What differs between two scenarios, field by field, as it is written in a form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wsnode.core.scenario import Scenario


class Edit(NamedTuple):
    """A field that two scenarios do not have alike; '' where one of them has no value."""

    name: str
    title: str
    unit: str
    before: str
    after: str


def edits(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Edit]:
    """The fields that differ between two stored scenarios, in the order of their definition.

    A field that one of them does not know, having been written before it was there, has its default value; one that is
    known no more stands at the end.
    """
    names = [*Scenario.model_fields, *sorted((before.keys() | after.keys()) - Scenario.model_fields.keys())]
    return [
        Edit(name, _title(name), _unit(name), old, new)
        for name in names
        if (old := written(_value(before, name))) != (new := written(_value(after, name)))
    ]


def written(value: object) -> str:
    """A field's value as it stands in an input: '' for none, `2` for 2.0, a line for each of several."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    return str(value)


def _value(content: Mapping[str, Any], name: str) -> object:
    if name in content:
        return content[name]
    info = Scenario.model_fields.get(name)
    return info.get_default() if info is not None else None


def _title(name: str) -> str:
    info = Scenario.model_fields.get(name)
    return (info.title if info is not None else None) or name


def _unit(name: str) -> str:
    info = Scenario.model_fields.get(name)
    extra = info.json_schema_extra if info is not None else None
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""

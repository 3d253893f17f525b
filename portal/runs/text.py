"""Scenarios as YAML text, in and out: the form of `scenarios/*.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from portal.runs.draft import Refused
from wsnode.core.scenario import Scenario, error_lines

MOST_CHARS = 64 << 10
"""Of a text; a scenario has some hundred."""


class _Plain(yaml.SafeLoader):
    """YAML without aliases: some lines of them can stand for more than a memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not taken here", self.get_mark())
        return super().compose_node(parent, index)


def read_yaml(text: str) -> Scenario:
    """The scenario that a text holds.

    Raises:
        Refused: it is too long, no YAML mapping, or a field is wrong, a line for each.
    """
    if len(text) > MOST_CHARS:
        raise Refused([f"{len(text):,} characters are refused: wanted at most {MOST_CHARS:,}"])
    try:
        data = yaml.load(text, _Plain)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refused([f"no YAML: {' '.join(str(error).split()) or type(error).__name__}"]) from error
    if not isinstance(data, dict):
        raise Refused([f"wanted fields with values, such as `clients: 100`; got {type(data).__name__}"])
    strange = [str(name)[:40] for name in data if not isinstance(name, str)]
    if strange:
        raise Refused([f"{', '.join(strange)}: wanted names of fields"])
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise Refused(error_lines(error)) from error


def write_yaml(content: Mapping[str, Any]) -> str:
    """A stored scenario as one would write it: `2`, not `2.0`; what is not set is left out."""
    written = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in content.items()
        if value is not None
    }
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=100)

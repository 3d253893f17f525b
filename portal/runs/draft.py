"""From what somebody typed, sent or named to a scenario that may run: the same words from file, form, API and CLI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import ValidationError

from portal.runs.models import NamedScenario
from wsnode.core.scenario import LONGEST_VALUE, NoWindow, Scenario, error_lines

SUBJECT_CHARS = 200
MOST_LINES = 50


class Refused(ValueError):
    """A run that cannot be made; `lines` say why, one fault each, of many the first."""

    def __init__(self, lines: list[str]) -> None:
        if len(lines) > MOST_LINES:
            lines = [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES:,} more"]
        super().__init__("; ".join(lines))
        self.lines = lines


class GivenSubject(NamedTuple):
    """What is measured, in the words of whoever asks for the run."""

    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> GivenSubject:
        """Read `NAME@VERSION`.

        Raises:
            Refused: see `checked`.
        """
        name, _, version = text.rpartition("@")
        return cls(name.strip(), version.strip()).checked()

    def checked(self) -> GivenSubject:
        """Itself.

        Raises:
            Refused: a part is missing, too long, or holds what is no visible character.
        """
        lines = [
            f"subject.{field}: {shortened(value)} is refused: wanted 1 to {SUBJECT_CHARS} visible characters "
            "(NAME@VERSION)"
            for field, value in zip(self._fields, self, strict=True)
            if not (1 <= len(value) <= SUBJECT_CHARS and value.isprintable())
        ]
        if lines:
            raise Refused(lines)
        return self


def shortened(value: str) -> str:
    """A refused text as it is quoted."""
    return repr(value) if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]!r}…"


def compose(base: str | Mapping[str, Any], changes: Mapping[str, Any], *, accept_partial: bool) -> Scenario:
    """A scenario by name or content, with some fields set differently. Text is read as the field's kind.

    Raises:
        Refused: no such scenario or field, a value out of range, or no measured window without `accept_partial`.
    """
    content = dict(_content(base))
    unknown = [name for name in changes if name not in Scenario.model_fields]
    if unknown:
        known = ", ".join(Scenario.model_fields)
        raise Refused([f"{name[:LONGEST_VALUE]}: no such field; known: {known}" for name in unknown])
    try:
        scenario = Scenario.model_validate(content | {name: _read(name, value) for name, value in changes.items()})
        if not accept_partial:
            scenario.check_window()
    except ValidationError as error:
        raise Refused(error_lines(error)) from error
    except NoWindow as error:
        raise Refused([str(error)]) from error
    return scenario


def _content(base: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(base, str):
        return base
    # What is not printable is no scenario's name, and no text for a database.
    row = NamedScenario.objects.filter(name=base).first() if base.isprintable() else None
    if row is None:
        names = ", ".join(NamedScenario.objects.names()) or "none; run `manage seed_scenarios`"
        raise Refused([f"scenario: {shortened(base)} is not known; known: {names}"])
    if row.archived_at is not None:
        raise Refused(
            [f"scenario: {base} is archived; bring it back on its page, or run its fields under another name"]
        )
    return row.content  # type: ignore[no-any-return]  # JSONField


def _read(name: str, value: object) -> object:
    """A field's value out of text, where the text is not the value itself: empty for none, a list of expressions."""
    if not isinstance(value, str):
        return value
    annotation = Scenario.model_fields[name].annotation
    if get_origin(annotation) is tuple:
        return _lines(value, commas=name != "first_messages")
    if type(None) in get_args(annotation) and value.strip().lower() in ("", "none", "null"):
        return None
    return value if annotation is str else value.strip()


def _lines(value: str, *, commas: bool) -> list[str]:
    """Expressions as a JSON list, or one a line, or between commas where they have none in them."""
    if value.lstrip().startswith("["):
        try:
            listed = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
        return listed if isinstance(listed, list) else [value]
    return [line.strip() for line in (value.replace(",", "\n") if commas else value).splitlines() if line.strip()]


class FormField(NamedTuple):
    """A scenario field as a form shows it, derived from its one definition."""

    name: str
    title: str
    help: str
    unit: str
    kind: Literal["integer", "number", "text", "choice", "flag", "lines"]
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    optional: bool
    default: Any


def form_fields() -> list[FormField]:
    """All fields of a scenario, in their order."""
    return [_form_field(name) for name in Scenario.model_fields]


def _form_field(name: str) -> FormField:
    info = Scenario.model_fields[name]
    kinds = [kind for kind in (get_args(info.annotation) or (info.annotation,)) if kind is not type(None)]
    bounds = {attribute: getattr(m, attribute) for m in info.metadata for attribute in ("ge", "gt", "le", "lt")
              if getattr(m, attribute, None) is not None}  # fmt: skip
    extra = info.json_schema_extra
    kind: Literal["integer", "number", "text", "choice", "flag", "lines"]
    if get_origin(info.annotation) is tuple:
        kind = "lines"
    elif all(isinstance(option, str) for option in kinds):
        kind = "choice"
    else:
        named = {bool: "flag", int: "integer", float: "number", str: "text"}
        kind = named[kinds[0]]  # type: ignore[assignment]
    return FormField(
        name=name,
        title=info.title or name,
        help=info.description or "",
        unit=str(extra.get("unit", "")) if isinstance(extra, dict) else "",
        kind=kind,
        choices=tuple(kinds) if kind == "choice" else (),
        minimum=bounds.get("ge", bounds.get("gt")),
        maximum=bounds.get("le", bounds["lt"] - 1 if "lt" in bounds else None),
        optional=type(None) in get_args(info.annotation),
        default=info.default,
    )

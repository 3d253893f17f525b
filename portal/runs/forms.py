"""The form of a new run: fields, limits and refusals are core's (`portal.runs.draft`), only the grouping is its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from portal.runs.draft import FormField, GivenSubject, Refused, compose, form_fields
from portal.runs.models import Run
from wsnode.core.scenario import NoWindow, Scenario, allowed_range

MAIN = ("clients", "interval_ms", "ramp_up_s", "duration_s", "rate_per_s")
"""The seed's five parameters."""
GROUPS = (
    ("Judged by", ("thresholds",)),
    ("Messages", ("size_bytes", "message_type", "match", "phase", "seed", "max_in_flight", "while_down")),
    ("Time", ("warm_up_s", "drain_s", "reply_timeout_s", "connect_timeout_s", "reconnect", "reconnect_delay_s")),
    ("Name", ("name", "description", "behaviour", "split")),
)
"""The rest, under "more"; a field that is in no group yet stands in the last."""

_FIELD = re.compile(r"(subject\.)?\w+")


class Input(NamedTuple):
    """A field with what was typed into it, and why that was refused."""

    field: FormField
    text: str
    error: str

    @property
    def name(self) -> str:
        """The scenario's name of the field."""
        return self.field.name

    @property
    def step(self) -> str:
        """Step of a number input."""
        return "1" if self.field.kind == "integer" else "any"

    @property
    def allowed(self) -> str:
        """The range of a number, in core's words."""
        return allowed_range(self.name).strip(" ()")

    @property
    def wide(self) -> bool:
        """Whether it takes a line of its own."""
        return self.field.kind == "lines" or self.name == "description"

    @property
    def checked(self) -> bool:
        """Of a flag."""
        return self.text == "true"


class Group(NamedTuple):
    title: str
    inputs: list[Input]


class RunForm:
    """What was typed, and after `check` what it amounts to or why not."""

    def __init__(
        self, base: str, texts: Mapping[str, str], *, subject: tuple[str, str] = ("", ""), accept: bool = False
    ):
        self.base = base
        self.texts = dict(texts)
        self.subject_name, self.subject_version = subject
        self.accept_partial = accept
        self.scenario: Scenario | None = None
        self.errors: dict[str, str] = {}
        """By field; '' holds what belongs to no field alone."""

    @classmethod
    def of(cls, base: str, scenario: Scenario, *, subject: tuple[str, str] = ("", ""), accept: bool = False) -> RunForm:
        """Filled with a scenario."""
        return cls(
            base, {f.name: _written(getattr(scenario, f.name)) for f in form_fields()}, subject=subject, accept=accept
        )

    @classmethod
    def again(cls, run: Run) -> RunForm:
        """Filled with what another run did."""
        given = run.subject_source == "given"
        subject = (run.subject_name, run.subject_version) if given else ("", "")
        return cls.of(run.scenario_name, run.scenario_model, subject=subject, accept=run.accept_partial)

    @classmethod
    def posted(cls, post: Mapping[str, str]) -> RunForm:
        """As it was sent. A box that is not ticked is not sent: flags that are missing are off."""
        texts = {field.name: post.get(field.name, "false" if field.kind == "flag" else "") for field in form_fields()}
        return cls(
            post.get("scenario", ""),
            texts,
            subject=(post.get("subject_name", "").strip(), post.get("subject_version", "").strip()),
            accept="accept_partial" in post,
        )

    def check(self) -> bool:
        """Fill `scenario` or `errors`. A missing window is an error unless it was accepted, but leaves the scenario."""
        self.errors, self.scenario = {}, None
        try:
            # Checked from scratch: the form holds every field, and the base's own content must not shine through.
            self.scenario = compose({}, self._values(), accept_partial=True)
        except Refused as refused:
            self._sort(refused.lines)
        try:
            self.subject()
        except Refused as refused:
            self._sort(refused.lines)
        if self.scenario is not None and not self.accept_partial:
            try:
                self.scenario.check_window()
            except NoWindow as error:
                self.errors["window"] = str(error)
        return not self.errors

    def subject(self) -> GivenSubject | None:
        """The given subject; None: the lab's own server.

        Raises:
            Refused: only one of name and version was given, or one is too long.
        """
        if not self.subject_name and not self.subject_version:
            return None
        return GivenSubject(self.subject_name, self.subject_version).checked()

    @property
    def main(self) -> list[Input]:
        """The seed's five."""
        return self._inputs(MAIN)

    @property
    def more(self) -> list[Group]:
        """All others."""
        grouped = {name for _, names in GROUPS for name in names}
        new = tuple(f.name for f in form_fields() if f.name not in grouped and f.name not in MAIN)
        last = len(GROUPS) - 1
        return [
            Group(title, self._inputs(names + (new if i == last else ()))) for i, (title, names) in enumerate(GROUPS)
        ]

    @property
    def more_open(self) -> bool:
        """Whether something in "more" needs attention."""
        return any(entry.error for group in self.more for entry in group.inputs)

    @property
    def field_errors(self) -> dict[str, str]:
        """Each field's refusal, '' where it has none."""
        names = (*self.texts, "subject_name", "subject_version")
        return {name: self.errors.get(name, "") for name in names}

    def _inputs(self, names: tuple[str, ...]) -> list[Input]:
        fields = {field.name: field for field in form_fields()}
        return [Input(fields[name], self.texts.get(name, ""), self.errors.get(name, "")) for name in names]

    def _values(self) -> dict[str, Any]:
        kinds = {field.name: field.kind for field in form_fields()}
        return {
            name: _number(text) if kinds[name] in ("integer", "number") else text for name, text in self.texts.items()
        }

    def _sort(self, lines: list[str]) -> None:
        """Put each line to the field that it begins with."""
        for line in lines:
            begin = _FIELD.match(line)
            name = begin[0].replace("subject.", "subject_") if begin else ""
            key = name if name in self.texts or name in ("subject_name", "subject_version") else ""
            self.errors[key] = f"{self.errors[key]}; {line}" if key in self.errors else line


def _number(text: str) -> int | float | str:
    """The number that a text is, so that a refusal names it as file and API do; else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _written(value: object) -> str:
    """A field's value as it stands in its input."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    return str(value)

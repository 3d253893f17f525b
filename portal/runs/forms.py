"""The forms of a scenario and of a new run: fields, limits and refusals are core's (`portal.runs.draft`), only the
grouping is their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Self

from portal.runs.create import Order, find_declared, tell_apart
from portal.runs.draft import FormField, GivenSubject, Refused, compose, form_fields
from portal.runs.edits import written
from portal.runs.groups import MOST_TIMES, alternating
from portal.runs.models import DeclaredSubject, Run
from portal.runs.offers import offers
from portal.runs.purpose import USUAL, Purpose
from portal.runs.states import State
from wsnode.core.scenario import NoWindow, Scenario, allowed_range

MAIN = ("clients", "interval_ms", "ramp_up_s", "duration_s", "rate_per_s")
"""The seed's five parameters."""
GROUPS = (
    ("Judged by", ("thresholds", "abort_on", "primary_metric")),
    (
        "Messages",
        (
            "size_bytes",
            "sizes",
            "think",
            "pace",
            "in_flight",
            "message_type",
            "payload",
            "first_messages",
            "match",
            "phase",
            "seed",
            "max_in_flight",
            "while_down",
        ),
    ),
    ("Broadcast", ("rooms", "publishers")),
    ("Churn", ("session", "storms", "reconnect_jitter", "reconnect_backoff")),
    (
        "Time",
        ("stages", "warm_up_s", "drain_s", "reply_timeout_s", "connect_timeout_s", "reconnect", "reconnect_delay_s"),
    ),
    ("Kinds and handshake", ("kinds", "headers", "subprotocols", "tls_verify")),
    ("Before", ("before", "settle_s")),
    ("Name", ("name", "description", "behaviour", "split")),
)
"""The rest, under "more"; a field that is in no group yet stands in the last."""

_FIELD = re.compile(r"(subject\.)?\w+")
ASKED = (
    "subject_name",
    "subject_version",
    "subject_declared",
    "target",
    "reason",
    "tags",
    "baseline",
    "series",
    "times",
    "title",
    "b_scenario",
    "b_set",
    "b_subject_name",
    "b_subject_version",
)
"""What is asked of a run beside its scenario; `b_…` of the second of two alternating groups."""
USUAL_TIMES = "5"


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


class ScenarioForm:
    """A scenario's fields as they were typed, and after `check` what they amount to or why not."""

    def __init__(self, base: str, texts: Mapping[str, str]):
        self.base = base
        self.texts = dict(texts)
        self.scenario: Scenario | None = None
        self.errors: dict[str, str] = {}
        """By field; '' holds what belongs to no field alone."""

    @classmethod
    def of(cls, base: str, scenario: Scenario) -> Self:
        """Filled with a scenario."""
        return cls(base, {f.name: written(getattr(scenario, f.name)) for f in form_fields()})

    @classmethod
    def posted(cls, post: Mapping[str, str]) -> Self:
        """As it was sent. A box that is not ticked is not sent: flags that are missing are off."""
        texts = {field.name: post.get(field.name, "false" if field.kind == "flag" else "") for field in form_fields()}
        return cls(post.get("scenario", ""), texts)

    def check(self) -> bool:
        """Fill `scenario` or `errors`."""
        self.errors, self.scenario = {}, None
        try:
            # Checked from scratch: the form holds every field, and the base's own content must not shine through.
            self.scenario = compose({}, _numbers(self.texts), accept_partial=True)
        except Refused as refused:
            self.sort(refused.lines)
        return not self.errors

    @property
    def names(self) -> tuple[str, ...]:
        """Every input that may be refused."""
        return tuple(self.texts)

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
    def name_first(self) -> list[Group]:
        """The same, for where the name is what it is about."""
        return [self.more[-1], *self.more[:-1]]

    @property
    def more_open(self) -> bool:
        """Whether something in "more" needs attention."""
        return any(entry.error for group in self.more for entry in group.inputs)

    @property
    def field_errors(self) -> dict[str, str]:
        """Each field's refusal, '' where it has none."""
        return {name: self.errors.get(name, "") for name in self.names}

    def sort(self, lines: Iterable[str], within: str = "") -> None:
        """Put each line to the field that it begins with, or all `within` one."""
        for line in lines:
            begin = _FIELD.match(line)
            name = within or (begin[0].replace("subject.", "subject_") if begin else "")
            key = name if name in self.names else ""
            self.errors[key] = f"{self.errors[key]}; {line}" if key in self.errors else line

    def _inputs(self, names: tuple[str, ...]) -> list[Input]:
        fields = {field.name: field for field in form_fields()}
        if "before" in names:
            # Chosen among what the lab offers; what is there already stays, and is refused when a run is made.
            choices = dict.fromkeys([*offers().befores, self.texts.get("before") or "none"])
            fields["before"] = fields["before"]._replace(kind="choice", choices=tuple(choices))
        return [Input(fields[name], self.texts.get(name, ""), self.errors.get(name, "")) for name in names]


class RunForm(ScenarioForm):
    """A run, or several, as somebody asks for them; after `check` one order or two, or why not."""

    def __init__(
        self, base: str, texts: Mapping[str, str], *, asked: Mapping[str, str] | None = None, accept: bool = False
    ):
        super().__init__(base, texts)
        self.asked = dict.fromkeys(ASKED, "") | {"series": "once", "times": USUAL_TIMES} | dict(asked or {})
        self.accept_partial = accept
        self.order: Order | None = None
        self.other: Order | None = None
        """The second of two alternating groups' runs."""

    @classmethod
    def again(cls, run: Run, *, other_version: bool = False) -> RunForm:
        """Filled with what another run did; `other_version`: to be held against it, its version left open."""
        form = cls.of(run.scenario_name, run.scenario_model)
        form.accept_partial = run.accept_partial
        form.asked |= {"target": run.target, "reason": run.reason, "tags": " ".join(tag.name for tag in run.tags.all())}
        if run.subject_source == "given":
            form.asked |= {"subject_name": run.subject_name}
            if not other_version:
                form.asked |= {"subject_version": run.subject_version}
        elif run.subject_source == "probed" and DeclaredSubject.objects.filter(name=run.subject_name).exists():
            form.asked |= {"subject_declared": run.subject_name}
        if other_version and run.state == State.FINISHED and run.validity != "invalid":
            form.asked |= {"baseline": run.pk}
        return form

    @classmethod
    def posted(cls, post: Mapping[str, str]) -> Self:
        """As it was sent."""
        form = super().posted(post)
        form.asked |= {name: post[name].strip() for name in ASKED if name in post}
        form.accept_partial = "accept_partial" in post
        return form

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.texts, *ASKED)

    @property
    def series(self) -> Literal["once", "repeat", "alternate"]:
        """How often: once where it is neither of the others."""
        match self.asked["series"]:
            case "repeat" | "alternate" as kind:
                return kind
        return "once"

    @property
    def times(self) -> int:
        """Runs of each group."""
        if self.series == "once":
            return 1
        text = self.asked["times"]
        return int(text) if text.isdecimal() and len(text) < 10 else 0

    def check(self) -> bool:
        """Fill `order` and `other`, or `errors`. A missing window is an error unless it was accepted, but leaves the
        scenario."""
        super().check()
        self.order = self.other = None
        subject = self._subject()
        purpose = self._purpose()
        if self.scenario is not None and not self.accept_partial:
            try:
                self.scenario.check_window()
            except NoWindow as error:
                self.errors["window"] = str(error)
        if self.series != "once" and not 2 <= self.times <= MOST_TIMES:
            self.sort([f"times: {self.asked['times']!r} is refused: wanted 2 to {MOST_TIMES}"])
        if self.scenario is not None:
            self.order = Order(self.scenario, self.accept_partial, subject, purpose, self.asked["target"])
            if self.series == "alternate":
                self.other = self._second(self.order)
        return not self.errors

    @property
    def is_own(self) -> bool:
        """Whether it is the lab's own server that is measured, as far as one can tell."""
        return not any(self.asked[name] for name in ("target", "subject_name", "subject_declared"))

    @property
    def pattern(self) -> str:
        """The order of two alternating groups' runs, in letters; the same over and over where it is long."""
        letters = " ".join(letter.upper() for letter in alternating(min(self.times, 4)))
        return letters + (" …" if self.times > 4 else "")

    @property
    def sides(self) -> tuple[str, str] | None:
        """What the two alternating groups are called."""
        return tell_apart(self.order, self.other) if self.order is not None and self.other is not None else None

    @property
    def is_same_twice(self) -> bool:
        """Whether two alternating groups differ in nothing: a look at the noise."""
        return self.other is not None and self.other == self.order

    def _subject(self) -> GivenSubject | DeclaredSubject | None:
        """None: the lab's own server; or it was refused."""
        name, version, declared = (self.asked[f"subject_{part}"] for part in ("name", "version", "declared"))
        try:
            if declared and (name or version):
                raise Refused(["subject.declared: leave name and version empty, they are read from the subject itself"])
            if declared:
                return find_declared(declared)
            return GivenSubject(name, version).checked() if name or version else None
        except Refused as refused:
            self.sort(refused.lines)
            return None

    def _purpose(self) -> Purpose:
        asked = self.asked
        try:
            # The scenario that was chosen, not the name that a changed one may bear.
            return Purpose.of(
                self.base, reason=asked["reason"], tags=[asked["tags"]], baseline=asked["baseline"] or USUAL
            )
        except Refused as refused:
            self.sort(refused.lines)
            return Purpose()

    def _second(self, first: Order) -> Order | None:
        asked = self.asked
        try:
            return second_order(
                first,
                scenario=asked["b_scenario"],
                changes=_numbers(read_assignments(asked["b_set"])),
                subject=(asked["b_subject_name"], asked["b_subject_version"]),
            )
        except OtherRefused as refused:
            self.sort(refused.lines, f"b_{refused.part}")
        except Refused as refused:
            self.sort(refused.lines, "b_set")
        return None


class OtherRefused(Refused):
    """Something of the second of two alternating groups; `part` says what."""

    def __init__(self, part: str, lines: list[str]) -> None:
        super().__init__(lines)
        self.part = part


def second_order(
    first: Order, *, scenario: str = "", changes: Mapping[str, Any] | None = None, subject: tuple[str, str] = ("", "")
) -> Order:
    """What the second of two alternating groups runs: as the first, but of another scenario, with other fields, or of
    another subject; of one with a version only, the first one's name is meant.

    Raises:
        OtherRefused: what it is to have differently is refused.
    """
    base: str | dict[str, Any] = scenario or first.scenario.model_dump(mode="json")
    try:
        other = compose(base, changes or {}, accept_partial=first.accept_partial)
    except Refused as refused:
        only_name = scenario and not changes
        raise OtherRefused("scenario" if only_name else "set", refused.lines) from refused
    name, version = subject
    if not (name or version):
        return first._replace(scenario=other)
    if not name and isinstance(first.subject, GivenSubject):
        name = first.subject.name
    try:
        return first._replace(scenario=other, subject=GivenSubject(name, version).checked())
    except Refused as refused:
        raise OtherRefused("subject_version" if not version else "subject_name", refused.lines) from refused


def read_assignments(text: str) -> dict[str, str]:
    """`field=value`, one a line or parted by blanks.

    Raises:
        Refused: a line is none.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if not line.partition("=")[1] or not line.partition("=")[0].strip()]
    if wrong:
        raise Refused([f"{line!r} is refused: wanted FIELD=VALUE, such as clients=500" for line in wrong])
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def _numbers(texts: Mapping[str, str]) -> dict[str, Any]:
    """The fields' texts, with those of numbers as numbers."""
    kinds = {field.name: field.kind for field in form_fields()}
    return {
        name: _number(text) if kinds.get(name) in ("integer", "number") and text else text
        for name, text in texts.items()
    }


def _number(text: str) -> int | float | str:
    """The number that a text is, so that a refusal names it as file and API do; else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

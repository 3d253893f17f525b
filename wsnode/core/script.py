"""What a client says first, and what it waits for, before it counts as ready: `first_messages`, one line a step.

    > TEXT                     send this message
    < any                      the next message may be any
    < text TEXT                … is exactly this
    < json:/POINTER            … is JSON with something there
    < json:/POINTER == VALUE   … with this JSON value there

TEXT and VALUE are templates (`wsnode.core.template`) that may name `${client}` and secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from wsnode.core.pointer import MISSING, Pointer
from wsnode.core.template import Template

_JSON = re.compile(r"json:(\S*)(?:\s+==\s+(.+))?", re.DOTALL)
_WANTED = "expected '> TEXT', '< any', '< text TEXT', '< json:/POINTER' or '< json:/POINTER == VALUE'"


class Say(NamedTuple):
    """Send what `build` makes of the client's number."""

    build: Callable[[int], bytes]


class Hear(NamedTuple):
    """Wait for a message; `fits` (client's number, message) says whether it is the awaited one."""

    fits: Callable[[int, bytes], bool]


class Step(NamedTuple):
    """One line. `parse` makes one."""

    text: str
    says: bool
    template: Template | None
    """What is sent, or what an answer is compared with."""
    pointer: Pointer | None
    """Of an answer: what of it is compared."""

    @classmethod
    def parse(cls, line: str) -> Step:
        """Read a line.

        Raises:
            ValueError: says what is wrong and what may stand there.
        """
        mark, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        try:
            if mark == ">" and rest:
                return cls(f"> {rest}", True, Template.parse(rest, ["client"]), None)
            if mark == "<" and rest == "any":
                return cls("< any", False, None, None)
            if mark == "<" and rest.startswith("text ") and (text := rest[5:].strip()):
                return cls(f"< text {text}", False, Template.parse(text, ["client"]), None)
            if mark == "<" and (match := _JSON.fullmatch(rest)):
                return cls._json(match[1], match[2])
        except ValueError as error:
            raise ValueError(f"first message {_short(line)}: {error}") from None
        raise ValueError(f"first message {_short(line)}: {_WANTED}")

    @classmethod
    def _json(cls, place: str, value: str | None) -> Step:
        pointer = Pointer.parse(place)
        if value is None:
            return cls(f"< json:{place}", False, None, pointer)
        template = Template.parse(value, ["client"])
        try:
            json.loads(template.fill(dict.fromkeys(template.secrets, "0")))
        except ValueError:
            raise ValueError(f'{value} is not a JSON value; a text is written "in quotes"') from None
        return cls(f"< json:{place} == {value}", False, template, pointer)

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the secrets in it."""
        return frozenset() if self.template is None else self.template.secrets

    def ready(self, secrets: Mapping[str, str]) -> Say | Hear:
        """The step with its secrets filled in. Raises ValueError where one is not given."""
        pointer, template = self.pointer, self.template
        if template is None:
            if pointer is None:
                return Hear(lambda client, message: True)
            return Hear(lambda client, message: pointer.read(message) is not MISSING)
        build = template.builder(secrets)
        if self.says:
            return Say(lambda client: build(client, 0))
        if pointer is None:
            return Hear(lambda client, message: message == build(client, 0))
        return Hear(lambda client, message: _same(pointer.read(message), build(client, 0)))


def _same(found: object, wanted: bytes) -> bool:
    # Written out again, since to Python 1, 1.0 and true are equal.
    if found is MISSING:
        return False
    try:
        return json.dumps(found, sort_keys=True) == json.dumps(json.loads(wanted), sort_keys=True)
    except ValueError:
        return False


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:60] + "…")

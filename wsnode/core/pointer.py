"""JSON pointers (RFC 6901): how the key of a message is found in it, and in its reply."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wsnode.core.template import Template, Variable

Key = int | str
KeyBuilder = Callable[[int, int], Key]
"""From a client's number and a message's to the message's key."""

MISSING = object()
"""What a pointer finds where there is nothing."""
_INDEX = re.compile(r"0|[1-9][0-9]*")
_BAD_ESCAPE = re.compile(r"~(?![01])")


class Pointer(NamedTuple):
    """A place in a JSON document. `parse` makes one."""

    text: str
    tokens: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Pointer:
        """Read a pointer such as `/id` or `/data/0/id`; '' is the whole document.

        Raises:
            ValueError: it is none; says what is wrong.
        """
        if text and not text.startswith("/"):
            raise ValueError(f"JSON pointer {text!r}: expected '/' at its begin, such as /id")
        if bad := _BAD_ESCAPE.search(text):
            raise ValueError(
                f"JSON pointer {text!r}: '~' at {bad.start() + 1}; it is written ~0, and a '/' in a name ~1"
            )
        return cls(text, tuple(t.replace("~1", "/").replace("~0", "~") for t in text.split("/")[1:]))

    def find(self, document: Any) -> Any:
        """The value there, or MISSING."""
        for token in self.tokens:
            if isinstance(document, dict):
                document = document.get(token, MISSING)
            elif isinstance(document, list) and _INDEX.fullmatch(token) and len(token) < 10:
                index = int(token)
                document = document[index] if index < len(document) else MISSING
            else:
                return MISSING
        return document

    def read(self, message: bytes) -> Any:
        """The value there in a message; MISSING also where that is not JSON."""
        try:
            return self.find(json.loads(message.decode()))
        except (ValueError, RecursionError):
            return MISSING

    def key(self, message: bytes) -> Key | None:
        """The key in a message: an integer or a text. None: there is none."""
        value = self.read(message)
        return value if type(value) is int or type(value) is str else None

    def key_of(self, payload: Template, secrets: Mapping[str, str]) -> KeyBuilder:
        """How the key of a message that is sent is made, without reading each: the key is a template itself.

        Raises:
            ValueError: messages made of this template have no key there, or not each its own.
        """
        client, seq = _number_not_in(payload.text, 900_000_001), _number_not_in(payload.text, 800_000_003)
        filled = payload.fill(secrets, client, seq).encode()
        try:
            json.loads(filled)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its messages are not JSON: {error}") from None
        value = self.read(filled)
        if type(value) is not int and type(value) is not str:
            found = "nothing" if value is MISSING else f"a {_KINDS.get(type(value), 'value')}"
            raise ValueError(f"its messages have {found} at {self.text!r}, where a whole number or a text is wanted")
        key = _template(str(value), {str(seq): "seq", str(client): "client"})
        if "seq" not in key.variables:
            raise ValueError(f"its messages all have the same value at {self.text!r}: ${{seq}} must be in it")
        if type(value) is int:
            build = key.builder({})
            made: KeyBuilder = (lambda c, s: s) if key.text == "${seq}" else (lambda c, s: int(build(c, s)))
        else:
            build = key.builder({})
            made = lambda c, s: build(c, s).decode()  # noqa: E731
        for client, seq in ((0, 1), (7, 12_345)):
            if made(client, seq) != self.key(payload.fill(secrets, client, seq).encode()):
                raise ValueError(f"the value at {self.text!r} is not the same kind of value in all its messages")
        return made


_KINDS = {float: "fraction", bool: "truth value", dict: "object", list: "list", type(None): "null"}


def _template(text: str, places: Mapping[str, str]) -> Template:
    """The text as a template, with a variable in each of the places."""
    parts = [part for part in re.split(f"({'|'.join(places)})", text) if part]
    pieces = tuple(Variable(places[part], None) if part in places else part for part in parts)
    return Template("".join(f"${{{p.name}}}" if isinstance(p, Variable) else p for p in pieces), pieces)


def _number_not_in(text: str, number: int) -> int:
    while str(number) in text:
        number += 2
    return number

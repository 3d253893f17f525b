"""Header lines of the opening handshake, as text (`Authorization: Bearer ${secret:TOKEN}`) and as values."""

from __future__ import annotations

import re
from typing import NamedTuple

from wsnode.core.template import Template

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
_OURS = frozenset(
    {
        *("connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
TOKEN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$"  # noqa: S105  RFC 9110's word for a name
"""What a subprotocol's name looks like (RFC 6455, section 4.1)."""


class Header(NamedTuple):
    """One line; its value may name `${client}` and secrets."""

    name: str
    value: Template
    text: str

    @classmethod
    def parse(cls, text: str) -> Header:
        """Read `NAME: VALUE`.

        Raises:
            ValueError: it is none, holds a line break, or is the handshake's own to say.
        """
        name, colon, value = text.partition(":")
        name, value = name.strip(" \t"), value.strip(" \t")
        if not colon or not _NAME.fullmatch(name):
            raise ValueError(f"header {text!r}: expected NAME: VALUE, such as 'Origin: https://example.org'")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"header {text!r}: a line break or control character in its value")
        if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
            more = "; see subprotocols" if name.lower() == "sec-websocket-protocol" else ""
            raise ValueError(f"header {text!r}: {name} is the connection's own to say{more}")
        return cls(name, Template.parse(value, ("client",)), f"{name}: {value}")

    def template(self) -> Template:
        """The whole line, with its end."""
        return Template(self.text, (f"{self.name}: ", *self.value.pieces, "\r\n"))

"""Templates: text with `${…}` in it that is filled in for each client or message.

`${seq}` is the message's number, from 1, `${client}` the client's, over all hosts, from 0, both in decimal digits as
written, without quotes. `${secret:NAME}` is a value that is given beside the scenario and is never part of it. `$${`
stands for `${` itself; any other `$` is only that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

SECRET_NAME = r"[A-Z][A-Z0-9_]{0,63}"  # noqa: S105  not one itself
"""What a secret's name looks like: also that of a file and of an environment variable."""
LONGEST_SECRET = 1 << 14
VARIABLES = ("seq", "client")
Builder = Callable[[int, int], bytes]
"""From a client's number and a message's to the message."""

_PART = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_SECRET = re.compile(f"secret:({SECRET_NAME})")


class Template(NamedTuple):
    """A text in pieces. `parse` makes one."""

    text: str
    pieces: tuple[str | Variable, ...]

    @classmethod
    def parse(cls, text: str, variables: Iterable[str] = VARIABLES) -> Template:
        """Read a text that may hold these variables, and secrets.

        Raises:
            ValueError: it is not UTF-8, or names a variable that is unknown here; says which are known.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"character {error.start + 1} of {_short(text)} cannot be written as UTF-8") from error
        known = tuple(variables)
        pieces: list[str | Variable] = []
        at = 0
        for match in _PART.finditer(text):
            pieces.append(text[at : match.start()])
            at = match.end()
            name, end = match.groups()
            if name is None:
                pieces.append("${")
                continue
            what = f"'${{{name[:40]}{end}' in {_short(text)}"
            if not end:
                raise ValueError(f"{what} has no end: expected }} behind it, or $${{ for the characters ${{")
            secret = _SECRET.fullmatch(name)
            if secret is None and name.startswith("secret:"):
                raise ValueError(
                    f"{what}: a secret's name is capital letters, digits and '_', such as ${{secret:TOKEN}}"
                )
            if secret is None and name not in known:
                raise ValueError(f"{what}: no such variable; known: {_known(known)}; $${{ writes ${{ itself")
            pieces.append(Variable(name, secret[1] if secret else None))
        pieces.append(text[at:])
        return cls(text, tuple(piece for piece in pieces if piece != ""))

    @property
    def variables(self) -> frozenset[str]:
        """Names of the variables in it, secrets apart."""
        return frozenset(p.name for p in self.pieces if isinstance(p, Variable) and p.secret is None)

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the secrets in it."""
        return frozenset(p.secret for p in self.pieces if isinstance(p, Variable) and p.secret is not None)

    def fill(self, secrets: Mapping[str, str], client: int = 0, seq: int = 0) -> str:
        """The text for a client and a message. Raises ValueError where a secret is not given."""
        return self.builder(secrets)(client, seq).decode()

    def builder(self, secrets: Mapping[str, str]) -> Builder:
        """A fast way to fill it in again and again, with these secrets in it.

        Raises:
            ValueError: a secret is not given; names it.
        """
        pattern = b""
        order = []
        for piece in self.pieces:
            if isinstance(piece, str):
                pattern += _literal(piece)
            elif piece.secret is None:
                pattern += b"%d"
                order.append(piece.name)
            elif piece.secret in secrets:
                pattern += _literal(secrets[piece.secret])
            else:
                raise ValueError(f"the secret {piece.secret} is not given")
        return _builder(pattern, order)


class Variable(NamedTuple):
    """A place that is filled in."""

    name: str
    secret: str | None
    """The name of the secret that stands here."""


def _builder(pattern: bytes, order: list[str]) -> Builder:
    """One formatting for each message, the usual ones without a loop over their variables."""
    match order:
        case []:
            constant = pattern % ()
            return lambda client, seq: constant
        case ["seq"]:
            return lambda client, seq: pattern % seq
        case ["client"]:
            return lambda client, seq: pattern % client
        case ["client", "seq"]:
            return lambda client, seq: pattern % (client, seq)
        case ["seq", "client"]:
            return lambda client, seq: pattern % (seq, client)
    of_client = tuple(name == "client" for name in order)
    return lambda client, seq: pattern % tuple([client if is_client else seq for is_client in of_client])


def _literal(text: str) -> bytes:
    return text.encode().replace(b"%", b"%%")


def _known(variables: tuple[str, ...]) -> str:
    return ", ".join([*(f"${{{name}}}" for name in variables), "${secret:NAME}"])


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def secret_of(content: bytes) -> str:
    """A secret out of a file's content: without the newline that editors end a file with.

    Raises:
        ValueError: it is empty, no text, or too long; nothing of it is said.
    """
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if not 1 <= len(content) <= LONGEST_SECRET:
        raise ValueError(f"{len(content):,} bytes, wanted 1 to {LONGEST_SECRET:,}")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None

"""The values of secrets that scenarios name: files that an admin puts on this host, never anything typed here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from pydantic import SecretStr

from wsnode.core.template import secret_of


class MissingSecret(ValueError):
    """A secret that a run needs and that this host cannot give. The message names it and says where to put it."""


def secrets(names: Iterable[str]) -> dict[str, SecretStr]:
    """The values of these names.

    Raises:
        MissingSecret: one is not there, or is none; each is named.
    """
    folder: Path = settings.SECRETS
    found, lines = {}, []
    for name in names:
        file = folder / name
        try:
            found[name] = SecretStr(secret_of(file.read_bytes()))
        except OSError as error:
            lines.append(f"the secret {name} cannot be read: {error.strerror}; an admin puts its value into {file}")
        except ValueError as error:
            lines.append(f"the secret {name} in {file} is none: {error}")
    if lines:
        raise MissingSecret("; ".join(lines))
    return found

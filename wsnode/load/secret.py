"""The values that a scenario's secrets have on the command line: from files, or from the environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wsnode.core.template import SECRET_NAME, secret_of

ENVIRONMENT = "WSNODE_SECRET_"
"""What a variable that holds a secret begins with; its name follows."""


class SecretError(ValueError):
    """A secret that cannot be had. The message names it, never its value."""


def gather(names: Iterable[str], given: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The values of these names: from `NAME=FILE`, else from the environment.

    Raises:
        SecretError: what is given is none, cannot be read, or is missing; says where to put it.
    """
    files: dict[str, Path] = {}
    for item in given:
        name, equals, file = item.partition("=")
        if not equals or not file or not re.fullmatch(SECRET_NAME, name):
            # Not the rest: somebody may have put the value there.
            raise SecretError(f"--secret {name[:64]}…: expected NAME=FILE, the name in capital letters, digits and '_'")
        files[name] = Path(file)
    found = {}
    for name in names:
        if name in files:
            try:
                found[name] = secret_of(files[name].read_bytes())
            except OSError as error:
                raise SecretError(f"--secret {name}={files[name]}: {error.strerror}") from error
            except ValueError as error:
                raise SecretError(f"--secret {name}={files[name]}: {error}") from None
        elif value := environ.get(f"{ENVIRONMENT}{name}"):
            found[name] = value
        else:
            raise SecretError(
                f"the scenario needs the secret {name}: give --secret {name}=FILE, or set {ENVIRONMENT}{name}"
            )
    return found

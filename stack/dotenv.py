"""Settings from `.env` in the clone (see .env.example). The real environment wins."""

import os
import re
from pathlib import Path

from stack.errors import StackError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def parse(text: str, name: str = ".env") -> dict[str, str]:
    """NAME=value lines; blank lines and lines starting with # are skipped; one pair of quotes is taken off.

    Raises:
        StackError: a line is none of these, named by its number.
    """
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            # Not the line itself: it may hold a secret.
            raise StackError(f"{name}, line {number} is not NAME=value", f"mend {name}")
        value = match[2]
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[match[1]] = value
    return values


def load(path: Path) -> None:
    """Put what the file says into the environment, where that does not say otherwise already.

    Not what is for `docker compose` only, which reads the file itself: its secrets are no business of other processes.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(f"{path} cannot be read: {error}", "mend it or its permissions") from None
    for name, value in parse(text, str(path)).items():
        if not name.startswith(("WSLAB_DOCKER_", "COMPOSE_")):
            os.environ.setdefault(name, value)

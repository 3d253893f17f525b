"""docker-compose.yml as data: merged, its `${…}` left as they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"


class Variable(NamedTuple):
    """`${NAME:-default}`, `${NAME:?message}`, `${NAME:+value}` or `${NAME}`."""

    name: str
    operator: str
    rest: str


def composition() -> dict[str, Any]:
    """The whole file."""
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content


def services() -> dict[str, dict[str, Any]]:
    """Services by name."""
    found: dict[str, dict[str, Any]] = composition()["services"]
    return found


def variables(value: object) -> Iterator[Variable]:
    """Every variable that a value names, at any depth; those inside of others too."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from variables(item)
    elif isinstance(value, str):
        for match in re.finditer(r"\$\{([A-Z0-9_]+)(:[-?+])?", value):
            yield Variable(match[1], match[2] or "", _rest(value[match.end() :]))


def default(text: str) -> str:
    """A text as it is where no variable is set."""
    shown = re.sub(r"\$\{[A-Z0-9_]+:-([^{}]*)\}", r"\1", text)
    assert "${" not in shown, text
    return shown


def image_tags() -> dict[str, str]:
    """Image by service, of those that come from a registry."""
    return {name: service["image"] for name, service in services().items() if not service["image"].startswith("wslab-")}


def base_image() -> str:
    """What docker/Dockerfile begins with."""
    first = re.search(r"^FROM (\S+) AS python$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert first
    return first[1]


def _rest(text: str) -> str:
    depth = 1
    for at, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            return text[:at]
    raise AssertionError(f"no end: {text}")

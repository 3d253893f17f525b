"""What two readings of a host's environment differ in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(begin: Mapping[str, Any], end: Mapping[str, Any]) -> list[str]:
    """Stable keys that differ between two environments, a line each, such as `net.core.somaxconn 4096 → 1024`.

    Both are of the form that `wsnode.environment.environment` gives. Volatile keys are meant to differ and do not
    count. An empty environment is one that nobody has read: it differs in nothing.
    """
    before, after = begin.get("stable") or {}, end.get("stable") or {}
    if not before or not after:
        return []
    return [
        f"{key} {_shown(before.get(key))} → {_shown(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _shown(value: object) -> str:
    return "absent" if value is None else str(value)

"""What the lab as it is now lets people choose in forms: what to have done before a run, and what to aim at."""

from __future__ import annotations

from typing import NamedTuple

from django.conf import settings

from portal.labs.lab import LabError, Target, load_lab
from wsnode.core.protocol import RESTART_SERVER

PORTS_SHOWN = 16
"""Of a target's range; others are for API and command line."""


class Option(NamedTuple):
    """Of a select."""

    value: str
    label: str


class Offers(NamedTuple):
    """Nothing but what is always there, where there is no lab."""

    befores: tuple[str, ...]
    """Values of a scenario's `before`."""
    targets: tuple[Option, ...]


def offers() -> Offers:
    """As `lab.json` says now."""
    try:
        lab = load_lab(settings.LAB_FILE)
    except LabError:
        return Offers(("none",), ())
    hooks = [name if name == RESTART_SERVER else f"hook:{name}" for name in lab.server.hooks]
    return Offers(("none", *hooks), tuple(option for target in lab.targets for option in _options(target)))


def _options(target: Target) -> list[Option]:
    first, *others = target.port_range[:PORTS_SHOWN]
    shown = [Option(target.name, f"{target.name}: {target.at(first)}")]
    return shown + [Option(f"{target.name}:{port}", f"{target.name}: {target.at(port)}") for port in others]

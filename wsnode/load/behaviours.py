"""`wsnode behaviours`: what clients can be told to do here."""

from __future__ import annotations

import argparse

from wsnode.core.scenario import BUILT_IN
from wsnode.load.behaviour import installed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(arguments: argparse.Namespace) -> int:
    """List them, each with where it comes from."""
    points = installed()
    width = max(map(len, (*BUILT_IN, *points)))
    for name in BUILT_IN:
        print(f"{name:{width}}  built in")
    for name, point in sorted(points.items()):
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
        print(f"{name:{width}}  {package}, {point.value}")
    return 0

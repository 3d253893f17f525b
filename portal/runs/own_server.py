"""The lab's own server as its host told last: version, engine, options."""

from __future__ import annotations

from typing import NamedTuple

from portal.runs.environment import text
from portal.runs.figures import count
from portal.runs.models import Environment, Run

FACTS = "server."
"""How the stable facts begin that are the server's, not its host's."""
TOLD_ELSEWHERE = ("wsnode", "engine", "start_id")


class OwnServer(NamedTuple):
    """What it is like."""

    run: Run
    """In which it was seen."""
    options: dict[str, str]
    """Its options in force by name, but version and engine."""

    @property
    def takes(self) -> int | None:
        """Connections that it takes at once; None where it did not tell."""
        most = self.options.get("max_connections", "")
        return int(most) if most.isdecimal() else None

    @property
    def words(self) -> list[str]:
        """The options as they are read."""
        return [
            f"{name} {count(int(value)) if value.isdecimal() else value}"
            for name, value in sorted(self.options.items())
        ]


def own_server(machine: str) -> OwnServer | None:
    """By the newest run of it on this machine; None where there was none. Two queries."""
    run = (
        Run.objects.over()
        .filter(subject_source="own", machine=machine)
        .exclude(subject_version="")
        .defer("live", "scenario")
        .order_by("-created_at")
        .first()
    )
    if run is None:
        return None
    begin = Environment.objects.filter(run=run, role="server").values_list("begin", flat=True).first() or {}
    stable = begin.get("stable") or {}
    named = {name.removeprefix(FACTS): text(value) for name, value in stable.items() if name.startswith(FACTS)}
    return OwnServer(run, {name: value for name, value in named.items() if name not in TOLD_ELSEWHERE})

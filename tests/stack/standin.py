"""A supervisor over stand-in processes: `python -m tests.stack.standin SERVICES.json`. The real processes are slow to
start and do not crash on demand; test_stack.py runs them all.

SERVICES.json: [{"name", "code", "stage", "after", "stop_s", "optional", "hook"}]; `code` is Python that prints `ready`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from stack import events, paths, probes, supervisor
from stack.inventory import Inventory
from stack.services import Lab, Service

SLEEP = "import time; print('ready', flush=True); time.sleep(600)"


def service(
    name: str,
    code: str = SLEEP,
    stage: int = 1,
    after: tuple[str, ...] = (),
    stop_s: float = 2,
    optional: bool = False,
    hook: str | None = None,
) -> Service:
    """A process that runs the code and is ready when it has printed so."""

    def argv(_: Lab) -> list[str]:
        return [sys.executable, "-c", code]

    def probe(lab: Lab, offset: int) -> probes.Probe:
        return probes.log_says(lab.log(name), "ready", offset)

    return Service(name, argv, probe, stage, tuple(after), stop_s, optional, hook=hook)


class StandIn(supervisor.Supervisor):
    """Only the processes; nothing is fetched and no database made."""

    async def _find_packages(self) -> None:
        pass

    async def _bootstrap(self) -> None:
        pass

    def _describe_lab(self) -> None:
        pass

    def _serves(self, name: str) -> bool:
        return False


def main() -> int:
    """Supervise what the file says, in $WSLAB_STATE, until told to stop."""
    wanted: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text())

    def services(_: Inventory) -> list[Service]:
        return [service(**row) for row in wanted]

    supervisor.services = services
    supervisor.Supervisor = StandIn  # type: ignore[misc]
    return supervisor.supervise(paths.make_state_dir(), events.Reporter(sys.stdout, None))


if __name__ == "__main__":
    sys.exit(main())

"""The worker that `conductor_scale` measures: imports nothing but the portal, of the checkout that PYTHONPATH names."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import django


def prepare() -> None:
    """A portal with a queued run."""
    from django.core.management import call_command

    from portal.accounts.models import User
    from portal.labs.lab import SCHEMA_VERSION, load_lab
    from portal.runs.models import Run

    lab_file = Path(os.environ["WSLAB_LAB"])
    lab_file.write_text(json.dumps({"schema_version": SCHEMA_VERSION, **json.loads(lab_file.read_text())}))
    call_command("migrate", verbosity=0)
    user = User.objects.create_user("ada", password="of no use")
    scenario = json.loads(os.environ["SCALE_SCENARIO"])
    lab = load_lab(lab_file)
    Run.objects.create(scenario=scenario, scenario_name=scenario["name"], machine=lab.machine, created_by=user)


def conduct() -> None:
    """What Celery's task does, in a process with all that a worker imports."""
    from portal.runs import line, tasks
    from portal.runs.models import Run

    assert tasks.conduct.name
    run = Run.objects.get()
    assert line.conduct_run(run.pk)
    run.refresh_from_db()
    assert run.preflight_at is not None
    told = {
        "state": run.state,
        "reason": run.state_reason,
        "validity": run.validity,
        "start_at_ns": run.start_at_ns,
        "preflight_at": run.preflight_at.timestamp(),
        "seconds": run.last_second,
    }
    (Path(os.environ["WSLAB_STATE"]) / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    django.setup()
    {"prepare": prepare, "conduct": conduct}[sys.argv[1]]()

"""A run and the lab as the conductor's job."""

from __future__ import annotations

from pathlib import Path

import pytest

from portal.conductor.job import SshLogin
from portal.labs.lab import load_lab
from portal.runs.jobs import job_of
from tests.portal.factories import make_run, make_user

GOLDEN = Path(__file__).parents[1] / "contract" / "lab.json"


@pytest.mark.django_db
def test_a_host_of_ssh_is_reached_with_the_keys_and_over_the_way_of_lab_json() -> None:
    lab = load_lab(GOLDEN)
    server, load = job_of(make_run(make_user(), generators=["load-1"]), lab).hosts
    gate = SshLogin("192.0.2.1", "wslab", 22, lab.jump_hosts[0].host_keys)
    assert server.login == SshLogin("198.18.0.11", "wslab", 22, lab.server.host_keys, gate)
    assert (load.transport, load.login) == ("local", None)

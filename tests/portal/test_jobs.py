"""A run and the lab as the conductor's job."""

from __future__ import annotations

from pathlib import Path

import pytest

from portal.conductor.job import SshLogin
from portal.labs.lab import load_lab
from portal.runs.jobs import job_of
from portal.runs.states import State
from tests.portal.factories import make_run, make_user

GOLDEN = Path(__file__).parents[1] / "contract" / "lab.json"


@pytest.mark.django_db
def test_a_host_of_ssh_is_reached_with_the_keys_and_over_the_way_of_lab_json() -> None:
    lab = load_lab(GOLDEN)
    server, load = job_of(make_run(make_user(), State.PREFLIGHT, generators=["load-1"]), lab).hosts
    gate = SshLogin("192.0.2.1", "wslab", 22, lab.jump_hosts[0].host_keys)
    assert server.login == SshLogin("198.18.0.11", "wslab", 22, lab.server.host_keys, gate)
    assert (load.transport, load.login) == ("local", None)


@pytest.mark.django_db
def test_clients_are_dealt_as_the_run_was_begun_whatever_the_lab_says_by_now() -> None:
    lab = load_lab(GOLDEN)
    hosts = [host.model_copy(update={"name": name}) for host, name in zip([lab.hosts[1]] * 2, ["a", "b"], strict=True)]
    lab = lab.model_copy(update={"hosts": (lab.server, *hosts)})
    run = make_run(make_user(), State.PREFLIGHT, generators=["a", "b"], weights=[3, 1])
    plans = [host.plan for host in job_of(run, lab).hosts[1:]]
    assert [plan.count for plan in plans if plan] == [75, 25]
    run.weights = []
    assert [host.plan.count for host in job_of(run, lab).hosts if host.plan] == [50, 50]

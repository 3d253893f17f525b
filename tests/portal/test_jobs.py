"""A run and the lab as the conductor's job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from portal.conductor.job import SshLogin
from portal.labs.aim import Aim
from portal.labs.lab import Lab, load_lab
from portal.runs.create import Order, check_lab
from portal.runs.draft import Refused
from portal.runs.jobs import NoJob, job_of, targets_of, why_not_before
from portal.runs.states import State
from tests.portal.factories import SMOKE, make_run, make_user
from wsnode.core.protocol import revealed

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


def a_lab(**of_server: object) -> Lab:
    lab = load_lab(GOLDEN)
    return lab.model_copy(update={"hosts": (lab.server.model_copy(update=of_server), lab.hosts[1])})


@pytest.mark.django_db
def test_a_run_at_the_labs_server_counts_what_earlier_runs_left_on_all_its_hosts() -> None:
    job = job_of(make_run(make_user(), State.PREFLIGHT, generators=["load-1"]), load_lab(GOLDEN))
    assert [(host.name, host.port) for host in job.hosts] == [("server", 3000), ("load-1", 3000)]
    assert (job.hook, job.notes) == (None, ())
    assert job.hosts[1].plan is not None
    assert (job.hosts[1].plan.address, job.hosts[1].plan.consent) == (None, None)


@pytest.mark.django_db
def test_a_run_at_a_target_goes_where_that_was_and_has_no_servers_host() -> None:
    lab = load_lab(GOLDEN)
    aim = Aim(url="wss://shop.example.org:8444/live", address="203.0.113.7", consent=lab.consent_token, watched=False,
              own=False)  # fmt: skip
    run = make_run(make_user(), State.PREFLIGHT, generators=["load-1"], target="shop:8444", aim=aim.model_dump())
    # The lab has forgotten the target meanwhile: the run goes on where it began.
    job = job_of(run, lab.model_copy(update={"targets": ()}))
    [load] = job.hosts
    assert load.plan is not None
    assert (load.name, load.port) == ("load-1", 8444)
    assert (load.plan.url, load.plan.address) == ("wss://shop.example.org:8444/live", "203.0.113.7")
    assert load.plan.consent == lab.consent_token
    assert job.notes == (
        "the run aimed at shop:8444: wss://shop.example.org:8444/live, at 203.0.113.7, with its consent",
        "shop:8444 is not of this lab: nothing is known of its host",
    )
    assert [str(target) for target in targets_of(run, lab)] == ["load-1 (wsnode-agent)"]


@pytest.mark.django_db
def test_the_host_of_a_target_that_runs_on_one_is_observed_without_wsnodes_own_server() -> None:
    lab = load_lab(GOLDEN)
    aim = Aim(url="ws://198.18.0.11:4000/echo", address="198.18.0.11", watched=True, own=False)
    run = make_run(make_user(), State.PREFLIGHT, generators=["load-1"], target="beside", aim=aim.model_dump())
    job = job_of(run, lab)
    # Others may well have connections to a team's server: only those of this lab's hosts are counted.
    assert [(host.name, host.port) for host in job.hosts] == [("server", None), ("load-1", 4000)]
    assert {str(target) for target in targets_of(run, lab)} == {
        "server (wsnode-agent)", "server (node)", "load-1 (wsnode-agent)",
    }  # fmt: skip


@pytest.mark.django_db
def test_what_is_to_be_done_before_is_asked_of_the_host_that_offers_it() -> None:
    for before, hook in (("restart_server", "restart_server"), ("hook:warm_cache", "warm_cache"), ("none", None)):
        run = make_run(make_user(before), State.QUEUED, SMOKE.model_copy(update={"before": before}))
        run.state, run.generators = State.PREFLIGHT, ["load-1"]
        assert job_of(run, load_lab(GOLDEN)).hook == hook
        if hook is not None:
            with pytest.raises(NoJob, match="does not offer it; it offers: none"):
                job_of(run, a_lab(hooks=()))
            run.state = State.RUNNING
            assert job_of(run, a_lab(hooks=())).hook == hook, "a run that goes on has it behind it"


@pytest.mark.parametrize(
    ("before", "target", "why"),
    [
        ("none", "shop", None),
        ("restart_server", "", None),
        ("hook:warm_cache", "beside", None),
        (
            "restart_server",
            "beside",
            "before: restart_server would restart the lab's own server, and the run aims at beside: choose another",
        ),
        (
            "hook:warm_cache",
            "shop:8443",
            "before: hook:warm_cache is refused: shop:8443 does not run on this lab's server host (runs_on)",
        ),
        (
            "hook:reboot",
            "",
            "before: hook:reboot is refused: server does not offer it; it offers: restart_server, hook:warm_cache",
        ),
    ],
)
def test_why_a_lab_cannot_do_something_before_a_run(before: str, target: str, why: str | None) -> None:
    assert why_not_before(load_lab(GOLDEN), before, target) == why


NEEDS = SMOKE.model_copy(update={"first_messages": ("> ${secret:TOKEN}", "< any", "> ${secret:OTHER}")})


@pytest.mark.django_db
def test_secrets_are_read_from_the_folder_of_an_admin_and_sent_beside_the_plan(tmp_path: Path, settings: Any) -> None:
    settings.SECRETS = tmp_path
    (tmp_path / "TOKEN").write_text("hush\n")
    (tmp_path / "OTHER").write_text("hush too")
    lab = load_lab(GOLDEN)
    run = make_run(make_user(), State.PREFLIGHT, generators=["load-1"], scenario=NEEDS)
    job = job_of(run, lab)
    assert revealed(dict(job.secrets)) == {"TOKEN": "hush", "OTHER": "hush too"}
    assert "hush" not in repr(job)
    run.state = State.RUNNING
    assert job_of(run, lab).secrets == {}  # a conductor that takes over needs none


@pytest.mark.django_db
def test_a_missing_secret_is_refused_when_a_run_is_asked_for_and_when_it_begins(tmp_path: Path, settings: Any) -> None:
    settings.SECRETS = tmp_path
    (tmp_path / "OTHER").write_text("")
    lab = load_lab(GOLDEN)
    said = (
        f"the secret OTHER in {tmp_path / 'OTHER'} is none: 0 bytes, wanted 1 to 16,384; the secret TOKEN cannot be "
        f"read: No such file or directory; an admin puts its value into {tmp_path / 'TOKEN'}"
    )
    run = make_run(make_user(), State.PREFLIGHT, generators=["load-1"], scenario=NEEDS)
    with pytest.raises(NoJob, match=re.escape(said)):
        job_of(run, lab)
    with pytest.raises(Refused, match=re.escape(said)):
        check_lab(lab, Order(NEEDS))

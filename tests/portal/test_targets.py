"""Aiming at a target and asking for something before a run: form, API, and what of it reaches a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from portal.accounts.models import User
from portal.runs import line
from portal.runs.create import make_order, queue_run
from portal.runs.draft import Refused
from portal.runs.models import Run
from portal.runs.states import State
from tests.portal.conftest import LAB
from tests.portal.factories import SMOKE, make_run, make_scenario, make_user
from tests.portal.pages import page
from tests.portal.standin import StandIn, conductor
from tests.portal.test_api import Caller
from tests.portal.test_pages_new import filled

__all__ = ["conductor"]

pytestmark = pytest.mark.django_db
NEW = reverse("runs:new")
TOKEN = "wslab-0123456789abcdef"
TARGETS = [
    {"name": "shop", "scheme": "wss", "host": "127.0.0.9", "ports": "8443-8444", "path": "/live"},
    {"name": "beside", "scheme": "ws", "host": "127.0.0.9", "ports": "4000", "consent": False, "runs_on": "server"},
    {"name": "gone", "scheme": "ws", "host": "no-such-host.invalid", "ports": "80"},
]


@pytest.fixture(autouse=True)
def lab(lab_file: Path) -> Path:
    """A lab with hooks and targets."""
    server, *others = LAB["hosts"]
    hooked = {**server, "hooks": ["restart_server", "warm_cache"]}
    lab_file.write_text(json.dumps({**LAB, "hosts": [hooked, *others], "targets": TARGETS, "consent_token": TOKEN}))
    return lab_file


@pytest.fixture
def ada() -> User:
    make_scenario()
    return make_user("ada")


def queue(user: User, target: str = "", before: str = "none", **fields: Any) -> Run:
    return queue_run(user, make_order("smoke", {"before": before}, target=target, **fields))


def test_the_form_offers_the_labs_targets_and_hooks_and_keeps_what_was_chosen(client: Client, ada: User) -> None:
    client.force_login(ada)
    found = page(client.get(NEW))
    targets = [(option.attributes["value"], option.text) for option in found.all("select#f-target option")]
    assert targets == [
        ("", "The lab's own server"),
        ("shop", "shop: wss://127.0.0.9:8443/live"),
        ("shop:8444", "shop: wss://127.0.0.9:8444/live"),
        ("beside", "beside: ws://127.0.0.9:4000"),
        ("gone", "gone: ws://no-such-host.invalid:80"),
    ]
    befores = [option.attributes["value"] for option in found.all("select#f-before option")]
    assert befores == ["none", "restart_server", "hook:warm_cache"]
    assert client.post(NEW, filled(target="shop:8444")).status_code == 302
    run = Run.objects.get()
    assert (run.target, run.subject_name, run.subject_version, run.subject_source) == (
        "shop:8444", "shop", "unknown", "given",
    )  # fmt: skip
    again = page(client.get(f"{NEW}?from={run.pk}"))
    assert again.one("select#f-target option[selected]").attributes["value"] == "shop:8444"


def test_a_lab_without_targets_has_no_such_choice(client: Client, ada: User, lab: Path) -> None:
    lab.write_text(json.dumps(LAB))
    client.force_login(ada)
    found = page(client.get(NEW))
    assert found.all("select#f-target") == []
    gone = page(client.post(NEW, filled(target="shop")))
    assert gone.one("select#f-target option[selected]").text == "shop: no longer allowed"
    assert gone.one("#e-target").text.startswith("target: 'shop' is none of this lab's; known: none")
    assert [option.attributes["value"] for option in found.all("select#f-before option")] == ["none"]


@pytest.mark.parametrize(
    ("target", "before", "line"),
    [
        ("store", "none", "target: 'store' is none of this lab's; known: shop, beside, gone"),
        ("shop:22", "none", "target: port 22 of shop is refused (allowed: 8443-8444)"),
        ("wss://127.0.0.9:8443/live", "none", "target: 'wss://127.0.0.9:8443/live' is none of this lab's; known: shop"),
        ("shop; reboot", "none", "target: 'shop; reboot' is none of this lab's"),
        ("", "hook:reboot", "before: hook:reboot is refused: server does not offer it; it offers: restart_s"),
        ("shop", "restart_server", "before: restart_server would restart the lab's own server, and the run "),
        ("shop", "hook:warm_cache", "before: hook:warm_cache is refused: shop does not run on this lab's server host"),
        ("", "hook:warm_cache; reboot", "before: 'hook:warm_cache; reboot' is refused: allowed: "),
        ("", "../../bin/sh", "before: '../../bin/sh' is refused: allowed: "),
    ],
)  # fmt: skip
def test_what_the_lab_has_not_is_refused_at_once_in_all_ways(
    client: Client, ada: User, target: str, before: str, line: str
) -> None:
    with pytest.raises(Refused) as refused:
        queue(ada, target, before)
    assert refused.value.lines[0].startswith(line)
    wanted = {"scenario": "smoke", "set": {"before": before}, "target": target}
    assert Caller(ada).post("/runs", wanted, status=422)["detail"][0].startswith(line)
    client.force_login(ada)
    sent = client.post(NEW, filled(target=target, before=before))
    assert sent.status_code == 422
    assert page(sent).one(f"#e-{line.partition(':')[0]}").text.startswith(line)
    assert not Run.objects.exists()


def test_a_run_at_a_target_is_looked_up_once_and_kept(ada: User, conductor: StandIn, lab: Path) -> None:
    run = queue(ada, "shop:8444")
    line.conduct_run(run.pk)
    run.refresh_from_db()
    assert run.state == "finished", run.state_reason
    assert run.aim == {
        "url": "wss://127.0.0.9:8444/live", "address": "127.0.0.9", "consent": TOKEN, "watched": False, "own": False,
    }  # fmt: skip
    [job] = conductor.jobs
    assert [host.name for host in job.hosts] == ["load-1", "load-2"]
    for host in job.hosts:
        assert host.plan is not None
        assert (host.plan.url, host.plan.address, host.plan.consent) == (
            "wss://127.0.0.9:8444/live", "127.0.0.9", TOKEN,
        )  # fmt: skip
    result = run.summary.content
    assert "the run aimed at shop:8444: wss://127.0.0.9:8444/live, at 127.0.0.9, with its consent" in result.notes
    assert "shop:8444 is not of this lab: nothing is known of its host" in result.notes
    assert (result.subject.name, result.subject.version, result.subject.source) == ("shop", "unknown", "given")
    assert [host.name for host in result.hosts] == ["load-1", "load-2"]
    assert "shop:8444 is wss://127.0.0.9:8444/live, at 127.0.0.9" in [event.text for event in run.events.all()]
    del lab


def test_a_target_that_has_no_address_or_is_allowed_no_more_fails_the_run_with_the_reason(
    ada: User, conductor: StandIn, lab: Path
) -> None:
    nowhere = queue(ada, "gone")
    line.conduct_run(nowhere.pk)
    nowhere.refresh_from_db()
    assert nowhere.state == "failed"
    assert nowhere.state_reason.startswith("target: no-such-host.invalid has no address: ")
    run = queue(ada, "shop")
    lab.write_text(json.dumps(LAB))
    line.conduct_run(run.pk)
    run.refresh_from_db()
    reason = "target: 'shop' is none of this lab's; known: none; an admin allows them in the inventory"
    assert (run.state, run.state_reason) == ("failed", reason)
    assert conductor.jobs == []


def test_what_a_run_waits_for_is_on_its_page_and_gone_once_it_is_prepared(client: Client, ada: User) -> None:
    client.force_login(ada)
    run = make_run(
        ada, State.PREFLIGHT, state_reason="waits for the hosts to settle, 3 of 90 s: server has 2 connections"
    )
    live = reverse("runs:live", args=[run.pk])
    assert (
        "Waits for the hosts to settle, 3 of 90 s: server has 2 connections."
        in page(client.get(live)).one("#live").text
    )
    assert run.step(State.PREPARING)
    assert "Waits for" not in page(client.get(live)).one("#live").text


def test_a_hook_that_the_lab_offers_no_more_fails_the_run_before_a_host_is_touched(
    ada: User, conductor: StandIn, lab: Path
) -> None:
    run = queue(ada, before="hook:warm_cache")
    lab.write_text(json.dumps(LAB))
    line.conduct_run(run.pk)
    run.refresh_from_db()
    reason = "before: hook:warm_cache is refused: server does not offer it; it offers: none"
    assert (run.state, run.state_reason) == ("failed", reason)
    assert conductor.jobs == []


def test_the_scenario_says_what_is_done_before_and_the_job_tells_the_conductor(ada: User, conductor: StandIn) -> None:
    run = queue(ada, before="restart_server")
    line.conduct_run(run.pk)
    [job] = conductor.jobs
    assert job.hook == "restart_server"
    assert SMOKE.before == "none"

"""The first page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from portal.accounts.models import User
from portal.runs.models import NamedScenario, Run, RunGroup
from portal.runs.states import State
from portal.runs.views import home as view
from portal.schedules.models import Schedule
from tests.portal.factories import (
    SMOKE,
    STABLE,
    add_seconds,
    host_runs,
    keep,
    make_finished,
    make_result,
    make_run,
    make_user,
    merged_lines,
)
from tests.portal.pages import Page, page

pytestmark = pytest.mark.django_db
HOME = "/"


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


def ago(**time: float) -> Any:
    return timezone.now() - timedelta(**time)


def news(found: Page) -> list[str]:
    """The titles of what changed."""
    return [line.one("a").text for line in found.all(".news > li")]


def test_one_comes_here_after_signing_in(client: Client, ada: User) -> None:
    said = {"username": "ada", "password": "a long pass phrase"}
    assert client.post("/accounts/login/", said)["Location"] == HOME
    found = page(client.get(HOME))
    assert [here.text for here in found.all("nav [aria-current=page]")] == ["Home"]


def test_a_new_portal_says_that_the_lab_is_free_and_leads_to_the_first_run(browser: Client) -> None:
    found = page(browser.get(HOME))
    assert found.one("h1").text == "local"
    assert found.one(".standing").text == "The lab is free"
    assert found.one(".empty .primary").attributes["href"] == "/runs/new?scenario=smoke"
    assert "Nothing has changed" in found.text


def test_without_a_lab_the_page_says_why_and_where_to_go(browser: Client, lab_file: Path) -> None:
    lab_file.unlink()
    found = page(browser.get(HOME))
    assert found.one(".standing").text == "There is no lab"
    assert found.one("#now a").attributes["href"] == "/lab/"
    assert str(lab_file) in found.one("#now").text


def test_what_runs_is_shown_with_its_numbers_of_the_moment(browser: Client, ada: User) -> None:
    run = make_run(
        ada,
        State.RUNNING,
        subject_name="echo",
        created_at=ago(seconds=8),
        preflight_at=ago(seconds=7),
        start_at_ns=round(ago(seconds=5).timestamp() * 1e9),
        live={
            "second": 5,
            "connections_open": 98,
            "sent": 2500,
            "received": 2490,
            "outstanding": 10,
            "errors": 3,
            "recent": {"p50_ns": 1_000_000, "p95_ns": 2_000_000, "p99_ns": 4_200_000},
        },
    )
    add_seconds(run, merged_lines(host_runs())[:5])
    found = page(browser.get(HOME))
    assert found.one(".standing").text == "The lab is busy"
    assert found.one("#now h3 a").attributes["href"] == f"/runs/{run.pk}/"
    stats = {stat.one("dt").text: stat.one("dd").text for stat in found.all(".stat")}
    assert stats == {
        "Connections open": "98",
        "Offered": "500/s",
        "Answered": "500/s",
        "Response time p99": "4.20 ms",
        "Errors": "3",
    }
    assert found.one("#now").attributes["hx-trigger"] == "every 1s"


def test_each_waiting_run_says_when_it_is_expected_to_begin(
    browser: Client, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0)
    monkeypatch.setattr(view.timezone, "now", lambda: now)
    make_run(ada, State.RUNNING, created_at=now, preflight_at=now - timedelta(seconds=12))
    long = SMOKE.model_copy(update={"name": "long", "duration_s": 290})
    make_run(ada, scenario=long, created_at=now)
    make_run(ada, created_at=now + timedelta(seconds=1), state_reason="waits for the machine's lock")
    found = page(browser.get(HOME))
    # 12 s of smoke and 10 s of overhead, of which 12 s are over; then 290 s and 10 s.
    assert [line.text.partition("UTC")[0] for line in found.one("#now").all(".lines > li")] == [
        "long on 1st, at about 12:00 ",
        "smoke on 2nd, at about 12:05 ",
    ]
    assert "waits for the machine's lock" in found.text
    assert "free at about 12:05 UTC" in found.one(".panel-head").text


def test_a_run_that_waits_for_another_machine_is_shown_with_that_machine(browser: Client, ada: User) -> None:
    make_run(ada, machine="elsewhere")
    titles = [(head.one("h2").text, head.text) for head in page(browser.get(HOME)).one("#now").all(".panel-head")]
    assert [title for title, _ in titles] == ["The lab has runs waiting", "The lab is free"]
    assert "machine elsewhere" in titles[0][1]
    assert "machine this-machine" in titles[1][1]


def test_the_last_results_come_with_verdict_and_validity(browser: Client, ada: User) -> None:
    good = make_finished(ada, subject_name="echo", subject_version="1.0")
    broken = make_run(ada, State.FAILED, created_at=good.created_at + timedelta(minutes=1))
    rows = page(browser.get(HOME)).all("tbody tr")
    assert [row.one("a").attributes["href"] for row in rows] == [f"/runs/{broken.pk}/", f"/runs/{good.pk}/"]
    assert [cell.text for cell in rows[0].all("td")][:4] == ["failed", "–", "–", "–"]
    assert [cell.text for cell in rows[1].all("td")][:2] == ["passed", "valid"]
    assert rows[1].all("td")[3].text == "500/s"


def test_a_new_version_is_news_and_one_that_ran_before_is_not(browser: Client, ada: User) -> None:
    for days, version in ((30, "1.0"), (3, "1.0"), (2, "1.1"), (1, "1.1")):
        make_run(ada, State.FINISHED, subject_name="echo", subject_version=version, created_at=ago(days=days))
    make_run(ada, State.FINISHED, subject_name="gateway", subject_version="7", created_at=ago(days=1))
    assert news(page(browser.get(HOME))) == ["New subject: gateway 7", "New version: echo 1.1"]


def test_other_hosts_are_news_with_what_is_different(browser: Client, ada: User) -> None:
    result = make_result()
    for days, digest in ((2, "old"), (1, "new")):
        keep(make_run(ada, State.FINISHED, created_at=ago(days=days), environment_digest=digest), result)
    new = Run.objects.get(environment_digest="new")
    for row in new.environments.all():
        row.begin = {"stable": {**STABLE, "kernel": "6.8.0-51"}}
        row.save()
    line = page(browser.get(HOME)).one(".news > li")
    assert line.one("a").text == "The hosts changed"
    assert line.one("a").attributes["href"] == f"/runs/{new.pk}/"
    assert "kernel 6.8.0-45 → 6.8.0-51" in line.text


def test_runs_on_other_generators_are_no_change_of_the_hosts(browser: Client, ada: User) -> None:
    for digest, names in (("two", ["load-1", "load-2"]), ("one", ["load-1"]), ("two", ["load-1", "load-2"])):
        make_run(ada, State.FINISHED, created_at=ago(days=1), environment_digest=digest, generators=names)
    assert news(page(browser.get(HOME))) == []


def test_a_scenario_that_began_to_fail_is_news_and_so_is_its_recovery(browser: Client, ada: User) -> None:
    def judged(days: float, verdict: str, subject: str, validity: str = "valid") -> None:
        fields = {"verdict": verdict, "validity": validity, "subject_name": subject}
        make_run(ada, State.FINISHED, created_at=ago(days=days), **fields)

    for days, verdict in ((4, "passed"), (3, "failed"), (2, "failed")):
        judged(days, verdict, "echo")
    judged(2.5, "failed", "gateway")
    judged(1, "passed", "gateway")
    # What cannot be believed turns nothing.
    judged(0.5, "passed", "echo", "invalid")
    assert news(page(browser.get(HOME))) == ["smoke passes again on gateway", "smoke fails on echo"]


def test_an_edited_scenario_is_news_and_one_from_a_file_is_not(browser: Client, ada: User) -> None:
    NamedScenario.write(SMOKE, None, "from its file")
    NamedScenario.write(SMOKE.model_copy(update={"clients": 50}), ada, "fewer will do")
    line = page(browser.get(HOME)).one(".news > li")
    assert line.one("a").text == "smoke is now at version 2"
    assert "by ada: fewer will do" in line.text


def test_what_should_be_looked_at_is_counted_and_leads_to_the_list(browser: Client, ada: User) -> None:
    make_run(ada, State.FINISHED, verdict="failed", validity="suspect", created_at=ago(days=1))
    make_run(ada, State.FINISHED, verdict="failed", validity="valid", created_at=ago(days=2))
    make_run(ada, State.LOST, created_at=ago(days=2))
    make_run(ada, State.FAILED, created_at=ago(days=30))
    lines = page(browser.get(HOME)).all(".doubted > li")
    assert [line.text for line in lines] == [
        "2 runs with a failed verdict in the last 7 days",
        "1 run lost in the last 7 days",
        "1 run suspect in the last 7 days",
    ]
    listed = page(browser.get(lines[0].one("a").attributes["href"]))
    assert len(listed.all("tbody tr")) == 2


def test_what_is_scheduled_next_is_shown(browser: Client, ada: User) -> None:
    group = RunGroup.objects.create(title="nightly", kind="schedule", created_by=ada)
    due = timezone.now() + timedelta(hours=2)
    Schedule.objects.create(
        title="nightly", scenario_name="smoke", cron="0 2 * * *", next_at=due, group=group, owner=ada
    )
    line = page(browser.get(HOME)).one("#scheduled-title").ancestor("section").one("li")
    assert line.one("a").text == "nightly"
    assert f"{due:%d %b %H:%M} UTC" in line.text


def test_the_part_that_changes_by_the_second_comes_alone_when_it_is_asked_for(browser: Client, ada: User) -> None:
    make_run(ada)
    answer = browser.get(HOME, headers={"HX-Request": "true"})
    assert answer.content.strip().startswith(b'<div id="now"')
    assert b"<html" not in answer.content
    assert "HX-Request" in answer["Vary"]


def test_the_number_of_queries_does_not_grow_with_the_runs(
    browser: Client, ada: User, django_assert_num_queries: Callable[[int], Any]
) -> None:
    result = make_result()

    def fill(n: int) -> None:
        for _ in range(n):
            number = Run.objects.count()
            keep(
                make_run(
                    make_user(f"user-{number}"),
                    State.FINISHED,
                    subject_name=f"subject-{number}",
                    subject_version="1",
                    environment_digest=f"digest-{number}",
                    created_at=ago(days=1),
                ),
                result,
            )
            make_run(ada, State.QUEUED)

    fill(2)
    with django_assert_num_queries(QUERIES):
        browser.get(HOME)
    fill(9)
    with django_assert_num_queries(QUERIES):
        browser.get(HOME)


QUERIES = 14
"""Session, user, machines, the line and what a run takes beyond its scenario, schedules, results, what changed."""

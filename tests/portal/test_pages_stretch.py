"""Stretches, other windows and marks: what can be asked of a run's page beyond reading it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from django.test import Client

from portal.accounts.models import AuditEntry, User
from portal.runs.archive import Opened
from portal.runs.cut import judged
from portal.runs.models import Archive, OtherWindow, Run
from portal.runs.states import State
from portal.runs.views.guide import anchor
from portal.runs.windows import MOST_PER_RUN
from tests.portal.factories import SMOKE, make_finished, make_run, make_scenario, make_user
from tests.portal.pages import Page, page
from tests.portal.test_pages_run import panel, show, stats, table

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


@pytest.fixture
def viewer(ada: User) -> Client:
    client = Client()
    client.force_login(make_user("vic", role="viewer"))
    return client


def ask(browser: Client, run: Run, begin: object, end: object) -> Page:
    """The part that a chart asks for."""
    query = {"from": begin, "to": end}
    return page(browser.get(f"/runs/{run.pk}/stretch", query, headers={"HX-Request": "true"}))


def use(browser: Client, run: Run, begin: object, end: object, label: str = "") -> Page:
    """What comes after "use as window"."""
    response = browser.post(f"/runs/{run.pk}/windows", {"from": begin, "to": end, "label": label}, follow=True)
    assert response.redirect_chain[0][0] == f"/runs/{run.pk}/#windows"
    return page(response)


# --- looking -----------------------------------------------------------------------------------------------------
def test_a_stretch_shows_percentiles_counts_and_rates(browser: Client, ada: User) -> None:
    run = make_finished(ada, load={"lose_every": 100})
    found = ask(browser, run, 4, 9)
    assert found.one("h3").text.startswith("Second 4 to 9 5 s")
    latencies, messages, connections = found.all("table")
    assert [row[0] for row in table(latencies)] == ["Response time", "Service time", "Write wait", "Scheduler lag"]
    assert table(latencies)[0][1:3] == ["2,500", "2,474"]
    assert table(messages)[:3] == [
        ["due", "2,500", "500/s"],
        ["sent", "2,500", "500/s"],
        ["received", "2,474", "495/s"],
    ]
    assert table(connections)[0] == ["attempted", "0", "0/s"]
    assert "Error ratio 1.04 %; at most 100 connections open." in found.text
    assert not found.all("html")
    assert not found.all("h1")


def test_a_stretch_is_a_page_of_its_own_without_script(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    form = show(browser, run).one("[data-stretch-form]")
    assert (form.attributes["method"], form.attributes["action"]) == ("get", f"/runs/{run.pk}/stretch")
    whole = page(browser.get(f"/runs/{run.pk}/stretch", {"from": 4, "to": 9}))
    assert whole.one("h1 a").attributes["href"] == f"/runs/{run.pk}/"
    assert [field.attributes["value"] for field in whole.all("[data-stretch-form] input")] == ["4", "9"]
    assert whole.one("h3").text.startswith("Second 4 to 9")


def test_what_is_worst_leads_to_its_stretch(browser: Client, ada: User) -> None:
    run = make_finished(ada, load={"lose_every": 100})
    found = panel(show(browser, run), "Where did it hurt?")
    lines = [line.text for line in found.all("li")]
    assert lines[0].startswith("Response time was even: p99 at most ")
    assert sum(line.startswith("Least was answered in second ") for line in lines) == 1
    assert lines[-1].startswith("Messages lost, from second 1 on: most in second ")
    for link in found.all("a"):
        assert page(browser.get(link.attributes["href"])).one("h3").text.startswith("Second ")


@pytest.mark.parametrize(
    ("begin", "end", "why"),
    [
        ("9", "4", "Second 9 to 4 is no stretch of this run: wanted from before to, within 0 and 12."),
        ("0", "13", "Second 0 to 13 is no stretch of this run: wanted from before to, within 0 and 12."),
        ("", "4", "From: '' is no second: wanted a whole number from 0 to 12."),
        ("1.5", "4", "From: '1.5' is no second: wanted a whole number from 0 to 12."),
        ("1", "²", "To: '²' is no second: wanted a whole number from 0 to 12."),
        ("1", "9" * 40, "To: '99999999999999999999' is no second: wanted a whole number from 0 to 12."),
    ],
)
def test_what_is_no_stretch_says_what_was_wanted(browser: Client, ada: User, begin: str, end: str, why: str) -> None:
    run = make_finished(ada)
    assert ask(browser, run, begin, end).one("[role=alert]").text == why
    assert f"Not judged: {why[0].lower()}{why[1:]}" in use(browser, run, begin, end).one(".notices").text
    assert not OtherWindow.objects.exists()


def test_where_there_is_nothing_to_cut_the_page_says_so(browser: Client, ada: User) -> None:
    bare = make_run(ada, State.FAILED)
    assert ask(browser, bare, 1, 2).one("[role=alert]").text == "There is no archive of this run to cut it from."
    run = make_finished(ada)
    Archive.objects.filter(run=run).update(content=b"torn", digest=None)
    assert ask(browser, run, 1, 2).one("[role=alert]").text.startswith("No archive of a run: ")
    assert show(browser, run).one("h1").text.startswith("smoke on")
    hollow = zstandard.compress(
        json.dumps({"format": 1, "hosts": [], "scenario": {}, "seconds": [{"second": 1}]}).encode()
    )
    Archive.objects.filter(run=run).update(content=hollow, digest=None)
    assert ask(browser, run, 1, 2).one("[role=alert]").text.startswith("The seconds of an archive cannot be read: ")
    assert "The archive holds no seconds of this run." in show(browser, run).text
    assert browser.get(f"/runs/{run.pk}/series.json").json()["tables"]["run"]["second"] == []
    assert browser.get(f"/runs/{make_run(ada, State.RUNNING).pk}/stretch").status_code == 404


# --- judging again -----------------------------------------------------------------------------------------------
def test_a_stretch_used_as_a_window_is_judged_beside_the_first(browser: Client, ada: User) -> None:
    run = make_finished(ada, load={"lose_every": 200})
    before = run.summary.result
    found = panel(use(browser, run, 4, 9, "the  calm part"), "Judged over other windows")
    assert found.one("h3").text == "the calm part second 4 to 9"
    assert [badge.text for badge in found.all(".row .badge")] == ["failed", "valid"]
    assert [row[0::2] for row in table(found)] == [
        ["response_time.p99 < 250ms", "passed"],
        ["error_ratio < 0.1%", "failed"],
    ]
    assert stats(found)["Throughput"] == "498/s"
    assert "Connections, peak" not in stats(found)

    run.refresh_from_db()
    assert run.summary.result == before
    first = panel(show(browser, run), "Did it pass?")
    assert first.one(".panel-head .badge").text == "failed"
    other = OtherWindow.objects.get()
    assert (other.run, other.from_s, other.to_s, other.created_by) == (run, 4, 9, ada)
    archive = Opened(bytes(run.archive.content))
    assert other.content == judged(run.summary.content, archive, (4, 9))
    data = browser.get(f"/runs/{run.pk}/series.json").json()
    assert data["windows"] == [[4, 9, "the calm part"]]
    entry = AuditEntry.objects.get(verb="judged a window")
    assert (entry.user, entry.key, entry.detail) == (ada, run.pk, "the calm part (4 s to 9 s): failed")


def test_a_window_is_judged_once_and_named_by_its_seconds(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    assert panel(use(browser, run, 4, 9), "Judged over other windows").one("h3").text == "second 4 to 9 second 4 to 9"
    assert "this window is judged already" in use(browser, run, 4, 9, "again").one(".notices").text
    assert "is the measured window, which is judged already" in use(browser, run, 2, 12).one(".notices").text
    assert "the name has 81 characters: wanted at most 80" in use(browser, run, 5, 9, "x" * 81).one(".notices").text
    assert OtherWindow.objects.count() == 1


def test_a_run_has_so_many_windows_and_no_more(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    result = run.summary.result
    OtherWindow.objects.bulk_create(
        OtherWindow(run=run, label=f"{n}", from_s=n, to_s=n + 1, result=result) for n in range(MOST_PER_RUN)
    )
    assert (
        f"this run has {MOST_PER_RUN} other windows: remove one first" in use(browser, run, 4, 9).one(".notices").text
    )
    other = OtherWindow.objects.order_by("id").first()
    assert other is not None
    browser.post(f"/runs/{run.pk}/windows/{other.pk}/remove")
    assert OtherWindow.objects.filter(run=run).count() == MOST_PER_RUN - 1
    assert AuditEntry.objects.filter(verb="removed a window", user=ada).count() == 1
    elsewhere = make_finished(ada)
    last = OtherWindow.objects.first()
    assert last is not None
    assert browser.post(f"/runs/{elsewhere.pk}/windows/{last.pk}/remove").status_code == 404


def test_other_windows_cost_no_query_each(
    browser: Client, ada: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    run = make_finished(ada)
    show(browser, run)
    for n in range(1, 5):
        OtherWindow.objects.create(
            run=run, label=f"{n}", from_s=n, to_s=n + 3, result=run.summary.result, created_by=ada
        )
        with django_assert_max_num_queries(15):
            browser.get(f"/runs/{run.pk}/")


# --- marks -------------------------------------------------------------------------------------------------------
def test_a_star_is_put_on_and_taken_off(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    button = show(browser, run).one(f"form[action=/runs/{run.pk}/star] button")
    assert button.text == "Star"
    browser.post(f"/runs/{run.pk}/star", {"on": "yes"})
    run.refresh_from_db()
    assert run.starred
    found = show(browser, run)
    assert "starred" in found.one("h1").text
    assert found.one(f"form[action=/runs/{run.pk}/star] input[name=on]").attributes["value"] == "no"
    browser.post(f"/runs/{run.pk}/star", {"on": "yes"})
    browser.post(f"/runs/{run.pk}/star", {"on": "no"})
    run.refresh_from_db()
    assert not run.starred
    assert list(AuditEntry.objects.order_by("id").values_list("verb", flat=True)) == ["starred", "unstarred"]


def test_a_finished_run_is_made_the_baseline_of_its_scenario(browser: Client, ada: User) -> None:
    scenario, run = make_scenario(), make_finished(ada)
    browser.post(f"/runs/{run.pk}/baseline", {"on": "yes"})
    scenario.refresh_from_db()
    assert scenario.baseline == run
    assert "baseline of smoke" in show(browser, run).one("h1").text
    browser.post(f"/runs/{run.pk}/baseline", {"on": "no"})
    scenario.refresh_from_db()
    assert scenario.baseline is None


def test_what_did_not_finish_or_has_no_scenario_is_no_baseline(browser: Client, ada: User) -> None:
    scenario = make_scenario()
    failed = make_run(ada, State.FAILED)
    response = browser.post(f"/runs/{failed.pk}/baseline", {"on": "yes"}, follow=True)
    assert "A run that is failed is no baseline: wanted a finished one." in page(response).one(".notices").text
    scenario.refresh_from_db()
    assert scenario.baseline is None
    other = make_finished(ada, SMOKE.model_copy(update={"name": "gone"}), scenario_name="gone")
    response = browser.post(f"/runs/{other.pk}/baseline", {"on": "yes"}, follow=True)
    assert "No scenario is called gone any more." in page(response).one(".notices").text


def test_a_viewer_sees_all_of_it_and_changes_none(viewer: Client, ada: User) -> None:
    run = make_finished(ada)
    found = show(viewer, run)
    assert not found.all(
        "[method=post]",
    ) or {form.attributes["action"] for form in found.all("form[method=post]")} == {"/accounts/logout/"}
    assert not ask(viewer, run, 4, 9).all("form")
    for address in ("star", "baseline", "windows"):
        assert viewer.post(f"/runs/{run.pk}/{address}", {"on": "yes", "from": 4, "to": 9}).status_code == 403
    assert not OtherWindow.objects.exists()


# --- the guide ---------------------------------------------------------------------------------------------------
def test_every_explanation_leads_to_a_heading_of_the_guide(browser: Client) -> None:
    from typing import get_args

    from portal.runs.explained import ERRORS, LOST, UNSENT
    from wsnode.core.protocol import ErrorKind, UnsentReason

    assert ERRORS.keys() == set(get_args(ErrorKind))
    assert UNSENT.keys() == set(get_args(UnsentReason))
    found = page(browser.get("/runs/tuning"))
    anchors = {heading.attributes["id"] for heading in found.all("article h2, article h3")}
    assert {of.anchor for of in (LOST, *ERRORS.values(), *UNSENT.values())} <= anchors
    assert all(
        link.attributes["href"][1:] in anchors for link in found.all("article a") if link.attributes["href"][0] == "#"
    )
    assert anchor("CPUs and interrupts") == "cpus-and-interrupts"


# --- in short ------------------------------------------------------------------------------------------------------
def test_a_run_is_told_in_two_sentences(browser: Client, ada: User) -> None:
    passed = show(browser, make_finished(ada)).one(".short").text
    assert passed.startswith(
        "It passed: both thresholds hold. The measurement can be trusted. "
        "100 connections, 500 of 500 messages a second answered, 99 of 100 within "
    )
    failed = show(browser, make_finished(ada, load={"lose_every": 50, "lag_ms": 60})).one(".short").text
    assert failed.startswith(
        "It failed: response_time.p99 < 250ms (too much was never answered); error_ratio < 0.1% (measured 2 %). "
        "Do not rely on it: the measurement is invalid. "
        "100 connections, 490 of 500 messages a second answered, half of them within "
    )

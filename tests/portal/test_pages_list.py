"""The list of runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from portal.accounts.models import User
from portal.runs.models import Run, Tag
from portal.runs.states import State
from tests.portal.factories import NOW, SMOKE, keep, make_finished, make_result, make_run, make_user
from tests.portal.pages import Page, page
from wsnode.core.scenario import Scenario

pytestmark = pytest.mark.django_db
LIST = reverse("runs:list")
QUERIES = 14
"""Session and user, the page's keys and their number, its rows and their tags, what is active, the queue and its
length, and what there is to choose from."""


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


def cells(found: Page, run: Run) -> list[str]:
    """The texts of a run's row."""
    return [cell.text for cell in found.one(f"#row-{run.pk}").all("td, th")]


def test_without_a_run_the_page_leads_to_the_first(browser: Client) -> None:
    found = page(browser.get(LIST))
    assert found.one(".empty h2").text == "No runs yet"
    assert found.one(".empty .primary").attributes["href"] == "/runs/new?scenario=smoke"
    assert not found.all("table")


def test_a_finished_run_shows_its_figures_with_units(browser: Client, ada: User) -> None:
    run = make_finished(ada, subject_name="echo", subject_version="1.4.2")
    found = page(browser.get(LIST))

    times = run.summary.content.latency_s.response_time
    assert times.p50 is not None
    assert times.p95 is not None
    assert times.p99 is not None
    assert cells(found, run) == [
        "",
        "smoke echo 1.4.2",
        "finished",
        "passed",
        "valid",
        f"{times.p50 * 1e3:.2f} ms",
        f"{times.p95 * 1e3:.2f} ms",
        f"{times.p99 * 1e3:.2f} ms",
        "500/s",
        "0 %",
        "100",
        "20 Nov 09:30 ada",
        "19 s",
    ]
    assert found.one(f"#row-{run.pk} a").attributes["href"] == f"/runs/{run.pk}/"


def test_what_has_no_value_is_a_dash_and_never_zero(browser: Client, ada: User) -> None:
    lossy = make_finished(ada, load={"lose_every": 50})
    failed = make_run(ada, State.FAILED)
    found = page(browser.get(LIST))

    assert cells(found, lossy)[7] == "–"
    assert cells(found, lossy)[9] == "2 %"
    assert cells(found, failed)[2:11] == ["failed", *["–"] * 8]


def test_only_runs_with_a_result_can_be_ticked(browser: Client, ada: User) -> None:
    done, waiting = make_finished(ada), make_run(ada)
    found = page(browser.get(LIST))
    assert [box.attributes["value"] for box in found.all("input[name=run]")] == [done.pk]
    assert found.one(f"#row-{waiting.pk}").all("input") == []


def test_the_queue_is_shown_in_its_order_with_what_it_waits_for(browser: Client, ada: User) -> None:
    running = make_run(ada, State.RUNNING, subject_name="wsnode")
    second = make_run(ada, created_at=NOW + timedelta(seconds=2), state_reason="waits for the machine's lock")
    first = make_run(ada, created_at=NOW + timedelta(seconds=1))
    found = page(browser.get(LIST))

    lines = found.one("#now-title").ancestor("section").all("ol > li")
    assert [line.one("a").attributes["href"] for line in lines] == [f"/runs/{r.pk}/" for r in (running, first, second)]
    assert "running" in lines[0].text
    assert "1st in the queue, by ada" in lines[1].text
    assert "2nd in the queue, by ada: waits for the machine's lock" in lines[2].text


def test_the_rows_refresh_while_something_is_under_way_and_only_then(browser: Client, ada: User) -> None:
    make_finished(ada)
    assert "hx-get" not in page(browser.get(LIST)).one("#rows").attributes

    make_run(ada, State.PREPARING)
    rows = page(browser.get(LIST, {"scenario": "smoke"})).one("#rows").attributes
    assert rows["hx-get"] == "/runs/?scenario=smoke"
    assert rows["hx-trigger"] == "every 2s"

    partial = browser.get(LIST, headers={"HX-Request": "true"})
    assert partial.content.strip().startswith(b'<div id="rows"')
    assert b"<html" not in partial.content


def test_runs_are_filtered_by_scenario_and_state(browser: Client, ada: User) -> None:
    done = make_finished(ada)
    other = make_run(ada, State.CANCELLED, SMOKE.model_copy(update={"name": "other"}))
    busy = make_run(ada, State.COLLECTING)

    def shown(**parameters: str) -> set[str]:
        found = page(browser.get(LIST, parameters))
        return {row.attributes["id"].removeprefix("row-") for row in found.all("tbody tr")}

    assert shown() == {done.pk, other.pk, busy.pk}
    assert shown(scenario="other") == {other.pk}
    assert shown(state="active") == {busy.pk}
    assert shown(state="finished") == {done.pk}
    nothing = page(browser.get(LIST, {"scenario": "smoke", "state": "lost"}))
    assert nothing.one(".empty p").text == "There is none with the scenario smoke and the state lost."
    chosen = page(browser.get(LIST, {"scenario": "other", "state": "active"})).all("option[selected]")
    assert [option.attributes["value"] for option in chosen] == ["other", "active", "-created"]


def test_many_runs_come_in_pages(browser: Client, ada: User) -> None:
    for n in range(31):
        make_run(ada, State.CANCELLED, created_at=NOW + timedelta(minutes=n))

    first = page(browser.get(LIST, {"state": "cancelled"}))
    assert len(first.all("tbody tr")) == 30
    assert "1 to 30 of 31" in first.one(".pager").text
    assert first.one(".pager a").attributes["href"] == "?state=cancelled&page=2"
    second = page(browser.get(LIST, {"state": "cancelled", "page": "2"}))
    assert len(second.all("tbody tr")) == 1
    assert second.one(".pager a").text == "Previous"


def test_the_number_of_queries_does_not_grow_with_the_runs(
    browser: Client, ada: User, django_assert_num_queries: Callable[[int], Any]
) -> None:
    result = make_result()

    def fill(n: int) -> None:
        for _ in range(n):
            keep(make_run(make_user(f"user-{User.objects.count()}"), State.FINISHED), result)
            make_run(ada, State.QUEUED)

    fill(1)
    with django_assert_num_queries(QUERIES):
        browser.get(LIST)
    fill(9)
    with django_assert_num_queries(QUERIES):
        browser.get(LIST)


def test_what_people_typed_is_text_and_not_markup(browser: Client, ada: User) -> None:
    hostile = '"><script>alert(1)</script>'
    make_finished(ada, Scenario(name="x", description=hostile), subject_name=hostile, subject_version=hostile)
    content = browser.get(LIST).content
    assert b"<script>alert" not in content
    assert b"&lt;script&gt;alert(1)&lt;/script&gt;" in content


def test_of_a_long_queue_the_head_is_shown_and_the_rest_counted(browser: Client, ada: User) -> None:
    for n in range(23):
        make_run(ada, created_at=NOW + timedelta(seconds=n))
    found = page(browser.get(LIST))
    places = [item.text for item in found.all("ol li")]
    assert len(places) == 21
    assert "20th in the queue" in places[19]
    assert places[20] == "and 3 more in the queue"


def test_a_browser_does_not_take_the_rows_alone_for_the_page(browser: Client) -> None:
    assert "HX-Request" in browser.get(LIST)["Vary"]


def test_a_row_says_why_the_run_was_made_and_what_it_is_marked_with(browser: Client, ada: User) -> None:
    run = make_run(ada, State.CANCELLED, reason="is the fix enough?", starred=True)
    run.tags.set([Tag.objects.create(name="release"), Tag.objects.create(name="kernel")])
    name = page(browser.get(LIST)).one(f"#row-{run.pk} th")
    assert name.one(".why").text == "kernel release is the fix enough?"
    assert "starred" in name.whole_text


def test_each_filter_in_force_has_a_link_that_takes_it_away(browser: Client, ada: User) -> None:
    make_run(ada, State.CANCELLED)
    found = page(browser.get(LIST, {"scenario": "smoke", "author": "ada", "q": "fix", "sort": "p99"}))
    chips = {chip.text: chip.attributes["href"] for chip in found.all(".chip")}
    assert chips == {
        "Scenario smoke": "/runs/?author=ada&q=fix&sort=p99",
        "By ada": "/runs/?scenario=smoke&q=fix&sort=p99",
        "Search fix": "/runs/?scenario=smoke&author=ada&sort=p99",
    }


def test_a_form_without_script_ends_at_the_same_address_as_a_link(browser: Client) -> None:
    answer = browser.get(LIST, {"scenario": "smoke", "subject": "", "q": "", "sort": "-created"})
    assert (answer.status_code, answer["Location"]) == (302, "/runs/?scenario=smoke")
    assert browser.get(LIST, {"scenario": "", "q": ""})["Location"] == "/runs/"
    assert browser.get(LIST, {"scenario": "smoke"}).status_code == 200


def test_a_column_sorts_and_turns_round_and_says_so(browser: Client, ada: User) -> None:
    slow = make_finished(ada, load={"median_ms": 20})
    quick = make_finished(ada, load={"median_ms": 1})
    none = make_run(ada, State.FAILED)

    def order(address: str) -> list[str]:
        return [row.attributes["id"].removeprefix("row-") for row in page(browser.get(address)).all("tbody tr")]

    head = next(th for th in page(browser.get(LIST)).all("thead th") if th.whole_text == "Response time p99")
    assert "aria-sort" not in head.attributes
    once = LIST + head.one("a").attributes["href"]
    assert once == "/runs/?sort=p99"
    assert order(once) == [quick.pk, slow.pk, none.pk]
    head = page(browser.get(once)).one("[aria-sort]")
    assert head.attributes["aria-sort"] == "ascending"
    assert head.one("a").attributes["href"] == "?sort=-p99"
    assert order("/runs/?sort=-p99") == [slow.pk, quick.pk, none.pk]


def test_the_newest_come_first_and_the_header_turns_that_round(browser: Client, ada: User) -> None:
    old, new = make_run(ada, State.FAILED), make_run(ada, State.FAILED, created_at=NOW + timedelta(hours=1))
    found = page(browser.get(LIST))
    assert found.one("[aria-sort]").attributes["aria-sort"] == "descending"
    turned = found.one("[aria-sort] a").attributes["href"]
    rows = page(browser.get(LIST + turned)).all("tbody tr")
    assert [row.attributes["id"] for row in rows] == [f"row-{old.pk}", f"row-{new.pk}"]


def test_a_viewer_is_not_offered_what_takes_an_operator(client: Client) -> None:
    client.force_login(make_user("vera", role="viewer"))
    found = page(client.get(LIST))
    assert "/runs/new" not in {link.attributes["href"] for link in found.one("main").all("a")}
    assert found.one(".empty").all("p")[-1].text == "Starting one takes an operator."


def test_versions_are_suggested_of_the_subject_that_is_chosen(browser: Client, ada: User) -> None:
    for n, version in enumerate(("1.0", "1.1", "1.0")):
        make_run(
            ada,
            State.FAILED,
            subject_name="echo",
            subject_version=version,
            created_at=NOW + timedelta(minutes=n),
        )
    make_run(ada, State.FAILED, subject_name="other", subject_version="9")
    found = page(browser.get(LIST, {"subject": "echo"}))
    assert [option.attributes["value"] for option in found.all("datalist option")] == ["1.0", "1.1"]
    assert not page(browser.get(LIST)).all("datalist option")

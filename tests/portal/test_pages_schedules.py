"""The pages of schedules, and the same through the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.accounts.models import ApiToken, AuditEntry, User
from portal.runs.models import Run, RunGroup
from portal.schedules.firing import fire_due
from portal.schedules.models import Firing, Schedule
from portal.schedules.trend import Point, Trend
from tests.portal.factories import make_finished, make_scenario, make_user
from tests.portal.pages import page
from tests.portal.test_schedule_firing import make_schedule

pytestmark = pytest.mark.django_db
FORM = {
    "title": "nightly",
    "scenario": "smoke",
    "kind": "cron",
    "cron": "30 2 * * MON-FRI",
    "zone": "Europe/Berlin",
    "missed": "run_once",
    "tags": "Nightly, main",
}


@pytest.fixture
def ada() -> User:
    make_scenario()
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


def audited() -> list[tuple[str, str]]:
    return list(AuditEntry.objects.order_by("id").values_list("verb", "kind"))


def test_an_empty_page_leads_to_the_first_schedule(browser: Client) -> None:
    found = page(browser.get("/schedules/"))
    assert found.one(".empty h2").text == "No schedules yet"
    assert found.one(".empty a").attributes["href"] == "/schedules/new"


def test_a_schedule_is_made_and_says_its_dates_and_its_rule(browser: Client, ada: User) -> None:
    response = browser.post("/schedules/new", FORM)
    one = Schedule.objects.get()
    assert (response.status_code, response["Location"]) == (302, f"/schedules/{one.pk}/")
    assert (one.owner, one.cron, one.zone, one.tags) == (ada, "30 2 * * MON-FRI", "Europe/Berlin", "nightly main")
    assert one.next_at == next(one.when.after(timezone.now()))
    assert (one.group.kind, one.group.title) == ("schedule", "nightly")
    found = page(browser.get(response["Location"]))
    assert "At 02:30 on Monday through Friday, Europe/Berlin" in found.one("[aria-labelledby=when-title]").text
    assert len(found.all("[aria-labelledby=when-title] ol li")) == 5
    assert "one run makes up for all of them" in found.one("[aria-labelledby=when-title]").text
    assert "None of its dates has come yet." in found.text
    assert audited() == [("created", "schedule")]


def test_a_single_date_is_kept_in_utc(browser: Client) -> None:
    year = timezone.now().year + 1
    browser.post("/schedules/new", FORM | {"kind": "once", "once": f"{year}-01-15T12:00"})
    one = Schedule.objects.get()
    assert (one.cron, f"{one.once_at:%m-%d %H:%M}", one.next_at) == ("", "01-15 11:00", one.once_at)
    found = page(browser.get(f"/schedules/{one.pk}/edit"))
    assert found.one("#f-once").attributes["value"] == f"{year}-01-15T12:00"


@pytest.mark.parametrize(
    ("typed", "field", "line"),
    [
        ({"cron": "61 * * * *"}, "cron", "cron: '61 * * * *' is refused: bad minute, wanted 0 to 59"),
        ({"zone": "Mars/Olympus"}, "zone", "zone: 'Mars/Olympus' is not known"),
        ({"kind": "once", "once": "2020-01-01T00:00"}, "once", "has passed"),
        ({"title": " "}, "title", "title: '' is refused: wanted one line of 1 to 200 characters"),
        ({"scenario": "nope"}, "scenario", "scenario: 'nope' is not known"),
        ({"subject_version": "2.1"}, "subject_name", "subject.name: '' is refused"),
        ({"subject_name": "shop"}, "subject_version", "subject.version: '' is refused"),
        ({"subject_declared": "shop"}, "subject_declared", "subject.declared: 'shop' is not declared"),
        ({"tags": "x" * 60}, "tags", "wanted at most 50 visible characters"),
        ({"reason": "x" * 600}, "reason", "wanted one line of at most 500 characters"),
        ({"missed": "often"}, "missed", "missed: 'often' is refused: wanted skip or run_once"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(browser: Client, typed: dict[str, str], field: str, line: str) -> None:
    response = browser.post("/schedules/new", FORM | typed)
    assert response.status_code == 422
    found = page(response)
    assert line in found.one("#refused").text
    if field != "subject_declared":  # not shown where nothing is declared
        assert line in found.one(f"#e-{field}").text
        assert found.one(f"#f-{field}").attributes.get("aria-invalid", "true") == "true"
    assert not Schedule.objects.exists()
    assert not RunGroup.objects.exists()


def test_the_next_dates_follow_what_is_typed(browser: Client) -> None:
    found = page(browser.post("/schedules/dates", FORM))
    assert len(found.all("li")) == 5
    assert "At 02:30 on Monday through Friday" in found.text
    wrong = page(browser.post("/schedules/dates", FORM | {"cron": "* * * *"}))
    assert "Cron: '* * * *' is refused: wanted five fields" in wrong.text


def test_an_edit_is_in_the_name_of_who_made_it(browser: Client) -> None:
    one = make_schedule(make_user("bo"))
    found = page(browser.get(f"/schedules/{one.pk}/edit"))
    assert found.one("#f-cron").attributes["value"] == "0 * * * *"
    browser.post(f"/schedules/{one.pk}/edit", FORM | {"title": "weekly"})
    one.refresh_from_db()
    assert (one.title, one.group.title, one.owner.username) == ("weekly", "weekly", "ada")
    assert audited() == [("edited", "schedule")]


def test_a_paused_schedule_has_no_date_and_goes_on_with_the_next(browser: Client, ada: User) -> None:
    one = make_schedule(ada, timezone.now() - timedelta(hours=1))
    browser.post(f"/schedules/{one.pk}/pause")
    one.refresh_from_db()
    assert (one.paused, one.next_at) == (True, None)
    assert "It is paused: no date is due." in page(browser.get(f"/schedules/{one.pk}/")).text
    browser.post(f"/schedules/{one.pk}/resume")
    one.refresh_from_db()
    assert one.next_at is not None
    assert one.next_at > timezone.now()
    assert audited() == [("paused", "schedule"), ("resumed", "schedule")]


def test_a_deleted_schedule_leaves_its_runs_in_their_group(browser: Client, ada: User) -> None:
    one = make_schedule(ada, timezone.now())
    fire_due()
    browser.post(f"/schedules/{one.pk}/delete")
    assert not Schedule.objects.exists()
    assert Run.objects.get().group == one.group


def test_the_page_tells_what_became_of_each_date(browser: Client, ada: User) -> None:
    one = make_schedule(ada)
    now = timezone.now()
    for n, (outcome, text) in enumerate([("queued", ""), ("overlap", "run r-x was not over"), ("failed", "lab: gone")]):
        Firing.objects.create(schedule=one, due_at=now - timedelta(hours=n), outcome=outcome, text=text)
    rows = page(browser.get(f"/schedules/{one.pk}/")).all("[aria-labelledby=firings-title] tbody tr")
    assert [("queued" in r.text, "overlap" in r.text, "lab: gone" in r.text) for r in rows] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_its_runs_form_a_trend(browser: Client, ada: User) -> None:
    one = make_schedule(ada)
    now = timezone.now()
    for n, median_ms in enumerate((2.0, 2.0, 9.0)):
        make_finished(ada, load={"median_ms": median_ms}, group=one.group, created_at=now + timedelta(minutes=n))
    found = page(browser.get(f"/schedules/{one.pk}/"))
    drawn = found.one("[aria-labelledby=trend-title] svg")
    assert drawn.attributes["aria-label"].startswith("response_time.p99 of 3 runs: first ")
    rows = found.all("[aria-labelledby=trend-title] tbody tr")
    assert len(rows) == 3
    listed = page(browser.get("/schedules/"))
    assert "3 runs" in listed.one("[data-label=Trend]").text


def test_the_list_costs_the_same_however_many_there_are(browser: Client, ada: User) -> None:
    def cost() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert browser.get("/schedules/").status_code == 200
        return len(queries)

    def add() -> None:
        one = make_schedule(ada, timezone.now())
        Firing.objects.create(schedule=one, due_at=timezone.now(), outcome="queued")
        make_finished(ada, group=one.group)

    add()
    browser.get("/schedules/")
    before = cost()
    for _ in range(3):
        add()
    assert cost() == before


def test_a_line_of_values_keeps_in_its_box() -> None:
    now = timezone.now()
    values = (3.0, None, 1.0, 2.0)
    trend = Trend("error_ratio", "ratio", [Point(f"r-{n}", now, None, None, "", v) for n, v in enumerate(values)])
    assert trend.line == "3.0,3.0 79.0,25.0 117.0,14.0"
    flat = Trend("error_ratio", "ratio", [Point("r", now, None, None, "", 1.0)] * 2)
    assert flat.line == "3.0,14.0 117.0,14.0"
    assert Trend("error_ratio", "ratio", []).words == "error_ratio: no value yet"


# --- API ------------------------------------------------------------------------------------------
def api(user: User, method: str, path: str, body: object = None) -> Any:
    client = Client(headers={"authorization": f"Bearer {ApiToken.objects.issue(user, 'ci')[1]}"})
    sent = {} if body is None else {"data": body, "content_type": "application/json"}
    return getattr(client, method)(f"/api/v1/schedules{path}", **sent)


def test_the_api_makes_shows_pauses_and_deletes(ada: User) -> None:
    body = {"title": "nightly", "scenario": "smoke", "cron": "0 2 * * *", "zone": "Asia/Tokyo", "tags": ["a", "b"]}
    made = api(ada, "post", "", body)
    assert made.status_code == 201, made.content
    one = made.json()
    path = f"/{one['schedule_id']}"
    assert (one["owner"], one["subject"], len(one["next_dates"])) == ("ada", None, 5)
    assert all(date.endswith("T17:00:00+00:00") for date in one["next_dates"])
    assert api(ada, "get", "").json() == [one]
    assert api(ada, "post", f"{path}/pause").json()["next_dates"] == []
    assert api(ada, "post", f"{path}/resume").json()["paused"] is False
    changed = api(ada, "put", path, body | {"subject": {"name": "shop", "version": "2"}, "missed": "run_once"})
    assert (changed.json()["subject"], changed.json()["missed"]) == ({"name": "shop", "version": "2"}, "run_once")
    assert api(ada, "delete", path).status_code == 204
    assert api(ada, "get", path).json() == {"detail": [f"no schedule '{one['schedule_id']}'"]}
    assert [verb for verb, _ in audited()] == ["created", "paused", "resumed", "edited", "deleted"]


def test_the_api_tells_the_outcome_of_its_dates(ada: User) -> None:
    one = make_schedule(ada, timezone.now())
    fire_due()
    (newest,) = api(ada, "get", f"/{one.pk}").json()["newest"]
    assert (newest["outcome"], newest["run_id"]) == ("queued", Run.objects.get().pk)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"cron": None}, "cron: wanted either cron or once"),
        ({"once": "2030-01-01T00:00"}, "cron: wanted either cron or once"),
        ({"cron": "* * * * * *"}, "cron: '* * * * * *' is refused: wanted five fields"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"scenario": "nope"}, "scenario: 'nope' is not known"),
    ],
)
def test_the_api_refuses_in_the_same_words(ada: User, changed: dict[str, Any], line: str) -> None:
    body = {"title": "nightly", "scenario": "smoke", "cron": "0 2 * * *"} | changed
    response = api(ada, "post", "", body)
    assert response.status_code == 422
    assert response.json()["detail"][0].startswith(line)
    assert not Schedule.objects.exists()

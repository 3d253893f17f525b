"""One metric of one scenario over its runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from portal.accounts.models import User
from portal.runs.history import MOST_POINTS, History, of_scenario
from portal.runs.measures import measure
from portal.runs.models import NamedScenario, Run, Summary
from tests.portal.factories import NOW, SMOKE, make_run, make_user
from tests.portal.pages import Page, page
from tests.portal.repeated import quick_run

pytestmark = pytest.mark.django_db
HISTORY = reverse("history:history")
P99 = measure("response_time.p99")


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


def show(browser: Client, **query: str) -> Page:
    return page(browser.get(HISTORY, query))


def begun(run: Run) -> datetime:
    """When its load began: those of a group are all asked for in one moment."""
    assert run.running_at is not None
    return run.running_at


def drawn(browser: Client, **query: str) -> Any:
    """What the chart asks for."""
    found = show(browser, **query)
    return browser.get(HISTORY + found.one("[data-history]").attributes["data-history"]).json()


def rows(found: Page, title: str) -> list[list[str]]:
    return [[cell.text for cell in row.all("td, th")] for row in found.one(title).ancestor("section").all("tbody tr")]


def history() -> History:
    return of_scenario("smoke", "echo", P99)


def test_runs_are_drawn_in_their_order_with_value_version_and_mark(browser: Client, ada: User) -> None:
    first = quick_run(ada, 10, version="b")
    second = quick_run(ada, None, version="a", validity="suspect")
    third = quick_run(ada, 12, version="a", starred=True)
    quick_run(ada, 99, SMOKE.model_copy(update={"name": "other"}), created_at=NOW)
    quick_run(ada, 99, subject_name="another", created_at=NOW)
    make_run(ada, "failed", subject_name="echo")
    data = drawn(browser, scenario="smoke")
    assert data["id"] == [first.pk, second.pk, third.pk]
    assert data["value"] == [0.01, None, 0.012]
    assert data["time"] == sorted(round(begun(run).timestamp()) for run in (first, second, third))
    # Versions in the order in which they were first measured, not of their names.
    assert (data["versions"], data["version"]) == (["b", "a"], [0, 1, 1])
    assert data["mark"] == ["valid", "suspect", "starred"]
    assert data["run"] == "/runs/RUN/"


def test_the_scenarios_baseline_and_other_runs_baselines_are_marked(browser: Client, ada: User) -> None:
    first, second, third = (quick_run(ada, 10) for _ in range(3))
    NamedScenario.objects.create(name="smoke", content={}, baseline=first)
    Run.objects.filter(pk=third.pk).update(baseline=second)
    assert drawn(browser)["mark"] == ["baseline", "baseline", "valid"]


def test_where_the_environment_changed_is_told_line_by_line(browser: Client, ada: User) -> None:
    quick_run(ada, 10)
    quick_run(ada, 10, environment_digest="")
    quick_run(ada, 10)
    changed = quick_run(ada, 10, environment_digest="e" * 64, stable={"kernel": "6.8.0-51"})
    found = show(browser)
    [line] = [item.text.replace(" :", ":") for item in found.all(".of-changes li")]
    # What was not read is nothing known; and what comes back to what it was before is no change.
    assert line == f"1 {changed.created_at:%d %b %Y} Environment: kernel 6.8.0-45 → 6.8.0-51 (server)"
    assert drawn(browser)["changes"] == [[3, 1]]


def test_another_version_of_the_scenario_is_a_change_too(browser: Client, ada: User) -> None:
    one = NamedScenario.write(SMOKE, ada)
    two = NamedScenario.write(SMOKE.model_copy(update={"clients": 50}), ada)
    for version in (one, two, None):
        quick_run(ada, 10, scenario_version=version)
    assert [change.title for change in history().changes] == ["scenario version 2", "scenario with other fields"]


def test_the_moving_median_leaves_out_what_cannot_be_believed_and_begins_anew_after_a_change(ada: User) -> None:
    for p99 in (10, 30, 11):
        quick_run(ada, p99)
    quick_run(ada, 500, validity="invalid")
    for p99 in (20, 21):
        quick_run(ada, p99, environment_digest="e" * 64)
    assert history().smoothed() == pytest.approx([0.010, 0.020, 0.011, None, 0.020, 0.0205])


def test_each_version_has_its_median_range_and_step_from_the_one_before(browser: Client, ada: User) -> None:
    for version, p99 in (("1.0", 10), ("1.0", 12), ("1.0", 11), ("1.1", 22)):
        quick_run(ada, p99, version=version)
    last = quick_run(ada, 22, version="1.1")
    quick_run(ada, 900, version="1.2", validity="invalid")
    found = show(browser)
    assert rows(found, "#versions-title") == [
        ["1.2", "1", "–", "– to –", "compare"],
        ["1.1", "2", "22 ms", "22 ms to 22 ms", "+100 %"],
        ["1.0", "3", "11 ms", "10 ms to 12 ms", ""],
    ]
    links = [link.attributes["href"] for link in found.one("#versions-title").ancestor("section").all("a")]
    assert links[1].endswith(f"&contender={last.pk}")


def test_engines_of_our_own_server_are_told_apart(ada: User) -> None:
    quick_run(ada, 10, engine="lean")
    quick_run(ada, 10, engine="websockets")
    assert history().version_names() == ["1.0, lean", "1.0, websockets"]


def test_without_a_choice_it_is_the_newest_runs_scenario_by_its_primary_metric(browser: Client, ada: User) -> None:
    idle = SMOKE.model_copy(update={"name": "idle", "interval_ms": 0})
    quick_run(ada, 10)
    quick_run(ada, 10, idle, figures={"handshake__p99": 0.004})
    found = show(browser)
    assert found.one("#h-scenario option[selected]").text == "idle"
    assert found.one("#h-metric option[selected]").attributes["value"] == "handshake.p99"
    assert drawn(browser)["value"] == [0.004]
    for query in ({"metric": "no such"}, {"scenario": "no such"}, {"subject": "no such"}, {"by": "no such"}):
        assert drawn(browser, **query)["value"] == [0.004]
    rate = drawn(browser, scenario="smoke", metric="received_per_s", by="version")
    assert (rate["value"], rate["by"], rate["unit"]) == ([500.0], "version", "1/s")


def test_the_chart_is_a_sentence_and_a_table_as_well(browser: Client, ada: User) -> None:
    runs = [quick_run(ada, p99) for p99 in (10, 12, 14)]
    found = show(browser)
    assert found.one(".chart-summary").text.startswith(
        "3 runs, 3 with a value that can be believed; between 10 ms and 14 ms; median 12 ms; that of the newest 3: "
        "12 ms."
    )
    assert [row[0] for row in rows(found, "#newest-title")] == [run.pk for run in reversed(runs)]
    lines = browser.get(HISTORY, {"format": "csv"}).content.decode().splitlines()
    assert lines[0] == "run,begun_at,subject_version,engine,response_time.p99 (s),validity,environment"
    assert lines[1] == f"{runs[0].pk},{begun(runs[0]).isoformat()},1.0,,0.01,valid,dddddddddddd"
    assert len(lines) == 4


def test_a_version_is_no_formula_in_a_spreadsheet(browser: Client, ada: User) -> None:
    quick_run(ada, 10, version="=1+1")
    assert ",'=1+1," in browser.get(HISTORY, {"format": "csv"}).content.decode()


def test_without_results_the_page_says_how_history_begins(browser: Client) -> None:
    assert show(browser).one(".empty p").text == "It begins with the first run that has a result."


def test_what_people_typed_is_text_and_not_markup(browser: Client, ada: User) -> None:
    hostile = '"></script><script>alert(1)</script>'
    quick_run(ada, 10, version=hostile, subject_name=hostile)
    assert b"<script>alert" not in browser.get(HISTORY, {"subject": hostile}).content


def many(ada: User, number: int) -> None:
    """Runs with nothing but what history reads."""
    model = quick_run(ada, 10)
    figures = model.summary.figures
    runs = [
        Run(
            created_by=ada, created_at=NOW - timedelta(hours=n), machine="m", scenario_name="smoke",
            scenario=model.scenario, state="finished", validity="valid", subject_name="echo",
            subject_version=f"0.{n // 20}", environment_digest="d" * 64 if n % 50 else "e" * 64,
        )
        for n in range(number)
    ]  # fmt: skip
    Run.objects.bulk_create(runs)
    Summary.objects.bulk_create(Summary(run=run, result={}, figures=figures) for run in runs)


def test_the_number_of_queries_does_not_grow(
    browser: Client, ada: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    for number in (5, 300):
        many(ada, number)
        with django_assert_max_num_queries(12):
            browser.get(HISTORY)


def test_of_very_many_runs_the_newest_are_drawn_and_the_page_says_so(browser: Client, ada: User) -> None:
    many(ada, MOST_POINTS + 10)
    found = show(browser)
    assert len(drawn(browser)["id"]) == MOST_POINTS
    assert "Of 2,011 runs the newest 2,000 are shown." in found.one(".chart-summary").text

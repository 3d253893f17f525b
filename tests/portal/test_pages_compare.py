"""Two runs on one page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from portal.accounts.models import User
from portal.runs.models import Environment, Run
from tests.portal.factories import NOW, SMOKE, STABLE, make_finished, make_run, make_user
from tests.portal.pages import Page, page

pytestmark = pytest.mark.django_db
COMPARE = reverse("runs:compare")


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


@pytest.fixture
def pair(ada: User) -> tuple[Run, Run]:
    """The contender takes twice as long."""
    base = make_finished(ada, subject_name="echo", subject_version="1.0")
    later = NOW + timedelta(hours=1)
    return base, make_finished(ada, load={"median_ms": 4}, subject_name="echo", subject_version="1.1", created_at=later)


def show(browser: Client, base: Run, contender: Run) -> Page:
    return page(browser.get(COMPARE, {"base": base.pk, "contender": contender.pk}))


def rows(found: Page, panel: str) -> list[list[str]]:
    return [[cell.text for cell in row.all("td, th")] for row in found.one(panel).ancestor("section").all("tbody tr")]


def test_what_differs_comes_before_any_figure(browser: Client, pair: tuple[Run, Run]) -> None:
    Environment.objects.filter(run=pair[1], host="server").update(
        begin={"stable": STABLE | {"kernel": "6.8.0-51", "net.core.somaxconn": "1024"}}
    )
    found = show(browser, *pair)
    assert [heading.text for heading in found.all("main h2")] == ["What differs", "Figures"]
    assert rows(found, "#differences-title") == [
        ["subject", "version", "1.0", "1.1"],
        ["environment", "server · kernel", "6.8.0-45", "6.8.0-51"],
        ["environment", "server · net.core.somaxconn", "4096", "1024"],
    ]


def test_each_figure_has_both_values_the_difference_and_its_direction_in_words(
    browser: Client, pair: tuple[Run, Run]
) -> None:
    found = show(browser, *pair)
    table = {row[0]: row[1:] for row in rows(found, "#figures-title")[:15] if len(row) == 6}
    p50 = [run.summary.content.latency_s.response_time.p50 or 0 for run in pair]
    assert table["p50"] == [
        f"{p50[0] * 1e3:.2f} ms",
        f"{p50[1] * 1e3:.2f} ms",
        f"+{(p50[1] - p50[0]) * 1e3:.2f} ms",
        f"+{(p50[1] / p50[0] - 1) * 100:.3g} %",
        "worse",
    ]
    assert table["Throughput"] == ["500/s", "500/s", "0/s", "0 %", "same"]
    assert table["p99.9"] == ["–", "–", "–", "–", "no value too few samples"]


def test_the_other_way_round_worse_is_better(browser: Client, pair: tuple[Run, Run]) -> None:
    found = show(browser, pair[1], pair[0])
    assert next(row for row in rows(found, "#figures-title") if row[0] == "p50")[5] == "better"
    swap = next(link for link in found.all("a.button") if link.text == "Swap")
    assert swap.attributes["href"] == f"?base={pair[0].pk}&contender={pair[1].pk}"


def test_a_difference_of_ratios_is_in_points(browser: Client, ada: User, pair: tuple[Run, Run]) -> None:
    lossy = make_finished(ada, load={"lose_every": 100})
    found = show(browser, pair[0], lossy)
    assert next(row for row in rows(found, "#figures-title") if row[0] == "Error ratio")[1:] == [
        "0 %",
        "1 %",
        "+1 points",
        "–",
        "worse",
    ]


def test_single_runs_claim_no_significance(browser: Client, pair: tuple[Run, Run]) -> None:
    found = show(browser, *pair)
    notes = [note.text for note in found.all("main .notice")]
    assert len(notes) == 1
    assert notes[0].startswith("One run on each side: how much two equal runs differ here is unknown")
    assert not found.all("tbody .text-good") + found.all("tbody .text-bad")


def test_what_weakens_the_comparison_is_said_before_the_figures(browser: Client, ada: User) -> None:
    base = make_finished(ada)
    other = SMOKE.model_copy(update={"name": "other", "clients": 50})
    contender = make_finished(ada, other, load={"lag_ms": 60})
    notes = [note.text for note in show(browser, base, contender).all("main .notice")]
    assert notes[0].startswith("The contender is invalid: scheduler lag p99 ")
    assert notes[1] == "The two runs did not carry the same load: clients differ."


def test_alike_runs_differ_in_nothing(browser: Client, ada: User) -> None:
    found = show(browser, make_finished(ada), make_finished(ada))
    assert "alike in every line" in found.one("#differences-title").ancestor("section").text


def test_ticked_runs_become_a_permalink_with_the_older_as_base(browser: Client, pair: tuple[Run, Run]) -> None:
    base, contender = pair
    response = browser.get(COMPARE, {"run": [contender.pk, base.pk]})
    assert response["Location"] == f"/runs/compare?base={base.pk}&contender={contender.pk}"


def test_a_contender_alone_is_held_against_the_run_before_it(browser: Client, ada: User, pair: tuple[Run, Run]) -> None:
    base, contender = pair
    make_finished(ada, SMOKE.model_copy(update={"name": "other"}), created_at=NOW + timedelta(minutes=30))
    make_run(ada, "failed", created_at=NOW + timedelta(minutes=40))
    response = browser.get(COMPARE, {"contender": contender.pk})
    assert response["Location"] == f"/runs/compare?base={base.pk}&contender={contender.pk}"

    first = page(browser.get(COMPARE, {"contender": base.pk}))
    assert first.one("#pick-contender option[selected]").attributes["value"] == base.pk
    assert first.one("#pick-base option").text == "Choose a run"
    assert not first.all("#figures-title")


def test_the_pickers_offer_every_run_with_a_result(browser: Client, ada: User, pair: tuple[Run, Run]) -> None:
    invalid = make_finished(ada, load={"lag_ms": 60}, subject_name="echo", subject_version="0")
    make_run(ada, "failed")
    found = page(browser.get(COMPARE))
    options = {o.attributes["value"]: o.text for o in found.all("#pick-base option") if o.attributes["value"]}
    assert set(options) == {pair[0].pk, pair[1].pk, invalid.pk}
    assert options[pair[1].pk] == "smoke, echo 1.1, 20 Nov 10:30"
    assert options[invalid.pk] == "smoke, echo 0, 20 Nov 09:30, invalid"


def test_a_run_that_cannot_be_compared_is_named(browser: Client, ada: User, pair: tuple[Run, Run]) -> None:
    failed = make_run(ada, "failed")
    found = show(browser, pair[0], failed)
    assert found.one("main .notice").text == (
        f"Not comparable: {failed.pk}. There is no such run, or it has no result."
    )
    assert not found.all("#figures-title")


def test_without_results_the_page_says_what_is_needed(browser: Client) -> None:
    assert page(browser.get(COMPARE)).one(".empty p").text == "Two runs with a result are needed."


def test_the_number_of_queries_does_not_grow(
    browser: Client, ada: User, pair: tuple[Run, Run], django_assert_num_queries: Callable[[int], Any]
) -> None:
    address = f"{COMPARE}?base={pair[0].pk}&contender={pair[1].pk}"
    with django_assert_num_queries(5):
        browser.get(address)
    make_finished(ada)
    with django_assert_num_queries(5):
        browser.get(address)


def test_what_people_typed_is_text_and_not_markup(browser: Client, ada: User, pair: tuple[Run, Run]) -> None:
    hostile = '"><script>alert(1)</script>'
    run = make_finished(ada, subject_name=hostile, subject_version=hostile)
    Environment.objects.filter(run=run).update(begin={"stable": {hostile: hostile}})
    for query in ({"base": pair[0].pk, "contender": run.pk}, {"base": hostile, "contender": run.pk}):
        assert b"<script>alert" not in browser.get(COMPARE, query).content


@pytest.mark.parametrize("query", ["run=r-a&run=r-b", "run={0}&run={0}", "run={0}&run=r-b", "run={0}"])
def test_ticks_that_are_no_two_runs_lead_to_the_choice(browser: Client, pair: tuple[Run, Run], query: str) -> None:
    response = browser.get(f"{COMPARE}?{query.format(pair[0].pk)}")
    assert response.status_code == 200
    assert page(response).all("select[name=base]")

"""Runs and groups on one page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from portal.accounts.models import User
from portal.runs.models import Environment, NamedScenario, Run, RunGroup
from tests.portal.factories import NOW, SMOKE, STABLE, make_run, make_user
from tests.portal.pages import Page, page
from tests.portal.repeated import quick_group, quick_run
from wsnode.core.scenario import Scenario

pytestmark = pytest.mark.django_db
COMPARE = reverse("runs:compare")
FAST, SLOW = (10.0, 10.4, 9.8, 10.2, 9.9), (12.1, 12.6, 11.9, 12.3, 12.8)


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
    return quick_run(ada, 10), quick_run(ada, 20, version="1.1")


def show(browser: Client, *sides: Run | RunGroup) -> Page:
    base, *contenders = (side.pk for side in sides)
    return page(browser.get(COMPARE, {"base": base, "contender": contenders}))


def rows(found: Page, panel: str) -> list[list[str]]:
    return [[cell.text for cell in row.all("td, th")] for row in found.one(panel).ancestor("section").all("tbody tr")]


def verdicts(found: Page) -> list[str]:
    return [item.text for item in found.all(".verdicts > li")]


def figure(found: Page, name: str) -> list[str]:
    return next(row for row in rows(found, "#figures-title") if row[0] == name)


# --- what is said first ----------------------------------------------------------------------------------------------
def test_what_differs_comes_before_verdict_and_figures(browser: Client, pair: tuple[Run, Run]) -> None:
    Environment.objects.filter(run=pair[1], host="server").update(
        begin={"stable": STABLE | {"kernel": "6.8.0-51", "net.core.somaxconn": "1024"}}
    )
    found = show(browser, *pair)
    assert [heading.text for heading in found.all("main h2")][:4] == ["Compared", "What differs", "Verdict", "Figures"]
    assert rows(found, "#differences-title") == [
        ["subject", "version", "1.0", "1.1", ""],
        ["environment", "kernel", "6.8.0-45", "6.8.0-51", "server"],
        ["environment", "net.core.somaxconn", "4096", "1024", "server"],
    ]


def test_alike_runs_differ_in_nothing(browser: Client, ada: User) -> None:
    found = show(browser, quick_run(ada, 10), quick_run(ada, 10))
    assert "alike in every line" in found.one("#differences-title").ancestor("section").text


def test_of_several_contenders_each_has_its_own_lines(browser: Client, ada: User) -> None:
    base, same = quick_run(ada, 10), quick_run(ada, 10)
    other = quick_run(ada, 10, SMOKE.model_copy(update={"clients": 50}), version="2.0")
    found = show(browser, base, same, other)
    assert rows(found, "#differences-title") == [
        [f"{same.pk}: nothing, it is alike in every line"],
        ["2.0"],
        ["subject", "version", "1.0", "2.0", ""],
        ["scenario", "clients", "100", "50", ""],
    ]
    [caution] = [note.text for note in found.all(".compared .notice")]
    assert caution == f"smoke {other.pk} did not carry the same load: clients differ."


# --- groups ----------------------------------------------------------------------------------------------------------
def test_groups_that_differ_have_a_verdict_with_p_interval_and_what_would_be_found(browser: Client, ada: User) -> None:
    base, contender = quick_group(ada, "old", FAST), quick_group(ada, "new", SLOW, version="1.1")
    found = show(browser, base, contender)
    assert verdicts(found) == [
        "worse 1.1 Response time p99: 10 ms → 12.3 ms (+23 %). p = 0.794 %, 99 % interval +14.4 % to +30.6 %; exact,"
        " over all ways to deal 5 + 5 runs. A change of +8.49 % is found in 80 % of such comparisons."
    ]
    assert found.one(".verdicts .badge").classes == {"badge", "bad", "big"}
    assert figure(found, "Response time p99") == [
        "Response time p99",
        "10 ms",
        "12.3 ms +2.30 ms · +23 % worse p = 0.794 %, 99 % interval +14.4 % to +30.6 %",
    ]


def test_the_other_way_round_worse_is_better(browser: Client, ada: User) -> None:
    found = show(browser, quick_group(ada, "old", SLOW), quick_group(ada, "new", FAST))
    assert verdicts(found)[0].startswith("better new Response time p99: 12.3 ms → 10 ms (−18.7 %).")
    assert found.one(".verdicts .badge").classes == {"badge", "good", "big"}


def test_a_difference_inside_the_noise_has_no_colour(browser: Client, ada: User) -> None:
    found = show(browser, quick_group(ada, "a", FAST), quick_group(ada, "b", (10.1, 10.3, 9.7, 10.5, 10.0)))
    assert verdicts(found)[0].startswith("not distinguishable b ")
    assert found.one(".verdicts .badge").classes == {"badge", "plain", "big"}
    assert not found.all(".figures .text-good") + found.all(".figures .text-bad")


def test_four_and_four_runs_are_too_few_however_far_apart(browser: Client, ada: User) -> None:
    found = show(browser, quick_group(ada, "a", FAST[:4]), quick_group(ada, "b", (90, 91, 92, 93)))
    assert verdicts(found)[0].endswith("With 4 + 4 runs p cannot be below 2.86 %: at least 5 + 5 are needed, or 4 + 6.")
    assert verdicts(found)[0].startswith("too few runs")
    assert not found.all(".figures .text-bad")


def test_secondary_figures_have_words_of_their_own_only_beside_a_primary_that_differs(
    browser: Client, ada: User
) -> None:
    def group(title: str, p99s: tuple[float, ...], rate: float) -> RunGroup:
        made = RunGroup.objects.create(title=title, kind="repeat", created_by=ada)
        for i, p99 in enumerate(p99s):
            quick_run(ada, p99, group=made, figures={"received_per_s": rate + i})
        return made

    quick, slow = group("quick", FAST, 500), group("slow", SLOW, 400)
    assert "worse" in figure(show(browser, quick, slow), "Throughput")[2]
    level = group("level", FAST, 400)
    # Nine figures are judged: of 5 + 5 runs none can be told from noise as one of so many.
    found = figure(show(browser, quick, level), "Throughput")[2]
    assert found.startswith("402/s −100/s · −19.9 % too few runs p = 0.794 %")


def test_a_groups_runs_are_dots_and_what_never_answered_lies_above(browser: Client, ada: User) -> None:
    found = show(browser, quick_group(ada, "a", FAST), quick_group(ada, "b", (*SLOW[:3], None, None), version="1.1"))
    first, second = found.one("#dots-0").ancestor("figure").all(".strip")[:2]
    assert [len(strip.all("line.dot")) for strip in (first, second)] == [5, 3]
    assert second.one(".shown").text == "12.6 ms 2 above: too much was never answered"
    assert verdicts(found)[0].startswith("worse 1.1 Response time p99: 10 ms → 12.6 ms")


def test_runs_of_a_group_that_cannot_be_believed_are_left_out_and_said_so(browser: Client, ada: User) -> None:
    group = quick_group(ada, "new", SLOW)
    quick_run(ada, 500, validity="invalid", group=group)
    found = show(browser, quick_group(ada, "old", FAST), group)
    assert found.one(".compared .notice").text == "Of group new 1 invalid is left out."
    assert figure(found, "Response time p99")[2].startswith("12.3 ms")
    assert [row[3] for row in rows(found, "#sides-title")] == ["5", "5 of 6"]


# --- single runs -----------------------------------------------------------------------------------------------------
def test_single_runs_without_earlier_ones_have_no_known_noise(browser: Client, pair: tuple[Run, Run]) -> None:
    found = show(browser, *pair)
    assert verdicts(found) == [
        "noise unknown 1.1 Response time p99: 10 ms → 20 ms (+100 %). No earlier run of this scenario, environment and"
        " subject to take the noise from; 5 are needed. Or repeat each side as a group of five."
    ]
    assert not found.all(".figures .text-good") + found.all(".figures .text-bad")


def test_single_runs_are_held_against_the_spread_of_five_earlier_ones(browser: Client, ada: User) -> None:
    for p99 in FAST:
        quick_run(ada, p99)
    base, near, far = quick_run(ada, 10), quick_run(ada, 11, version="1.1"), quick_run(ada, 20, version="1.2")
    found = show(browser, base, near, far)
    assert [text.split(" Response")[0] for text in verdicts(found)] == ["not distinguishable 1.1", "worse 1.2"]
    assert (
        "by the spread of 5 earlier runs of the same scenario, environment and subject version." in verdicts(found)[1]
    )
    assert "A change of +38.7 % is found in 80 % of such comparisons." in verdicts(found)[1]


@pytest.mark.parametrize(
    "other",
    [
        {"environment_digest": "e" * 64},
        {"subject_name": "another"},
        {"engine": "lean"},
        {"validity": "suspect"},
        {"scenario": SMOKE.model_copy(update={"interval_ms": 100})},
        {"created_at": NOW + timedelta(days=9)},
    ],
)
def test_earlier_runs_that_are_not_equal_tell_nothing_of_the_noise(
    browser: Client, ada: User, other: dict[str, Any]
) -> None:
    for p99 in FAST:
        quick_run(ada, p99, **other)
    found = show(browser, quick_run(ada, 10), quick_run(ada, 20))
    assert verdicts(found)[0].startswith("noise unknown")


def test_other_versions_stand_in_where_the_bases_own_are_too_few(browser: Client, ada: User) -> None:
    for number, p99 in enumerate(FAST):
        quick_run(ada, p99, version=f"0.{number}")
    found = show(browser, quick_run(ada, 10), quick_run(ada, 20))
    assert "5 earlier runs of the same scenario, environment and subject, whatever its version." in verdicts(found)[0]


def test_without_a_reading_of_the_hosts_nobody_knows_which_runs_are_equal(browser: Client, ada: User) -> None:
    runs = [quick_run(ada, p99, environment_digest="") for p99 in (*FAST, 10, 20)]
    assert "The base's environment was not read" in verdicts(show(browser, *runs[-2:]))[0]


def test_a_run_that_cannot_be_believed_gets_no_word(browser: Client, ada: User) -> None:
    for p99 in FAST:
        quick_run(ada, p99)
    found = show(browser, quick_run(ada, 10), quick_run(ada, 90, validity="invalid"))
    assert verdicts(found)[0].startswith("not comparable")
    assert "is invalid: scheduler lag p99 60 ms, above 50 ms." in found.one(".compared .notice").text
    assert not found.all(".figures .text-bad")


def test_loads_of_another_kind_are_never_compared_silently(browser: Client, ada: User) -> None:
    for p99 in FAST:
        quick_run(ada, p99)
    idle = SMOKE.model_copy(update={"interval_ms": 0})
    found = show(browser, quick_run(ada, 10), quick_run(ada, 90, idle))
    assert verdicts(found)[0].startswith("not comparable")
    assert "another kind of load (messages sent → none, connections stay idle)" in found.one(".compared .notice").text
    assert not found.all(".figures .found")


def test_a_closed_pace_is_never_held_against_an_open_one(browser: Client, ada: User) -> None:
    for p99 in FAST:
        quick_run(ada, p99)
    closed = Scenario.model_validate(SMOKE.model_dump() | {"pace": "closed", "interval_ms": 0, "thresholds": ()})
    found = show(browser, quick_run(ada, 10), quick_run(ada, 90, closed))
    assert verdicts(found)[0].startswith("not comparable")
    assert "another kind of load (pace open → closed)" in found.one(".compared .notice").text
    assert not found.all(".figures .found")


def test_a_single_run_is_held_against_a_group_by_the_groups_spread(browser: Client, ada: User) -> None:
    group = quick_group(ada, "five", FAST)
    assert verdicts(show(browser, group, quick_run(ada, 20)))[0].startswith("worse")
    assert verdicts(show(browser, quick_run(ada, 20), group))[0].startswith("better")
    four = quick_group(ada, "four", FAST[:4])
    assert (
        "A single run against a group needs a group of at least 5; this one has 4."
        in (verdicts(show(browser, four, quick_run(ada, 20)))[0])
    )


def test_the_scenarios_primary_metric_carries_the_verdict(browser: Client, ada: User) -> None:
    by_rate = SMOKE.model_copy(update={"primary_metric": "received_per_s"})
    found = show(
        browser,
        quick_group(ada, "a", FAST, scenario=by_rate),
        quick_group(ada, "b", SLOW, scenario=by_rate),
    )
    assert found.one("#verdict-title").ancestor("section").one(".panel-note").text == (
        "by Throughput, the primary metric of smoke"
    )
    # Throughput is the same on both sides, so that p99, fully apart in 5 + 5 runs, is one of nine.
    assert verdicts(found)[0].startswith("not distinguishable b Throughput: 500/s → 500/s (0 %).")
    assert "too few runs" in figure(found, "Response time p99")[2]


def test_a_difference_of_ratios_is_in_points(browser: Client, ada: User) -> None:
    found = show(browser, quick_run(ada, 10), quick_run(ada, 10, figures={"error_ratio": 0.01}))
    assert figure(found, "Error ratio")[1:] == ["0 %", "1 % +1 points noise unknown"]


# --- addresses -------------------------------------------------------------------------------------------------------
def test_ticked_sides_become_a_permalink_with_the_older_or_the_chosen_as_base(browser: Client, ada: User) -> None:
    runs = [quick_run(ada, 10) for _ in range(5)]
    ids = [run.pk for run in runs]
    response = browser.get(COMPARE, {"run": [ids[2], ids[0], ids[1]]})
    assert response["Location"] == f"/runs/compare?base={ids[0]}&contender={ids[1]}&contender={ids[2]}"
    response = browser.get(COMPARE, {"run": ids, "base": ids[3]})
    contenders = "".join(f"&contender={ids[i]}" for i in (0, 1, 2, 4))
    assert response["Location"] == f"/runs/compare?base={ids[3]}{contenders}"
    group = quick_group(ada, "old", FAST)
    response = browser.get(COMPARE, {"run": [ids[0], group.pk]})
    assert response["Location"] == f"/runs/compare?base={group.pk}&contender={ids[0]}"


def test_any_side_can_be_made_the_base_or_left_out(browser: Client, ada: User) -> None:
    a, b, c = (quick_run(ada, 10, version=version) for version in "abc")
    links = {link.whole_text: link.attributes["href"] for link in show(browser, a, b, c).all("#main td a")}
    assert links[f"Make base of smoke {b.pk}"] == f"?base={b.pk}&contender={a.pk}&contender={c.pk}"
    assert links[f"Leave out smoke {a.pk}"] == f"?base={b.pk}&contender={c.pk}"


def test_a_contender_alone_is_held_against_its_baseline_its_scenarios_or_the_run_before_it(
    browser: Client, ada: User
) -> None:
    first, base, failed = quick_run(ada, 10), quick_run(ada, 10), make_run(ada, "failed", created_at=NOW)
    quick_run(ada, 10, SMOKE.model_copy(update={"name": "other"}))
    version = NamedScenario.write(SMOKE, ada)
    contender = quick_run(ada, 10, scenario_version=version)

    def held_against() -> str:
        return browser.get(COMPARE, {"contender": contender.pk})["Location"].split("base=")[1].split("&")[0]

    assert held_against() == base.pk
    NamedScenario.objects.update(baseline=first)
    assert held_against() == first.pk
    Run.objects.filter(pk=contender.pk).update(baseline=base)
    assert held_against() == base.pk
    assert failed.pk != base.pk


def test_a_group_alone_is_held_against_the_one_that_it_alternates_with(browser: Client, ada: User) -> None:
    old, new = quick_group(ada, "old", FAST), quick_group(ada, "new", SLOW)
    RunGroup.objects.filter(pk=new.pk).update(partner=old)
    response = browser.get(COMPARE, {"contender": new.pk})
    assert response["Location"] == f"/runs/compare?base={old.pk}&contender={new.pk}"


def test_a_side_that_cannot_be_compared_is_named_and_the_others_are_shown(browser: Client, ada: User) -> None:
    failed, a, b = make_run(ada, "failed"), quick_run(ada, 10), quick_run(ada, 10)
    found = show(browser, a, b, failed)
    assert found.one("main .notice").text == (
        f"Left out: {failed.pk}. There is no such run or group, or it has no result."
    )
    assert len(rows(found, "#sides-title")) == 2
    alone = show(browser, a, failed)
    assert alone.one("main .notice").text.startswith(f"Not comparable: {failed.pk}.")
    assert [box.attributes["value"] for box in alone.all("input[name=run][checked]")] == [a.pk]


# --- choosing --------------------------------------------------------------------------------------------------------
def test_what_is_ticked_stays_while_one_searches(browser: Client, ada: User) -> None:
    kept, other, miss = quick_run(ada, 10), quick_run(ada, 11, reason="new kernel"), quick_run(ada, 12)
    group = quick_group(ada, "kernel six", FAST)
    found = page(browser.get(COMPARE, {"q": "kernel", "run": kept.pk, "base": kept.pk, "choose": "1"}))
    assert {box.attributes["value"]: "checked" in box.attributes for box in found.all("input[name=run]")} == {
        kept.pk: True, group.pk: False, other.pk: False,
    }  # fmt: skip
    assert [radio.attributes["value"] for radio in found.all("input[name=base][checked]")] == [kept.pk]
    assert miss.pk not in browser.get(COMPARE, {"q": "kernel", "choose": "1"}).content.decode()


def test_without_results_the_page_says_what_is_needed(browser: Client) -> None:
    assert page(browser.get(COMPARE)).one(".empty p").text == "Two runs with a result are needed."


@pytest.mark.parametrize(
    "query", ["run=r-a&run=r-b", "run={0}&run={0}", "run={0}&run=r-b", "run={0}", "base={0}", "base=%00"]
)
def test_what_is_no_two_sides_leads_to_the_choice(browser: Client, pair: tuple[Run, Run], query: str) -> None:
    response = browser.get(f"{COMPARE}?{query.format(pair[0].pk)}")
    assert response.status_code == 200
    assert page(response).all("input[name=base]")


def test_the_number_of_queries_does_not_grow(
    browser: Client, ada: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    groups = [quick_group(ada, str(n), FAST) for n in range(5)]
    with django_assert_max_num_queries(11):
        show(browser, *groups)
    for _ in range(3):
        for group in groups:
            quick_run(ada, 10, group=group)
    with django_assert_max_num_queries(11):
        show(browser, *groups)


def test_what_people_typed_is_text_and_not_markup(browser: Client, ada: User, pair: tuple[Run, Run]) -> None:
    hostile = '"><script>alert(1)</script>'
    run = quick_run(ada, 10, version=hostile, subject_name=hostile, stable={hostile: hostile}, reason=hostile)
    group = quick_group(ada, hostile, FAST)
    for query in ({"base": group.pk, "contender": run.pk}, {"base": hostile, "contender": run.pk}, {"q": hostile}):
        assert b"<script>alert" not in browser.get(COMPARE, query).content

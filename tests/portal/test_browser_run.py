"""A run's page in a real browser: dragging and the keyboard in charts, a second judgement, a live run that ends."""

from __future__ import annotations

import re

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from portal.accounts.models import User
from portal.runs.models import OtherWindow, Run, RunEvent, RunSecond
from portal.runs.states import State
from tests.portal.factories import host_runs, make_finished, merged_lines
from tests.portal.test_browser_pages import ada, browser, page, start  # noqa: F401  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_stretch_is_dragged_and_becomes_a_window(page: Page, ada: User) -> None:  # noqa: F811
    run = make_finished(ada, load={"lose_every": 200})
    page.goto(f"/runs/{run.pk}/")
    plot = page.locator("[data-chart=messages] .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    # Points lie from second 1 to 12: a ninth of the way beyond the fourth of eleven steps is within second 6.
    at = [box["x"] + box["width"] * (second - 1) / 11 for second in (4.4, 8.6)]
    page.mouse.move(at[0], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(at[1], box["y"] + 60, steps=4)
    page.mouse.up()
    figures = page.locator("#stretch-figures")
    expect(figures.locator("h3")).to_contain_text("Second 4 to 9")
    expect(figures.locator("table").first.locator("tbody tr").first).to_contain_text("2,500")
    expect(page.locator("#stretch-from")).to_have_value("4")
    expect(page.locator("#stretch-to")).to_have_value("9")
    page.locator("#window-label").fill("the calm part")
    page.get_by_role("button", name="Use as window").click()
    expect(page.locator(".other-window h3")).to_contain_text("the calm part second 4 to 9")
    expect(page).to_have_url(re.compile("#windows$"))
    assert OtherWindow.objects.get().content.rates.offered_per_s == 500


def test_a_stretch_is_chosen_with_the_keyboard_alone(page: Page, ada: User) -> None:  # noqa: F811
    run = make_finished(ada)
    page.goto(f"/runs/{run.pk}/")
    chart = page.locator("[data-chart=connections] [data-plot]")
    expect(chart.locator("canvas")).to_be_visible()
    chart.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(chart).to_have_attribute("aria-valuetext", "5 s: open 100")
    expect(page.locator("[data-chart=messages] [data-plot]")).to_have_attribute(
        "aria-valuetext", "5 s: answered 500/s, offered 500/s"
    )
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#stretch-figures h3")).to_contain_text("Second 4 to 7")
    page.locator("#stretch-from").fill("2")
    page.locator("#stretch-from").press("Enter")
    expect(page.locator("#stretch-figures h3")).to_contain_text("Second 2 to 7")
    page.locator("#stretch-to").fill("1")
    page.locator("#stretch-to").press("Enter")
    expect(page.locator("#stretch-figures [role=alert]")).to_contain_text("is no stretch of this run")


def test_a_worst_second_is_looked_at_in_place(page: Page, ada: User) -> None:  # noqa: F811
    run = make_finished(ada)
    page.goto(f"/runs/{run.pk}/")
    expect(page.locator("[data-chart=messages] canvas")).to_be_visible()
    link = page.locator("[data-look]").first
    begin, end = (link.get_attribute("data-look") or "").split()
    link.click()
    expect(page.locator("#stretch-figures h3")).to_contain_text(f"Second {begin} to {end}")
    expect(page).to_have_url(re.compile(f"/runs/{run.pk}/$"))


def test_the_percentile_curve_has_a_table_with_percentiles(page: Page, ada: User) -> None:  # noqa: F811
    run = make_finished(ada)
    page.goto(f"/runs/{run.pk}/")
    chart = page.locator("[data-chart=curve]")
    chart.get_by_text("Table", exact=True).click()
    names = chart.locator("tbody th")
    expect(names.first).to_have_text("p0")
    expect(names.nth(10)).to_have_text("p90")
    expect(names.nth(20)).to_have_text("p99")
    expect(chart.locator("thead th")).to_have_text(
        ["Percentile", "response time", "service time", "write wait", "scheduler lag"]
    )


def test_a_cancel_shows_each_hosts_word_as_it_comes(page: Page, ada: User) -> None:  # noqa: F811
    run = start(ada)
    page.goto(f"/runs/{run.pk}/")
    page.get_by_role("button", name="Cancel…").click()
    expect(page.locator("#cancel")).to_contain_text("has to say so: load-1, load-2.")
    page.get_by_role("button", name="Cancel the run").click()
    said = page.locator(".words li")
    expect(said).to_have_text(["load-1 no word yet", "load-2 no word yet"])
    RunEvent.objects.create(run=run, text="load-1: its load is over", confirms="load-1", at=timezone.now())
    expect(said.first).to_contain_text(re.compile(r"load-1 its load is over, \d\d:\d\d:\d\d UTC"))
    expect(said.nth(1)).to_have_text("load-2 no word yet")
    RunEvent.objects.create(run=run, text="load-2: its load is over", confirms="load-2", at=timezone.now())
    Run.objects.filter(pk=run.pk).update(state=State.CANCELLED, finished_at=timezone.now(), state_reason="by request")
    expect(page.get_by_text("Nothing was measured")).to_be_visible()
    expect(said).to_have_count(2)
    expect(said.nth(1)).to_contain_text("load-2 its load is over")


def test_a_queued_runs_charts_come_with_its_first_second(page: Page, ada: User) -> None:  # noqa: F811
    run = start(ada)
    lines = list(RunSecond.objects.filter(run=run))
    RunSecond.objects.filter(run=run).delete()
    Run.objects.filter(pk=run.pk).update(state=State.QUEUED, last_second=0)
    page.goto(f"/runs/{run.pk}/")
    charts = page.locator("[data-charts]")
    expect(charts).to_be_hidden()
    RunSecond.objects.bulk_create(lines)
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING, last_second=3)
    expect(charts).to_be_visible()
    expect(page.locator("[data-chart=messages] [data-summary]")).to_have_text("Up to second 3.")


def test_an_error_of_a_new_kind_gets_a_line_of_its_own(page: Page, ada: User) -> None:  # noqa: F811
    run = start(ada)
    page.goto(f"/runs/{run.pk}/")
    keys = page.locator("[data-chart=errors] [data-line]")
    expect(keys).to_have_text(["messages lost "])
    line = merged_lines(host_runs())[3].model_copy(update={"errors": {"reset": 4}})
    RunSecond.of(run, line).save()
    Run.objects.filter(pk=run.pk).update(last_second=4)
    expect(keys).to_have_text(["messages lost ", "reset "])
    page.locator("[data-chart=errors]").get_by_text("Table", exact=True).click()
    expect(page.locator("[data-chart=errors] tbody tr").nth(2)).to_have_text("30/s0/s")
    expect(page.locator("[data-chart=errors] tbody tr").nth(3)).to_have_text("40/s4/s")
    expect(page.locator("#live")).to_contain_text("reset")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_whole_in_both_themes_and_on_a_phone(page: Page, ada: User, scheme: str) -> None:  # noqa: F811
    run = make_finished(ada, load={"lose_every": 50})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"/runs/{run.pk}/")
    expect(page.locator("[data-chart=curve] canvas")).to_be_visible()
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    wanted = {"light": "rgb(244, 245, 247)", "dark": "rgb(17, 18, 23)"}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == wanted

"""The list of runs and the first page in a real browser: ticking, keys, filters, the folded menu, paper."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from portal.accounts.models import User
from portal.runs.models import Run
from portal.runs.states import State
from tests.portal.factories import keep, make_finished, make_result, make_run
from tests.portal.test_browser_pages import ada, browser, page, start

__all__ = ["ada", "browser", "page"]
pytestmark = pytest.mark.django_db(transaction=True)


def several(ada: User, n: int) -> list[Run]:
    """Finished runs, the newest first."""
    result = make_result()
    runs = []
    for number in range(n):
        run = make_run(ada, State.FINISHED, created_at=timezone.now() - timedelta(minutes=number))
        keep(run, result.model_copy(update={"run_id": run.pk}))
        runs.append(run)
    return runs


def test_five_runs_are_ticked_and_a_sixth_takes_the_place_of_the_first(page: Page, ada: User) -> None:
    several(ada, 6)
    page.goto("/runs/")
    compare = page.get_by_role("button", name="Compare")
    boxes = page.locator("input[name=run]")
    expect(compare).to_be_disabled()
    boxes.nth(0).check()
    expect(page.locator("[data-pick-hint]")).to_have_text("One ticked: tick another to compare with.")
    expect(compare).to_be_disabled()
    for n in range(1, 6):
        boxes.nth(n).check()
    expect(page.locator("[data-pick-hint]")).to_have_text("5 ticked.")
    expect(boxes.nth(0)).not_to_be_checked()
    compare.click()
    expect(page).to_have_url(re.compile(r"/runs/compare\?base=r-\w+(&contender=r-\w+){4}$"))


def test_the_list_is_walked_ticked_and_opened_by_keys_alone(page: Page, ada: User) -> None:
    first, second, third = several(ada, 3)
    page.goto("/runs/")
    page.keyboard.press("j")
    expect(page.locator(f"#row-{first.pk} a")).to_be_focused()
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator(f"#row-{third.pk} a")).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("x")
    expect(page.locator("[data-pick-hint]")).to_have_text("2 ticked.")
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("jk?")
    expect(page.get_by_label("Search")).to_have_value("jk?")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keys on this page")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator(f"#row-{second.pk} a").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/runs/{second.pk}/$"))


def test_a_filter_is_chosen_searched_and_taken_away_and_the_address_says_just_that(page: Page, ada: User) -> None:
    make_run(ada, State.FAILED, reason="after the kernel update")
    make_run(ada, State.CANCELLED)
    page.goto("/runs/")
    page.get_by_label("State", exact=True).select_option("failed")
    expect(page).to_have_url(re.compile(r"/runs/\?state=failed$"))
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Search").fill("kernel")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/runs/\?q=kernel&state=failed$"))
    page.get_by_role("link", name=re.compile("State failed")).click()
    expect(page).to_have_url(re.compile(r"/runs/\?q=kernel$"))
    page.get_by_text("More filters").click()
    page.get_by_label("Sort by").select_option("p99")
    expect(page).to_have_url(re.compile(r"/runs/\?q=kernel&sort=p99$"))


def test_on_a_phone_the_pages_are_behind_a_button(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/")
    link = page.get_by_role("link", name="Scenarios")
    expect(link).to_be_hidden()
    page.get_by_role("button", name="Pages").click()
    expect(link).to_be_visible()
    link.click()
    expect(page.get_by_role("heading", name="Scenarios")).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 844})
    expect(link).to_be_visible()
    expect(page.get_by_role("button", name="Pages")).to_be_hidden()


def test_the_first_page_follows_a_run_by_itself(page: Page, ada: User) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="The lab is free")).to_be_visible()
    run = start(ada)
    expect(page.get_by_role("heading", name="The lab is busy")).to_be_visible(timeout=15_000)
    Run.objects.filter(pk=run.pk).update(state=State.CANCELLED, finished_at=timezone.now())
    expect(page.get_by_role("heading", name="The lab is free")).to_be_visible(timeout=15_000)
    expect(page.locator("tbody tr")).to_have_count(1)


def test_a_run_on_paper_is_black_on_white_without_menus_and_buttons(page: Page, ada: User) -> None:
    run = make_finished(ada)
    page.goto(f"/runs/{run.pk}/")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.emulate_media(media="print")
    for hidden in (".topbar", ".page-head .button", ".skip"):
        for element in page.locator(hidden).all():
            expect(element).to_be_hidden()
    panel = page.locator("main .panel").first
    assert panel.evaluate("(e) => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    assert panel.evaluate("(e) => getComputedStyle(e).color") == "rgb(34, 38, 46)"

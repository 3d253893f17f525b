"""The pages in a real browser, on made-up runs: what needs script, styles, or a keyboard to be seen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from portal.accounts.models import User
from portal.runs.models import Run, RunSecond
from portal.runs.states import State
from tests.portal.factories import (
    add_archive,
    add_seconds,
    host_runs,
    keep,
    make_finished,
    make_result,
    make_run,
    make_scenario,
    make_user,
    merged_lines,
)

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here: install Debian's chromium")
    # Playwright's synchronous API keeps an event loop in this thread, in which Django refuses its ORM.
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    arguments = [*QUIET, "--no-sandbox"] if os.geteuid() == 0 else QUIET
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def ada() -> User:
    make_scenario()
    return make_user("ada")


@pytest.fixture
def page(browser: Browser, live_server: Any, ada: User, client: Any) -> Iterator[Page]:
    """Signed in as ada. Fails at the end where a page complained, broke the policy or asked anybody else."""
    client.force_login(ada)
    context = browser.new_context(base_url=live_server.url, viewport={"width": 1280, "height": 900})
    session = client.cookies[django_settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    opened = context.new_page()
    said: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            said.append(message.text)

    opened.on("console", heard)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith((live_server.url, "data:")) else said.append(r.url))
    yield opened
    # Leave the pages that poll before the server goes.
    opened.goto("about:blank")
    context.close()
    assert said == []


def start(ada: User) -> Run:
    """A run whose load began a moment ago, with three seconds counted."""
    run = make_run(ada, State.RUNNING, start_at_ns=round(timezone.now().timestamp() * 1e9) - 3_000_000_000)
    found = merged_lines(host_runs())
    add_seconds(run, found[:3])
    return run


def finish(run: Run) -> None:
    """The run comes to its end while somebody watches."""
    runs = host_runs()
    RunSecond.objects.filter(run=run).delete()
    keep(run, make_result(run.pk, runs=runs))
    add_archive(run, runs)
    Run.objects.filter(pk=run.pk).update(state=State.FINISHED, finished_at=timezone.now())


def test_a_watched_run_draws_each_new_second_and_turns_into_its_report(page: Page, ada: User) -> None:
    run = start(ada)
    page.goto(f"/runs/{run.pk}/")
    summary = page.locator("[data-chart=messages] [data-summary]")
    expect(summary).to_have_text("Up to second 3.")
    expect(page.locator("[data-chart=messages] canvas")).to_be_visible()

    found = merged_lines(host_runs())
    RunSecond.of(run, found[3]).save()
    Run.objects.filter(pk=run.pk).update(last_second=4)
    expect(summary).to_have_text("Up to second 4.")
    expect(page.locator("#live")).to_contain_text("due in second 4")

    finish(run)
    expect(page.get_by_role("heading", name="Did it pass?")).to_be_visible()
    expect(page.locator("[data-chart=connections] [data-summary]")).to_have_text("At most 100 open.")
    expect(page.locator("#phases tbody tr")).to_have_count(3)
    expect(page.locator("#hosts tbody tr").nth(1)).to_contain_text("0.200")
    expect(page.locator("#live")).to_have_count(0)


def test_the_question_before_a_cancel_survives_the_polling(page: Page, ada: User) -> None:
    run = start(ada)
    page.goto(f"/runs/{run.pk}/")
    page.get_by_role("button", name="Cancel…").click()
    dialog = page.locator("#cancel")
    expect(dialog).to_be_visible()
    with page.expect_response(re.compile("/live$")), page.expect_response(re.compile("after=")):
        pass
    expect(dialog).to_be_visible()
    page.get_by_role("button", name="Let it run").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("#live .notice")).to_contain_text("Cancel requested by ada")


def test_the_plan_and_refusals_follow_the_typing_and_a_repair_is_one_click(page: Page) -> None:
    page.goto("/runs/new")
    page.locator("#f-clients").fill("400")
    expect(page.locator("#plan")).to_contain_text("2,000 messages/s over 400 connections")
    page.locator("#f-clients").fill("0")
    refusal = "clients: 0 is refused: Input should be greater than or equal to 1"
    expect(page.locator("#e-clients")).to_contain_text(refusal)
    page.locator("#f-clients").fill("2000")
    expect(page.locator("#e-clients")).to_be_empty()
    expect(page.locator("#plan")).to_contain_text("no measured window: 2,000 clients")
    page.get_by_role("button", name="duration_s >= 21").click()
    expect(page.locator("#f-duration_s")).to_have_value("21")
    expect(page.locator("#plan")).to_contain_text("the measured window opens, for 1 s")


def test_ticks_stay_while_the_list_refreshes(page: Page, ada: User) -> None:
    make_finished(ada)
    make_run(ada, State.RUNNING)
    page.goto("/runs/")
    page.locator("input[name=run]").check()
    make_run(ada, State.QUEUED, created_at=timezone.now())
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("input[name=run]")).to_be_checked()


def test_the_reason_of_a_missing_value_is_reached_by_keyboard(page: Page, ada: User) -> None:
    run = make_finished(ada, load={"lose_every": 50})
    page.goto(f"/runs/{run.pk}/")
    page.locator(".stat .null").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".tip:popover-open")).to_have_text("more than 1 % unanswered")
    page.keyboard.press("Escape")
    expect(page.locator(".tip:popover-open")).to_have_count(0)


def test_a_chart_has_a_table_and_a_cursor_that_all_share(page: Page, ada: User) -> None:
    run = make_finished(ada)
    page.goto(f"/runs/{run.pk}/")
    chart = page.locator("[data-chart=messages]")
    chart.get_by_text("Table", exact=True).click()
    expect(chart.locator("tbody tr")).to_have_count(12)
    expect(chart.locator("tbody tr").nth(4)).to_have_text("5500/s500/s")
    plot = page.locator("[data-chart=response_time] .u-over")
    plot.hover()
    expect(page.locator("[data-chart=connections] [data-at]")).to_have_text(re.compile(r"^\d+ s$"))
    expect(page.locator("[data-chart=connections] b")).to_have_text("100")


def test_the_theme_is_kept_and_comes_with_the_next_page(page: Page) -> None:
    page.goto("/runs/")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Menu of ada").click()
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (light, dark) == ("rgb(244, 245, 247)", "rgb(17, 18, 23)")
    answer = page.goto("/runs/new")
    assert answer is not None
    assert 'data-theme="dark"' in answer.text()


def test_the_keyboard_gets_to_the_content_at_once(page: Page) -> None:
    page.goto("/runs/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_no_page_is_wider_than_a_phone(page: Page, ada: User) -> None:
    base, contender = make_finished(ada, subject_name="a-subject-" * 10), make_finished(ada, load={"lose_every": 50})
    running, failed = start(ada), make_run(ada, State.FAILED, state_reason="unbroken" * 40)
    page.set_viewport_size({"width": 390, "height": 844})
    for path in (
        "/runs/",
        "/runs/new",
        "/runs/api",
        f"/runs/{base.pk}/",
        f"/runs/{running.pk}/",
        f"/runs/{failed.pk}/",
        f"/runs/compare?base={base.pk}&contender={contender.pk}",
    ):
        page.goto(path)
        page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, path


def test_a_session_that_ended_leads_to_the_login_instead_of_a_login_in_the_page(page: Page, ada: User) -> None:
    run = start(ada)
    page.goto(f"/runs/{run.pk}/")
    page.context.clear_cookies()
    expect(page).to_have_url(re.compile(r"/accounts/login/\?next=/runs/r-"))
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()

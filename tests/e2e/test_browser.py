"""The main job as a person does it, in a real browser: sign in, start a run, watch it to its end, compare two."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.e2e.conftest import Portal

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here: install Debian's chromium")
    arguments = [*QUIET, "--no-sandbox"] if os.geteuid() == 0 else QUIET
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, portal: Portal) -> Iterator[Page]:
    """Signed in. Fails at the end where the page complained or asked anybody else for anything."""
    opened = browser.new_page(base_url=portal.url, viewport={"width": 1280, "height": 900})
    said: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # A refused form is answered with 422, which Chromium notes as well.
        if message.type in {"error", "warning"} and "status of 422" not in message.text:
            said.append(message.text)

    opened.on("console", heard)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on(
        "request",
        lambda request: None if request.url.startswith((portal.url, "data:", "blob:")) else said.append(request.url),
    )
    opened.goto("/")
    opened.get_by_label("User name").fill("admin")
    opened.get_by_label("Password").fill(portal.password)
    opened.get_by_role("button", name="Sign in").click()
    expect(opened.get_by_role("heading", name="The lab is free")).to_be_visible()
    yield opened
    opened.close()
    assert said == []


def _start(page: Page, version: str) -> str:
    page.get_by_role("link", name="New run").first.click()
    page.get_by_role("link", name=re.compile("^smoke")).click()
    page.locator("#f-clients").fill("20")
    page.locator("#f-duration_s").fill("8")
    page.locator("#f-subject_name").fill("echo")
    page.locator("#f-subject_version").fill(version)
    # The plan follows what is typed: 20 clients at 200 ms offer 100 messages/s.
    expect(page.locator("#plan")).to_contain_text("100")
    page.get_by_role("button", name="Start the run").click()
    expect(page).to_have_url(re.compile("/runs/r-[a-z0-9]+/$"))
    return page.url


def test_a_person_starts_two_runs_watches_them_to_the_end_and_compares_them(page: Page) -> None:
    first = _start(page, "1.0")
    expect(page.locator("main")).to_contain_text(re.compile("running", re.IGNORECASE), timeout=30_000)
    # The page turns into the report by itself.
    expect(page.get_by_role("heading", name=re.compile("Evidence"))).to_be_visible(timeout=60_000)
    expect(page.locator("main")).to_contain_text("response_time.p99 < 250ms")
    expect(page.locator("main")).to_contain_text("echo")
    second = _start(page, "1.1")
    expect(page.get_by_role("heading", name=re.compile("Evidence"))).to_be_visible(timeout=60_000)
    base, contender = (url.rstrip("/").rpartition("/")[2] for url in (first, second))
    page.goto("/runs/")
    for run_id in (base, contender):
        page.locator(f"input[value='{run_id}']").check()
    page.get_by_role("button", name=re.compile("Compare")).click()
    expect(page).to_have_url(re.compile("/runs/compare\\?"))
    main = page.locator("main")
    expect(main).to_contain_text("1.0")
    expect(main).to_contain_text("1.1")
    expect(main).to_contain_text("Response time")


def test_bad_values_are_refused_beside_their_field_and_nothing_is_started(page: Page) -> None:
    page.goto("/runs/new?scenario=smoke")
    page.locator("#f-clients").fill("0")
    page.get_by_role("button", name="Start the run").click()
    expect(page.locator("#e-clients")).to_contain_text("allowed: 1 to 1,000,000")
    expect(page.locator("#f-clients")).to_have_value("0")
    expect(page.locator("#refused")).to_contain_text("Nothing was started")


def test_a_run_is_cancelled_after_a_question(page: Page) -> None:
    page.goto("/runs/new?scenario=smoke")
    page.locator("#f-duration_s").fill("60")
    page.get_by_role("button", name="Start the run").click()
    expect(page.locator("main")).to_contain_text(re.compile("running", re.IGNORECASE), timeout=30_000)
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("main")).to_contain_text(re.compile("cancelled", re.IGNORECASE), timeout=30_000)

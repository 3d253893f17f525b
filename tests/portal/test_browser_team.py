"""The team's and the schedules' pages in a real browser: first sign-in, a role that is denied, a schedule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from portal.accounts.models import User
from portal.runs.models import Note, Run
from portal.runs.states import State
from portal.schedules.models import Schedule
from tests.portal.factories import make_run, make_scenario, make_user
from tests.portal.test_browser_pages import browser

__all__ = ["browser"]
pytestmark = pytest.mark.django_db(transaction=True)
PASSWORD = "a long pass phrase"


@pytest.fixture
def page(browser: Browser, live_server: Any) -> Iterator[Page]:
    """Nobody is signed in. Fails at the end where a page complained or broke the policy."""
    make_scenario()
    context = browser.new_context(base_url=live_server.url, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda m: said.append(m.text) if m.type in {"error", "warning"} else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    opened.goto("about:blank")
    context.close()
    # The browser itself notes each answer that is no success.
    assert [line for line in said if "Failed to load resource" not in line] == []


def sign_in(page: Page, username: str, password: str = PASSWORD) -> None:
    page.goto("/accounts/login/")
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def sign_out(page: Page) -> None:
    page.get_by_role("button", name=re.compile("Menu of")).click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_who_is_invited_comes_in_chooses_a_password_and_may_what_the_role_says(page: Page) -> None:
    make_user("root", role="admin", is_superuser=True)
    sign_in(page, "root")
    page.get_by_role("link", name="Team").click()
    page.get_by_label("User name").fill("bo")
    page.get_by_role("button", name="Invite").click()
    shown = page.locator("#shown")
    expect(shown).to_be_focused()
    password = shown.locator("code").inner_text()
    page.reload()
    expect(shown).to_have_count(0)
    sign_out(page)

    sign_in(page, "bo", password)
    expect(page.get_by_text("Choose a password of your own.")).to_be_visible()
    page.goto("/runs/")
    expect(page).to_have_url(re.compile("/account/$"))
    page.get_by_label("Old password").fill(password)
    page.get_by_label("New password", exact=True).fill("quite another phrase")
    page.get_by_label("New password confirmation").fill("quite another phrase")
    page.get_by_role("button", name="Change the password").click()
    expect(page.get_by_text("The password was changed.")).to_be_visible()

    page.goto("/runs/")
    expect(page.get_by_role("link", name="New run")).to_have_count(0)
    page.goto("/runs/new")
    expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
    expect(page.get_by_text("this takes the role operator; yours is viewer")).to_be_visible()


def test_an_admin_deactivates_somebody_after_being_asked(page: Page) -> None:
    make_user("root", role="admin", is_superuser=True)
    make_user("bo")
    sign_in(page, "root")
    page.goto("/team/")
    page.get_by_role("button", name="Deactivate bo").click()
    dialog = page.get_by_role("dialog", name="Deactivate bo?")
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_be_hidden()
    assert User.objects.get(username="bo").is_active
    page.get_by_role("button", name="Deactivate bo").click()
    dialog.get_by_role("button", name="Deactivate bo").click()
    expect(page.get_by_role("row", name=re.compile("bo deactivated"))).to_be_visible()
    page.get_by_role("link", name="Audit log").click()
    expect(page.get_by_role("row", name=re.compile("root deactivated bo"))).to_be_visible()
    page.get_by_label("Search").fill("somebody else")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No entry matches")).to_be_visible()


def test_a_schedule_shows_its_next_dates_while_it_is_typed(page: Page) -> None:
    make_user("ada")
    sign_in(page, "ada")
    page.get_by_role("link", name="Schedules").click()
    page.get_by_role("link", name="Make the first schedule").click()
    dates = page.locator("#dates")
    expect(dates.get_by_role("listitem")).to_have_count(5)
    page.get_by_label("Minute hour day month weekday").fill("30 6 * * MON-FRI")
    expect(dates).to_contain_text("At 06:30 on Monday through Friday")
    page.get_by_label("Time zone").select_option("Europe/Berlin")
    expect(dates).to_contain_text(re.compile(r"06:30 \(CES?T\)"))
    page.get_by_label("Minute hour day month weekday").fill("99 6 * * *")
    expect(dates).to_contain_text("bad minute, wanted 0 to 59")
    page.get_by_label("Once").check()
    expect(page.get_by_label("Minute hour day month weekday")).to_be_hidden()
    page.get_by_label("Date and time").fill("2035-01-15T04:00")
    expect(dates).to_contain_text("Mon 15 Jan 2035, 04:00 (CET)")
    page.get_by_label("Again and again").check()
    page.get_by_label("Minute hour day month weekday").fill("0 4 * * *")
    page.get_by_label("Name of the schedule").fill("nightly")
    page.get_by_label("Missed while the portal was down").select_option("run_once")
    page.get_by_role("button", name="Make the schedule").click()
    expect(page.get_by_role("heading", name="nightly")).to_be_visible()
    expect(page.get_by_text("one run makes up for all of them")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("It is paused: no date is due.")).to_be_visible()
    assert Schedule.objects.get().next_at is None


def test_a_note_is_written_on_a_run(page: Page) -> None:
    run = make_run(make_user("ada"), State.FAILED)
    sign_in(page, "ada")
    page.goto(f"/runs/{run.pk}/")
    page.get_by_label("A new note").fill("The **disk** was full.\n\n- `df -h`")
    page.get_by_role("button", name="Write the note").click()
    note = page.locator(f"#note-{Note.objects.get().pk}")
    expect(note.locator("strong")).to_have_text("disk")
    expect(note.locator("li code")).to_have_text("df -h")
    assert Run.objects.get().notes.count() == 1

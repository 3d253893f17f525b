"""Planning in a real browser: the form's plan while it is typed, groups, a scenario by YAML."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from portal.accounts.models import User
from portal.runs.models import NamedScenario, Run, RunGroup
from tests.portal.test_browser_pages import ada, browser, page

__all__ = ["ada", "browser", "page"]
pytestmark = pytest.mark.django_db(transaction=True)


def test_a_run_is_planned_repeated_as_a_group_and_the_rest_cancelled(page: Page, ada: User) -> None:
    page.goto("/runs/new?scenario=smoke")
    times = page.get_by_label("Runs of each group")
    expect(times).to_be_hidden()
    page.get_by_label("Reason").fill("how far apart are they?")
    page.get_by_label("Repeat, as a group").check()
    expect(page.get_by_label("B: version")).to_be_hidden()
    times.fill("1")
    expect(page.locator("#e-times")).to_have_text("times: '1' is refused: wanted 2 to 50")
    times.fill("3")
    expect(page.locator("#e-times")).to_be_empty()
    expect(page.locator("#plan")).to_contain_text("3 runs, one after the other")
    expect(page.locator("#plan")).to_contain_text(re.compile(r"About 1\smin 6\ss in all"))
    page.get_by_role("button", name="Start 3 runs").click()

    expect(page).to_have_url(re.compile(r"/runs/groups/g-\w+/$"))
    expect(page.get_by_role("heading", name="0 of 3 runs are over")).to_be_visible()
    assert list(Run.objects.values_list("reason", flat=True)) == ["how far apart are they?"] * 3
    # The page looks again by itself.
    first = Run.objects.order_by("created_at")[0]
    first.request_cancel(ada)
    expect(page.get_by_role("heading", name="1 of 3 runs are over")).to_be_visible()
    page.get_by_role("button", name="Cancel the rest").click()
    expect(page.get_by_role("heading", name="All 3 runs are over")).to_be_visible()


def test_two_groups_alternate_and_what_b_has_is_asked_for_only_then(page: Page) -> None:
    page.goto("/runs/new?scenario=smoke")
    page.get_by_label(re.compile("Alternate two groups")).check()
    expect(page.locator("#plan")).to_contain_text("An A/A check")
    page.get_by_label("B: fields set differently").fill("size_bytes=1024")
    expect(page.locator("#plan")).to_contain_text("B: size_bytes=1024 (smoke)")
    expect(page.locator("#plan")).to_contain_text("10 runs: A B B A A B B A …")
    page.get_by_role("button", name="Start 5 + 5 runs").click()
    expect(page.locator(".order a")).to_have_count(10)
    expect(page.locator(".order")).to_have_text(re.compile(r"A queued\s*B queued\s*B queued\s*A queued"))
    assert RunGroup.objects.count() == 2


def test_a_scenario_comes_in_as_yaml_is_edited_and_keeps_its_history(page: Page) -> None:
    page.goto("/scenarios/")
    page.get_by_role("link", name="New scenario").click()
    page.get_by_text("Fill the form with YAML").click()
    page.get_by_label("YAML", exact=True).fill("name: calm\nclients: 40\n")
    page.get_by_role("button", name="Fill the form").click()
    expect(page.get_by_label("Clients")).to_have_value("40")
    page.get_by_label("Clients").fill("60")
    expect(page.locator("#plan")).to_contain_text("60 messages/s over 60 connections")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="calm", exact=True)).to_be_visible()
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Clients").fill("80")
    page.get_by_label("What changed, and why").fill("more of them")
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.locator("#v2")).to_contain_text("more of them")
    expect(page.locator("#v2 tbody")).to_contain_text(re.compile(r"Clients.*60.*80", re.DOTALL))
    page.get_by_role("button", name="Bring back version 1").click()
    expect(page.locator("#v3")).to_contain_text("as version 1 was")
    assert NamedScenario.objects.get(name="calm").content["clients"] == 60

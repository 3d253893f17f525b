"""Comparing and history in a real browser: choosing groups, overlays, and the way from a point to its run."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from portal.accounts.models import User
from tests.portal.factories import NOW, make_finished
from tests.portal.repeated import quick_group, quick_run
from tests.portal.test_browser_pages import ada, browser, page  # noqa: F401  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_groups_are_found_ticked_and_compared(page: Page, ada: User) -> None:  # noqa: F811
    old = quick_group(ada, "kernel six", (10.0, 10.4, 9.8, 10.2, 9.9))
    new = quick_group(ada, "kernel seven", (12.1, 12.6, 11.9, 12.3, 12.8), version="1.1")
    quick_group(ada, "other", (1, 2))
    page.goto("/")
    page.get_by_role("link", name="Compare", exact=True).click()
    page.get_by_label("Search runs and groups").fill("kernel")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_label("Compare group other")).to_have_count(0)
    page.get_by_label("Compare group kernel six").check()
    # What is ticked stays while one searches for the other.
    page.get_by_label("Search runs and groups").fill("seven")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_label("Compare kernel six")).to_be_checked()
    page.get_by_label("Compare group kernel seven").check()
    page.get_by_label("kernel six is the base").check()
    page.get_by_role("button", name="Compare what is ticked").click()
    expect(page).to_have_url(re.compile(rf"\?base={old.pk}&contender={new.pk}$"))

    verdict = page.locator(".verdicts > li")
    expect(verdict).to_contain_text("worse")
    expect(verdict).to_contain_text("+23 %")
    expect(page.locator("figure.dots").first.locator("line.dot")).to_have_count(10)
    red = verdict.locator(".badge").evaluate("e => getComputedStyle(e).color")
    # Throughput is the same on both sides: a word in the text's own colour.
    throughput = page.get_by_role("row", name=re.compile("^Throughput")).locator(".direction")
    expect(throughput).to_have_text("not distinguishable")
    assert throughput.evaluate("e => getComputedStyle(e).color") != red
    page.get_by_role("link", name="Make base of kernel seven").click()
    expect(page.locator(".verdicts > li")).to_contain_text("better")


def test_runs_are_drawn_over_each_other_with_a_cursor_and_a_table(page: Page, ada: User) -> None:  # noqa: F811
    base = make_finished(ada, subject_name="echo", subject_version="1.0")
    later = NOW + timedelta(hours=1)
    contender = make_finished(ada, load={"median_ms": 8}, subject_name="echo", subject_version="1.1", created_at=later)
    page.goto(f"/runs/compare?base={base.pk}&contender={contender.pk}")
    charts = page.locator("[data-overlays] [data-chart]")
    expect(charts.locator("canvas")).to_have_count(4)
    curve = page.locator("[data-chart=curve]")
    expect(curve.locator("[data-summary]")).to_have_text(re.compile(r"^1\.0: up to .* at p9.*; 1\.1: up to .*\.$"))
    curve.locator("summary").click()
    p90 = curve.get_by_role("row", name=re.compile("^p90 "))
    values = [float(cell.split()[0]) for cell in p90.locator("td").all_text_contents()]
    assert values[0] * 3 < values[1] < values[0] * 5

    throughput = page.locator("[data-chart=answered]")
    throughput.locator(".u-over").hover()
    expect(throughput.locator("[data-at]")).to_have_text(re.compile(r"^\d+ s$"))
    # The cursor is at the same second of each run in the other chart.
    second = throughput.locator("[data-at]").text_content() or ""
    expect(page.locator("[data-chart=open] [data-at]")).to_have_text(second)
    expect(throughput.locator("[data-side] b").first).to_have_text("500/s")


def test_a_point_of_the_history_leads_to_its_run(page: Page, ada: User) -> None:  # noqa: F811
    quick_run(ada, 10)
    quick_run(ada, 11, environment_digest="e" * 64, stable={"kernel": "6.8.0-51"})
    last = quick_run(ada, 12, version="1.1", starred=True)
    page.goto("/")
    page.get_by_role("link", name="History").click()
    expect(page.get_by_text("kernel 6.8.0-45 → 6.8.0-51 (server)")).to_be_visible()
    # A choice is an address.
    page.get_by_label("Metric").select_option("response_time.p50")
    expect(page).to_have_url(re.compile("metric=response_time.p50"))
    page.get_by_label("By", exact=True).select_option("version")
    expect(page.get_by_role("heading", name="Response time p50 by subject version")).to_be_visible()

    over = page.locator("[data-history] .u-over")
    box = over.bounding_box()
    assert box is not None
    # The second of two versions, at 6 ms of the 6.48 ms that the axis goes to.
    x = box["width"] * (1 + 0.6) / 2.2
    over.hover(position={"x": x, "y": box["height"] * (1 - 6 / 6.48)})
    expect(page.locator("[data-history] [data-at]")).to_have_text(re.compile(rf"^{last.pk} · 1\.1 · .* · 6 ms$"))
    over.click(position={"x": x, "y": box["height"] * (1 - 6 / 6.48)})
    expect(page).to_have_url(re.compile(f"/runs/{last.pk}/$"))

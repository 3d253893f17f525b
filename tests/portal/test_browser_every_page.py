"""Every kind of page in a real browser: nothing that axe-core finds wrong in either theme, no word in the console,
nothing wider than a phone."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, Page

from portal.accounts.models import User
from tests.portal.crawl import Visit, crawl
from tests.portal.everything import make_everything
from tests.portal.test_browser_pages import browser

__all__ = ["browser"]
AXE = Path(__file__).parent / "axe"
ASKED_FOR = {"runs:run": 5, "runs:group": 3, "runs:compare": 3, "scenarios:scenario": 2}
"""Pages of one route that are looked at, where one does not show all."""
RUN_AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations.flatMap(
    (found) => found.nodes.map((node) => `${found.id}: ${node.target.join(" ")} ${node.failureSummary}`))"""


def test_the_vendored_axe_is_that_of_its_package() -> None:
    for line in (AXE / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((AXE / name).read_bytes()).hexdigest() == digest, name


def looked_at(visits: list[Visit]) -> list[str]:
    """Addresses of pages, some of each kind."""
    seen = Counter[str]()
    chosen = []
    for visit in visits:
        if visit.is_page and visit.status == 200 and visit.route != "runs:live":
            seen[visit.route] += 1
            if seen[visit.route] <= ASKED_FOR.get(visit.route, 1):
                chosen.append(visit.path)
    return chosen


def faults(page: Page, path: str) -> list[str]:
    """What is wrong with one page, in words."""
    found: list[str] = []
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(path)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    # Evaluated, and not added as a script: the page keeps its policy, which would have none of it.
    page.evaluate((AXE / "axe.min.js").read_text())
    for theme in ("light", "dark"):
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme }", theme)
        found += [f"{theme}: {line}" for line in page.evaluate(RUN_AXE)]
    page.set_viewport_size({"width": 390, "height": 844})
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > 390:
        found.append(f"{width} px wide on a phone")
    return found


def visit_all(browser: Browser, url: str, user: User | None, paths: list[str]) -> list[str]:
    """Look at each page. Returns what is wrong with them, and what they said in the console or asked of others."""
    wrong: list[str] = []
    context = browser.new_context(base_url=url)
    if user is not None:
        client = Client()
        client.force_login(user)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
    page = context.new_page()

    def heard(what: str) -> None:
        wrong.append(f"{page.url.removeprefix(url)} {what}")

    page.on("console", lambda m: heard(m.text) if m.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: heard(str(error)))
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else heard(r.url))
    for path in paths:
        for line in faults(page, path):
            heard(line)
    # Leave the pages that poll before the server goes.
    page.goto("about:blank")
    context.close()
    return wrong


@pytest.mark.django_db(transaction=True)
def test_no_page_has_a_fault_that_axe_finds_complains_asks_anybody_else_or_is_wider_than_a_phone(
    browser: Browser, live_server: Any
) -> None:
    people = make_everything()
    client = Client()
    client.force_login(people["admin"])
    paths = looked_at(crawl(client))
    assert len(paths) > 20
    url = live_server.url
    wrong = [
        *visit_all(browser, url, people["admin"], paths),
        *visit_all(
            browser, url, people["viewer"], ["/", "/runs/", "/scenarios/", next(p for p in paths if "/r-" in p)]
        ),
        *visit_all(browser, url, None, ["/accounts/login/"]),
    ]
    assert wrong == []

"""What becomes of runs when somebody cancels one, two are asked for at once, or the control host's services fall."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.e2e.test_browser import CHROMIUM, QUIET
from tests.faults.site import GENERATORS, Browser, Site

FORM = {
    **{"name": "faults", "clients": "40", "interval_ms": "100", "ramp_up_s": "1", "rate_per_s": "100"},
    **{"reply_timeout_s": "1", "drain_s": "1", "duration_s": "4", "thresholds": ""},
}


def start(browser: Browser, **fields: str) -> str:
    """Fill the form of a new run in and send it. Returns the run's id."""
    led = browser.post("/runs/new?scenario=smoke", "/runs/new", **{**FORM, **fields})
    assert led.startswith("/runs/r-"), led
    return led.removeprefix("/runs/").strip("/")


def test_a_cancel_on_the_runs_page_ends_the_load_on_every_host_within_two_seconds(site: Site) -> None:
    browser = site.browser()
    run_id = start(browser, duration_s="60")
    site.second(run_id, 3)
    assert all(site.workers(host) for host in GENERATORS)
    assert site.connections("server") == 40
    begin = time.time()
    assert browser.post(f"/runs/{run_id}/", f"/runs/{run_id}/cancel") == f"/runs/{run_id}/"
    run = site.over(run_id)
    assert (run["state"], run["state_reason"]) == ("cancelled", "cancelled by request")
    # The hosts' own logs and sockets say the same.
    assert site.quiet(*GENERATORS, "server")
    for host in GENERATORS:
        said = site.journal(host, "wsnode-agent", f"run {run_id} stopped", begin)
        assert said - begin < 2
    assert "no load of this run is left on load-1, load-2" in [line.text for line in site.kept(run_id).log]


@pytest.fixture
def pages(site: Site) -> Iterator[list[Page]]:
    """Two browsers' windows with the form of a new run, filled in."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here: install Debian's chromium")
    password = site.on("control", "cat", "/etc/wslab/admin_password").strip()
    with sync_playwright() as playwright, contextlib.ExitStack() as stack:
        found = []
        for _ in range(2):
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"])
            stack.callback(browser.close)
            page = browser.new_page(base_url=site.api.url)
            page.goto("/accounts/login/")
            page.get_by_label("User name").fill("admin")
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Sign in").click()
            page.goto("/runs/new?scenario=smoke")
            page.evaluate(
                "(fields) => { for (const [name, value] of Object.entries(fields))"
                " document.querySelector(`[name=${name}]`).value = value }",
                FORM,
            )
            found.append(page)
        yield found


def test_two_runs_from_two_browsers_at_one_moment_run_one_after_the_other(site: Site, pages: list[Page]) -> None:
    at_ms = (time.time() + 1) * 1000
    for page in pages:
        page.evaluate(
            "(at) => { setTimeout(() => document.querySelector('[name=duration_s]').form.requestSubmit(),"
            " at - Date.now()) }",
            at_ms,
        )
    for page in pages:
        page.wait_for_url(re.compile("/runs/r-[a-z0-9]+/$"))
    ids = [page.url.rstrip("/").rpartition("/")[2] for page in pages]
    assert len(set(ids)) == 2
    states: set[tuple[str, ...]] = set()
    while set(now := tuple(site.api.run(run_id)["state"] for run_id in ids)) != {"finished"}:
        assert not {"failed", "lost", "cancelled"} & set(now), now
        states.add(now)
        time.sleep(0.1)
    # While one goes on the other is in the queue: never is more than one under way.
    assert all("queued" in pair or "finished" in pair for pair in states), states
    assert any("queued" in pair and "running" in pair for pair in states), states
    first, second = (site.assert_whole(run_id, duration_s=4) for run_id in ids)
    assert first.window is not None
    assert second.window is not None
    apart_s = abs((second.window.start - first.window.start).total_seconds())
    assert apart_s > 4


def test_a_run_outlives_the_broker_and_its_conductor_and_counts_nothing_twice(site: Site) -> None:
    fields = {"duration_s": 40}
    run_id = site.queue(**fields)
    site.second(run_id, 2)
    site.on("control", "systemctl", "stop", "redis-server")
    try:
        site.second(run_id, 6)
    finally:
        site.on("control", "systemctl", "start", "redis-server")
    before = site.on("control", "systemctl", "show", "-P", "MainPID", "wslab-conduct")
    site.on("control", "systemctl", "kill", "--signal=KILL", "wslab-conduct")
    result = site.assert_whole(run_id, **fields)
    assert site.on("control", "systemctl", "show", "-P", "MainPID", "wslab-conduct") != before
    assert result.counters.connections_opened == result.counters.connections_closed == 40
    assert result.counters.messages_received == result.counters.messages_sent
    kept = site.kept(run_id)
    assert kept.seconds == list(range(1, 41))
    assert kept.epoch == 2
    assert kept.first("taken over: the load goes on on load-1, load-2")
    # The conductor that died had one start, and nobody started a second load.
    for host in GENERATORS:
        said = site.on(host, "journalctl", "-q", "-u", "wsnode-agent", "-n", "200")
        assert said.count(f"run {run_id} is prepared") == 1

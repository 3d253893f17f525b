"""The pictures of the documents, of a made-up history:

    WSLAB_SHOTS=docs/images python -m pytest tests/portal/test_browser_shots.py

Without the variable they go into a temporary folder, so that it is known that they can be made."""

from __future__ import annotations

import os
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser

from portal.runs.demo.keep import keep
from portal.runs.models import Run, RunGroup
from portal.runs.states import State
from tests.portal.factories import add_seconds, host_runs, make_run, make_user, merged_lines
from tests.portal.test_browser_pages import browser

__all__ = ["browser"]
RUNS = 150
WIDTH, HEIGHT = 1280, 800


def addresses() -> dict[str, str]:
    """What is shown, by the picture's name."""
    gate = Run.objects.finished().filter(scenario_name="release-gate", verdict="passed").order_by("-created_at")[0]
    pair = RunGroup.objects.filter(kind="alternate", partner__isnull=False).order_by("created_at")[0]
    return {
        "home": "/",
        "runs": "/runs/",
        "run": f"/runs/{gate.pk}/",
        "compare": f"/runs/compare?base={pair.pk}&contender={pair.partner_id}",
        "history": "/history/?scenario=nightly-echo",
        "new": "/runs/new?scenario=release-gate",
    }


@pytest.mark.django_db(transaction=True)
def test_the_documents_pictures_are_made(browser: Browser, live_server: Any, tmp_path: Path) -> None:
    folder = Path(os.environ.get("WSLAB_SHOTS") or tmp_path)
    keep(RUNS, timezone.now() - timedelta(minutes=3), seed=2)
    user = make_user("erika", role="operator")
    shown = addresses()
    running = make_run(
        user,
        State.RUNNING,
        created_at=timezone.now(),
        preflight_at=timezone.now() - timedelta(seconds=6),
        start_at_ns=round(timezone.now().timestamp() * 1e9) - 3_000_000_000,
        subject_name="echo",
        subject_version="1.4.2",
        live={
            "second": 3,
            "connections_open": 100,
            "sent": 1290,
            "received": 1281,
            "outstanding": 9,
            "errors": 0,
            "recent": {"p50_ns": 2_010_000, "p95_ns": 3_900_000, "p99_ns": 5_240_000},
        },
    )
    add_seconds(running, merged_lines(host_runs())[:3])
    make_run(user, created_at=timezone.now(), subject_name="echo", subject_version="1.4.3")
    client = Client()
    client.force_login(user)
    context = browser.new_context(base_url=live_server.url, viewport={"width": WIDTH, "height": HEIGHT})
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    page = context.new_page()
    for name, path in shown.items():
        for theme in ("light", "dark") if name == "run" else ("light",):
            context.add_cookies([{"name": "theme", "value": theme, "url": live_server.url}])
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            page.evaluate("document.fonts.ready")
            if name == "history":  # its points are fetched
                page.locator(".uplot canvas").first.wait_for()
            # Two frames: what draws itself has drawn.
            page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            file = folder / (f"{name}.png" if theme == "light" else f"{name}-dark.png")
            page.screenshot(path=file)
            size = struct.unpack(">II", file.read_bytes()[16:24])
            assert size == (WIDTH, HEIGHT)
    page.goto("about:blank")
    context.close()

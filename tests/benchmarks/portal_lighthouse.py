"""Lighthouse's scores of the portal's pages: home, runs, a run, a comparison.

    python -m tests.benchmarks.portal_lighthouse [--lighthouse PROGRAM]

Seeds a portal of its own in a temporary folder, serves it on a free port of 127.0.0.1 and has npm's `lighthouse` look
at each page, signed in. The exit code is 1 where a score of performance, accessibility or best practices is below 95.
Needs npm and Debian's chromium. `--lighthouse` names an installed one; else npm fetches `LIGHTHOUSE`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIGHTHOUSE = "lighthouse@12.8.2"
CHROMIUM = "/usr/bin/chromium"
CATEGORIES = ("performance", "accessibility", "best-practices")
WANTED = 95
RUNS = 120
PATIENCE_S = 60
SEED = """
import json
from datetime import timedelta
from django.conf import settings
from django.test import Client
from django.utils import timezone
from portal.accounts.models import User
from portal.runs.demo.keep import keep
from portal.runs.models import Run
keep({runs}, timezone.now() - timedelta(minutes=2), 1)
client = Client()
client.force_login(User.objects.get(username="ada"))
run, other = Run.objects.finished().filter(scenario_name="smoke").order_by("-created_at")[:2]
print(json.dumps({{
    "cookie": f"{{settings.SESSION_COOKIE_NAME}}={{client.cookies[settings.SESSION_COOKIE_NAME].value}}",
    "pages": ["/", "/runs/", f"/runs/{{run.pk}}/", f"/runs/compare?base={{other.pk}}&contender={{run.pk}}"],
}}))
"""


def main() -> int:
    """Measure. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--lighthouse", help="an installed program")
    options = parser.parse_args()
    program = [options.lighthouse] if options.lighthouse else ["npm", "exec", "--yes", "--", LIGHTHOUSE]
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        url = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "WSLAB_STATE": folder, "WSLAB_PORTAL_URL": url}
        manage = [sys.executable, "-m", "portal.manage"]
        subprocess.run([*manage, "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
        told = subprocess.run(
            [*manage, "shell", "-v0", "-c", SEED.format(runs=RUNS)],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        seeded = json.loads(told.stdout.splitlines()[-1])
        serve = [sys.executable, "-m", "gunicorn", "--threads", "4", "-b", f"127.0.0.1:{port}", "portal.config.wsgi"]
        portal = subprocess.Popen(
            serve, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait(url)
            scores = {page: _scores(program, url + page, seeded["cookie"], Path(folder)) for page in seeded["pages"]}
        finally:
            portal.terminate()
            portal.wait()
    print(f"load {os.getloadavg()[0]:.1f}")
    print("".join(f"{category:>16}" for category in CATEGORIES) + "  page")
    for page, found in scores.items():
        print("".join(f"{found[category]:>16}" for category in CATEGORIES) + f"  {page}")
    return int(any(score < WANTED for found in scores.values() for score in found.values()))


def _wait(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/accounts/login/", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _scores(program: list[str], url: str, cookie: str, folder: Path) -> dict[str, int]:
    """Each category's score of a page, of 100; what weighs on one goes to stderr."""
    headers, report = folder / "headers.json", folder / "report.json"
    headers.write_text(json.dumps({"Cookie": cookie}))
    subprocess.run(
        [
            *program,
            url,
            "--quiet",
            "--preset=desktop",
            f"--only-categories={','.join(CATEGORIES)}",
            f"--extra-headers={headers}",
            "--output=json",
            f"--output-path={report}",
            "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
        ],
        env={**os.environ, "CHROME_PATH": CHROMIUM},
        check=True,
    )
    data = json.loads(report.read_text())
    for category in CATEGORIES:
        for ref in data["categories"][category]["auditRefs"]:
            audit = data["audits"][ref["id"]]
            if ref["weight"] and audit["score"] is not None and audit["score"] < 0.9:
                print(f"{url}: {category}: {audit['title']}: {audit.get('displayValue', '')}", file=sys.stderr)
    failed = [
        f"{a['id']}: {a.get('errorMessage')}" for a in data["audits"].values() if a["scoreDisplayMode"] == "error"
    ]
    if failed:
        raise SystemExit(f"{url}: lighthouse could not tell: {'; '.join(failed)[:600]}")
    return {category: round(100 * data["categories"][category]["score"]) for category in CATEGORIES}


if __name__ == "__main__":
    sys.exit(main())

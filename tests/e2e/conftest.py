"""The whole lab, up once for all tests here, with a state folder and ports of its own."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.stack.test_stack import Lab


class Portal(Lab):
    """A lab with its portal's API and first password at hand."""

    password = ""

    @property
    def url(self) -> str:
        return str(self.record().urls["portal"])

    def call(self, path: str, body: object = None) -> Any:
        """One call of /api/v1 with the stack's token."""
        token = (self.state / "token").read_text().strip()
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v1/{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def queue(self, scenario: str, **fields: object) -> str:
        """Queue a scenario with other fields. Returns the run's id."""
        return str(self.call("runs", {"scenario": scenario, "set": fields})["run_id"])

    def run(self, run_id: str) -> Any:
        return self.call(f"runs/{run_id}")

    def wait_for(self, run_id: str, what: Callable[[Any], bool], seconds: float = 120) -> Any:
        """The run once `what` holds of it."""
        deadline = time.monotonic() + seconds
        while True:
            run = self.run(run_id)
            if what(run):
                return run
            assert time.monotonic() < deadline, run
            time.sleep(0.2)

    def wait_over(self, run_id: str, seconds: float = 120) -> Any:
        """The run once it is over."""
        return self.wait_for(run_id, lambda run: run["state"] in {"finished", "failed", "cancelled", "lost"}, seconds)

    def wait_second(self, run_id: str, second: int) -> Any:
        """The run once that many seconds of its load have been counted."""
        return self.wait_for(
            run_id,
            lambda run: run["state"] == "running" and ((run["progress"] or {}).get("second") or 0) >= second,
        )


@pytest.fixture(scope="session")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    made = Portal(tmp_path_factory.mktemp("e2e lab"))
    try:
        done = made("up")
        assert done.returncode == 0, done.stdout + done.stderr
        shown = re.search(r"login admin, password (\S+)", done.stdout)
        assert shown is not None, done.stdout
        made.password = shown[1]
        yield made
        made("down")
    finally:
        made.remove()

"""A conductor's process with real agents, real load and a real server; only the broker is left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.utils import timezone

from portal.runs import line
from portal.runs.models import Archive, Environment, Run, RunSecond
from portal.runs.states import State
from tests.portal.factories import make_run, make_user
from tests.wsnode.agents import agents
from tests.wsnode.serving import serving
from wsnode.core.scenario import Plan, Scenario

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parents[2]
SHORT = Scenario(name="short", clients=20, interval_ms=50, ramp_up_s=1, duration_s=5, rate_per_s=20, drain_s=1,
                 reply_timeout_s=1, connect_timeout_s=1)  # fmt: skip
(PLAN,) = Plan.divide(SHORT, "ws://x", 1)
OFFERED = SHORT.pacing().offered(PLAN.share, SHORT.duration_s * 1_000_000_000)
CONDUCT = """
import sys, pathlib, django
django.setup()
from django.conf import settings
settings.LOCK_FOLDER = pathlib.Path(sys.argv[2])
from portal.runs import line
line.conduct_run(sys.argv[1])
"""


@pytest.fixture
def _lab(lab_file: Path) -> Iterator[None]:
    """`lab.json` of a server and three agents that are really there."""
    lab: dict[str, Any] = json.loads(lab_file.read_text())
    with serving() as server, agents("server", role="server") as observers, agents("load-1", "load-2") as generators:
        for host, agent in zip(lab["hosts"], [*observers, *generators], strict=True):
            host["socket"] = agent.socket
        lab["hosts"][0]["ws_url"] = f"ws://127.0.0.1:{server.port}"
        lab_file.write_text(json.dumps(lab))
        yield


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, Run.objects.values("state", "state_reason", "last_second")
        time.sleep(0.05)


def every_message_is_accounted_for(run: Run) -> None:
    counters = run.summary.content.counters
    assert counters.messages_due == OFFERED
    assert counters.messages_sent + counters.messages_unsent == OFFERED
    # Before a client's handshake has ended its messages are unsent; all others are answered.
    assert counters.unsent.keys() <= {"not_open"}
    assert counters.messages_received == counters.messages_sent
    assert counters.connections_opened == counters.connections_closed == SHORT.clients
    assert [second["second"] for second in Archive.objects.get().data["seconds"]] == list(range(1, 6))
    assert RunSecond.objects.count() == 0
    assert [row.host for row in Environment.objects.all()] == ["server", "load-1", "load-2"]


@pytest.mark.usefixtures("_lab")
def test_a_run_is_carried_out_by_real_agents() -> None:
    run = make_run(make_user(), scenario=SHORT, subject_name="wsnode", subject_source="own")
    assert line.conduct_run(run.pk)
    run.refresh_from_db()
    assert (run.state, run.state_reason, run.epoch) == (State.FINISHED, "", 1)
    assert run.subject_version == run.environments.get(host="server").begin["stable"]["wsnode"] != ""
    every_message_is_accounted_for(run)


@pytest.mark.usefixtures("_lab")
def test_a_killed_conductors_run_is_taken_over_and_finishes_with_every_count_right(
    lab_file: Path, tmp_path: Path
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("the other process is given SQLite's file")
    run = make_run(make_user(), scenario=SHORT)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.config.settings",
        "DATABASE_URL": f"sqlite:///{quote(str(connection.settings_dict['NAME']))}",
        "WSLAB_LAB": str(lab_file),
        "WSLAB_STATE": str(tmp_path / "state"),
    }
    command = [sys.executable, "-c", CONDUCT, run.pk, str(tmp_path)]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as conductor:
        wait_for(lambda: Run.objects.get().last_second >= 1)
        conductor.send_signal(signal.SIGKILL)
    assert not line.conduct_run(run.pk)  # its lease has not lapsed
    Run.objects.update(lease_until=timezone.now() - timedelta(milliseconds=1))
    assert line.due() == [run.pk]
    assert line.conduct_run(run.pk)
    run.refresh_from_db()
    assert (run.state, run.state_reason, run.epoch) == (State.FINISHED, "", 2)
    every_message_is_accounted_for(run)
    assert any("goes on where" in event.text for event in run.events.all())

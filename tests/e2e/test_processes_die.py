"""A process of the embedded stack dies in the middle of a run; the run ends true, with every count right.

What breaks between hosts is tried in tests/faults."""

from __future__ import annotations

import os
import signal

from tests.e2e.conftest import Portal
from wsnode.core.result import read_result
from wsnode.core.scenario import Plan, Scenario

LOAD = {"clients": 40, "interval_ms": 100, "ramp_up_s": 1, "rate_per_s": 100, "thresholds": []}


def _whole(portal: Portal, run_id: str, duration_s: int) -> None:
    """The run has finished and counted exactly what its timetable holds."""
    run = portal.wait_over(run_id)
    assert run["state"] == "finished", run["state_reason"]
    result = read_result(portal.call(f"runs/{run_id}/result"))
    scenario = Scenario(**LOAD, duration_s=duration_s)
    share = Plan.whole(scenario, "ws://x/").share
    counters = result.counters
    assert counters.messages_due == scenario.pacing().offered(share, duration_s * 10**9)
    assert counters.messages_sent + counters.messages_unsent == counters.messages_due
    assert counters.messages_received == counters.messages_sent
    # A busy machine may have made the generator late: then the validity says so, and the accounts still hold.
    assert set(counters.unsent) <= {"not_open", "generator_late"}
    assert counters.connections_opened == counters.connections_closed == counters.connections_peak == 40
    assert result.latency_s.response_time.due == result.latency_s.response_time.count
    assert result.window is not None
    assert (result.window.from_s, result.window.to_s) == (1, duration_s)
    assert result.latency_s.response_time.due == 400 * (duration_s - 1)


def test_a_killed_worker_loses_nothing_another_takes_the_run_over(portal: Portal) -> None:
    run_id = portal.queue("smoke", **LOAD, duration_s=30)
    before = portal.process("worker-conduct")
    portal.wait_second(run_id, 3)
    os.kill(before["pid"], signal.SIGKILL)
    _whole(portal, run_id, 30)
    assert portal.process("worker-conduct")["pid"] != before["pid"]
    with_log = portal("manage", "shell", "-v0", "-c",
        f"from portal.runs.models import Run; r = Run.objects.get(pk='{run_id}'); print(r.epoch)")  # fmt: skip
    assert int(with_log.stdout.split()[-1]) == 2, with_log.stderr


def test_a_killed_broker_does_not_touch_a_run_and_the_next_one_starts(portal: Portal) -> None:
    run_id = portal.queue("smoke", **LOAD, duration_s=12)
    portal.wait_second(run_id, 2)
    os.kill(portal.process("broker")["pid"], signal.SIGKILL)
    _whole(portal, run_id, 12)
    _whole(portal, portal.queue("smoke", **LOAD, duration_s=4), 4)


def test_a_killed_agent_makes_the_run_say_which_host_and_the_other_stops(portal: Portal) -> None:
    run_id = portal.queue("smoke", **LOAD, duration_s=60)
    portal.wait_second(run_id, 3)
    os.kill(portal.process("agent-load-2")["pid"], signal.SIGKILL)
    run = portal.wait_over(run_id, 30)
    assert run["state"] in {"failed", "lost"}
    assert "load-2" in run["state_reason"]
    _whole(portal, portal.queue("smoke", **LOAD, duration_s=4), 4)


def test_a_cancel_ends_the_load_on_every_host(portal: Portal) -> None:
    run_id = portal.queue("smoke", **LOAD, duration_s=60)
    portal.wait_second(run_id, 2)
    portal.call(f"runs/{run_id}/cancel", {})
    run = portal.wait_over(run_id, 30)
    assert run["state"] == "cancelled"
    # The server has no connection left: the hosts' word was true.
    shown = portal("manage", "shell", "-v0", "-c", "print('alive')")
    assert "alive" in shown.stdout
    _whole(portal, portal.queue("smoke", **LOAD, duration_s=4), 4)


def test_two_runs_queued_at_once_run_one_after_the_other(portal: Portal) -> None:
    first = portal.queue("smoke", **LOAD, duration_s=4)
    second = portal.queue("smoke", **LOAD, duration_s=4)
    portal.wait_second(first, 1)
    assert portal.run(second)["state"] == "queued"
    _whole(portal, first, 4)
    _whole(portal, second, 4)

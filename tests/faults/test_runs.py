"""Whole runs on the virtual lab: a scenario in full, and two load generators against one."""

from __future__ import annotations

from typing import Any

from tests.faults.site import GENERATORS, Site, assert_counted
from wsnode.core.histogram import SUB_BUCKETS
from wsnode.core.result import Latency, read_result

NOISE_S = 0.02
"""What two runs of one load differ by on a machine whose cores server, generators and control host share."""


def test_basic_runs_in_full_with_evidence_from_the_control_hosts_prometheus(site: Site) -> None:
    run_id = site.api.queue("basic", {}, None, accept_partial=False)["run_id"]
    run = site.over(run_id, 180)
    assert run["state"] == "finished", run["state_reason"]
    result = site.result(run_id)
    scenario = result.scenario
    assert (scenario.name, scenario.clients, scenario.duration_s) == ("basic", 1000, 80)
    assert_counted(result, scenario)
    assert result.counters.connections_opened == result.counters.connections_peak == 1000
    assert result.window is not None
    assert (result.window.from_s, result.window.to_s) == (20, 80)
    assert [row.name for row in result.evidence if row.value is None] == []
    rate = next(row for row in result.evidence if row.name == "Server messages received")
    assert rate.value is not None
    assert abs(rate.value - 1000) < 20
    generators = [host for host in result.hosts if host.role == "load_generator"]
    assert [host.name for host in generators] == list(GENERATORS)
    for host in generators:
        assert host.start_skew_s is not None
        assert host.clock_bound_s is not None
        assert abs(host.start_skew_s) < 0.05 + host.clock_bound_s


def test_two_load_generators_count_and_measure_what_one_does(site: Site) -> None:
    """The main job's `smoke` was on two; here it is on one."""

    def one(lab: dict[str, Any]) -> None:
        lab["hosts"] = [host for host in lab["hosts"] if host["name"] != "load-2"]

    with site.lab_json(one):
        run_id = site.api.queue("smoke", {}, None, accept_partial=False)["run_id"]
        assert site.over(run_id)["state"] == "finished"
    alone, together = site.result(run_id), read_result(site.smoke)
    assert [[host.name for host in result.hosts] for result in (alone, together)] == [
        ["server", "load-1"],
        ["server", *GENERATORS],
    ]
    for count in ("messages_due", "connections_attempted", "connections_opened", "connections_closed"):
        assert getattr(alone.counters, count) == getattr(together.counters, count), count
    for result in (alone, together):
        counters = result.counters
        assert counters.messages_received == counters.messages_sent == counters.messages_due - counters.messages_unsent
        # Due while its client still connects: the first one, and a few more on a busy machine.
        assert set(counters.unsent) <= {"not_open", "generator_late"}
    assert alone.latency_s.response_time.due == together.latency_s.response_time.due == 5000
    for statistic in ("p50", "p90"):
        one_s, two_s = (_of(result.latency_s.response_time, statistic) for result in (alone, together))
        assert abs(one_s - two_s) < NOISE_S + max(one_s, two_s) / SUB_BUCKETS, (statistic, one_s, two_s)


def _of(latency: Latency, statistic: str) -> float:
    value: float | None = getattr(latency, statistic)
    assert value is not None
    return value

"""Agents and hosts give way in the middle of a run: its end is true, the others stop, the host is named."""

from __future__ import annotations

import os
import signal
import time

from tests.faults.site import GENERATORS, Site

ROOM = "/var/lib/wsnode/runs"


def test_a_killed_agent_ends_the_run_with_its_last_second_and_the_other_stops(site: Site) -> None:
    run_id = site.queue(duration_s=60)
    site.second(run_id, 3)
    site.on("load-2", "systemctl", "kill", "--kill-whom=main", "--signal=KILL", "wsnode-agent")
    run = site.over(run_id)
    assert run["state"] == "failed"
    assert "the load on load-2 was interrupted after" in run["state_reason"]
    assert "the agent restarted; the last whole second is" in run["state_reason"]
    result = site.result(run_id)
    assert result.validity == "invalid"
    assert any(reason.startswith("invalid: load generator load-2 was lost after") for reason in result.reasons)
    site.assert_stopped(run_id, ("load-1",), "the load on load-2 was interrupted")
    assert site.quiet("load-2", "server")


def test_an_agent_that_is_restarted_ends_its_load_in_order_and_the_run_with_it(site: Site) -> None:
    run_id = site.queue(duration_s=60)
    site.second(run_id, 3)
    site.on("load-1", "systemctl", "restart", "wsnode-agent")
    run = site.over(run_id)
    assert run["state"] == "failed"
    assert "the load on load-1 was stopped after" in run["state_reason"]
    assert run["state_reason"].endswith("the agent was stopped")
    site.assert_stopped(run_id, ("load-2",), "the load on load-1 was stopped")
    assert site.quiet("load-1", "server")


def test_a_host_that_reboots_ends_the_run_with_its_last_second_and_the_other_stops(site: Site) -> None:
    run_id = site.queue(duration_s=60)
    site.second(run_id, 3)
    site.reset("load-2")
    run = site.over(run_id)
    assert run["state"] == "failed"
    assert "the load on load-2 was interrupted after" in run["state_reason"]
    assert "restarted; the last whole second is" in run["state_reason"]
    site.assert_stopped(run_id, ("load-1",), "the load on load-2 was interrupted")
    assert site.quiet("load-2", "server")


def test_a_host_that_is_powered_off_is_lost_and_the_other_stops(site: Site) -> None:
    run_id = site.queue(duration_s=60)
    site.second(run_id, 3)
    site.power_off("load-1")
    try:
        run = site.over(run_id)
        assert run["state"] == "lost"
        assert run["state_reason"].startswith("nobody can say what the load did on load-1 (")
        assert "invalid: load generator load-1 was lost" in site.result(run_id).reasons
        site.assert_stopped(run_id, ("load-2",), "load-1 was lost after second ")
        # Without it there is no next run, and no host is even prepared for one.
        refused = site.over(site.queue(duration_s=4))
        assert refused["state"] == "failed"
        assert refused["state_reason"].startswith("load-1 cannot be reached: ")
        assert site.quiet("load-2")
    finally:
        site.power_on("load-1")


def test_a_server_that_is_restarted_makes_a_finished_run_invalid(site: Site) -> None:
    fields = {"duration_s": 8}
    run_id = site.queue(**fields)
    site.second(run_id, 3)
    site.on("server", "systemctl", "restart", "wsnode-server")
    result = site.assert_whole(run_id, **fields)
    assert result.validity == "invalid"
    assert any(reason.startswith("invalid: the server changed during the run: ") for reason in result.reasons)
    # What its clients saw of it is a result.
    assert result.counters.errors["closed_by_server"] == 40
    assert result.counters.unsent["connection_down"] > 0
    assert result.counters.reconnects >= 40


def test_a_full_disk_ends_the_run_naming_the_host_and_a_small_one_is_refused_before(site: Site) -> None:
    site.on("load-1", "mount", "-t", "tmpfs", "-o", "size=80m,mode=700,uid=wsnode,gid=wsnode", "small", ROOM)
    try:
        run_id = site.queue(duration_s=60)
        site.second(run_id, 3)
        site.on("load-1", "sh", "-c", f"head -c 100M /dev/zero > {ROOM}/filler; true")
        run = site.over(run_id)
        assert run["state"] == "failed"
        assert "the load on load-1 was stopped after" in run["state_reason"]
        assert "No space left on device" in run["state_reason"]
        site.assert_stopped(run_id, ("load-2",), "the load on load-1 was stopped")
        assert site.quiet("load-1", "server")
        begin = time.time()
        refused = site.over(site.queue(duration_s=4))
        assert refused["state"] == "failed"
        assert refused["state_reason"].startswith("load-1: unfit: disk: 0 MiB free at ")
        for host in GENERATORS:
            said = site.on(host, "journalctl", "-q", "-u", "wsnode-agent", f"--since=@{begin}")
            assert refused["run_id"] not in said
    finally:
        site.on("load-1", "umount", ROOM)


def test_a_generator_that_stands_still_for_a_while_makes_the_run_invalid(site: Site) -> None:
    fields = {"duration_s": 8}
    run_id = site.queue(**fields)
    site.second(run_id, 3)
    workers = site.workers("load-2")
    assert workers != []
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(1.5)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    result = site.assert_whole(run_id, **fields)
    assert result.validity == "invalid"
    [lag] = [reason for reason in result.reasons if "scheduler lag p99" in reason]
    assert lag.startswith("invalid: ")
    # That the other one is not named is shown where no busy machine makes it late as well (test_validity.py).
    assert "load-2" in lag


def test_a_generator_whose_cpu_is_taken_away_by_a_quota_makes_the_run_invalid_and_is_named(site: Site) -> None:
    fields = {"duration_s": 8}
    run_id = site.queue(**fields)
    site.second(run_id, 2)
    assert site.workers("load-1") != []
    with site.quota("load-1", 3):
        time.sleep(3)
    result = site.assert_whole(run_id, **fields)
    assert result.validity == "invalid"
    # It shows in what the load could not do in time; the throttling itself only where the host sees that cgroup.
    assert any(
        reason.startswith("invalid: ")
        and "load-1" in reason
        and ("scheduler lag p99" in reason or "throttled" in reason)
        for reason in result.reasons
    ), result.reasons

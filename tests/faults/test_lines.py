"""A line is cut in the middle of a run, for a while and for good: a load generator's, the server's, the control host's
(DESIGN.md: The channel, A run)."""

from __future__ import annotations

import contextlib
import time

import pytest

from stack.client import PortalError
from tests.faults.site import GENERATORS, Site

CUT_S = 3.0


def test_lines_cut_for_three_seconds_are_gone_on_with_and_every_second_is_there_once(site: Site) -> None:
    """One in silence, as behind a dead switch, and one whose host sees its link down."""
    fields = {"duration_s": 12, "reply_timeout_s": 5, "drain_s": 5}
    run_id = site.queue(**fields)
    site.second(run_id, 2)
    with site.cut_off("load-1"):
        site.on("load-2", "ip", "link", "set", "host0", "down")
        time.sleep(CUT_S)
        site.on("load-2", "ip", "link", "set", "host0", "up")
    result = site.assert_whole(run_id, **fields)
    kept = site.kept(run_id)
    assert kept.seconds == list(range(1, 13))
    assert kept.epoch == 1
    # Nothing was answered twice: what matches nothing had been given up, at most. And meanwhile nothing came through.
    assert result.counters.messages_unexpected <= result.counters.messages_lost
    assert result.latency_s.response_time.max is not None
    assert result.latency_s.response_time.max > CUT_S - 0.5
    # Prometheus, on the control host, did not see them either.
    for host in ("load-1", "load-2"):
        assert any(f"{host} (" in reason and "scrapes" in reason for reason in result.reasons), result.reasons


def test_the_control_hosts_own_line_cut_for_three_seconds_and_while_it_collects_costs_no_second(site: Site) -> None:
    """The second cut comes when a load has just ended, and has not been fetched, let alone acknowledged."""
    fields = {"duration_s": 10}
    run_id = site.queue(**fields)
    site.second(run_id, 2)
    with site.cut_off("control"):
        time.sleep(CUT_S)
    site.second(run_id, 8)
    assert site.workers("load-1") != []
    site.until_so(lambda: not site.workers("load-1"), 30)
    with site.cut_off("control"):
        time.sleep(CUT_S)
    result = site.assert_whole(run_id, **fields)
    kept = site.kept(run_id)
    assert kept.seconds == list(range(1, 11))
    assert kept.epoch == 1
    # Clients and server were not cut off from each other.
    assert result.counters.messages_received == result.counters.messages_sent
    assert result.counters.reconnects == 0
    # Stored, so told: no host keeps a result that nobody is going to fetch.
    for host in GENERATORS:
        site.until_so(lambda host=host: run_id not in site.on(host, "ls", "/var/lib/wsnode/runs"), 15)
    assert site.quiet(*GENERATORS, "server")


def test_a_server_cut_off_for_good_is_what_clients_saw_and_the_run_says_so(site: Site) -> None:
    fields = {"duration_s": 8}
    run_id = site.queue(**fields)
    site.second(run_id, 3)
    with site.cut_off("server"):
        result = site.assert_whole(run_id, **fields)
        for host in GENERATORS:
            assert site.workers(host) == []
    counters = result.counters
    # From the cut on nothing is answered: the messages are lost, not left out.
    assert counters.messages_lost > 0
    assert counters.messages_received < counters.messages_due / 2
    assert result.latency_s.response_time.p99 is None
    assert result.validity != "valid"
    assert any("server (" in reason and "scrapes" in reason for reason in result.reasons), result.reasons
    assert any(note.startswith("server: it could not be looked at: ") for note in result.notes), result.notes
    # A cut link carries no goodbye: the server's end of the connections goes with its keepalive, or with its restart.
    assert site.quiet(*GENERATORS)
    site.on("server", "systemctl", "restart", "wsnode-server")
    site.until_so(lambda: site.quiet("server"), 10)


def test_a_control_host_cut_off_for_good_loses_the_run_and_the_loads_end_by_themselves(site: Site) -> None:
    deadman_s = 25
    with contextlib.ExitStack() as stack:
        for host in GENERATORS:
            stack.enter_context(site.agent_with(host, "--deadman", str(deadman_s)))
        run_id = site.queue(duration_s=120)
        site.second(run_id, 3)
        with site.cut_off("control"):
            site.until_so(lambda: site.quiet(*GENERATORS, "server"), deadman_s + 10)
            # It hears nobody, and says so by itself, of all of them.
            site.until_so(lambda: site.state(run_id) == "lost", 60)
        reason = site.api.run(run_id)["state_reason"]
        assert reason.startswith("nobody can say what the load did on load-1 (")
        assert ", on load-2 (" in reason
        with pytest.raises(PortalError, match="has no result: it is lost: nobody can say what the load did on load-1"):
            site.api.result(run_id)
        for host in GENERATORS:
            said = site.on(host, "journalctl", "-q", "-u", "wsnode-agent", "-n", "20")
            assert f"deadman: nobody has followed the load for {deadman_s} s" in said


def test_a_host_cut_off_for_good_is_lost_the_other_stops_and_the_next_run_waits_for_its_load(site: Site) -> None:
    deadman_s = 45
    with site.agent_with("load-2", "--deadman", str(deadman_s)):
        run_id = site.queue(duration_s=120)
        site.second(run_id, 3)
        with site.cut_off("load-2"):
            begin = time.monotonic()
            run = site.over(run_id)
            assert run["state"] == "lost"
            assert run["state_reason"].startswith("nobody can say what the load did on load-2 (")
            assert "load-2 was lost after second " in run["state_reason"]
            result = site.result(run_id)
            assert result.validity == "invalid"
            assert "invalid: load generator load-2 was lost" in result.reasons
            known = site.assert_stopped(run_id, ("load-1",), "load-2 was lost after second ").first("load-2 was lost")
        # The host is back, and its load still goes on: a run that cannot wait is refused, another one waits.
        assert site.workers("load-2") != []
        refused = site.over(site.queue(duration_s=4, settle_s=0))
        busy = f"load-2 is busy with run {run_id}, running there, "
        assert refused["state"] == "failed"
        assert refused["state_reason"].startswith(f"not settled within 0 s (settle_s), {busy}")
        fields = {"duration_s": 4, "settle_s": 90}
        next_id = site.queue(**fields)
        told = site.until(next_id, lambda run: "waits for the hosts to settle" in (run["state_reason"] or ""), 10)
        assert busy in told["state_reason"]
        site.until_so(lambda: not site.workers("load-2"), deadman_s + 10 - (time.monotonic() - begin))
        site.assert_whole(next_id, **fields)
        assert site.kept(next_id).first("settled after ")
        # It was as the run says: when it did, the load there still went on with nobody to ask.
        assert site.journal("load-2", "wsnode-agent", f"run {run_id} stopped", known.at - 60) > known.at
        said = site.on("load-2", "journalctl", "-q", "-u", "wsnode-agent", "-n", "50")
        assert f"deadman: nobody has followed the load for {deadman_s} s" in said

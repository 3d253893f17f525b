"""A load generator's line is cut in the middle of a run, for a while and for good (DESIGN.md: The channel, A run)."""

from __future__ import annotations

import time

from tests.faults.site import Site

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


def test_a_host_cut_off_for_good_is_lost_the_other_stops_and_its_own_load_ends_by_itself(site: Site) -> None:
    deadman_s = 25
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
            while site.workers("load-2"):
                assert time.monotonic() - begin < deadman_s + 10
                time.sleep(0.2)
        # It was as the run says: when it did, the load there still went on with nobody to ask.
        assert site.journal("load-2", "wsnode-agent", f"run {run_id} stopped", known.at - 60) > known.at
        said = site.on("load-2", "journalctl", "-q", "-u", "wsnode-agent", "-n", "20")
        assert f"run {run_id} stopped after" in said
        assert f"deadman: nobody has followed the load for {deadman_s} s" in said

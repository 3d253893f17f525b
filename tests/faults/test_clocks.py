"""Hosts of the virtual lab with wrong wall clocks, by libfaketime in the agent's unit: all share one kernel."""

from __future__ import annotations

import contextlib
import shutil

import pytest

from tests.faults.site import GENERATORS, HOSTS, Site
from tests.portal.test_conduct_clocks import FAKETIME, PAST_FAKETIME, SKEW_S

FOLDER = "/usr/local/lib/wrong-clock"
SHIFTS_S = {"load-1": 0.4, "load-2": 86_400.0}


@pytest.mark.skipif(FAKETIME is None, reason="no libfaketime: apt install libfaketime")
def test_wrong_clocks_start_together_after_the_server_was_restarted_for_the_run(site: Site) -> None:
    assert FAKETIME is not None
    with contextlib.ExitStack() as stack:
        for host in GENERATORS:
            site.on(host, "mkdir", "-p", FOLDER)
            stack.callback(site.on, host, "rm", "-r", FOLDER)
            shutil.copy(FAKETIME, HOSTS[host].root / FOLDER.lstrip("/"))
            site.on(host, "tee", f"{FOLDER}/sitecustomize.py", stdin=PAST_FAKETIME)
            wrong = {
                "LD_PRELOAD": f"{FOLDER}/{FAKETIME.name}",
                "FAKETIME": f"{SHIFTS_S[host]:+g}",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "PYTHONPATH": FOLDER,
            }
            stack.enter_context(site.agent_with(host, environment=wrong))
        fields = {"duration_s": 4, "before": "restart_server"}
        run_id = site.queue(**fields)
        result = site.assert_whole(run_id, **fields)
    for row in result.hosts:
        assert row.clock_offset_s is not None
        assert row.clock_bound_s is not None
        assert abs(row.clock_offset_s - SHIFTS_S.get(row.name, 0)) < 0.005 + row.clock_bound_s
        if row.name in GENERATORS:
            assert row.start_skew_s is not None
            assert abs(row.start_skew_s) < SKEW_S + row.clock_bound_s
    assert not any("clock" in reason for reason in result.reasons if reason.startswith("invalid")), result.reasons
    done = site.kept(run_id).first("server: restart_server is done")
    assert "another start of the server answers" in done.text

"""Loads whose number of clients changes, against real servers, to the last message and connection."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from tests.wsnode.loads import carry_out
from tests.wsnode.peers import peer
from tests.wsnode.serving import serving
from tests.wsnode.test_load_cli import wsnode
from wsnode.core.merge import broken_identities
from wsnode.core.result import read_result
from wsnode.core.scenario import Plan, Scenario
from wsnode.load.report import render

STAGES = ("up to 20 in 1s", "hold 1s", "step to 40", "hold 1s", "down to 10 in 1s", "hold 1s", "step to 30", "hold 1s")
FIELDS = {"stages": STAGES, "interval_ms": 50}


def test_clients_come_leave_and_come_back_as_planned_and_every_message_is_accounted_for() -> None:
    scenario = Scenario(**FIELDS)
    pacing = scenario.pacing()
    share = Plan.whole(scenario, "ws://x").share
    with serving("--workers", "1") as server:
        done = carry_out(server.url(), workers=2, **FIELDS)
        server.value_becomes("websocket_connections_opened_total", 60)
    counters = done.result.counters
    assert broken_identities(done.summary.total.counters) == []
    assert counters.connections_attempted == counters.connections_opened == counters.connections_closed == 60
    assert counters.reconnects == counters.connections_failed == 0
    assert counters.errors == {}
    # To the second, over two processes, what the timetable says.
    due = [0, *(line.counters.messages_due for line in done.series)]
    assert due == [pacing.offered(share, second * 10**9) for second in range(9)]
    assert counters.messages_received == counters.messages_sent
    assert set(counters.unsent) <= {"not_open"}
    assert counters.connections_peak == 40
    held = done.result.stages
    assert [(h.from_s, h.to_s, h.clients, h.messages_due) for h in held] == [
        (1, 2, 20, 400),
        (3, 4, 40, 800),
        (5, 6, 10, 200),
        (7, 8, 30, 600),
    ]
    # In a hold everybody is there: nothing may be missing.
    assert [h.rates.received_per_s for h in held] == [400, 800, 200, 600]
    assert all(h.latency_s.response_time.p90 is not None for h in held)
    opened_now = [line.counters.connections_open for line in done.series]
    assert opened_now[1::2] == [20, 40, 10, 30]
    assert sum(n for line in done.series[-1:] for n in line.errors.values()) == 0
    assert [later - earlier for earlier, later in pairwise(due)][1::2] == [400, 800, 200, 600]


def test_who_is_to_leave_awaits_its_replies_first() -> None:
    # The server takes 300 ms for each reply: the last ones come after the planned leave, and none is lost.
    with peer("delay", 0.3) as server:
        done = carry_out(server.url, stages=("up to 10 in 1s", "hold 1s", "step to 0", "hold 1s"), interval_ms=100)
    counters = done.result.counters
    assert counters.messages_sent == counters.messages_received > 180
    assert counters.messages_lost == counters.messages_in_flight == 0
    assert counters.connections_closed == 10
    assert done.series[3].counters.connections_open == 0
    assert counters.errors == {}


def test_the_command_takes_stages_and_shows_each_hold(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    words = [word for stage in ("up to 5 in 1s", "hold 1s", "step to 10", "hold 1s") for word in ("--stage", stage)]
    with serving("--workers", "1") as server:
        done = wsnode("load", server.url(), *words, "--interval", "50", "--json", str(path), "--quiet")
    assert done.returncode in (0, 3), done.stderr
    result = read_result(json.loads(path.read_text()))
    assert [(held.clients, held.messages_due) for held in result.stages] == [(5, 100), (10, 200)]
    assert (result.scenario.clients, result.scenario.duration_s, result.scenario.rate_per_s) == (10, 4, 5)
    assert result.window is not None
    assert (result.window.from_s, result.window.to_s) == (1, 4)
    assert "custom: up to 10 clients, every 50 ms, 64 bytes, up to 5 in 1s; hold 1s; step to 10; hold 1s" in done.stdout
    rows = [line.split() for line in render(result).splitlines() if line[:6] in ("1 s to", "3 s to")]
    assert [(row[5], row[6]) for row in rows] == [("5", "100.0/s"), ("10", "200.0/s")]


def test_the_command_names_the_line_that_it_does_not_take() -> None:
    done = wsnode("load", "ws://127.0.0.1:9/echo", "--stage", "up to 5 in 1s", "--stage", "stay")
    assert done.returncode == 2
    assert "stage 2, 'stay': expected 'up to N in Ds', 'hold Ds', 'step to N' or 'down to N in Ds'" in done.stderr
    done = wsnode("load", "ws://127.0.0.1:9/echo", "--stage", "up to 5 in 1s", "--clients", "7")
    assert done.returncode == 2
    assert "clients is 7 but by stages it is 5: leave clients empty, or let it say the same" in done.stderr

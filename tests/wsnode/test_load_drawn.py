"""Loads with drawn think times and sizes against a real server, to the last message and byte."""

from __future__ import annotations

import pytest

from tests.wsnode.loads import carry_out
from tests.wsnode.serving import serving
from tests.wsnode.test_load_cli import wsnode
from wsnode.core.merge import broken_identities
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.sizes import TABLE, Sizes, place_of

SMALL = {"clients": 20, "ramp_up_s": 0.5, "duration_s": 3, "rate_per_s": 100}


@pytest.mark.parametrize("think", ["exp 50ms", "uniform 10ms..90ms"])
def test_messages_are_due_when_they_were_drawn_to_be(think: str) -> None:
    fields = {**SMALL, "think": think, "seed": 7}
    scenario = Scenario(**fields)
    share = Plan.whole(scenario, "ws://x").share
    with serving("--workers", "1") as server:
        done = carry_out(server.url(), workers=2, **fields)
    due = [line.counters.messages_due for line in done.series]
    assert due == [scenario.pacing().offered(share, second * 10**9) for second in (1, 2, 3)]
    counters = done.result.counters
    assert counters.messages_received == counters.messages_sent > 900
    assert broken_identities(done.summary.total.counters) == []
    assert done.result.latency_s.scheduler_lag.count == counters.messages_due - due[0]


@pytest.mark.parametrize(
    ("sizes", "fields"),
    [
        ("choice 64:90% 1024:9% 65536:1%", {}),
        ("uniform 24..300", {"message_type": "binary"}),
        ("uniform 16..300", {}),
        ("exp mean 200 max 4096", {"match": "none"}),
    ],
)
def test_every_byte_of_drawn_sizes_is_counted(sizes: str, fields: dict[str, str]) -> None:
    with serving("--workers", "1") as server:
        done = carry_out(server.url(), **SMALL, interval_ms=50, sizes=sizes, seed=3, **fields)
    counters = done.result.counters
    table = Sizes.parse(sizes).table(3)
    # Everybody sends each message but the first ones, due before its connection stood: by number of those sent.
    sent = counters.messages_sent
    assert counters.messages_lost == counters.messages_unexpected == 0
    awaited = fields.get("match") != "none"
    assert counters.messages_received == (sent if awaited else 0)
    assert counters.bytes_received == counters.bytes_sent
    if not counters.unsent:
        scenario = Scenario(**SMALL, interval_ms=50)
        expected = sum(
            table[(place_of(3, client) + n) % TABLE]
            for client in range(20)
            for n in range(1, scenario.pacing().messages_due(client, 3 * 10**9) + 1)
        )
        assert counters.bytes_sent == expected
    else:
        assert set(counters.unsent) == {"not_open"}
        assert counters.bytes_sent == pytest.approx(sent * sum(table) / TABLE, rel=0.5)
    assert broken_identities(done.summary.total.counters) == []


def test_the_command_refuses_what_it_cannot_draw() -> None:
    done = wsnode("load", "ws://127.0.0.1:9/echo", "--set", "think=exp 5", "--set", "sizes=zipf 3", "--duration", "60")
    assert done.returncode == 2
    assert "wsnode load: think: think 'exp 5': expected 'fixed', 'exp T' or 'uniform T..T'" in done.stderr
    assert "wsnode load: sizes: sizes 'zipf 3': expected 'uniform A..B'" in done.stderr

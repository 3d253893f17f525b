"""What hosts do second by second, asked of a real Prometheus with a hand-made history."""

from __future__ import annotations

import pytest

from portal.monitoring.evidence import Target
from portal.monitoring.now import watched
from portal.monitoring.prometheus import Prometheus, PrometheusError
from tests.monitoring.conftest import T0, Server

TARGETS = [
    Target("wsnode-server", "server", "server"),
    Target("wsnode-agent", "server", "server"),
    Target("node", "server", "server"),
    Target("wsnode-agent", "load-1", "load_generator"),
    Target("node", "load-1", "load_generator"),
]


def test_lines_come_for_each_whole_second_after_the_start(prometheus: Server) -> None:
    with Prometheus(prometheus.url) as asked:
        found = watched(asked, TARGETS, T0 + 5, T0 + 9.7)
        again = watched(asked, TARGETS, T0 + 7, T0 + 9.7)
    assert {tuple(values) for values in found.values()} == {(T0 + 6, T0 + 7, T0 + 8, T0 + 9)}
    assert {name: {at: v for at, v in values.items() if at > T0 + 7} for name, values in found.items()} == again
    assert {name: list(values.values()) for name, values in found.items()} == {
        "cpu:server": [pytest.approx(0.7)] * 4,
        "cpu:load-1": [pytest.approx(1.4)] * 4,
        "worker:server": [pytest.approx(0.5)] * 4,
        "worker:load-1": [pytest.approx(0.3)] * 4,
        "loop_lag:server": [0.002, 0.002, 0.08, 0.08],
    }


def test_hosts_that_nobody_scrapes_have_no_lines(prometheus: Server) -> None:
    with Prometheus(prometheus.url) as asked:
        assert watched(asked, [Target("node", "elsewhere", "server")], T0 + 5, T0 + 9) == {}
        assert watched(asked, [], T0 + 5, T0 + 9) == {}


def test_a_prometheus_that_is_away_is_named() -> None:
    with Prometheus("http://127.0.0.1:1") as asked, pytest.raises(PrometheusError, match="does not answer"):
        watched(asked, TARGETS, T0, T0 + 1)

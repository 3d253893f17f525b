"""What Prometheus says of the lab's hosts at a moment of a hand-made history."""

from __future__ import annotations

import pytest

from portal.monitoring.hosts import Machine, Scrape, look
from tests.monitoring.conftest import T0, Server


def test_each_target_has_its_last_scrape_and_each_host_its_kernel_cores_and_memory(prometheus: Server) -> None:
    sight = look(prometheus.url, clock=lambda: T0 + 3.9)
    assert sight.fault is None
    assert sight.scrapes == {
        ("server", "wsnode-server"): Scrape(True, pytest.approx(0.5)),
        ("load-1", "wsnode-agent"): Scrape(False, pytest.approx(0.5)),
        ("load-2", "wsnode-agent"): Scrape(True, pytest.approx(0.5)),
    }
    assert sight.machines == {
        "server": Machine("6.1.9-amd64", "x86_64", 2, 16 << 30),
        "load-1": Machine("6.2.9-amd64", "x86_64", 2, 32 << 30),
    }


def test_a_target_that_is_not_scraped_for_a_while_gets_older(prometheus: Server) -> None:
    sight = look(prometheus.url, clock=lambda: T0 + 6.5)
    assert sight.scrapes["load-2", "wsnode-agent"] == Scrape(True, pytest.approx(3.1))
    assert sight.scrapes["load-1", "wsnode-agent"] == Scrape(True, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("url", "fault"),
    [(None, "the lab has no Prometheus"), ("http://127.0.0.1:1", "http://127.0.0.1:1 does not answer")],
)
def test_without_an_answer_there_is_a_reason_and_nothing_else(url: str | None, fault: str) -> None:
    sight = look(url)
    assert fault in (sight.fault or "")
    assert (sight.scrapes, sight.machines) == ({}, {})

"""After a real run every query of every panel has data over the run, or the kernel here says why not."""

from __future__ import annotations

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from portal.monitoring.dashboards import FOLDER
from portal.monitoring.queries import QUERIES, RUNS_DRAWN
from tests.e2e.conftest import Portal

VARIABLES = {"$__rate_interval": "5s", "$host": ".+", "$worker": ".+"}
ABSENT_WITHOUT = {
    "node_nf_conntrack_": "/proc/sys/net/netfilter/nf_conntrack_count",
    "node_pressure_": "/proc/pressure/cpu",
}
"""What is drawn only where the kernel has it: conntrack's module, and pressure stall information."""


def absent_here(text: str) -> bool:
    return any(name in text and not Path(file).exists() for name, file in ABSENT_WITHOUT.items())


class Ran(NamedTuple):
    """A finished run, and where to ask about it."""

    run: dict[str, Any]
    prometheus: str
    begin: float
    end: float

    def drawn(self, expression: str) -> list[float]:
        """The numbers that a panel draws of it."""
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        asked = {"query": expression, "start": self.begin, "end": self.end, "step": 1}
        url = f"{self.prometheus}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            body = json.load(answer)
        points = [float(value) for one in body["data"]["result"] for _, value in one["values"]]
        return [point for point in points if math.isfinite(point)]


@pytest.fixture(scope="module")
def ran(portal: Portal) -> Iterator[Ran]:
    url = portal.record().urls["prometheus"]
    if url is None:
        pytest.skip("this lab has no Prometheus")
    run = portal.wait_over(portal.queue("smoke", clients=20, ramp_up_s=2, duration_s=10))
    assert run["state"] == "finished", run
    window = run["result"]["window"]
    begin = datetime.fromisoformat(window["start"]).timestamp() - window["from_s"]
    return Ran(run, str(url), begin, datetime.fromisoformat(window["end"]).timestamp() + 3)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_query_of_every_panel_has_data_after_a_run(ran: Ran, file: Path) -> None:
    empty = [
        f"{panel['title']} {target['refId']}: {target['expr']}"
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", [])
        if not absent_here(target["expr"]) and not ran.drawn(target["expr"])
    ]
    assert not empty, "\n".join(empty)


def test_the_run_itself_is_drawn_from_its_preparation_on(ran: Ran) -> None:
    assert set(ran.drawn(RUNS_DRAWN)) == {1.0}
    runs = RUNS_DRAWN.replace("{", f'{{run_id="{ran.run["run_id"]}",', 1)
    assert len(ran.drawn(runs)) >= 10


def test_every_row_of_the_evidence_has_a_value_after_a_run(ran: Ran) -> None:
    rows = ran.run["result"]["evidence"]
    # All hosts of this lab share a kernel: what is the machine's is there once, and named so.
    assert [row["name"].removesuffix(" (machine)") for row in rows] == [query.name for query in QUERIES]
    empty = [row for row in rows if row["value"] is None and not absent_here(row["promql"])]
    assert not empty


def test_both_sources_tell_of_the_same_load(ran: Ran) -> None:
    values = {row["name"]: row["value"] for row in ran.run["result"]["evidence"]}
    rates = ran.run["result"]["rates"]
    assert values["Server messages received"] == pytest.approx(rates["sent_per_s"], rel=0.3)
    assert values["Generator messages sent"] == pytest.approx(rates["sent_per_s"], rel=0.3)
    assert values["Server connections, most"] == ran.run["result"]["counters"]["connections_peak"] == 20

"""Every query names metrics that exist, and selects job and hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from portal.monitoring import queries
from portal.monitoring.queries import QUERIES, STEP_S, Query, selector
from wsnode.core.metrics import CATALOGUE

NODE_EXPORTER = {
    "node_cpu_seconds_total": "counter",
    "node_memory_MemAvailable_bytes": "gauge",
    "node_sockstat_sockets_used": "gauge",
}
COUNTERS = {"sum of rates", "largest rate"}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_query_names_a_metric_of_its_job_and_treats_it_as_its_kind(query: Query) -> None:
    if query.job == "node":
        kind = NODE_EXPORTER[query.metric]
    else:
        (metric,) = [metric for metric in CATALOGUE if metric.name == query.metric]
        assert query.job in metric.jobs
        kind = metric.kind
    assert (kind == "counter") == (query.aggregation in COUNTERS)


def test_what_is_read_beside_the_rows_exists_too() -> None:
    names = {metric.name: metric for metric in CATALOGUE}
    assert names[queries.RECEIVED].kind == names[queries.OPENED].kind == "counter"
    assert "wsnode-server" in names[queries.STARTED.removesuffix("_count")].jobs
    assert names[queries.STARTED.removesuffix("_count")].kind == "histogram"


def test_there_are_the_eight_rows_of_the_foundation() -> None:
    assert [(query.name, query.unit, query.better) for query in QUERIES] == [
        ("Server CPU", "cores", "lower"),
        ("Server memory, most", "bytes", "lower"),
        ("Server event-loop lag, largest", "s", "lower"),
        ("Server connections, most", "connections", "higher"),
        ("Generator CPU, busiest worker", "cores", "lower"),
        ("Host CPU", "cores", "lower"),
        ("Host memory available, least", "bytes", "higher"),
        ("Host sockets, most", "sockets", None),
    ]


def test_the_step_is_the_scrape_interval_of_the_labs_prometheus() -> None:
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    assert config["global"]["scrape_interval"] == f"{STEP_S:g}s"


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_every_expression_selects_job_and_hosts(query: Query) -> None:
    for hosts, matcher in ((["a"], 'host="a"'), (["a", "b.c"], 'host=~"a|b[.]c"')):
        expression = query.expression(hosts, 10, 1_764_000_000.25)
        (labels,) = re.findall(r"\{(.*?)\}", expression)
        assert labels.startswith(f'job="{query.job}",{matcher}')
        assert "10s" in expression
        assert expression.count("@ 1764000000.250") == 1
    assert "@" not in query.expression(["a"], 5)


def test_without_hosts_the_job_alone_is_selected() -> None:
    assert selector("up", "node", []) == 'up{job="node"}'


def test_no_other_module_of_the_portal_writes_promql() -> None:
    promql = re.compile(r"\b(rate|increase|sum|max_over_time|histogram_quantile) ?\(\s*[a-z_]+\{")
    for file in (ROOT / "portal").rglob("*.py"):
        if file.name != "queries.py":
            assert not promql.search(file.read_text()), file

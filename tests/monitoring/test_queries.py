"""Every row of the evidence names metrics that exist, selects job and hosts, and is the expression of its panel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from portal.monitoring import queries
from portal.monitoring.boards import BOARDS
from portal.monitoring.evidence import MIN_SAMPLES
from portal.monitoring.node_exporter import NODE_EXPORTER
from portal.monitoring.queries import DRAWN_RANGE, QUERIES, STEP_S, Expression, Query, selector
from wsnode.core.metrics import CATALOGUE

COUNTERS = {"sum of rates", "largest rate"}
ROOT = Path(__file__).parents[2]
EXPRESSIONS = list(
    dict.fromkeys(
        [query.what for query in QUERIES]
        + [line.what for board in BOARDS for panel in board.panels for line in panel.lines]
    )
)


def kind_of(metric: str, job: str) -> str:
    if job == "node":
        return NODE_EXPORTER[metric].kind
    (found,) = [one for one in CATALOGUE if one.name == metric]
    assert job in found.jobs
    return found.kind


@pytest.mark.parametrize("what", EXPRESSIONS, ids=str)
def test_an_expression_names_a_metric_of_its_job_and_treats_it_as_its_kind(what: Expression) -> None:
    kind = kind_of(what.metric, what.job)
    assert (kind == "counter") == (what.aggregation in COUNTERS)
    assert (kind == "histogram") == (what.aggregation == "quantile")
    if what.over:
        assert kind_of(what.over, what.job) == "gauge"


@pytest.mark.parametrize("what", [what for what in EXPRESSIONS if what.job != "node"], ids=str)
def test_labels_of_our_metrics_are_those_that_they_have(what: Expression) -> None:
    (metric,) = [one for one in CATALOGUE if one.name == what.metric]
    known = {
        "host",
        *metric.info,
        *([metric.label] if metric.label else []),
        *(["worker"] if metric.per_worker else []),
    }
    assert set(what.by) <= known
    assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", what.matchers)) <= known


def test_what_is_read_beside_the_rows_exists_too() -> None:
    names = {metric.name: metric for metric in CATALOGUE}
    assert names[queries.RECEIVED].kind == names[queries.OPENED].kind == "counter"
    assert "wsnode-server" in names[queries.STARTED.removesuffix("_count")].jobs
    assert names[queries.STARTED.removesuffix("_count")].kind == "histogram"


def test_names_are_unique_and_a_quantile_says_that_it_is_approximate() -> None:
    assert len({query.name for query in QUERIES}) == len(QUERIES)
    for query in QUERIES:
        assert query.name.endswith(", approximate") == (query.what.aggregation == "quantile")
        # The column holds 100 characters, a host's name has up to 64.
        assert len(query.name) + (len(" ()") + 64 if query.per_host else 0) <= 100


def test_units_follow_from_the_metrics() -> None:
    units = {"seconds": "s"}
    for query in QUERIES:
        if query.what.job == "node":
            continue
        (metric,) = [one for one in CATALOGUE if one.name == query.what.metric]
        unit = units.get(metric.unit, metric.unit)
        per_second = {"s": "cores", "bytes": "bytes/s"}.get(unit, "1/s")
        assert query.unit == (per_second if query.what.aggregation in COUNTERS else unit)


def test_the_step_is_the_scrape_interval_of_the_labs_prometheus() -> None:
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    assert config["global"]["scrape_interval"] == f"{STEP_S:g}s"
    assert MIN_SAMPLES == 4


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_every_expression_selects_job_and_hosts_and_one_window(query: Query) -> None:
    for hosts, matcher in ((["a"], 'host="a"'), (["a", "b.c"], 'host=~"a|b[.]c"')):
        expression = query.what.over_window(hosts, 10, 1_764_000_000.25)
        selected = re.findall(r"\{(.*?)\}", expression)
        assert len(selected) == (2 if query.what.over else 1)
        assert all(labels.startswith(f'job="{query.what.job}",{matcher}') for labels in selected)
        assert "10s" in expression
        assert expression.count("@ 1764000000.250") == 1
    assert "9750ms" in query.what.over_window(["a"], 9.75, 1_764_000_000.25)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_row_of_the_evidence_is_its_panels_expression_over_the_window(query: Query) -> None:
    (panel,) = [
        panel for board in BOARDS if board.uid == query.dashboard for panel in board.panels if panel.id == query.panel
    ]
    assert panel.unit == query.unit
    window = query.what.over_window(["load-1", "load-2"], 10, 1_764_000_000.25)
    drawn = [line.what.drawn().replace("$host", "load-1|load-2").replace(DRAWN_RANGE, "10s") for line in panel.lines]
    assert window.replace(" @ 1764000000.250", "") in drawn


def test_without_hosts_the_job_alone_is_selected() -> None:
    assert selector("up", "node", []) == 'up{job="node"}'


def test_rate_comes_before_sum_and_sum_before_quantile() -> None:
    what = Expression("wsnode-agent", "x", "quantile", by=("host",), quantile=0.5)
    assert what.over_window(["a"], 5, 7) == (
        'histogram_quantile(0.5, sum by (le, host) (rate(x_bucket{job="wsnode-agent",host="a"}[5s] @ 7.000)))'
    )

"""One catalogue: whatever rules, dashboards and queries name is declared, and whatever is declared is used."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from portal.monitoring import queries
from portal.monitoring.dashboards import FOLDER, PORTAL
from portal.monitoring.node_exporter import NODE_EXPORTER, OF_PROMETHEUS
from portal.monitoring.queries import QUERIES
from portal.monitoring.reference import PAGE, text
from stack.paths import ROOT
from stack.services import COLLECTORS
from tests.monitoring.conftest import free_port, program
from tests.monitoring.promql import family, metrics
from wsnode.core.metrics import CATALOGUE

RULES = ROOT / "prometheus" / "rules"
OURS = {metric.name: metric for metric in CATALOGUE}
VARIABLES = {
    "$__rate_interval": "5s",
    "$host": "a|b",
    "$worker": ".+",
    "${begin}": "1",
    "${ramp_end}": "2",
    "${end}": "3",
}


class Written(NamedTuple):
    """An expression, and where it stands."""

    where: str
    expression: str


def in_rules() -> Iterator[Written]:
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield Written(f"{path.name}: {rule.get('record') or rule['alert']}", str(rule["expr"]))


def in_dashboards() -> Iterator[Written]:
    for path in sorted(FOLDER.glob("*.json")):
        board: dict[str, Any] = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield Written(f"{path.name}: {panel['title']} {target['refId']}", target["expr"])
        for mark in board["annotations"]["list"]:
            yield Written(f"{path.name}: annotation {mark['name']}", mark["expr"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"])
                assert found is not None, variable
                yield Written(f"{path.name}: variable {variable['name']}", found[1])


def in_queries() -> Iterator[Written]:
    for query in QUERIES:
        yield Written(f"queries.py: {query.name}", query.what.over_window(["a"], 10, 1))
    for name in ("UP", "STARTED", "RECEIVED", "OPENED", "SCRAPED", "KERNEL", "CORES", "MEMORY"):
        yield Written(f"queries.py: {name}", getattr(queries, name))


def recorded() -> set[str]:
    return {
        rule["record"]
        for path in RULES.glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (host, worker) (rate(a_total{job="x",host=~"b{1}"}[5m:1s] @ 7.0))', {"a_total"}),
        ("level:x:rate5s / on (host) group_left (role) y offset 5m > bool 0.5", {"level:x:rate5s", "y"}),
        ("histogram_quantile(0.99, sum by (le) (rate(h_bucket[5s])))", {"h_bucket"}),
        ("a unless on (host) b == 1 # c", {"a", "b"}),
        ("vector(${begin})", set()),
        ('count(up{job="node"} == 0) or vector(0)', {"up"}),
    ],
)
def test_names_are_found_in_promql(expression: str, names: set[str]) -> None:
    assert metrics(expression.replace("${begin}", "1")) == names


def test_every_metric_that_is_named_is_declared() -> None:
    known = OURS.keys() | NODE_EXPORTER.keys() | OF_PROMETHEUS | recorded()
    for where, expression in [*in_rules(), *in_dashboards(), *in_queries()]:
        for name in metrics(substituted(expression)):
            if name in known:
                assert name not in OURS or OURS[name].kind != "histogram", f"{where}: {name} is a histogram"
                continue
            assert family(name) in OURS, f"{where}: nobody declares {name}"
            assert OURS[family(name)].kind == "histogram", f"{where}: {family(name)} is no histogram"


def test_every_metric_of_ours_is_used() -> None:
    used = {
        family(name)
        for _, expression in [*in_rules(), *in_dashboards(), *in_queries()]
        for name in metrics(substituted(expression))
    }
    assert OURS.keys() - used == set()


def test_every_metric_of_node_exporter_that_is_listed_is_used() -> None:
    used = {
        name
        for _, expression in [*in_rules(), *in_dashboards(), *in_queries()]
        for name in metrics(substituted(expression))
    }
    assert NODE_EXPORTER.keys() - used == set()


HOMES = ("portal/monitoring/", "prometheus/", "grafana/dashboards/", "tests/")


def test_no_other_file_makes_rates_or_quantiles_of_our_metrics() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    made = re.compile(r"\b(?:i?rate|increase|histogram_quantile|\w+_over_time)\s*\([^;]{0,80}?\b(\w+)\s*[{\[]")
    looked_at = 0
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not name or name.startswith(HOMES) or not path.is_file():
            continue
        if path.suffix not in {".py", ".yml", ".yaml", ".md", ".html", ".js", ".json", ".j2", ".toml"}:
            continue
        looked_at += 1
        found = [one[1] for one in made.finditer(path.read_text()) if family(one[1]) in OURS]
        assert not found, f"{name} makes PromQL of {found}; its homes are portal/monitoring/ and prometheus/rules/"
    assert looked_at > 100


def test_no_other_module_of_the_portal_writes_promql() -> None:
    promql = re.compile(r"\b(rate|increase|sum|max_over_time|histogram_quantile) ?\(\s*[a-z_]+\{")
    for path in (ROOT / "portal").rglob("*.py"):
        if path.name != "queries.py":
            assert not promql.search(path.read_text()), path


def substituted(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    tool = program("promtool")
    every = [*in_rules(), *in_dashboards(), *in_queries()]
    rules = [
        {"record": f"parsed:number_{n}", "expr": substituted(expression)} for n, (_, expression) in enumerate(every)
    ]
    assert not any("$" in rule["expr"] for rule in rules)
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run([tool, "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(every)} rules found" in done.stdout


def test_windows_hold_four_scrapes_at_least() -> None:
    for where, expression in [*in_rules(), *in_dashboards()]:
        for span in re.findall(r"\[(\d+)(ms|s|m|h|d)", expression):
            seconds = int(span[0]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[span[1]]
            assert seconds >= 4 * queries.STEP_S, where


def test_every_panel_selects_its_job_and_the_chosen_hosts() -> None:
    for where, expression in in_dashboards():
        if "variable" in where or "vector(" in expression:
            continue
        for labels in re.findall(r"\w\{([^}]*)\}", expression):
            assert 'host=~"$host"' in labels, where
            assert "job=" in labels or "ALERTS" in expression, where


def test_a_real_node_exporter_has_the_names_and_kinds_that_are_listed(tmp_path: Path) -> None:
    port = free_port()
    options = ["--collector.disable-defaults", *(f"--collector.{name}" for name in COLLECTORS), "--log.level=error"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [program("node_exporter"), f"--web.listen-address=127.0.0.1:{port}", *options], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    exposed = answer.read().decode()
                break
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(timeout=10)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposed, re.MULTILINE))
    absent = {name for name in NODE_EXPORTER if name not in kinds}
    assert all(name.startswith(("node_nf_conntrack_", "node_pressure_")) for name in absent), absent
    for name in NODE_EXPORTER.keys() - absent:
        assert kinds[name] in (NODE_EXPORTER[name].kind, "untyped"), name


def test_the_page_of_metrics_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text() == text(), "run `python -m portal.monitoring.reference` and commit what changes"
    for metric in CATALOGUE:
        assert f"| `{metric.name}`{'*' if metric.seed else ''} | {metric.kind} | {metric.unit} |" in text()


def test_the_dashboards_link_to_the_portals_own_port() -> None:
    ports = yaml.safe_load((ROOT / "inventory" / "local" / "group_vars" / "all.yml").read_text())
    assert f"http://127.0.0.1:{ports['portal_port']}" == PORTAL

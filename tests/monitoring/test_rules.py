"""Recording rules and alerts: promtool's own tests of them, and that each rule, alert and limit is held by one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.monitoring.boards import BOARDS, LAG_LIMITS
from portal.monitoring.node_exporter import NODE_EXPORTER
from stack.paths import ROOT
from tests.monitoring.conftest import program
from tests.monitoring.promql import family
from wsnode.core.judge import (
    CLOCK_BOUND_SUSPECT_S,
    LAG_INVALID_NS,
    LAG_SUSPECT_NS,
    WORKER_CPU_INVALID,
    WORKER_CPU_SUSPECT,
)
from wsnode.core.metrics import CATALOGUE, CLIENT_ERROR_KINDS, NANO, SERVER_ERROR_KINDS
from wsnode.environment import SYSCTLS
from wsnode.preflight import ROOM

PROMETHEUS = ROOT / "prometheus"
TUNING = ROOT / "docs" / "tuning.md"
SEVERITIES = {"critical", "warning"}
LABELS = {"job", "host", "worker", "kind", "le", "mountpoint"}
"""What rules may keep; `instance` changes with a port."""

FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
STEMS = [path.stem for path in FILES]


def rules(stem: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules" / f"{stem}.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def cases(stem: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "tests" / f"{stem}.yml").read_text())["tests"]
    return found


def seconds(span: str) -> int:
    found = re.fullmatch(r"(\d+)([smh])", span)
    assert found is not None, span
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


RECORDS = [(stem, rule) for stem in STEMS for rule in rules(stem) if "record" in rule]
ALERTS = [(stem, rule) for stem in STEMS for rule in rules(stem) if "alert" in rule]
each_record = pytest.mark.parametrize(("stem", "rule"), RECORDS, ids=[rule["record"] for _, rule in RECORDS])
each_alert = pytest.mark.parametrize(("stem", "rule"), ALERTS, ids=[rule["alert"] for _, rule in ALERTS])


def alert(name: str) -> dict[str, Any]:
    [found] = [rule for _, rule in ALERTS if rule["alert"] == name]
    return found


def promtool(*words: str | Path) -> str:
    done = subprocess.run([program("promtool"), *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# --- by promtool ------------------------------------------------------------------------------------------------------


def test_promtool_accepts_the_configuration_with_its_rules() -> None:
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert f"{len(FILES)} rule files found" in said


def test_promtool_finds_no_rule_twice_or_without_sense() -> None:
    said = promtool("check", "rules", *FILES)
    assert sum(map(int, re.findall(r"(\d+) rules found", said))) == len(RECORDS) + len(ALERTS)
    assert "duplicate" not in said


@pytest.mark.parametrize("stem", STEMS)
def test_promtools_own_tests_pass(stem: str) -> None:
    promtool("test", "rules", PROMETHEUS / "tests" / f"{stem}.yml")


def test_promtools_own_tests_fail_where_a_limit_is_another(tmp_path: Path) -> None:
    """They are looked at with a broken rule once: a test that cannot fail proves nothing."""
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "eventloop.yml").write_text((PROMETHEUS / folder / "eventloop.yml").read_text())
    changed = tmp_path / "rules" / "eventloop.yml"
    changed.write_text(changed.read_text().replace("> 0.1", "> 0.2"))
    words = [program("promtool"), "test", "rules", tmp_path / "tests" / "eventloop.yml"]
    assert subprocess.run(words, capture_output=True, timeout=60, check=False).returncode != 0


# --- what the tests hold ----------------------------------------------------------------------------------------------


def test_each_file_of_rules_has_its_file_of_tests() -> None:
    assert [path.stem for path in sorted((PROMETHEUS / "tests").glob("*.yml"))] == STEMS
    for stem in STEMS:
        document = yaml.safe_load((PROMETHEUS / "tests" / f"{stem}.yml").read_text())
        assert document["rule_files"] == [f"../rules/{stem}.yml"]


@each_record
def test_a_recorded_series_is_tested_with_data_and_without(stem: str, rule: dict[str, Any]) -> None:
    name = re.compile(rf"(?<![\w:]){re.escape(rule['record'])}(?![\w:])")
    asked = [
        (group, case)
        for group in cases(stem)
        for case in group.get("promql_expr_test", ())
        if name.search(case["expr"])
    ]
    assert any(case["exp_samples"] for _, case in asked)
    assert any(not group["input_series"] and case["exp_samples"] == [] for group, case in asked)


@each_alert
def test_an_alert_is_tested_in_silence_before_while_and_after_it_fires(stem: str, rule: dict[str, Any]) -> None:
    silent = fired = False
    for group in cases(stem):
        asked = [case for case in group.get("alert_rule_test", ()) if case["alertname"] == rule["alert"]]
        if not group["input_series"] and asked:
            silent = all(case["exp_alerts"] == [] for case in asked)
        firing = [bool(case["exp_alerts"]) for case in sorted(asked, key=lambda case: seconds(case["eval_time"]))]
        # Whatever comes before: not yet, then firing, then over.
        fired = fired or re.search("01+0", "".join("01"[one] for one in firing)) is not None
    assert silent, "nothing says that it is silent where nothing is scraped"
    assert fired


@pytest.mark.parametrize("stem", STEMS)
def test_each_counter_is_seen_to_start_anew(stem: str) -> None:
    selected = {name for rule in rules(stem) for name in re.findall(r"(?<![:\w])(\w+)\{", rule["expr"])}
    inputs = [series for group in cases(stem) for series in group["input_series"]]
    for counter in (name for name in selected if kind(name) == "counter"):
        assert any(falls(one["values"]) for one in inputs if one["series"].startswith(f"{counter}{{")), counter


def falls(values: str) -> bool:
    """Whether a series in promtool's notation starts anew somewhere."""
    last: float | None = None
    for part in values.split():
        found = re.fullmatch(r"(-?[\d.]+)(?:([+-][\d.]+))?(?:x(\d+))?", part)
        if found is None:
            last = None
            continue
        first = float(found[1])
        if last is not None and first < last:
            return True
        last = first + float(found[2] or 0) * int(found[3] or 0)
    return False


# --- how rules are written --------------------------------------------------------------------------------------------


def kind(name: str) -> str:
    """Kind of a metric that a rule selects; "recorded" for those that rules make."""
    ours = {metric.name: metric.kind for metric in CATALOGUE}
    if ":" in name:
        return "recorded"
    if name in NODE_EXPORTER:
        return NODE_EXPORTER[name].kind
    if name == "up":
        return "gauge"
    found = ours.get(name) or ours[family(name)]
    return "counter" if found == "histogram" else found


@each_record
def test_a_recorded_series_says_its_labels_metric_and_operation(stem: str, rule: dict[str, Any]) -> None:
    level, metric, operation = rule["record"].split(":")
    written = re.search(r"\bby \(([^)]*)\)", rule["expr"])
    kept = set(written[1].split(", ")) if written else set()
    wanted = set() if level == "lab" else {"job", *level.split("_")}
    if "histogram_quantile" in rule["expr"]:
        assert f"{metric}_bucket:" in rule["expr"]
        assert operation.startswith("p99_")
    else:
        assert kept == wanted
        assert any(name.removesuffix("_total") == metric for name in re.findall(r"[\w:]+", rule["expr"]))
    for span in re.findall(r"rate(\d+[smh])$", operation):
        assert f"[{span}]" in rule["expr"] or f"rate{span}" in rule["expr"]
    assert wanted <= LABELS


@pytest.mark.parametrize(
    "rule", [rule for _, rule in (*RECORDS, *ALERTS)], ids=lambda rule: rule.get("record") or rule["alert"]
)
def test_counters_are_seen_as_rates_before_anything_else_and_gauges_never(rule: dict[str, Any]) -> None:
    for function, name in re.findall(r"(?:(\w+)\()?(?<![:\w])(\w+)\{", rule["expr"]):
        assert (function in ("rate", "increase")) == (kind(name) == "counter"), f"{function}({name})"


@pytest.mark.parametrize(
    "rule", [rule for _, rule in (*RECORDS, *ALERTS)], ids=lambda rule: rule.get("record") or rule["alert"]
)
def test_series_of_scrapes_are_selected_by_job(rule: dict[str, Any]) -> None:
    for name, labels in re.findall(r"([\w:]+)(?:\{([^}]*)\})?", rule["expr"]):
        if name in {metric.name for metric in CATALOGUE} | NODE_EXPORTER.keys() | {"up"}:
            assert re.search(r'\bjob=~?"', labels), name


def test_a_group_looks_at_every_scrape_that_it_needs() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]
    assert (config["scrape_interval"], config["evaluation_interval"]) == ("1s", "5s")
    for stem in STEMS:
        document = yaml.safe_load((PROMETHEUS / "rules" / f"{stem}.yml").read_text())
        [group] = document["groups"]
        assert group["name"] == stem
        tested = yaml.safe_load((PROMETHEUS / "tests" / f"{stem}.yml").read_text())["evaluation_interval"]
        assert group.get("interval", config["evaluation_interval"]) == tested


# --- what alerts say --------------------------------------------------------------------------------------------------


@each_alert
def test_an_alert_says_what_how_much_what_to_do_and_where_to_read_on(stem: str, rule: dict[str, Any]) -> None:
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in SEVERITIES
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    assert "$labels.host" in said["summary"]
    assert "$value" in said["summary"]
    assert re.search(r"\((limits?|up is .*) .*\)$|wanted 1\)$", said["summary"])
    assert len(said["description"]) > 40
    assert said["runbook_url"] == f"docs/tuning.md#{rule['alert'].lower()}"
    assert said["runbook_url"].partition("#")[2] in anchors()
    assert "instance" not in rule["expr"]


def anchors() -> set[str]:
    """As GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.*)$", TUNING.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(heading: str) -> str:
    found = re.search(rf"^### {heading}$(.*?)(?=^##|\Z)", TUNING.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return " ".join(found[1].split())


def test_the_limits_are_those_of_validity_preflight_and_dashboards() -> None:
    assert alert("EventLoopLagging")["expr"].endswith(f"> {LAG_LIMITS[0][0]:g}")
    assert alert("EventLoopLagging")["for"] == "5s"
    assert alert("GeneratorLate")["expr"].endswith(f"> {LAG_SUSPECT_NS / NANO:g}")
    assert f"above {LAG_INVALID_NS / NANO * 1000:g}ms invalid" in alert("GeneratorLate")["annotations"]["description"]
    busy = float(alert("GeneratorCpuSaturated")["expr"].rpartition("> ")[2])
    assert WORKER_CPU_SUSPECT < busy < WORKER_CPU_INVALID
    assert f"> {CLOCK_BOUND_SUSPECT_S:g}" in alert("ClockOffset")["expr"]
    for name in ("DescriptorsNearExhausted", "SourcePortsNearExhausted", "ConntrackNearFull"):
        assert alert(name)["expr"].endswith(f"> {ROOM:g}")


# --- docs/tuning.md ---------------------------------------------------------------------------------------------------


@each_alert
def test_the_page_on_tuning_names_the_alerts_limit_and_a_panel(stem: str, rule: dict[str, Any]) -> None:
    text = section(rule["alert"])
    for limit in re.findall(r"(\d+)(ms|%|MiB)", rule["annotations"]["summary"].partition("(limit")[2]):
        assert f"{limit[0]} {limit[1]}" in text
    assert "›" in text or rule["alert"] == "TargetDown"


def test_the_page_on_tuning_links_to_what_is_there() -> None:
    text = TUNING.read_text()
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors()
    last = ""
    titles = {board.title: {panel.title for panel in board.panels} for board in BOARDS}
    places = re.findall(r"\*([^*›]*)› ([^*]*)\*", " ".join(text.split()))
    assert len(places) > 30
    for board, panel in places:
        last = board.strip() or last  # `*› Panel*`: of the dashboard named before
        if (last, panel) != ("dashboard", "panel"):
            assert panel in titles[last], f"{last} › {panel}"
    severities = re.findall(r"^\| `(\w+)` \|", text.partition("## Alerts")[2].partition("### ")[0], re.MULTILINE)
    assert set(severities) == SEVERITIES


def test_the_page_on_tuning_explains_each_kind_of_error() -> None:
    server, _, load = (
        TUNING.read_text().partition("## Kinds of connection errors")[2].partition("At the load generators")
    )
    assert tuple(re.findall(r"^\| `(\w+)` \|", server, re.MULTILINE)) == SERVER_ERROR_KINDS
    assert tuple(re.findall(r"^\| `(\w+)` \|", load, re.MULTILINE)) == CLIENT_ERROR_KINDS


def test_the_page_on_tuning_knows_the_settings_that_runs_keep() -> None:
    text = TUNING.read_text()
    unnamed = [key for key in SYSCTLS if key not in text and key.rpartition(".")[2] not in text]
    # Bounds of buffers that nobody asks for with setsockopt here.
    assert unnamed == ["net.core.rmem_max", "net.core.wmem_max"]

"""The committed dashboards are those that are generated, and Grafana can lay them out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from portal.monitoring import dashboards, queries
from portal.monitoring.boards import BOARDS
from portal.monitoring.panels import COLUMNS, UNITS, Board
from portal.monitoring.queries import STEP_S
from stack.paths import ROOT
from stack.services import Lab, _grafana_environment
from wsnode.core.judge import LAG_INVALID_NS, LAG_SUSPECT_NS, WORKER_CPU_INVALID, WORKER_CPU_SUSPECT

PROVISIONING = ROOT / "grafana" / "provisioning"
BEYOND_THE_SDK = {"step", "titleFormat", "useValueForTime"}
"""Fields of Prometheus' annotations that the SDK's schema lacks."""

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


def file(board: Board) -> Path:
    return dashboards.FOLDER / f"{board.uid}.json"


def read(board: Board) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(file(board).read_text())
    return made


@each_board
def test_a_committed_dashboard_is_what_is_generated_now(board: Board) -> None:
    repair = "run `python -m portal.monitoring.dashboards` and commit what changes"
    assert file(board).read_text() == dashboards.text(board), repair


def test_there_are_the_five_dashboards_and_no_other() -> None:
    assert [(board.uid, board.title) for board in BOARDS] == [
        ("wslab-server", "WebSocket server"),
        ("wslab-system", "System"),
        ("wslab-load", "Load generators"),
        ("wslab-eventloop", "Event loop"),
        ("wslab-run", "Run"),
    ]
    assert {path.stem for path in dashboards.FOLDER.iterdir()} == {board.uid for board in BOARDS}


@each_board
def test_a_dashboard_survives_the_sdks_round_trip(board: Board) -> None:
    register_default_plugins()
    once = read(board)
    again = json.loads(json.dumps(Dashboard.from_json(json.loads(file(board).read_text())), cls=JSONEncoder))
    for annotation in once["annotations"]["list"]:
        for name in BEYOND_THE_SDK:
            annotation.pop(name, None)
    assert again == once


@each_board
def test_every_panel_and_row_has_an_id_and_every_query_a_name_of_its_own(board: Board) -> None:
    panels = read(board)["panels"]
    ids = [panel["id"] for panel in panels]
    assert all(isinstance(one, int) and one > 0 for one in ids)
    assert len(set(ids)) == len(ids)
    for panel in panels:
        if panel["type"] == "row":
            continue
        names = [target["refId"] for target in panel["targets"]]
        assert names == list("ABCDEFGHIJ"[: len(names)])
        assert names
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert all(legends)


@each_board
def test_panels_lie_within_the_grid_below_their_row_and_apart(board: Board) -> None:
    taken: dict[tuple[int, int], int] = {}
    row = None
    for panel in read(board)["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, (panel["title"], taken[cell])
            taken[cell] = panel["id"]
        if panel["type"] == "row":
            row = panel
            assert (place["x"], place["w"], place["h"], panel["collapsed"]) == (0, COLUMNS, 1, False)
        else:
            assert row is not None
            assert place["y"] > row["gridPos"]["y"]
            assert panel["id"] // 10 == row["id"] // 10
    assert max(y for _, y in taken) + 1 == len({y for _, y in taken}), "a line of the grid is empty"


@each_board
def test_every_panel_says_what_it_shows_and_in_which_unit(board: Board) -> None:
    by_id = {panel.id: panel for panel in board.panels}
    for made in read(board)["panels"]:
        if made["type"] == "row":
            continue
        panel = by_id[made["id"]]
        assert made["description"] == panel.description
        assert len(made["description"]) > 20
        assert made["fieldConfig"]["defaults"]["unit"] == UNITS[panel.unit]
        assert made["datasource"] == {"type": "prometheus", "uid": "wslab-prometheus"}
        approximate = any("histogram_quantile" in target["expr"] for target in made["targets"])
        assert approximate == ("approximate" in made["description"])
        for target in made["targets"]:
            assert ("approximate" in target["legendFormat"]) == ("histogram_quantile" in target["expr"])


@each_board
def test_hosts_workers_and_the_run_can_be_chosen(board: Board) -> None:
    variables = {variable["name"]: variable for variable in read(board)["templating"]["list"]}
    assert list(variables) == ["host", "worker", "run", "portal", "begin", "ramp_end", "end"]
    assert all(variables[name]["multi"] and variables[name]["allValue"] == ".+" for name in ("host", "worker"))
    used = json.dumps(read(board)["panels"])
    assert "$host" in used
    assert "$worker" in used


@each_board
def test_begin_end_of_the_ramp_and_end_are_marked(board: Board) -> None:
    marks = {mark["name"]: mark for mark in read(board)["annotations"]["list"]}
    assert marks["Runs"]["expr"] == queries.RUNS_DRAWN
    moments = [(mark["expr"], mark["useValueForTime"]) for mark in marks.values() if mark["expr"].startswith("vector")]
    assert moments == [("vector(${begin})", True), ("vector(${ramp_end})", True), ("vector(${end})", True)]
    assert {mark["step"] for mark in marks.values()} == {f"{STEP_S:g}s"}


def steps(uid: str, panel_id: int) -> list[float]:
    (board,) = [board for board in BOARDS if board.uid == uid]
    (panel,) = [panel for panel in read(board)["panels"] if panel["id"] == panel_id]
    return [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]][1:]


@pytest.mark.parametrize(("uid", "panel"), [("wslab-server", 33), ("wslab-system", 21), ("wslab-eventloop", 11)])
def test_event_loop_lag_has_the_demos_limit_of_100_ms(uid: str, panel: int) -> None:
    assert steps(uid, panel) == [0.1]


def test_a_generators_limits_are_those_of_the_judge() -> None:
    assert steps("wslab-load", 41) == [WORKER_CPU_SUSPECT, WORKER_CPU_INVALID]
    assert steps("wslab-load", 42) == [LAG_SUSPECT_NS / 1e9, LAG_INVALID_NS / 1e9]


def test_provisioning_names_the_same_source_and_the_variables_that_the_stack_sets(tmp_path: Path) -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "wslab.yml").read_text())["providers"]
    lab = Lab(tmp_path, tmp_path, None, {"grafana": 3001, "prometheus": 9090})  # type: ignore[arg-type]
    environment = _grafana_environment(lab)
    assert source["uid"] == dashboards.SOURCE.uid
    assert source["jsonData"]["timeInterval"] == f"{STEP_S:g}s"
    assert environment[source["url"].removeprefix("$")] == "http://127.0.0.1:9090"
    assert environment[provider["options"]["path"].removeprefix("$")] == str(dashboards.FOLDER)
    assert environment["GF_PATHS_PROVISIONING"] == str(PROVISIONING)


def test_the_sdk_is_not_needed_to_run_the_portal() -> None:
    users = [
        path.name
        for folder in ("portal", "stack", "wsnode")
        for path in (ROOT / folder).rglob("*.py")
        if "grafana_foundation_sdk" in path.read_text()
    ]
    assert users == ["dashboards.py"]
    importers = [
        path.name
        for folder in ("portal", "stack", "wsnode")
        for path in (ROOT / folder).rglob("*.py")
        if "monitoring.dashboards import" in path.read_text() or "import dashboards" in path.read_text()
    ]
    assert importers == []

"""Deep links: absolute milliseconds with a margin, a panel that exists, variables that its dashboard knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from portal.monitoring.links import Page, panel_link, run_link
from portal.monitoring.queries import QUERIES, RUN_BOARD, Query

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"
PAGE = Page("http://lab:3001/", "https://portal.example/wslab", "r-abc")
BEGIN, RAMP_END, END = 1_764_000_000.5, 1_764_000_060.5, 1_764_000_300.5


def dashboard(uid: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((FOLDER / f"{uid}.json").read_text())
    return made


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_each_rows_link_leads_to_a_panel_that_shows_its_expression(query: Query) -> None:
    link = panel_link(PAGE, query.dashboard, query.panel, ["load-1", "b.c"], BEGIN, RAMP_END, END)
    parts = urlsplit(link)
    assert parts.netloc == "lab:3001"
    _, d, uid, slug = parts.path.split("/")
    assert (d, slug) == ("d", uid)
    found = dashboard(uid)
    assert found["uid"] == uid
    values = parse_qs(parts.query, strict_parsing=True)
    assert values["from"] == ["1764000045500"]
    assert values["to"] == ["1764000315500"]
    kind, _, number = values["viewPanel"][0].partition("-")
    (panel,) = [panel for panel in found["panels"] if panel["id"] == int(number)]
    assert kind == "panel"
    assert query.what.drawn() in [target["expr"] for target in panel["targets"]]
    names = {variable["name"]: variable for variable in found["templating"]["list"]}
    given = {name.removeprefix("var-"): value for name, value in values.items() if name.startswith("var-")}
    assert set(given) <= set(names)
    assert all(len(value) == 1 or names[name].get("multi") for name, value in given.items())
    assert given == {
        "host": ["load-1", "b.c"],
        "run": ["r-abc"],
        "portal": ["https://portal.example/wslab"],
        "begin": ["1764000000500"],
        "ramp_end": ["1764000060500"],
        "end": ["1764000300500"],
    }


def test_the_whole_run_is_linked_from_any_of_its_panels() -> None:
    link = run_link(panel_link(PAGE, "wslab-system", 11, ["server"], BEGIN, RAMP_END, END))
    assert link == (
        f"http://lab:3001/d/{RUN_BOARD}/{RUN_BOARD}?from=1763999985500&to=1764000315500&var-run=r-abc"
        "&var-portal=https://portal.example/wslab&var-begin=1764000000500&var-ramp_end=1764000060500"
        "&var-end=1764000300500"
    )
    assert (FOLDER / f"{RUN_BOARD}.json").exists()


def test_a_grafana_below_a_path_is_kept_there() -> None:
    link = panel_link(PAGE._replace(grafana_url="https://lab/grafana"), "wslab-run", 11, [], BEGIN, RAMP_END, END)
    assert link.startswith("https://lab/grafana/d/wslab-run/wslab-run?from=")
    assert "var-host" not in link
    assert (run_link(link) or "").startswith("https://lab/grafana/d/wslab-run/wslab-run?from=")


def test_other_links_have_no_run() -> None:
    assert run_link("http://lab:3001/explore?schemaVersion=1") is None


def test_a_dashboards_link_back_is_the_address_of_the_runs_page() -> None:
    (link,) = [link for link in dashboard("wslab-system")["links"] if link["type"] == "link"]
    url = link["url"].replace("${portal}", PAGE.portal_url).replace("${run}", PAGE.run_id)
    assert url == "https://portal.example/wslab/runs/r-abc/"

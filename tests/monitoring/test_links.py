"""Deep links: absolute milliseconds of the window with a margin."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from portal.monitoring.links import grafana_link

FROM, TO = "1763999985500", "1764000025500"


def test_a_panel_is_linked_over_the_window_with_its_margin() -> None:
    link = grafana_link(
        "http://lab:3001/", 1_764_000_000.5, 1_764_000_010.5, dashboard="wslab-system", panel=7, expression="x"
    )
    assert link == f"http://lab:3001/d/wslab-system/wslab-system?from={FROM}&to={TO}&viewPanel=panel-7"


def test_without_a_dashboard_the_query_itself_is_opened() -> None:
    expression = 'sum(rate(node_cpu_seconds_total{job="node",host="a&b"}[5s]))'
    link = grafana_link(
        "http://lab/grafana", 1_764_000_000.5, 1_764_000_010.5, dashboard=None, panel=None, expression=expression
    )
    parts = urlsplit(link)
    assert parts.path == "/grafana/explore"
    values = parse_qs(parts.query)
    assert values["schemaVersion"] == ["1"]
    pane = json.loads(values["panes"][0])["run"]
    assert pane["queries"] == [{"refId": "A", "expr": expression}]
    assert pane["range"] == {"from": FROM, "to": TO}

"""Addresses into Grafana: a dashboard's panel, or the query itself in Explore, over a run's window."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

MARGIN_S = 15
"""Shown before and after the window."""


def grafana_link(
    grafana_url: str, start: float, end: float, *, dashboard: str | None, panel: int | None, expression: str
) -> str:
    """The panel where there is one, else the expression in Explore. Absolute milliseconds, `MARGIN_S` on both sides."""
    begin_ms, end_ms = round((start - MARGIN_S) * 1000), round((end + MARGIN_S) * 1000)
    base = grafana_url.rstrip("/")
    if dashboard is not None:
        view = f"&viewPanel=panel-{panel}" if panel is not None else ""
        return f"{base}/d/{quote(dashboard)}/{quote(dashboard)}?from={begin_ms}&to={end_ms}{view}"
    pane = {
        "queries": [{"refId": "A", "expr": expression}],
        "range": {"from": str(begin_ms), "to": str(end_ms)},
    }
    panes = json.dumps({"run": pane}, separators=(",", ":"))
    return f"{base}/explore?{urlencode({'schemaVersion': 1, 'panes': panes})}"

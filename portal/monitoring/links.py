"""Addresses into Grafana: a panel, or the dashboard of a whole run, over absolute milliseconds with a margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from portal.monitoring.queries import RUN_BOARD

MARGIN_S = 15
"""Shown before and after."""


class Page(NamedTuple):
    """The page of a run, which dashboards link back to, and the Grafana that has them."""

    grafana_url: str
    portal_url: str
    run_id: str


def panel_link(
    page: Page, dashboard: str, panel: int, hosts: Sequence[str], begin: float, ramp_end: float, end: float
) -> str:
    """One panel over the measured window (`ramp_end` to `end`), with the variables that all dashboards know.

    `hosts` are those shown, none meaning all; `begin` is the load's (s since the epoch, all three).
    """
    values = [
        ("from", _ms(ramp_end - MARGIN_S)),
        ("to", _ms(end + MARGIN_S)),
        ("viewPanel", f"panel-{panel}"),
        *(("var-host", host) for host in hosts),
        ("var-run", page.run_id),
        ("var-portal", page.portal_url),
        ("var-begin", _ms(begin)),
        ("var-ramp_end", _ms(ramp_end)),
        ("var-end", _ms(end)),
    ]
    path = f"/d/{quote(dashboard)}/{quote(dashboard)}"
    return f"{page.grafana_url.rstrip('/')}{path}?{urlencode(values, safe=':/')}"


def run_link(link: str) -> str | None:
    """From a link by `panel_link`, the dashboard *Run* over all of the run, for all hosts; None for any other."""
    parts = urlsplit(link)
    values = dict(parse_qsl(parts.query))
    if "var-begin" not in values:
        return None
    kept = {name: value for name, value in values.items() if name.startswith("var-") and name != "var-host"}
    margin = round(MARGIN_S * 1000)
    query = {"from": int(values["var-begin"]) - margin, "to": int(values["var-end"]) + margin} | kept
    base = parts.path.partition("/d/")[0]
    return urlunsplit(parts._replace(path=f"{base}/d/{RUN_BOARD}/{RUN_BOARD}", query=urlencode(query, safe=":/")))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

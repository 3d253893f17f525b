"""Grafana's JSON from `boards.py`: `python -m portal.monitoring.dashboards` writes grafana/dashboards/*.json.

The only module that imports the SDK, which is a tool of development: the files are committed, a test makes them anew
and compares. No Grafana is asked.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from portal.monitoring.boards import BOARDS
from portal.monitoring.panels import COLUMNS, HEIGHT, UNITS, Board, Panel, Section
from portal.monitoring.queries import ALERTS_DRAWN, RUN_BOARD, RUNS_DRAWN, STEP_S, moment_drawn, values_of
from wsnode.core.metrics import AGENT

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"
TAG = "wslab"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="wslab-prometheus")
"""As in grafana/provisioning/datasources/ (tested equal)."""
PORTAL = "http://127.0.0.1:8000"
"""Where the run page is, unless a link brings another address along."""
MOMENTS = {"begin": "Begin of the load", "ramp_end": "Ramp-up over, window opens", "end": "Window closes"}


class Annotation(models.AnnotationQuery):
    """With the fields of Prometheus' annotations, which the SDK's schema lacks. Without a step Grafana takes 60 s."""

    def __init__(self, name: str, expr: str, colour: str, title: str, *, moment: bool = False) -> None:
        super().__init__(name=name, datasource=SOURCE, enable=True, icon_color=colour, expr=expr)
        self.title = title
        self.moment = moment

    def to_json(self) -> dict[str, object]:
        more = {"useValueForTime": True} if self.moment else {}
        return super().to_json() | {"step": f"{STEP_S:g}s", "titleFormat": self.title, **more}


def build(board: Board) -> models.Dashboard:
    """A dashboard in the SDK's model."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .editable()
        .timezone("browser")
        .time("now-15m", "now")
        .refresh("5s" if board.uid != RUN_BOARD else "")
        .timepicker(dashboard.TimePicker().refresh_intervals(["1s", "5s", "10s", "30s", "1m"]))
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("Page of the run").type(models.DashboardLinkType.LINK).icon("external link")
              .url("${portal}/runs/${run}/"))
        .link(dashboard.DashboardLink("Dashboards").type(models.DashboardLinkType.DASHBOARDS).icon("dashboard")
              .tags([TAG]).as_dropdown(True).include_vars(True).keep_time(True))
        .variables(_variables(board))
    )  # fmt: skip
    made.build().annotations = models.AnnotationContainer(list_val=_annotations())
    top = 0
    for section in board.sections:
        top = _section(made, section, top)
    return made.build()


def text(board: Board) -> str:
    """The file's content."""
    return json.dumps(build(board), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(text(board))


def _section(made: dashboard.Dashboard, section: Section, top: int) -> int:
    """Row and panels from the line `top` of the grid on. Returns the next free line."""
    made.with_row(dashboard.Row(section.title).id(section.id).grid_pos(models.GridPos(h=1, w=COLUMNS, x=0, y=top)))
    left, top = 0, top + 1
    for panel in section.panels:
        if left + panel.width > COLUMNS:
            left, top = 0, top + HEIGHT
        position = models.GridPos(h=HEIGHT, w=panel.width, x=left, y=top)
        made.with_panel(_names(panel, position) if panel.names else _graph(panel, position))
        left += panel.width
    return top + HEIGHT


def _graph(panel: Panel, position: models.GridPos) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .id(panel.id)
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .grid_pos(position)
        .unit(UNITS[panel.unit])
        .interval(f"{STEP_S:g}s")
        .line_width(1)
        .fill_opacity(10 if len(panel.lines) == 1 else 0)
        .show_points(common_models.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .calcs(["mean", "max", "lastNotNull"])
        )
    )
    if not panel.signed:
        made.min(0)
    if panel.limits:
        steps = [models.Threshold(value=value, color=colour) for value, colour in panel.limits]
        limits = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
        made.thresholds(limits.steps([models.Threshold(value=None, color="green"), *steps]))
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    for query in _queries(panel):
        made.with_target(query)
    return made


def _names(panel: Panel, position: models.GridPos) -> stat.Panel:
    made = (
        stat.Panel()
        .id(panel.id)
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .grid_pos(position)
        .unit(UNITS[panel.unit])
        .interval(f"{STEP_S:g}s")
        .text_mode(common_models.BigValueTextMode.NAME)
        .color_mode(common_models.BigValueColorMode.NONE)
        .graph_mode(common_models.BigValueGraphMode.NONE)
    )
    for query in _queries(panel):
        made.with_target(query)
    return made


def _queries(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .ref_id(name)
        .datasource(SOURCE)
        .expr(line.what.drawn())
        .legend_format(line.legend)
        .range()
        for name, line in zip(string.ascii_uppercase, panel.lines, strict=False)
    ]


def _variables(board: Board) -> list[Builder[models.VariableModel]]:
    return [
        _choice("host", "Host", values_of("host", "up", board.job)),
        _choice("worker", "Worker", values_of("worker", "node_eventloop_lag_seconds", board.job)),
        dashboard.QueryVariable("run")
        .label("Run")
        .description("Runs whose load was there in the time shown; for the link to the run's page.")
        .datasource(SOURCE)
        .query(values_of("run_id", "ws_simulator_run_info", AGENT))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC),
        _hidden("portal", PORTAL, "Address of the portal, for the link to the run's page."),
        *(_hidden(name, "0", f"{what} (ms since the epoch), brought along by a run's links.")
          for name, what in MOMENTS.items()),
    ]  # fmt: skip


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _hidden(name: str, value: str, description: str) -> dashboard.TextBoxVariable:
    return (
        dashboard.TextBoxVariable(name)
        .description(description)
        .hide(models.VariableHide.HIDE_VARIABLE)
        .default_value(value)
        .current(models.VariableOption(selected=True, text=value, value=value))
    )


def _annotations() -> list[models.AnnotationQuery]:
    return [
        Annotation("Runs", RUNS_DRAWN, "blue", "Run {{run_id}}: load prepared or running"),
        *(Annotation(title, moment_drawn(name), "purple", title, moment=True) for name, title in MOMENTS.items()),
        Annotation("Alerts", ALERTS_DRAWN, "red", "{{alertname}} {{host}}"),
    ]


if __name__ == "__main__":
    main()

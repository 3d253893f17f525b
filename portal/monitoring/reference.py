"""The page of all metrics: `python -m portal.monitoring.reference` writes docs/metrics.md; a test compares it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from portal.monitoring.boards import BOARDS
from portal.monitoring.node_exporter import NODE_EXPORTER
from portal.monitoring.queries import QUERIES
from wsnode.core.metrics import AGENT, CATALOGUE, SERVER, Metric

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

_HEAD = """\
# Metrics

Made by `python -m portal.monitoring.reference` from `wsnode/core/metrics.py`, `portal/monitoring/queries.py` and
`boards.py`: change those. What clients saw is in a run's result, exactly; what follows is what Prometheus scrapes.

Labels of every series are `job` (`wsnode-server`, `wsnode-agent`, `node`) and `host` (its name in the inventory). All
values of a listed label are there at 0 from the start. `worker` is the number of a worker process; such a metric has no
total. Names marked * are those of the Node.js demo before this project, kept exactly.
"""


def text() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_sections()])


def main() -> None:
    """Write it."""
    PAGE.write_text(text())


def _sections() -> Iterator[str]:
    groups = (
        ("The server", "Job `wsnode-server`.", [one for one in CATALOGUE if one.jobs == (SERVER,)]),
        ("The load generators", "Job `wsnode-agent`.", [one for one in CATALOGUE if one.jobs == (AGENT,)]),
        ("Every worker", "Jobs `wsnode-server` and `wsnode-agent`.", [one for one in CATALOGUE if len(one.jobs) > 1]),
    )
    for title, jobs, metrics in groups:
        yield f"## {title}\n\n{jobs}\n"
        yield _table(("metric", "kind", "unit", "labels", "meaning"), (_row(metric) for metric in metrics))
    yield "## Buckets\n\nUpper bounds of the histograms, without `+Inf`.\n"
    yield _table(
        ("metric", "unit", "bounds"),
        (
            (f"`{one.name}`", one.unit, ", ".join(f"{bound:g}" for bound in one.buckets))
            for one in CATALOGUE
            if one.buckets
        ),
    )
    yield "## The hosts\n\nJob `node`: what rules, panels and evidence use of node_exporter.\n"
    rows = ((f"`{name}`", known.kind, known.definition) for name, known in sorted(NODE_EXPORTER.items()))
    yield _table(("metric", "kind", "meaning"), rows)
    yield (
        "## The evidence of a run\n\nFrom the raw samples of the measured window: counters are the reset-corrected gain"
        " between the first and\nthe last of them over the time between those two, and fewer than four samples are no"
        " data. Rows of hosts come once\nfor each host; what hosts of one kernel have in common comes once, as"
        " the machine's. The queries stand in\n`portal/monitoring/queries.py` and, filled in, beside each figure on"
        " the run's page.\n"
    )
    titles = {board.uid: board.title for board in BOARDS}
    panels = {(board.uid, panel.id): panel.title for board in BOARDS for panel in board.panels}
    yield (
        _table(
            ("figure", "unit", "better", "metric", "made by", "panel"),
            (
                (
                    query.name,
                    query.unit,
                    query.better or "–",
                    " / ".join(f"`{name}`" for name in (query.what.metric, query.what.over) if name),
                    query.what.aggregation,
                    f"{titles[query.dashboard]}: {panels[query.dashboard, query.panel]}",
                )
                for query in QUERIES
            ),
        ).rstrip("\n")
        + "\n"
    )


def _row(metric: Metric) -> tuple[str, ...]:
    labels = [*(["worker"] if metric.per_worker else []), *metric.info]
    if metric.label:
        labels.append(f"{metric.label}: {', '.join(metric.values)}")
    name = f"`{metric.name}`{'*' if metric.seed else ''}"
    return name, metric.kind, metric.unit, "; ".join(labels) or "–", metric.definition


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    main()

"""Results for people: the summary table of `wsnode load`, and `wsnode report` for result files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from wsnode.core.result import (
    DEFINITIONS,
    FLOORS,
    TOO_FEW,
    Latency,
    Result,
    UnknownSchema,
    near_floor,
    read_result,
)
from wsnode.core.threshold import LATENCIES

OF_REPLIES = frozenset({"response_time", "service_time"})
STATISTICS = ("p50", "p90", "p95", "p99", "p999", "max", "mean")
HELD = ("p50", "p99", "max")
"""Of the response time, for each hold."""
FOREVER_S = 604_800
"""Duration of a load that was asked to go on until it is stopped."""
EXAMPLES = """\
examples:
  wsnode report run.json                 show a result
  wsnode report before.json after.json   show several, one after the other
  wsnode report --json run.json          print a result in the current schema
"""


def duration(seconds: float | None) -> str:
    """A time with a unit that suits it: `1.23 ms`; `–` for None."""
    if seconds is None:
        return "–"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if abs(seconds) * factor >= 1 or unit == "µs":
            value = seconds * factor
            digits = 0 if value >= 100 else 1 if value >= 10 else 2
            return f"{value:,.{digits}f} {unit}"
    raise AssertionError("µs takes what is left")


def rate(per_s: float | None) -> str:
    """`1,234.5/s`; `–` for None."""
    return "–" if per_s is None else f"{per_s:,.1f}/s"


def share(ratio: float | None) -> str:
    """`0.12 %`; `–` for None."""
    return "–" if ratio is None else f"{100 * ratio:.3g} %"


def render(result: Result) -> str:
    """The summary, some 30 lines of at most 100 characters."""
    lines = [f"run {result.run_id}: {result.state}, verdict {result.verdict}, validity {result.validity}"]
    lines += [f"  {reason}" for reason in result.reasons]
    lines += [f"  note: {note}" for note in result.notes]
    scenario, counters, rates = result.scenario, result.counters, result.rates
    if result.subject is not None:
        lines.append(f"subject     {result.subject.name} {result.subject.version}")
    until = "until stopped" if scenario.duration_s == FOREVER_S else f"duration {scenario.duration_s:,} s"
    held = f"closed pace, {scenario.in_flight or 1} in flight, {scenario.size_bytes:,} bytes"
    pace = (
        held
        if scenario.pace == "closed"
        else f"every {scenario.interval_ms:,} ms, {scenario.size_bytes:,} bytes"
        if scenario.interval_ms
        else "idle"
    )
    clients = f"{scenario.clients:,} clients" if not scenario.stages else f"up to {scenario.clients:,} clients"
    ramp = f"ramp-up {scenario.planned_ramp_s:g} s" if not scenario.stages else "; ".join(scenario.stages)
    lines.append(f"scenario    {scenario.name}: {clients}, {pace}, {ramp}, {until}")
    if result.window is not None:
        lines.append(f"window      {result.window.from_s} s to {result.window.to_s} s")
    lines.append(
        f"messages    offered {rate(rates.offered_per_s)}, sent {rate(rates.sent_per_s)}, answered "
        f"{rate(rates.received_per_s)}; error ratio {share(result.error_ratio)}"
    )
    lines.append(
        f"            whole run: due {counters.messages_due:,}, sent {counters.messages_sent:,}, answered "
        f"{counters.messages_received:,}, lost {counters.messages_lost:,}, unsent {counters.messages_unsent:,}"
        + (f", in flight {counters.messages_in_flight:,}" if counters.messages_in_flight else "")
        + (f", unexpected {counters.messages_unexpected:,}" if counters.messages_unexpected else "")
    )
    lines.append(
        f"connections peak {counters.connections_peak if counters.connections_peak is not None else '–'}, opened "
        f"{counters.connections_opened:,} of {counters.connections_attempted:,} at {rate(rates.connect_per_s)}, failed "
        f"{counters.connections_failed:,}, reconnects {counters.reconnects:,}"
    )
    if (deliveries := result.broadcast) is not None:
        lines.append(
            f"broadcast   {rate(deliveries.deliveries_per_s)}; whole run: expected {deliveries.expected:,}, received "
            f"{deliveries.received:,}, lost {deliveries.lost:,} ({share(deliveries.delivery_loss_ratio)})"
        )
        lines.append(
            f"            of the received {deliveries.out_of_order:,} out of order, {deliveries.late:,} late; beside "
            f"them {deliveries.duplicate:,} duplicate, {deliveries.indeterminate:,} indeterminate"
        )
    for title, counts in (("errors", counters.errors), ("unsent", counters.unsent), ("kinds", counters.kinds)):
        if counts:
            lines.append(f"{title:<12}" + ", ".join(f"{kind} {n:,}" for kind, n in sorted(counts.items())))
    near = near_floor(result)
    lines += ["", f"{'':<16}" + "".join(f"{statistic:>11}" for statistic in STATISTICS)]
    for name in LATENCIES:
        row: Latency | None = getattr(result.latency_s, name)
        if row is not None and row.due and (result.scenario.awaits_replies or name not in OF_REPLIES):
            cells = "".join(
                f"{('~' if f'{name}.{statistic}' in near else '') + duration(getattr(row, statistic)):>11}"
                for statistic in STATISTICS
            )
            lines.append(f"{DEFINITIONS[f'latency_s.{name}'].title:<16}{cells}")
    if near:
        lines.append(f"  ~ below {FLOORS} times the load generator's own floor: no measure of the server alone")
    why = sorted({f"{key.split('.')[-1]}: {text}" for key, text in result.nulls.items() if text != TOO_FEW})
    if any(text == TOO_FEW for text in result.nulls.values()):
        why.append(f"– without a word: {TOO_FEW}")
    if result.scenario.awaits_replies and "response_time" in " ".join(result.nulls):
        lines += [f"  {line}" for line in why if line.startswith(("p", "–"))]
    if result.aborted is not None:
        was = _value(result.aborted.expr, result.aborted.value)
        lines += ["", f"ABORTED     {result.aborted.expr}   (was {was} in second {result.aborted.second})"]
    if result.stages:
        lines += ["", *_held(result)]
    if result.thresholds:
        lines.append("")
        for threshold in result.thresholds:
            word = {True: "passed", False: "FAILED", None: "not judged"}[threshold.passed]
            lines.append(f"{word:<12}{threshold.expr}   (was {_value(threshold.expr, threshold.value)})")
    return "\n".join(lines)


def _held(result: Result) -> list[str]:
    """The holds one below the other, for what breaks first to be seen."""
    lines = [
        f"{'holds':<16}" + "".join(f"{title:>11}" for title in ("clients", "offered", "answered", "errors", *HELD))
    ]
    for held in result.stages:
        times = held.latency_s.response_time
        cells = [f"{held.clients:,}", rate(held.rates.offered_per_s), rate(held.rates.received_per_s)]
        cells += [share(held.error_ratio), *(duration(getattr(times, statistic)) for statistic in HELD)]
        lines.append(f"{f'{held.from_s} s to {held.to_s} s':<16}" + "".join(f"{cell:>11}" for cell in cells))
    return lines


def _value(expr: str, value: float | None) -> str:
    metric = expr.split(maxsplit=1)[0]
    if "." in metric:
        return duration(value)
    if metric.endswith("ratio"):
        return share(value)
    if metric.endswith("per_s"):
        return rate(value)
    return "–" if value is None else f"{value:,.0f}"


def exit_code(result: Result, strict: bool = False) -> int:
    """0 passed or no thresholds; 1 thresholds failed; 2 not finished; 3 invalid (suspect too, if strict)."""
    if result.state != "finished":
        return 2
    if result.validity == "invalid" or (strict and result.validity == "suspect"):
        return 3
    return 1 if result.verdict == "failed" else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wsnode report`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a result as `wsnode load --json` writes it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in the current schema, one object a line")
    parser.add_argument("--strict", action="store_true", help="let a suspect result exit with 3, like an invalid one")


def run(arguments: argparse.Namespace) -> int:
    """Show results. Returns the worst exit code of them, 2 where one can't be read."""
    codes = []
    for path in arguments.files:
        try:
            result = read_result(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError, UnknownSchema) as error:
            text = str(error).splitlines()[0]
            print(
                f"wsnode report: {path}: {text}; expected a result as `wsnode load --json` writes it", file=sys.stderr
            )
            codes.append(2)
            continue
        print(result.model_dump_json() if arguments.json else render(result))
        if not arguments.json and len(arguments.files) > 1:
            print()
        codes.append(exit_code(result, arguments.strict))
    return next((code for code in (2, 3, 1) if code in codes), 0)

"""A result for the terminal: what it came to, whether it can be believed, and the figures with their units."""

from typing import Any

from wsnode.core.result import DEFINITIONS

_LATENCIES = ("response_time", "service_time", "scheduler_lag", "write_wait", "handshake", "one_way")
_COLUMNS = ("p50", "p90", "p95", "p99", "p999", "max")
_RATES = ("connect_per_s", "offered_per_s", "sent_per_s", "received_per_s")


def seconds(value: float | None) -> str:
    """0.00123 -> '1.23 ms'; None -> '–'."""
    if value is None:
        return "–"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def show(result: dict[str, Any]) -> str:
    """Verdict, validity with its reasons, thresholds, latencies, rates, counts, nulls."""
    lines = [f"verdict   {result['verdict']}" if result["state"] == "finished" else f"state     {result['state']}"]
    lines.append(f"validity  {result['validity']}")
    lines += [f"          {reason}" for reason in result["reasons"]]
    for threshold in result["thresholds"]:
        outcome = {True: "passed", False: "FAILED", None: "not judged"}[threshold["passed"]]
        lines.append(f"          {threshold['expr']}: {outcome} ({_figure(threshold['expr'], threshold['value'])})")
    lines += ["", f"          {'':15}" + "".join(f"{column:>10}" for column in _COLUMNS)]
    for name in _LATENCIES:
        row = result["latency_s"].get(name)
        if row is not None and row["due"]:
            title = DEFINITIONS[f"latency_s.{name}"].title
            lines.append(f"          {title:15}" + "".join(f"{seconds(row[column]):>10}" for column in _COLUMNS))
    rates = [
        f"{DEFINITIONS[f'rates.{name}'].title.lower()} {value:,.1f}/s"
        for name in _RATES
        if (value := result["rates"].get(name)) is not None
    ]
    lines += ["", f"rates     {' · '.join(rates) or 'none'}"]
    if (deliveries := result.get("broadcast")) is not None:
        lines.append(
            f"broadcast {deliveries['expected']:,} deliveries expected, {deliveries['received']:,} received, "
            f"{deliveries['lost']:,} lost, {deliveries['indeterminate']:,} indeterminate"
        )
    counters = result["counters"]
    lines.append(
        f"messages  {counters['messages_due']:,} due, {counters['messages_received']:,} answered, "
        f"{counters['messages_lost']:,} lost, {counters['messages_unsent']:,} unsent"
    )
    lines.append(
        f"clients   {counters['connections_opened']:,} connected, {counters['connections_failed']:,} failed"
        + (f", at most {counters['connections_peak']:,} at once" if counters["connections_peak"] is not None else "")
    )
    errors = {**counters["errors"], **{f"unsent: {reason}": count for reason, count in counters["unsent"].items()}}
    lines += [f"          {kind}: {count:,}" for kind, count in errors.items() if count]
    evidence = result["evidence"]
    if evidence:
        missing = [row["name"] for row in evidence if row["value"] is None]
        lines.append(
            f"evidence  {len(evidence) - len(missing)} of {len(evidence)} host figures"
            + (f"; no data: {'; '.join(missing)}" if missing else "")
        )
    shown = {f"latency_s.{name}.{column}" for name in _LATENCIES for column in _COLUMNS}
    for reason in sorted({why for name, why in result["nulls"].items() if name in shown}):
        names = [
            name.removeprefix("latency_s.") for name, why in result["nulls"].items() if why == reason and name in shown
        ]
        lines.append(f"–         {reason}: {', '.join(names)}")
    lines += [f"note      {note}" for note in result["notes"]]
    return "\n".join(lines)


def _figure(expression: str, value: float | None) -> str:
    if value is None:
        return "no figure"
    name = expression.split(maxsplit=1)[0]
    if name.partition(".")[0] in _LATENCIES:
        return seconds(value)
    return f"{value * 100:.3g} %" if "ratio" in name else f"{value:,.4g}"

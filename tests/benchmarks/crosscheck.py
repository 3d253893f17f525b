"""wsnode's generator against one that shares nothing with it, on the same Node `ws` server: do both tell the same?

    ./wslab bench crosscheck [--rounds 7] [--seconds 5] [--json FILE]

The other is `paced.c`, compiled here: an open model in C on epoll. Both offer the same rate of 64-byte messages, at
20 % and at 60 % of what the server can take, in turns; the medians of the rounds are compared. Times are from the
moment in which a message is handed over to its reply, so that neither generator's own lateness is in them. Exit
code 1 where p50 is further apart than 10 % and 50 µs, p99 further than 20 %, or where a count differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from tests.benchmarks.bench import echo, say
from tests.benchmarks.peers import PROGRAMS, Peers, Unavailable
from wsnode.core.result import read_result

SOURCE = PROGRAMS / "paced.c"
INTERVAL_MS = 10
"""A divisor of a second, so that each second of each client has equally many; the number of clients gives the rate."""
WARM_UP_S = 1
P50_SHARE, P50_S, P99_SHARE = 0.10, 50e-6, 0.20


class Told(NamedTuple):
    """What a generator tells of one load: s, messages."""

    due: int
    answered: int
    wrong: int
    p50: float | None
    p99: float | None
    late_p99: float | None
    """How late its own schedule was (wsnode), or response from the due time (C)."""


def ours(port: int, clients: int, seconds: int, folder: Path) -> Told:
    """wsnode's, one worker."""
    file = folder / "result.json"
    command = [
        sys.executable, "-m", "wsnode", "load", f"ws://127.0.0.1:{port}/echo", "--clients", str(clients), "--interval",
        str(INTERVAL_MS), "--ramp-up", str(WARM_UP_S), "--rate", "1000", "--duration", str(seconds + WARM_UP_S),
        "--workers", "1", "--quiet", "--json", str(file),
    ]  # fmt: skip
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    result = read_result(json.loads(file.read_text()))
    response = result.latency_s.response_time
    unexpected = result.counters.messages_unexpected
    return Told(
        response.due, response.count, unexpected, response.p50, response.p99, result.latency_s.scheduler_lag.p99
    )


def other(program: Path, port: int, clients: int, seconds: int) -> Told:
    """The one in C."""
    words = [str(program), *map(str, (port, clients, clients * 1000 // INTERVAL_MS, WARM_UP_S, seconds))]
    told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    def s(of: str, name: str) -> float | None:
        value = told[of][name]
        return None if value is None else value / 1e9

    return Told(
        told["due"],
        told["answered"],
        told["wrong"] + told["unsent"],
        s("from_send", "p50"),
        s("from_send", "p99"),
        s("from_due", "p99"),
    )


class Row(NamedTuple):
    """Both generators' rounds at one rate."""

    share: float
    clients: int
    ours: list[Told]
    other: list[Told]

    def median(self, side: Sequence[Told], name: str) -> float:
        """Of the rounds; infinite ones, of what was never answered, rank last."""
        return statistics.median(float("inf") if (v := getattr(told, name)) is None else v for told in side)

    @property
    def counts_agree(self) -> bool:
        """Whether everything was due alike and answered once, in each round of both."""
        return {(t.due, t.answered, t.wrong) for t in [*self.ours, *self.other]} == {(self.ours[0].due,) * 2 + (0,)}

    def faults(self) -> Iterator[str]:
        """What is further apart than it may be."""
        p50, p50_other = (self.median(side, "p50") for side in (self.ours, self.other))
        p99, p99_other = (self.median(side, "p99") for side in (self.ours, self.other))
        if abs(p50 - p50_other) > max(P50_SHARE * p50_other, P50_S):
            yield f"p50 {p50 * 1e6:.0f} µs against {p50_other * 1e6:.0f} µs"
        if abs(p99 - p99_other) > P99_SHARE * p99_other:
            yield f"p99 {p99 * 1e6:.0f} µs against {p99_other * 1e6:.0f} µs"
        if not self.counts_agree:
            due, other_due = ({(t.due, t.answered, t.wrong) for t in side} for side in (self.ours, self.other))
            yield f"counts (due, answered, wrong) {due} against {other_due}"


def markdown(rows: Sequence[Row]) -> str:
    """For `docs/performance.md`."""
    lines = [
        "| load | messages/s | p50 wsnode | p50 C | ratio | p99 wsnode | p99 C | ratio | counts | wsnode's lag p99 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = []
        for name in ("p50", "p99"):
            a, b = row.median(row.ours, name), row.median(row.other, name)
            cells += [f"{a * 1e6:,.0f} µs", f"{b * 1e6:,.0f} µs", f"{a / b:.2f}"]
        cells += ["equal" if row.counts_agree else "DIFFER", f"{row.median(row.ours, 'late_p99') * 1e6:,.0f} µs"]
        lines.append(f"| {row.share:.0%} | {row.clients * 1000 // INTERVAL_MS:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and say what is too far apart."""
    parser = argparse.ArgumentParser(
        prog="wslab bench crosscheck", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5, help="measured of each load")
    parser.add_argument("--shares", default="0.2,0.6", help="of the server's capacity, such as 0.05,0.2")
    parser.add_argument("--json", type=Path, help="write all rounds here")
    options = parser.parse_args(argv)
    rows: list[Row] = []
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "tcc"))), None)
    if compiler is None:
        parser.error("no C compiler on PATH (gcc, cc or tcc)")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        program = folder / "paced"
        subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
        peers = Peers(folder)
        try:
            peers.make("node")
        except Unavailable as error:
            parser.error(str(error))
        with peers.serving("node") as server:
            uvloop.run(echo(server, 3))  # its compiler warms up
            capacity = 1e6 / uvloop.run(echo(server, 2))
            say(f"the server takes {capacity:,.0f} messages a second")
            for share in map(float, options.shares.split(",")):
                row = Row(share, max(1, round(share * capacity * INTERVAL_MS / 1000)), [], [])
                for turn in range(options.rounds):
                    for side in ("ours", "other") if turn % 2 == 0 else ("other", "ours"):
                        if side == "ours":
                            row.ours.append(ours(server.port, row.clients, options.seconds, folder))
                        else:
                            row.other.append(other(program, server.port, row.clients, options.seconds))
                    say(f"{share:.0%}, round {turn + 1} of {options.rounds}: {row.ours[-1]} {row.other[-1]}")
                rows.append(row)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}\n")
    print(markdown(rows))
    if options.json:
        told: list[dict[str, Any]] = [
            row._asdict() | {side: [t._asdict() for t in getattr(row, side)] for side in ("ours", "other")}
            for row in rows
        ]
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    faults = [f"{row.share:.0%}: {fault}" for row in rows for fault in row.faults()]
    for fault in faults:
        print(f"too far apart at {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

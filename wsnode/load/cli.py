"""`wsnode load`: one load from the command line, with live progress, a summary and a machine-readable result."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import secrets
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
import yaml
from pydantic import ValidationError

from wsnode import floor
from wsnode.core.judge import judge
from wsnode.core.metrics import for_job
from wsnode.core.protocol import HostResult, Live, Second
from wsnode.core.result import Aborted, Host, Result, Subject
from wsnode.core.scenario import NoWindow, Plan, Scenario, allowed_range, error_lines
from wsnode.core.summary import HostRun, run_counters, summarise
from wsnode.core.watch import AbortWatch, told
from wsnode.environment import environment
from wsnode.exposition import Exposition
from wsnode.load.behaviour import names as behaviours
from wsnode.load.load import Load, LoadEnd, LoadError, resolve, workers_for
from wsnode.load.ports import SourcePorts, sources_for
from wsnode.load.report import FOREVER_S, duration, exit_code, rate, render
from wsnode.load.secret import ENVIRONMENT, SecretError, gather
from wsnode.meter import Meter
from wsnode.preflight import Need, source_ports
from wsnode.telemetry import MAX_SLOTS, Layout, SharedTable
from wsnode.workers import cores, raise_descriptor_limit

LEAD_NS = 200_000_000
"""From the order to begin to the origin: every worker has it by then."""
EXAMPLES = """\
examples:
  wsnode load ws://127.0.0.1:3000/echo --clients 100 --interval 200 --ramp-up 2 --duration 12 --rate 100
  wsnode load ws://127.0.0.1:3000/echo --scenario scenarios/smoke.yaml --json result.json
  wsnode load ws://127.0.0.1:3000/echo --clients 5000 --interval 0        hold idle connections until Ctrl-C
  wsnode load ws://127.0.0.1:3000/echo --duration 60 --threshold 'response_time.p99 < 50ms'
  wsnode load ws://127.0.0.1:3000/echo --duration 600 --abort-on 'error_ratio > 50% for 10s after 20s'
  wsnode load ws://127.0.0.1:3000/echo --stage 'up to 500 in 10s' --stage 'hold 30s' --stage 'step to 900'

exit codes: 0 passed or no thresholds, 1 thresholds failed or aborted, 2 could not run, 3 the measurement is invalid
"""
# option, other spellings (those of the Node.js demo among them), scenario field, how to read it
FIELDS: tuple[tuple[str, tuple[str, ...], str, type], ...] = (
    ("--clients", (), "clients", int),
    ("--interval", ("--message-interval", "--messageInterval"), "interval_ms", int),
    ("--ramp-up", ("--rampUp",), "ramp_up_s", float),
    ("--duration", (), "duration_s", int),
    ("--rate", (), "rate_per_s", float),
    ("--size", (), "size_bytes", int),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wsnode load`; ranges and defaults are the scenario's own."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("url", metavar="URL", help="the server's WebSocket URL, such as ws://127.0.0.1:3000/echo")
    for option, others, field, kind in FIELDS:
        info = Scenario.model_fields[field]
        default = "until Ctrl-C" if field == "duration_s" else f"{info.default:g}"
        parser.add_argument(
            option,
            *others,
            dest=field,
            type=_number(option, kind),
            metavar="N",
            help=f"{info.description} Default {default}{allowed_range(field)}.".replace("%", "%%"),
        )
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="YAML file to begin with; options change it")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any other scenario field, such as match=order",
    )
    parser.add_argument(
        "--threshold", action="append", default=[], metavar="EXPR", help="a demand, such as 'error_ratio < 1%%'"
    )
    parser.add_argument(
        "--abort-on",
        action="append",
        default=[],
        metavar="EXPR",
        help="end the load early and fail it, such as 'error_ratio > 50%% for 10s after 20s'",
    )
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="LINE",
        help="a stage of the number of clients, instead of --clients, --ramp-up, --duration and --rate: "
        "'up to 1000 in 30s', 'hold 60s', 'step to 2000' or 'down to 0 in 10s'; each hold is reported on its own",
    )
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="EXPR",
        help="a share of clients that are not normal, such as 'slow_reader 5%%' or 'idle_pings 10%% 30 s'",
    )
    parser.add_argument(
        "--payload", metavar="TEXT", help="""text of each message, such as '{"id": ${seq}}'; see also --match"""
    )
    parser.add_argument("--match", metavar="HOW", help="how replies are known: prefix, order, json:/POINTER or none")
    parser.add_argument(
        "--first-message",
        action="append",
        default=[],
        metavar="LINE",
        help="""what a client says before it is ready, and what it awaits: '> {"type": "login"}', '< any', """
        """'< text TEXT' or '< json:/type == "welcome"'""",
    )
    parser.add_argument("--behaviour", metavar="NAME", help=f"what clients do; here: {', '.join(behaviours())}")
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help=f"a file with what ${{secret:NAME}} stands for; or set {ENVIRONMENT}NAME",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core, more for open files)")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="an address of this host to connect from; several are dealt in turn, where one has too few ports",
    )
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificates (PEM) to believe of a wss server, instead of the system's"
    )
    parser.add_argument("--subject", metavar="NAME@VERSION", help="what is measured, kept in the result")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine-readable result ('-': to stdout)")
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve Prometheus metrics on 127.0.0.1:PORT")
    parser.add_argument("--accept-partial", action="store_true", help="run even if the ramp-up leaves no window")
    parser.add_argument("--strict", action="store_true", help="let a suspect result exit with 3, like an invalid one")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the summary")


def _number(option: str, kind: type) -> Any:
    def read(text: str) -> int | float:
        try:
            return kind(text)  # type: ignore[no-any-return]
        except ValueError:
            whole = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {whole}") from None

    return read


class UsageError(ValueError):
    """Something typed that can't be run. The message says what and how to mend it."""


def scenario_of(arguments: argparse.Namespace) -> Scenario:
    """The scenario that file and options describe.

    Raises:
        UsageError: a line for each bad value.
    """
    fields: dict[str, Any] = {}
    if arguments.scenario is not None:
        try:
            loaded = yaml.safe_load(arguments.scenario.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--scenario {arguments.scenario}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise UsageError(f"--scenario {arguments.scenario}: not YAML: {error}") from error
        if not isinstance(loaded, dict):
            raise UsageError(f"--scenario {arguments.scenario}: expected fields, got {type(loaded).__name__}")
        fields |= loaded
    fields |= {field: value for _, _, field, _ in FIELDS if (value := getattr(arguments, field)) is not None}
    for item in arguments.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item!r}: expected FIELD=VALUE, such as match=order")
        fields[name] = yaml.safe_load(value)
    fields |= {
        field: value for field in ("payload", "match", "behaviour") if (value := getattr(arguments, field)) is not None
    }
    if arguments.first_message:
        fields["first_messages"] = [*fields.get("first_messages", ()), *arguments.first_message]
    if arguments.threshold:
        fields["thresholds"] = [*fields.get("thresholds", ()), *arguments.threshold]
    if arguments.abort_on:
        fields["abort_on"] = [*fields.get("abort_on", ()), *arguments.abort_on]
    if arguments.kind:
        fields["kinds"] = [*fields.get("kinds", ()), *arguments.kind]
    if arguments.stage:
        fields["stages"] = [*fields.get("stages", ()), *arguments.stage]
    if not fields.get("stages"):
        fields.setdefault("duration_s", FOREVER_S)
    try:
        scenario = Scenario.model_validate(fields)
        if not arguments.accept_partial:
            scenario.check_window()
    except ValidationError as error:
        raise UsageError("\n".join(error_lines(error))) from error
    except NoWindow as error:
        raise UsageError(str(error)) from error
    return scenario


def run(arguments: argparse.Namespace) -> int:
    """Carry out a load. Returns the exit code."""
    try:
        scenario = scenario_of(arguments)
        subject = _subject(arguments.subject)
        if arguments.workers is not None and not 1 <= arguments.workers <= MAX_SLOTS:
            raise UsageError(f"--workers {arguments.workers}: expected 1 to {MAX_SLOTS}")
        if arguments.json is not None and str(arguments.json) != "-" and not arguments.json.absolute().parent.is_dir():
            raise UsageError(f"--json {arguments.json}: no such directory")
        values = gather(scenario.secrets, arguments.secret, os.environ)
        result = uvloop.run(_carry_out(arguments, scenario, subject, values))
    except (UsageError, SecretError, LoadError) as error:
        for line in str(error).splitlines():
            print(f"wsnode load: {line}", file=sys.stderr)
        return 2
    unwritten = None
    if arguments.json is not None:
        text = result.model_dump_json(indent=2) + "\n"
        if str(arguments.json) == "-":
            print(text, end="")
        else:
            try:
                arguments.json.write_text(text, encoding="utf-8")
            except OSError as error:
                unwritten = f"--json {arguments.json}: {error.strerror}; the result is shown only"
    print(render(result), file=sys.stderr if str(arguments.json) == "-" else sys.stdout)
    if unwritten is not None:
        print(f"wsnode load: {unwritten}", file=sys.stderr)
        return 2
    return exit_code(result, arguments.strict)


def _sources(given: list[str], target: str, clients: int) -> tuple[str, ...]:
    """Raises UsageError where they are not this host's, not of the target's family, or have too few ports."""
    for source in given:
        try:
            family = ipaddress.ip_address(source).version
        except ValueError as error:
            raise UsageError(f"--source {source}: expected an address of this host, such as 10.0.0.7") from error
        if family != ipaddress.ip_address(target.partition("%")[0]).version:
            raise UsageError(f"--source {source}: the target is {target}, expected addresses of its family")
    sources = sources_for(target, clients, given)
    for finding in source_ports(Need(clients, sources=sources)):
        if finding.level == "unfit":
            raise UsageError(f"{finding.check}: {finding.message}")
    return sources


def _subject(text: str | None) -> Subject | None:
    if text is None:
        return None
    name, _, version = text.rpartition("@")
    if not name or not version:
        raise UsageError(f"--subject {text!r}: expected NAME@VERSION, such as chat@1.4.2")
    return Subject(name=name, version=version, source="given")


async def _carry_out(
    arguments: argparse.Namespace, scenario: Scenario, subject: Subject | None, values: dict[str, str]
) -> Result:
    address = await resolve(arguments.url)
    target = str(address[1][0])
    sources = _sources(arguments.source, target, scenario.clients)
    limit = raise_descriptor_limit()
    plan = Plan.whole(scenario, arguments.url)
    workers = arguments.workers or workers_for(plan, cores(), limit)
    layout = Layout(for_job("wsnode-agent"))
    table = SharedTable.create(layout, MAX_SLOTS)
    exposition = Exposition("wsnode-agent", table, workers)
    if arguments.metrics_port is not None:
        try:
            _, port = exposition.start("127.0.0.1", arguments.metrics_port)
        except OSError as error:
            raise UsageError(f"--metrics-port {arguments.metrics_port}: {error.strerror}") from error
        print(f"metrics     http://127.0.0.1:{port}/metrics", file=sys.stderr)
    progress = Progress(scenario, enabled=not arguments.quiet, until_stopped=scenario.duration_s == FOREVER_S)
    meter = Meter()
    holds = scenario.holds_until(scenario.duration_s)
    series = Kept({scenario.window_open_s, *(edge for begin, end, _ in holds for edge in (begin, end))})
    watch = AbortWatch(scenario.abort_on)
    stopping: list[asyncio.Task[None]] = []

    def on_second(second: Second) -> None:
        series.append(meter.add_to(second))
        if (aborted := watch.look(second)) is not None:
            progress.say(told(aborted))
            stopping.append(asyncio.create_task(load.stop(drain=True, reason=told(aborted))))

    load = Load(
        plan,
        workers,
        table=table,
        address=address,
        sources=sources,
        secrets=values,
        ca_file=None if arguments.ca is None else str(arguments.ca),
        on_second=on_second,
        on_live=progress.show,
    )
    begin: dict[str, Any] = environment()
    begin["floor"] = await floor.read(
        plan, workers, lambda: progress.say("measuring what this host takes by itself, some 2 s")
    )
    await load.prepare()
    run_id = f"cli-{secrets.token_hex(5)}"
    exposition.info("run_info", {"run_id": run_id})
    exposition.watch("source_ports", SourcePorts(table, target, len(sources)).ratio)
    start_mono_ns = time.monotonic_ns() + LEAD_NS
    started = datetime.fromtimestamp((time.time_ns() + LEAD_NS) / 1e9, UTC)
    load.go(start_mono_ns)
    metering = asyncio.create_task(meter.run(start_mono_ns))
    _stop_on_signals(load, progress, stopping)
    try:
        end = await load.wait()
    finally:
        metering.cancel()
        await load.kill()
        exposition.close()
    progress.clear()
    if stopping:
        await asyncio.gather(*stopping)
    if end.final is not None:
        end = end._replace(final=meter.add_to_final(end.final))
    return _result(run_id, scenario, plan, series.lines, end, started, begin, subject, workers, watch.aborted)


class Kept:
    """A load's lines, of which only the edges of window and holds keep their histograms: it may go on for days."""

    def __init__(self, edges: Collection[int]) -> None:
        self.lines: list[Second] = []
        self._edges = edges

    def append(self, second: Second) -> None:
        """Keep the next line."""
        if self.lines and (last := self.lines[-1]).second not in self._edges:
            self.lines[-1] = last.model_copy(update={"histograms": {}})
        self.lines.append(second)


def _stop_on_signals(load: Load, progress: Progress, stopping: list[asyncio.Task[None]]) -> None:
    """The first Ctrl-C ends the load in order, the second at once, as does one while it is `stopping` already."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stopping:
            stopping.append(loop.create_task(load.kill()))
        else:
            progress.say("stopping: awaiting replies; Ctrl-C again ends at once")
            stopping.append(loop.create_task(load.stop(drain=True, reason="stopped by the user")))

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, on_signal)


def _result(
    run_id: str,
    scenario: Scenario,
    plan: Plan,
    series: list[Second],
    end: LoadEnd,
    started: datetime,
    begin: dict[str, Any],
    subject: Subject | None,
    workers: int,
    aborted: Aborted | None,
) -> Result:
    host = os.uname().nodename
    outcome = HostResult(
        run_id=run_id,
        host=host,
        state="interrupted" if end.interrupted else "stopped" if end.stopped else "finished",
        reason=end.interrupted or end.stopped,
        seconds=end.seconds,
        final=end.final,
        workers=workers,
        start_at_ns=round(started.timestamp() * 1e9),
        first_connect_due_ns=end.first_connect_due_ns,
        first_connect_begun_ns=end.first_connect_begun_ns,
        environment_begin=begin,
        environment_end=environment(),
    )
    hosts = [HostRun(host, series, outcome)]
    summary = summarise(scenario, hosts)
    if summary is None:
        raise LoadError(f"the load ended before its first second: {end.interrupted or end.stopped}")
    skew = None
    if end.first_connect_begun_ns is not None and end.first_connect_due_ns is not None:
        skew = (end.first_connect_begun_ns - end.first_connect_due_ns) / 1e9
    row = Host(
        name=host,
        role="load_generator",
        start_skew_s=skew,
        clock_offset_s=0.0,
        clock_bound_s=0.0,
        counters=run_counters(summary.total, summary.peak),
        environment=begin,
    )
    early = end.stopped and scenario.duration_s != FOREVER_S and aborted is None
    notes = [f"stopped early: {end.stopped}"] if early else []
    return judge(
        run_id, summary, hosts, subject=subject, started=started, host_rows=[row], notes=notes, aborted=aborted
    )


class Progress:
    """One line on a terminal, rewritten each second; elsewhere a line every ten seconds."""

    def __init__(self, scenario: Scenario, enabled: bool, until_stopped: bool) -> None:
        self._scenario = scenario
        self._enabled = enabled
        self._until = "" if until_stopped else f"/{scenario.duration_s}"
        self._tty = sys.stderr.isatty()
        self._last = (0, 0)

    def show(self, live: Live) -> None:
        """The last second's figures."""
        sent, received = live.sent - self._last[0], live.received - self._last[1]
        self._last = (live.sent, live.received)
        if not self._enabled or (not self._tty and live.second % 10):
            return
        p99 = live.recent.get("p99_ns")
        phase = "ramp-up" if live.second <= self._scenario.window_open_s else "window"
        if self._until and live.second > self._scenario.duration_s:
            phase = "drain"
        line = (
            f"{live.second}{self._until} s  {phase}  connections {live.connections_open:,}  sent {rate(sent)}  "
            f"answered {rate(received)}  p99 {duration(None if p99 is None else p99 / 1e9)}  errors {live.errors:,}"
        )
        self._print(f"\r\033[K{line}" if self._tty else f"{line}\n")

    def say(self, text: str) -> None:
        """A line of its own."""
        self.clear()
        self._print(f"{text}\n")

    def clear(self) -> None:
        """Take the rewritten line away."""
        if self._tty and self._enabled:
            self._print("\r\033[K")

    def _print(self, text: str) -> None:
        # Nobody may be reading any more (`2>&1 | head`): the load goes on.
        with suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)

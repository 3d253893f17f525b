"""The commands. Imports nothing but the standard library until a command needs more: `--help` and `down` work under any
Python >= 3.12, before there is a .venv."""

import argparse
import difflib
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from stack import dotenv, paths
from stack.errors import StackError
from stack.lab import cli as lab

NEEDS = {
    "demo": "portal",
    "up": "portal",
    "run": "portal",
    "compare": "portal",
    "manage": "portal",
    "status": "any",
    "down": "any",
    "open": "any",
    "lab": "portal",
    "inventory": "portal",
    "supplies": "portal",
    "compose": "portal",
    "bench": "dev",
    "test": "dev",
    "check": "dev",
}
"""Which environment a command needs: the portal's lock, the developer's, or `any` that has been made."""

_PASS_THROUGH = {
    "bench": "tests.benchmarks.bench",
    "test": "pytest",
    "manage": "portal.manage",
    "supplies": "stack.supplies",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        where = self.prog.removeprefix("./wslab").strip()
        help_for = f"./wslab {where} --help" if where else "./wslab --help"
        self.exit(2, f"wslab: {message}\n  fix: see {help_for}\n")


class _Top(_Parser):
    def format_help(self) -> str:
        return (paths.ROOT / "stack" / "help.txt").read_text(encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Top(prog="./wslab", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            description=text,
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    demo = add(
        "demo",
        "Start the lab, run `smoke` through the queue, show the result. The lab stays up until Ctrl-C.\n"
        "A lab that is up already is used, and left as it is.",
        "./wslab demo",
        "./wslab demo --exit --json result.json; echo $?",
        "sudo ./wslab demo --virtual --exit",
    )
    demo.add_argument(
        "--virtual",
        action="store_true",
        help="on several hosts of this machine, provisioned by Ansible and reached by SSH (needs root; see lab --help)",
    )
    demo.add_argument("--exit", action="store_true", help="end after the run, with its exit code")
    _result_options(demo)

    up = add("up", "Start the lab; come back when all of it is healthy.", "./wslab up", "./wslab up --foreground")
    up.add_argument("--foreground", action="store_true", help="stay and show what happens; Ctrl-C stops the lab")

    add("down", "Stop the lab in order. A run that is active is cancelled first.", "./wslab down")

    status = add(
        "status",
        "Each process with its state, asked now; and whether a run is active.\n"
        "Exit code: 0 all is well, 1 something is not, 3 the lab is down.",
        "./wslab status",
        "./wslab status --json",
    )
    status.add_argument("--json", action="store_true", help="machine-readable")

    opening = add(
        "open",
        "Open a page in the browser; without a display, print its address.",
        "./wslab open",
        "./wslab open prometheus",
    )
    opening.add_argument("what", nargs="?", choices=("portal", "dashboards", "prometheus"), default="portal")

    _run_options(
        add(
            "run",
            "Queue a run, or several as a group. With --wait (or --json) follow to the end; Ctrl-C then cancels.",
            "./wslab run smoke --wait",
            "./wslab run basic --set clients=500 --set duration_s=60 --subject echo@1.2 --wait --json result.json",
            "./wslab run smoke --subject echo@1.2 --reason 'does the new parser pay?' --tag parser --baseline r-…",
            "./wslab run smoke --subject chat --wait                        (declared: it tells its version itself)",
            "./wslab run smoke --repeat 5 --wait                            (a group: how far apart are they?)",
            "./wslab run smoke --subject echo@1.2 --alternate version=1.3   (5 + 5 runs: A B B A A B B A …)",
            "./wslab run smoke --repeat 6 --alternate size_bytes=1024 --plan",
            "./wslab run smoke --alternate nothing --wait                   (both alike: the noise of this lab)",
            "./wslab run ./my-scenario.yaml",
            "./wslab run stress --accept-partial --wait",
        )
    )
    comparing = add(
        "compare",
        "Hold runs or groups against a base. Exit code 0: none is worse than noise explains, 1: one is, 3: unknown.",
        "./wslab compare r-… r-…",
        "./wslab compare g-… g-… --json comparison.json",
    )
    comparing.add_argument("base", metavar="BASE", help="a run (r-…) or a group (g-…)")
    comparing.add_argument("contenders", metavar="CONTENDER", nargs="+", help="up to four runs or groups")
    comparing.add_argument("--json", metavar="FILE", help="write the machine-readable comparison there")

    add(
        "test",
        "Run the tests; everything after `test` goes to pytest.",
        "./wslab test",
        "./wslab test tests/stack -k port",
    )
    add(
        "bench",
        "Compare CPU and memory with Node's ws, Go, picows, the library and C, interleaved; `all`: 15 minutes.",
        "./wslab bench echo",
        "./wslab bench echo --grow size --peers node,lean,picows",
        "./wslab bench generator --peers node,lean --rounds 5 --json generator.json",
        "./wslab bench hold --connections 20000",
        "./wslab bench all --json FILE --markdown FILE",
    )
    add("check", "Formatting, lint, types, architecture, YAML, templates, shell, Prometheus.", "./wslab check")
    add(
        "manage",
        "The portal's management commands, with the lab's environment.",
        "./wslab manage changepassword admin",
        "./wslab manage help",
    )

    lab.add_options(
        add(
            "lab",
            "",
            "./wslab lab up",
            "./wslab lab ssh control",
            "./wslab lab exec server -- ss -ltn",
            "./wslab lab down",
        )
    )
    inventory = add(
        "inventory",
        "Which inventory ansible-playbook takes when none is named: show the choice, or make it.",
        "./wslab inventory show",
        "./wslab inventory use inventory/virtual",
        "./wslab inventory use ~/our-lab",
    )
    choose = inventory.add_subparsers(dest="action", metavar="use PATH|show", required=True)
    choose.add_parser("show", help="print the chosen one")
    choose.add_parser("use", help="choose a folder").add_argument("path", metavar="PATH")
    add(
        "supplies",
        "Make what hosts without a network need: wheel folders, apt repositories. ./wslab supplies wheels|apt --help",
        "./wslab supplies wheels --lock node --python 3.11",
        "./wslab supplies apt --release bookworm --out /srv/wslab-apt prometheus-node-exporter",
    )
    compose = add(
        "compose",
        "Make what `docker compose up` needs of this machine: wheels for the images (docker/supplies), the files that\n"
        "containers see (docker/rendered), and in .env the secrets; what .env has stays. Again after each `git pull`.",
        "./wslab compose && docker compose up --detach --wait",
        "./wslab compose --no-grafana",
    )
    compose.add_argument("--no-grafana", action="store_true", help="leave Grafana out, where .env does not say yet")

    hidden = commands.add_parser("supervise", parents=[], add_help=False)
    hidden.add_argument("--report-fd", type=int)
    hidden.add_argument("--parent", type=int)
    return top


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("scenario", metavar="SCENARIO", help="a scenario's name, or a YAML file with one")
    run.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], help="change a field; repeatable")
    run.add_argument(
        "--subject",
        metavar="NAME@VERSION",
        help="what is measured; NAME alone: a declared one, which tells its version",
    )
    run.add_argument(
        "--target",
        metavar="NAME[:PORT]",
        default="",
        help="aim at a server that an admin allowed (wslab_targets), instead of the lab's own",
    )
    run.add_argument("--reason", metavar="TEXT", default="", help="why it is made: runs are found again by it")
    run.add_argument("--tag", metavar="WORD", action="append", default=[], help="repeatable")
    run.add_argument("--baseline", metavar="RUN", help="a run to be held against, or none; default: the scenario's")
    run.add_argument("--accept-partial", action="store_true", help="run even where nothing is left for a window")
    run.add_argument("--repeat", metavar="N", help="so many runs (2 to 50) as a group, one after the other")
    run.add_argument(
        "--alternate",
        metavar="WHAT",
        action="append",
        help="a second group that alternates with the first, A B B A …: FIELD=VALUE, version=VERSION, "
        "subject=NAME@VERSION, scenario=NAME; or nothing. Repeatable; 5 runs each without --repeat",
    )
    run.add_argument("--title", metavar="TEXT", default="", help="what the group is called")
    run.add_argument("--plan", action="store_true", help="tell what would come of it, with warnings; start nothing")
    run.add_argument("--wait", action="store_true", help="follow to the end; the exit code is the run's, or the worst")
    _result_options(run)


def _result_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", metavar="FILE", help="write the machine-readable result there")
    command.add_argument(
        "--strict", action="store_true", help="a suspect measurement is exit code 3, as an invalid one"
    )


def passes_through(argv: list[str]) -> bool:
    """Whether all that follows the command is another program's to understand."""
    return bool(argv) and argv[0] in _PASS_THROUGH and argv[1:2] not in (["--help"], ["-h"])


def parse(argv: list[str]) -> argparse.Namespace:
    """Understand the command line, or leave with exit code 2 (0 after --help).

    Raises:
        StackError: there is no such command.
    """
    if argv and not argv[0].startswith("-") and argv[0] not in (*NEEDS, "supervise"):
        near = difflib.get_close_matches(argv[0], NEEDS, 1)
        raise StackError(f"there is no command {argv[0]!r}", f"./wslab {near[0]}" if near else "see ./wslab --help")
    return parser().parse_args(argv)


def main(argv: list[str]) -> int:
    """Carry out a command; its exit code."""
    try:
        dotenv.load(paths.ROOT / ".env")
        if passes_through(argv):
            _pass_through(argv[0], argv[1:])
        known, command = lab.split(argv)
        given = parse(known)
        return lab.run(given, command) if given.command == "lab" else _command(given)
    except StackError as error:
        print(error.show(), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\nwslab: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _command(given: argparse.Namespace) -> int:
    match given.command:
        case "demo":
            return _demo(given)
        case "up":
            return _up(given)
        case "down":
            return _down()
        case "status":
            return _status(given)
        case "open":
            return _open(given)
        case "run":
            return _run(given)
        case "compare":
            return _compare(given)
        case "inventory":
            return _inventory(given)
        case "compose":
            from stack.compose import prepare

            print("\n".join(prepare(grafana=not given.no_grafana)))
            return 0
        case "check":
            from stack.checks import check

            return check()
        case "supervise":
            return _supervise(given)
    raise AssertionError(given.command)


def _demo(given: argparse.Namespace) -> int:
    from stack import runs
    from stack.demo import demo

    file = runs.json_path(given.json)
    if given.virtual:
        from stack.lab import demo as virtual

        return virtual.run(paths.make_state_dir().resolve(), leave=given.exit, file=file, strict=given.strict)
    return demo(paths.make_state_dir(), leave=given.exit, file=file, strict=given.strict)


def _up(given: argparse.Namespace) -> int:
    from stack import lifecycle, status, supervisor
    from stack.terminal import Progress

    state = paths.make_state_dir()
    if given.foreground:
        code = supervisor.supervise(state, lambda event: _tell(state, event))
        if code == 75:
            raise StackError("the lab is up already", "./wslab status, or ./wslab down first")
        return code
    starting = lifecycle.Starting(state, bound=False, progress=Progress())
    try:
        found = starting.wait()
    except KeyboardInterrupt:
        if starting.ours:
            lifecycle.stop(state, starting.progress)
        raise
    print("the lab is up" if starting.ours else "the lab is up already")
    print(status.addresses(found, starting.admin))
    return 0


def _tell(state: Path, event: dict[str, Any]) -> None:
    """What `up --foreground` shows of an event."""
    from stack import events, record, status

    print(events.words(event, secret=True), flush=True)
    if event["event"] == "ready":
        found = record.read(state)
        if found is not None:
            print(f"the lab is up until Ctrl-C\n{status.addresses(found, None)}", flush=True)


def _down() -> int:
    from stack.demo import take_down
    from stack.terminal import Progress

    state = paths.state_dir()
    if not state.exists() or not take_down(state, Progress()):
        print("the lab was not up")
    return 0


def _status(given: argparse.Namespace) -> int:
    from stack import status
    from stack.lab.status import mention

    now = status.status(paths.state_dir())
    print(json.dumps(now, indent=1) if given.json else status.show_status(now))
    virtual = None if given.json else mention(paths.state_dir())
    if virtual:
        print(virtual)
    if now["phase"] == "down":
        return 3
    return 0 if now["healthy"] else 1


def _open(given: argparse.Namespace) -> int:
    from stack import lifecycle, status

    urls = lifecycle.running(paths.state_dir()).urls
    url = {
        "portal": urls["portal"],
        "dashboards": os.environ.get("GRAFANA_URL") or urls["grafana"],
        "prometheus": urls["prometheus"],
    }[given.what]
    if url is None:
        if given.what == "dashboards":
            raise StackError(
                "there are no dashboards: no grafana-server on PATH",
                "install Grafana and ./wslab down, up; or GRAFANA_URL=…; the run page holds each query to copy",
            )
        raise StackError("Prometheus does not run here", "./wslab status says why")
    print(f"opening {url}" if status.browse(url) else url)
    return 0


def _run(given: argparse.Namespace) -> int:
    from stack import lifecycle, runs, series
    from stack.client import Portal
    from stack.terminal import Progress

    wanted = runs.read_wanted(given)
    other = series.read_alternate(given.alternate)
    times = series.read_times(given.repeat, alternating=other is not None)
    file = runs.json_path(given.json)
    state = paths.state_dir()
    portal = Portal.of(lifecycle.running(state), state)
    if given.plan:
        print(series.show_plan(portal.plan({**wanted, "times": times, "alternate": other})))
        return 0
    wait = given.wait or file is not None
    if times > 1:
        group = portal.queue_series({**wanted, "times": times, "alternate": other, "title": given.title})
        print(f"group {group['group_id']} is queued: {group['url']}", flush=True)
        try:
            groups = series.follow(portal, group, Progress()) if wait else None
        except KeyboardInterrupt:
            print(f"\nwslab: left; the runs may go on: {group['url']}", file=sys.stderr)
            return runs.NOT_RUN
        return series.finish(portal, groups, file, strict=given.strict) if groups else 0
    run = portal.queue_one(wanted)
    print(f"run {run['run_id']} is {run['state']}: {run['url']}", flush=True)
    if not wait:
        return 0
    try:
        ended = runs.follow(portal, run["run_id"], Progress())
    except KeyboardInterrupt:
        print(f"\nwslab: left; the run may go on: {run['url']}", file=sys.stderr)
        return runs.NOT_RUN
    return runs.finish(portal, ended.run, file, strict=given.strict)


def _compare(given: argparse.Namespace) -> int:
    from stack import compare, lifecycle, runs
    from stack.client import Portal

    file = runs.json_path(given.json)
    state = paths.state_dir()
    return compare.compare(Portal.of(lifecycle.running(state), state), given.base, given.contenders, file)


def _supervise(given: argparse.Namespace) -> int:
    import signal

    from stack import events, procfs, supervisor

    if given.parent is not None:
        procfs.die_with_parent(given.parent, signal.SIGTERM)
    return supervisor.supervise(paths.make_state_dir(), events.Reporter(sys.stdout, given.report_fd))


def _inventory(given: argparse.Namespace) -> int:
    from stack import current

    print(current.use(given.path) if given.action == "use" else current.show())
    return 0


def _pass_through(command: str, arguments: list[str]) -> NoReturn:
    if command == "manage":
        _manage(arguments)
    sys.stdout.flush()
    os.chdir(paths.ROOT)
    os.execv(sys.executable, [sys.executable, "-m", _PASS_THROUGH[command], *arguments])  # noqa: S606


def _manage(arguments: list[str]) -> NoReturn:
    from stack import broker, record

    state = paths.make_state_dir()
    found = record.read(state)
    environment = {
        **os.environ,
        "WSLAB_STATE": str(state),
        "WSLAB_LAB": str(state / "lab.json"),
        "DJANGO_SETTINGS_MODULE": "portal.config.settings",
    }
    if found is not None and found.supervised:
        environment |= {"WSLAB_BROKER_URL": found.data["broker_url"], "WSLAB_PORTAL_URL": str(found.urls["portal"])}
    else:
        environment.setdefault("WSLAB_BROKER_URL", broker.url(Path("/nonexistent/broker.sock")))
    os.chdir(paths.ROOT)
    os.execve(sys.executable, [sys.executable, "-m", _PASS_THROUGH["manage"], *arguments], environment)  # noqa: S606

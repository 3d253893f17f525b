"""The command `wsnode`. Each sub-command is imported only when it is called: `agent connect` merely passes bytes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from wsnode import __version__

BROKEN_PIPE, INTERRUPTED = 141, 130
"""Exit codes, as a shell shows them for SIGPIPE and SIGINT."""
EXAMPLES = """\
examples:
  wsnode serve --port 3000                       serve ws://127.0.0.1:3000/echo, metrics on port 9091
  wsnode serve --workers 1                       one process, with rooms at /broadcast/<room>
  wsnode load ws://127.0.0.1:3000/echo --clients 100 --interval 200 --ramp-up 2 --duration 12 --rate 100
  wsnode preflight                               is this host fit for load?
  wsnode selftest                                does this host measure what is true? 25 s
  wsnode report a.json b.json                    merge the results of several hosts

`wsnode COMMAND --help` shows a command's options. A usage error exits with 2.
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command: its module has `add_arguments(parser)` and `run(arguments) -> exit code`."""

    module: str
    help: str


COMMANDS = {
    "serve": Command("wsnode.server.serve", "serve WebSocket connections: echo, rooms, health, metrics"),
    "load": Command("wsnode.load.cli", "put an open-model load on a WebSocket server and measure it"),
    "behaviours": Command("wsnode.load.behaviours", "list what clients can be told to do here"),
    "agent": Command("wsnode.agent", "run, reach and ask the service on every lab host"),
    "preflight": Command("wsnode.preflight", "check whether this host is fit for load"),
    "selftest": Command("wsnode.selftest", "try this host's generator on servers with known faults"),
    "report": Command("wsnode.load.report", "merge and show results"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code; usage errors exit with 2."""
    line = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="wsnode",
        description="wslab node: serves WebSocket connections, generates load, measures both.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wsnode {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    called = next((word for word in line if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=command.help)
        if name == called:
            module = import_module(command.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    arguments = parser.parse_args(line)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    return code

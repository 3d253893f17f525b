"""`wsnode agent`: the service on every lab host, the way to it, and two commands for people.

Only argparse is imported here: `agent connect` merely passes bytes and must start at once.
"""

from __future__ import annotations

import argparse

SOCKET = "/run/wsnode/agent.sock"
DATA = "/var/lib/wsnode"
HOOKS = "/run/wsnode-hooks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wsnode agent`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    service = _action(actions, "service", "answer on a Unix socket and carry out one load at a time")
    service.add_argument(
        "--data", default=DATA, metavar="DIR", help="where runs are kept until stored (default %(default)s)"
    )
    service.add_argument("--name", required=True, help="this host's name in the inventory")
    service.add_argument("--role", required=True, choices=("server", "load_generator"))
    service.add_argument("--metrics-host", default="127.0.0.1", metavar="HOST", help="default %(default)s")
    service.add_argument("--metrics-port", type=int, metavar="PORT", help="serve /metrics; default: not at all")
    service.add_argument("--config", metavar="FILE", help="TOML with caps and allowed targets; default: loopback only")
    service.add_argument(
        "--cores", type=int, metavar="N", help="cores to count on where others share this machine; default: all"
    )
    service.add_argument(
        "--deadman", type=float, metavar="S", help="stop a load that nobody has followed for S seconds"
    )
    service.add_argument(
        "--hooks", default=HOOKS, metavar="DIR", help="sockets of what may be done before a run (default %(default)s)"
    )
    service.add_argument("--health", metavar="URL", help="where a server on this host says that it is well")

    check = actions.add_parser("check", help="check a config file", description="check a config file")
    check.add_argument("--config", required=True, metavar="FILE", help="TOML with caps and allowed targets")
    _action(actions, "connect", "join standard input and output to the service's socket")
    listing = _action(actions, "list", "show the loads that the service knows")
    listing.add_argument("--json", action="store_true", help="print JSON")
    stop = _action(actions, "stop", "end a load now")
    stop.add_argument("run_id", metavar="RUN_ID")
    stop.add_argument("--drain", action="store_true", help="await outstanding replies first")


def run(arguments: argparse.Namespace) -> int:
    """Carry out an action. 0: done, 1: refused or failed, 2: usage, or no service there."""
    if arguments.action == "connect":
        from wsnode.agent.connect import connect

        return connect(arguments.socket)
    if arguments.action == "check":
        from wsnode.agent.config import check

        return check(arguments.config)
    if arguments.action == "service":
        from wsnode.agent.service import serve

        return serve(arguments)
    from wsnode.agent import console

    return console.show(arguments) if arguments.action == "list" else console.stop(arguments)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=text)
    action.add_argument("--socket", default=SOCKET, metavar="PATH", help="the service's socket (default %(default)s)")
    return action

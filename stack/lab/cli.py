"""`./wslab lab …`: the command line. Imports the standard library only until a command runs."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stack import paths
from stack.errors import StackError

_ABOUT = """\
A lab of systemd hosts on this Linux machine, each with its own network, for `ansible-playbook site.yml`. Needs root.
Hosts are disposable: `lab down` deletes all that they wrote, the next `lab up` gives bare ones. SSH keys stay.
One lab is up on a machine at a time. Nothing in it reaches another network: 198.18.0.0/24 never leaves the machine."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Fill the parser of `lab`, which `stack.cli` made."""
    command.description = _ABOUT
    actions = command.add_subparsers(dest="action", metavar="up|status|ssh|exec|down", required=True)

    def add(name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            description=text,
            help=text.split(".", maxsplit=1)[0],
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    up = add(
        "up",
        "Bring the hosts up; come back when each takes SSH. The first time makes images, which takes minutes.\n"
        "A lab that is up is left as it is; hosts in it that were powered off are started again.",
        "sudo ./wslab lab up && ansible-playbook site.yml",
        "sudo ./wslab lab up --load-generators 3 --release trixie,bookworm",
    )
    up.add_argument("--servers", type=int, metavar="N", help="hosts that serve (1)")
    up.add_argument("--load-generators", type=int, metavar="N", help="hosts that make load (2)")
    up.add_argument(
        "--release",
        metavar="NAME[,NAME…]",
        help="dealt to servers and load generators in turn (trixie); control: trixie",
    )
    up.add_argument("--keep-inventory", action="store_true", help="leave inventory/current as it is")
    status = add(
        "status",
        "Each host with its state, asked now. Exit code: 0 all is well, 1 something is not, 3 the lab is down.",
        "./wslab lab status --json",
    )
    status.add_argument("--json", action="store_true", help="machine-readable")
    for name, text in (
        ("ssh", "Log in to a host as root by SSH, or run a command there."),
        (
            "exec",
            "Run a command as root on a host, by its namespaces: needs no sshd. Passes its exit code on.",
        ),
    ):
        into = add(name, text, f"./wslab lab {name} control -- systemctl --failed")
        into.add_argument("name", metavar="NAME", help="a host, see ./wslab lab status")
        into.add_argument("words", nargs="*", metavar="-- COMMAND", help=argparse.SUPPRESS)
    add(
        "down",
        "Take the lab away, with all that its hosts wrote; also what is left after a kill -9.",
        "sudo ./wslab lab down",
    )


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The command line, and apart from it what follows `--` of `lab ssh` and `lab exec`."""
    if argv[:1] == ["lab"] and argv[1:2] in (["ssh"], ["exec"]) and "--" in argv:
        at = argv.index("--")
        return argv[:at], argv[at + 1 :]
    return argv, []


def run(given: argparse.Namespace, command: list[str]) -> int:
    """Carry out an action; its exit code."""
    actions: dict[str, Callable[[], int]] = {
        "up": lambda: _up(given),
        "status": lambda: _status(given),
        "ssh": lambda: _ssh(given.name, [*given.words, *command]),
        "exec": lambda: _exec(given.name, [*given.words, *command]),
        "down": _down,
    }
    return actions[given.action]()


def _up(given: argparse.Namespace) -> int:
    from stack import current
    from stack.lab import layout, lifecycle, status
    from stack.terminal import Progress, duration

    asked = [given.servers, given.load_generators, given.release]
    dealt = layout.releases(given.release) if given.release is not None else [layout.CONTROL_RELEASE]
    servers = 1 if given.servers is None else given.servers
    generators = 2 if given.load_generators is None else given.load_generators
    hosts = layout.plan(servers, generators, dealt)
    lifecycle.check_machine()
    state = _make_state_dir().resolve()
    complaint = lifecycle.others(state)
    if complaint is not None:
        raise complaint
    progress = Progress()
    starting = lifecycle.Starting(
        state, {"servers": servers, "load_generators": generators, "releases": dealt}, progress
    )
    try:
        found = starting.wait()
        if not starting.ours:
            _compare(found.hosts, hosts, explicit=any(value is not None for value in asked))
            again = lifecycle.wake(state, found, progress)
            progress.clear()
    except KeyboardInterrupt:
        if starting.ours:
            lifecycle.stop(state, progress)
        raise
    if starting.ours:
        print(f"the lab is up in {duration(starting.seconds())}: {layout.describe(hosts)}")
    else:
        print("the lab is up already" + (f"; started again: {', '.join(again)}" if again else ""))
    print("\n".join(status.addresses(found.forwards)))
    if not given.keep_inventory:
        print(f"  {current.use_virtual()}")
    return 0


def _make_state_dir() -> Path:
    """The state folder; a new one is given to the clone's owner, who may not be root and wants to use it too."""
    new = not paths.state_dir().exists()
    state = paths.make_state_dir()
    if new:
        owner = paths.ROOT.stat()
        for folder in (state, state / "logs"):
            os.chown(folder, owner.st_uid, owner.st_gid)
    return state


def _compare(rows: list[dict[str, Any]], wanted: list[Any], *, explicit: bool) -> None:
    there = [(row["name"], row["release"]) for row in rows]
    if explicit and there != [(host.name, host.release) for host in wanted]:
        raise StackError(
            "the lab is up with other hosts: " + ", ".join(f"{name} ({release})" for name, release in there),
            "./wslab lab down, then up (its hosts are bare again)",
        )


def _status(given: argparse.Namespace) -> int:
    from stack.lab import lifecycle, status

    state = paths.state_dir().resolve()
    now = status.status(state)
    print(json.dumps(now, indent=1) if given.json else status.show(now))
    if now["phase"] == "down":
        complaint = lifecycle.others(state)
        if complaint is not None:
            print(f"  {complaint}", file=sys.stderr)
        return 3
    return 0 if now["healthy"] else 1


def _ssh(name: str, command: list[str]) -> int:
    from stack.lab import lifecycle

    found = lifecycle.running(paths.state_dir().resolve())
    host = found.host(name)
    argv = ["ssh", "-F", found.data["ssh"]["config"], host["name"], *command]
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606


def _exec(name: str, command: list[str]) -> int:
    from stack import procfs
    from stack.lab import kernel, lifecycle, machine

    if not command:
        raise StackError("nothing to run is given", f"./wslab lab exec {name} -- COMMAND")
    lifecycle.check_machine()
    host = lifecycle.running(paths.state_dir().resolve()).host(name)
    nspawn = procfs.Pid(host["pid"], host["start"]) if host["pid"] else None
    leader = kernel.leader(nspawn) if nspawn and procfs.alive(nspawn) else None
    if leader is None:
        raise StackError(
            f"{name} is {host['state']}" + (f": {host['reason']}" if host["reason"] else ""), "./wslab lab up"
        )
    # nsenter ends with us, also where we are killed.
    return _watched(["setpriv", "--pdeathsig", "KILL", "--", *machine.enter(leader, *command)])


def _watched(argv: list[str]) -> int:
    """Run a command with our terminal. Returns its exit code, 128 + n where signal n ended it.

    nsenter stops itself where its child was stopped, as a host that goes down does to all that runs in it; then the
    child is gone with the host, and nobody would ever let nsenter go on.
    """
    sys.stdout.flush()
    child = os.posix_spawnp(argv[0], argv, os.environ)
    while True:
        try:
            _, status = os.waitpid(child, os.WUNTRACED)
        except KeyboardInterrupt:  # the terminal has told the child as well
            continue
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.1)
        os.kill(child, signal.SIGCONT)


def _down() -> int:
    from stack.lab import lifecycle
    from stack.terminal import Progress

    lifecycle.check_machine()
    left = lifecycle.stop(paths.state_dir().resolve(), Progress())
    if left is None:
        print("the lab was not up")
    elif left:
        print(f"cleaned up after a lab that was not taken down: {', '.join(left)}")
    else:
        print("the lab is down")
    return 0

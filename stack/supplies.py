"""What hosts without a way to any registry get from the controller: wheel folders and flat apt repositories.

Cached by content under ${XDG_CACHE_HOME:-~/.cache}/wslab/supplies; with a filled cache no network is needed. The
virtual lab and air-gapped labs use the same: wsnode_wheelhouse, portal_wheelhouse and wslab_apt_source point at it.
"""

import argparse
import json
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from stack import apt, hoard, repository, wheels
from stack.errors import StackError
from stack.hoard import Supply
from stack.paths import user_path
from stack.terminal import Progress

_FORMAT = 1  # raised when the same input is to give another folder
_ARCHES = ("amd64", "arm64")


def wheel_folder(lock: str, python: str, machine: str, *, refresh: bool = False) -> Supply:
    """All wheels of a lock for one Python and machine, pip's wheel, `requirements.txt`; for `node` wsnode's wheel too.

    Args:
        lock: `node` or `portal`.
        python: such as 3.11 (a third part is not looked at).
        machine: as `uname -m` has it.
        refresh: make it anew though it is there.

    Raises:
        StackError: with what was wanted and the way out.
    """
    wheels.check(lock, python, machine)
    python = ".".join(python.split(".")[:2])
    locks = [wheels.lock_file(name).read_text(encoding="utf-8") for name in (lock, "pip")]
    locked = hoard.key(_FORMAT, locks, python, machine)
    whole = hoard.key(locked, wheels.source_digest() if lock == "node" else None)

    def download(folder: Path) -> None:
        wheels.download(folder, lock, python, machine, _say)

    def assemble(folder: Path) -> None:
        # Apart, so that a changed line of wsnode does not fetch anything.
        downloaded = hoard.obtain(f"locked-{lock}-{python}-{machine}-{locked}", download, _waiting, refresh)
        wheels.assemble(folder, downloaded.folder, lock)

    return hoard.obtain(f"wheels-{lock}-{python}-{machine}-{whole}", assemble, _waiting, refresh)


def apt_repository(
    release: str,
    arch: str,
    names: Iterable[str],
    *,
    status: Path | None = None,
    mirror: str | None = None,
    keyring: Path | None = None,
    refresh: bool = False,
) -> Supply:
    """A flat repository of the closure of `names` that a machine with this dpkg status lacks.

    Args:
        release: such as trixie.
        arch: as dpkg names it.
        names: packages.
        status: the machine's /var/lib/dpkg/status; None for a machine that has nothing (large, and fits any host).
        mirror: URI of the release's archive, where the controller's own apt sources name none.
        keyring: what the mirror is signed with.
        refresh: make it anew though it is there; else what is there stays as old as it is.

    Raises:
        StackError: with what was wanted and the way out.
    """
    wanted = sorted(set(names))
    wrong = [name for name in wanted if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+(=\S+)?", name)]
    if wrong or not wanted:
        raise StackError(f"{wrong[0]!r} is no package name" if wrong else "no package is named", "NAME or NAME=VERSION")
    if arch not in _ARCHES:
        raise StackError(
            f"the architecture {arch!r} is none of {', '.join(_ARCHES)}", "--arch as `dpkg --print-architecture` says"
        )
    try:
        have = repository.installed(status.read_text(encoding="utf-8", errors="replace")) if status else []
    except OSError as error:
        raise StackError(f"the status file {status} cannot be read: {error.strerror}", "--status FILE") from None
    if status and not have:
        raise StackError(f"{status} is no dpkg status file: nothing in it is installed", "--status FILE of the machine")
    if release not in apt.DISTRIBUTIONS:
        raise StackError(
            f"the release {release!r} is none of {', '.join(apt.DISTRIBUTIONS)}", "--release NAME of these"
        )
    entry = f"apt-{release}-{arch}-{hoard.key(_FORMAT, release, arch, wanted, have, mirror)}"

    def fill(folder: Path) -> None:
        sources = apt.sources_for(release, mirror, keyring)
        repository.fill(folder, wanted, release=release, arch=arch, status=status, sources=sources, say=_say)

    return hoard.obtain(entry, fill, _waiting, refresh)


def _say(text: str) -> None:
    Progress().say(text)


def _waiting() -> None:
    _say("another process is filling the cache of supplies; waiting for it")


def main(arguments: list[str] | None = None) -> int:
    """The command line; the answer is one line on stdout, JSON where it is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m stack.supplies",
        description="Makes what hosts without a way to any registry need, out of a cache where it can: "
        f"{hoard.root()} (XDG_CACHE_HOME moves it; it may be deleted).",
        epilog="Copy the folder to where the hosts can read it and name it in group_vars/all: wsnode_wheelhouse, "
        "portal_wheelhouse (folders on the controller), wslab_apt_source (file:/… on the hosts, or http://…).",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="wheels|apt")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--refresh", action="store_true", help="make it anew though it is in the cache")
    common.add_argument("--out", metavar="DIR", help="copy it there (kept as it is where nothing changed)")
    common.add_argument("--json", action="store_true", help='print {"folder": …, "digest": …} and not the folder only')
    wheel = commands.add_parser("wheels", parents=[common], help="a folder of Python wheels", description=(
        "All wheels of requirements/LOCK.txt, hashes checked, pip's own wheel and requirements.txt; with --lock node "
        "the wheel of wsnode too, made from this clone."))  # fmt: skip
    wheel.add_argument("--lock", required=True, help=" or ".join(wheels.LOCKS))
    wheel.add_argument("--python", required=True, metavar="3.N", help="of the hosts")
    wheel.add_argument("--machine", default=platform.machine(), help="of the hosts, as `uname -m` (%(default)s)")
    debs = commands.add_parser("apt", parents=[common], help="a flat repository of Debian packages", description=(
        "The packages named and what they need, less what the machine with that dpkg status has."))  # fmt: skip
    debs.add_argument("--release", required=True, help=", ".join(apt.DISTRIBUTIONS))
    debs.add_argument("--arch", default="amd64", help="as `dpkg --print-architecture` (%(default)s)")
    debs.add_argument("--status", metavar="FILE", help="the hosts' /var/lib/dpkg/status; without it all is fetched")
    debs.add_argument("--mirror", metavar="URI", help="where this machine's own apt sources are another distribution's")
    debs.add_argument("--keyring", metavar="FILE", help="what the mirror is signed with")
    debs.add_argument("names", nargs="+", metavar="NAME", help="a package")
    given = parser.parse_args(arguments)
    try:
        supply = _obtain(given)
        if given.out:
            out = user_path(given.out)
            repository.export(supply.folder, out)
            supply = Supply(out, supply.digest)
    except StackError as error:
        sys.stderr.write(error.show() + "\n")
        return error.code
    except KeyboardInterrupt:  # what was begun is in a folder that nobody looks at
        return 130
    answer = {"folder": str(supply.folder), "digest": supply.digest}
    print(json.dumps(answer) if given.json else answer["folder"])
    return 0


def _obtain(given: argparse.Namespace) -> Supply:
    if given.command == "wheels":
        return wheel_folder(given.lock, given.python, given.machine, refresh=given.refresh)
    return apt_repository(
        given.release, given.arch, given.names,
        status=user_path(given.status) if given.status else None,
        mirror=given.mirror,
        keyring=user_path(given.keyring) if given.keyring else None,
        refresh=given.refresh,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

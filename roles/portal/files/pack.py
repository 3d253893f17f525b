"""What the control host is sent, on the controller: the portal's code and its wheels, each as one archive.

The same content gives the same bytes and names. Kept in the cache of stack.supplies.
"""

import argparse
import gzip
import json
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from stack import hoard, supplies  # noqa: E402
from stack.errors import StackError  # noqa: E402
from stack.hoard import Supply  # noqa: E402

_CODE = ("portal", "wsnode")
_NOT_RUN = {".pyc", ".md"}


def code_files() -> Iterator[Path]:
    """The files of the portal that are needed to run it."""
    for folder in _CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix not in _NOT_RUN and not path.name.startswith("."):
                yield path
    yield from sorted((ROOT / "scenarios").glob("*.yaml"))


def write_archive(target: Path, root: Path, files: Iterable[Path], *, packed: bool) -> None:
    """A tar file (gzip where `packed`) of files below a folder. Owner, time and mode are fixed."""
    with target.open("wb") as raw:
        stream = gzip.GzipFile("", "wb", mtime=0, fileobj=raw) if packed else raw
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in files:
                entry = tarfile.TarInfo(path.relative_to(root).as_posix())
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as content:
                    tar.addfile(entry, content)
        if packed:
            stream.close()


def archive(kind: str, digest: str, root: Path, files: list[Path], *, packed: bool) -> Path:
    """The archive from the cache, made if it is not there."""
    name = f"{kind}.tar.gz" if packed else f"{kind}.tar"

    def make(folder: Path) -> None:
        write_archive(folder / name, root, files, packed=packed)

    return hoard.obtain(f"portal{kind}-{digest}", make, lambda: None).folder / name


def wheels(python: str, machine: str, wheelhouse: str) -> Supply:
    """The folder of wheels for the host's Python.

    Raises:
        StackError: there is none, or its lock is not this clone's.
    """
    if not wheelhouse:
        return supplies.wheel_folder("portal", python, machine)
    folder = Path(wheelhouse) / f"portal-{python}-{machine}"
    fix = f"python -m stack.supplies wheels --lock portal --python {python} --machine {machine} --out {folder}"
    try:
        lock = (folder / "requirements.txt").read_bytes()
    except OSError as error:
        raise StackError(f"portal_wheelhouse is {wheelhouse}, but {folder}: {error.strerror}", fix) from None
    if lock != (ROOT / "requirements" / "portal.txt").read_bytes():
        raise StackError(f"{folder} was made from another lock than this clone's requirements/portal.txt", fix)
    return Supply(folder, hoard.tree_digest(folder))


def main(arguments: list[str] | None = None) -> int:
    """One line of JSON: name of the release, and name and archive of code and wheels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="of the host, such as 3.13")
    parser.add_argument("--machine", required=True, help="of the host, as `uname -m`")
    parser.add_argument("--wheelhouse", default="", help="folder with portal-3.13-x86_64 …; without it, made at need")
    given = parser.parse_args(arguments)
    try:
        files = list(code_files())
        code = hoard.key([(path.relative_to(ROOT).as_posix(), path.read_bytes().hex()) for path in files])[:16]
        supply = wheels(given.python, given.machine, given.wheelhouse)
        environment = hoard.key(supply.digest, given.python)[:16]
        wheel_files = sorted(path for path in supply.folder.iterdir() if path.is_file())
        answer = {
            "release": hoard.key(code, environment)[:16],
            "environment": environment,
            "code": str(archive("code", code, ROOT, files, packed=True)),
            "wheels": str(archive("wheels", environment, supply.folder, wheel_files, packed=False)),
        }
    except StackError as error:
        sys.stderr.write(error.show() + "\n")
        return error.code
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

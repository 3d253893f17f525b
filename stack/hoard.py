"""A cache of folders by what they were made from: atomic, safe for several processes, old ones dropped.

An entry is `KIND-KEY/` with `content/` and `entry.json` (digest, and the files with their sizes, so that a damaged
entry is made anew). It comes into being by one rename.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stack.errors import StackError
from stack.paths import state_dir

KEEP_DAYS = 30.0


class Supply(NamedTuple):
    """A folder in the cache, and the digest of all that is in it."""

    folder: Path
    digest: str


def root() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/wslab/supplies`, or `supplies` in the state folder where there is no home."""
    home = os.environ.get("XDG_CACHE_HOME") or (
        os.path.join(os.environ["HOME"], ".cache") if os.environ.get("HOME") else ""
    )
    return Path(home) / "wslab" / "supplies" if os.path.isabs(home) else state_dir() / "supplies"


def key(*parts: object) -> str:
    """A short name for what an entry is made from."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def tree_digest(folder: Path) -> str:
    """Of names and contents of all files under a folder; times, owners and modes don't count."""
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.relative_to(folder)}\0{content}\n".encode())
    return whole.hexdigest()[:32]


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def look_up(entry: str) -> Supply | None:
    """The entry, if it is there and whole; marks it as used."""
    folder = root() / entry
    try:
        said = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        whole = said["files"] == _sizes(folder / "content")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    with contextlib.suppress(OSError):  # somebody else's cache, which may be read all the same
        os.utime(folder)
    return Supply(folder / "content", said["digest"])


def obtain(entry: str, make: Callable[[Path], None], waiting: Callable[[], None], refresh: bool = False) -> Supply:
    """The entry, made by `make(empty folder)` if it is not there.

    Raises:
        StackError: as `make` does; or the cache cannot be written.
    """
    found = None if refresh else look_up(entry)
    if found:
        return found
    with _making(entry.partition("-")[0], waiting):
        found = None if refresh else look_up(entry)
        if found:  # the one that was waited for has made it
            return found
        with tempfile.TemporaryDirectory(prefix=".making-", dir=root()) as work:
            folder = Path(work) / entry
            content = folder / "content"
            content.mkdir(parents=True)
            make(content)
            # Guests and apt's own user read it: the files are public, only the way to them is the user's affair.
            for path in (folder, content, *content.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            digest = tree_digest(content)
            said = {"digest": digest, "files": _sizes(content)}
            (folder / "entry.json").write_text(json.dumps(said), encoding="utf-8")
            old = root() / entry
            if old.exists():  # damaged, or to be refreshed
                old.rename(Path(work) / "old")
            folder.rename(old)
        _drop_old(keep=entry)
    return Supply(root() / entry / "content", digest)


@contextlib.contextmanager
def _making(kind: str, waiting: Callable[[], None]) -> Iterator[None]:
    """One process makes entries of a kind at a time; the lock goes with the process."""
    try:
        root().mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(root() / f".lock-{kind}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StackError(
            f"the cache {root()} cannot be written: {error.strerror}", "XDG_CACHE_HOME=/a/folder/of/yours …"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _drop_old(keep: str) -> None:
    """Entries that nobody has used for long, and what a killed process left."""
    now = time.time()
    for path in root().iterdir():
        days = (now - path.stat().st_mtime) / 86400
        if path.is_dir() and path.name != keep and days > (1 if path.name.startswith(".making-") else KEEP_DAYS):
            shutil.rmtree(path, ignore_errors=True)

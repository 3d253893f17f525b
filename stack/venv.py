"""Makes .venv from the hashed lock, only when the lock or the interpreter changed; then becomes `python -m stack`.

Runs under any Python >= 3.12 before a dependency is there: standard library only. The stamp (.venv/wslab.json) is
taken away first and written last, so that an interrupted build is never mistaken for a whole one; a lock on the
clone's folder is held meanwhile, also by pip, so that two do not build at once and a killed one's pip is waited for.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stack import cli, dotenv, paths, record
from stack.errors import StackError
from stack.terminal import Progress, duration

ROOT = paths.ROOT
VENV = ROOT / ".venv"
STAMP = VENV / "wslab.json"
KINDS = ("portal", "dev")  # each later one holds all of the earlier ones
_NETWORK = (
    "NewConnectionError",
    "name resolution",
    "Network is unreachable",
    "No matching distribution",
    "ConnectTimeout",
)


def python() -> Path:
    """The environment's interpreter."""
    return VENV / "bin" / "python"


def digest(content: bytes) -> str:
    """What a file holds, in short."""
    return hashlib.sha256(content).hexdigest()[:32]


def project() -> str:
    """The part of pyproject.toml that an editable install depends on; how the linters are set is none of it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        whole = tomllib.load(file)
    parts = [whole.get("build-system"), whole.get("project"), whole.get("tool", {}).get("setuptools")]
    return digest(json.dumps(parts, sort_keys=True).encode())


def wanted(kind: str, version: str) -> dict[str, Any]:
    """The stamp of an environment of this kind, made now by this version of Python."""
    return {
        "root": str(ROOT),
        "python": version,
        "project": project(),
        "locks": {
            name: digest((ROOT / "requirements" / f"{name}.txt").read_bytes())
            for name in KINDS[: KINDS.index(kind) + 1]
        },
    }


def stale(stamp: dict[str, Any], want: dict[str, Any]) -> str | None:
    """Why an environment with this stamp must be made anew; None: it may stay, perhaps with something added."""
    if not stamp:
        return "it was not made, or not finished, by ./wslab"
    if stamp.get("root") != want["root"]:
        return f"it was made for {stamp.get('root')}"
    if stamp.get("python") != want["python"]:
        return f"Python was {stamp.get('python')} and is {want['python']}"
    for name, lock in want["locks"].items():
        if stamp.get("locks", {}).get(name, lock) != lock:
            return f"requirements/{name}.txt changed"
    return None


def read_stamp() -> dict[str, Any]:
    """Empty where the environment is missing, half-made or somebody else's."""
    try:
        value = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def venv_version() -> str | None:
    """What the environment's interpreter says it is; None when it does not run (its base may have gone)."""
    if Path(sys.prefix) == VENV:
        return _version()
    try:
        done = subprocess.run(
            [python(), "-I", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version() -> str:
    return ".".join(map(str, sys.version_info[:3]))


@contextlib.contextmanager
def building(progress: Progress) -> Iterator[int]:
    """The lock on the clone; yields its descriptor, for pip to hold too."""
    handle = os.open(ROOT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.update("another ./wslab is making .venv; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
            progress.clear()
        except OSError:  # a file system without locks: go on without
            pass
        yield handle
    finally:
        os.close(handle)


def ensure(kind: str) -> None:
    """Make or complete the environment.

    Raises:
        StackError: it cannot be made; with the reason and the way out.
    """
    progress = Progress()
    if _whole(kind):
        return
    with building(progress) as lock:
        if _whole(kind):  # the one that was waited for has made it
            return
        version, stamp = _version(), read_stamp()
        if "dev" in stamp.get("locks", {}):
            kind = "dev"  # a developer's stays one
        want = wanted(kind, version)
        why = stale(stamp, want) if venv_version() == version else "its Python has gone or is another"
        _check_writable()
        begun = time.monotonic()
        log = paths.make_state_dir() / "logs" / "setup.log"
        with log.open("w", encoding="utf-8") as output:
            builder = _Builder(progress, output, log, lock)
            if why is not None:
                _refuse_under_running_stack(why)
                if VENV.exists() or VENV.is_symlink():
                    progress.say(f".venv is made anew: {why}")
                _remove()
                builder.create()
            if why is not None or not _has(stamp, want["locks"]):
                builder.install(kind)
            if why is not None or stamp.get("project") != want["project"]:
                builder.install_project()
        record.write_json(STAMP, want, mode=0o644)
        progress.clear()
        progress.say(f".venv is ready after {duration(time.monotonic() - begun)}")


def _whole(kind: str) -> bool:
    version = venv_version()
    if version is None or (Path(sys.prefix) != VENV and version != _version()):
        return False
    stamp, want = read_stamp(), wanted(kind, version)
    return stale(stamp, want) is None and stamp.get("project") == want["project"] and _has(stamp, want["locks"])


def _has(stamp: dict[str, Any], locks: dict[str, str]) -> bool:
    return set(locks) <= set(stamp.get("locks", {}))


def _check_writable() -> None:
    if not os.access(ROOT, os.W_OK | os.X_OK):
        raise StackError(
            f"{ROOT} belongs to {paths.owner(ROOT)} and cannot be written, so no .venv can be made in it",
            "run as that user, or clone it into a folder of your own",
        )


def _refuse_under_running_stack(why: str) -> None:
    found = record.read(paths.state_dir())
    if found is not None and found.supervised:
        raise StackError(f"a lab runs from .venv, which must be made anew: {why}", "./wslab down first")


def _remove() -> None:
    STAMP.unlink(missing_ok=True)
    try:
        if VENV.is_symlink():
            VENV.unlink()
        elif VENV.exists():
            shutil.rmtree(VENV)
    except OSError as error:
        raise StackError(
            f"{VENV} cannot be replaced: {error.strerror} ({paths.owner(VENV)} owns it)", f"sudo rm -rf '{VENV}'"
        ) from None


class _Builder:
    """Runs the steps with their output in the log, and the end of it on the screen when one fails."""

    def __init__(self, progress: Progress, output: Any, log: Path, lock: int) -> None:
        self.progress = progress
        self.output = output
        self.log = log
        self.lock = lock

    def create(self) -> None:
        base = getattr(sys, "_base_executable", None) or sys.executable
        self._run("making .venv", [base, "-m", "venv", str(VENV)])

    def install(self, kind: str) -> None:
        lock = ROOT / "requirements" / f"{kind}.txt"
        count = len(re.findall(r"(?m)^[A-Za-z0-9][\w.-]*(?:\[[\w,-]+\])?==", lock.read_text(encoding="utf-8")))
        self._run(
            f"installing {count} packages",
            [
                *_PIP,
                "install",
                "--require-hashes",
                "--no-deps",
                "--no-compile",
                "--progress-bar",
                "off",
                "-r",
                str(lock),
            ],
            count,
        )

    def install_project(self) -> None:
        options = ("--no-deps", "--no-build-isolation", "--no-index")
        self._run("installing wslab itself", [*_PIP, "install", *options, "-e", str(ROOT)])

    def _run(self, title: str, argv: list[str], count: int = 0) -> None:
        """One step; `count` packages are being collected, for the progress."""
        begun = time.monotonic()
        environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONUNBUFFERED": "1"}
        child = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(self.lock,),
        )
        assert child.stdout is not None
        collected, unpacking, lines = 0, False, list[str]()
        try:
            for line in _ticking(child.stdout.fileno()):
                if line:
                    self.output.write(line)
                    lines = [*lines[-39:], line.rstrip()]
                    collected += line.startswith("Collecting ")
                    unpacking = unpacking or line.startswith("Installing collected")
                seconds = f"{time.monotonic() - begun:.0f} s"
                doing = f", {'unpacking' if unpacking else f'{collected} fetched'}" if count else ""
                self.progress.update(f"{title}: {seconds}{doing}")
        except BaseException:
            child.kill()
            child.wait()
            self.progress.clear()
            raise
        finally:
            child.stdout.close()
        self.output.flush()
        if child.wait() != 0:
            self.progress.clear()
            raise self._failure(title, lines)

    def _failure(self, title: str, lines: list[str]) -> StackError:
        shown = "".join(f"\n    {line}" for line in [line for line in lines if line][-8:])
        if any(word in line for word in _NETWORK for line in lines):
            fix = "with a network (or pip's own PIP_INDEX_URL, PIP_FIND_LINKS) start again; what was fetched is kept"
        elif any("No space left" in line for line in lines):
            fix = "make room (about 500 MB) and start again"
        else:
            fix = f"see {self.log}; another Python may do: WSLAB_PYTHON=/path/to/python3.13 ./wslab …"
        return StackError(f"{title} failed{shown}", fix)


_PIP = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _ticking(handle: int) -> Iterator[str]:
    """Lines as they come, and an empty string after each half second of silence."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while True:
            if not selector.select(0.5):
                yield ""
                continue
            chunk = os.read(handle, 65536)
            if not chunk:
                if pending:
                    yield pending.decode(errors="replace")
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace") + "\n"


def main(argv: list[str]) -> int:  # noqa: RET503  (execv does not return)
    """What `./wslab` runs: the right environment first, then the command in it."""
    try:
        if not cli.passes_through(argv):
            cli.parse(argv)  # usage errors and --help come before a minute of building
        need = cli.NEEDS.get(argv[0]) if argv else None
        dotenv.load(ROOT / ".env")
        if need in KINDS:
            ensure(need)
    except StackError as error:
        print(error.show(), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\nwslab: interrupted while making .venv; the next start begins it anew", file=sys.stderr)
        return 130
    interpreter = python() if need is not None and read_stamp() else Path(sys.executable)
    os.execv(interpreter, [str(interpreter), "-m", "stack", *argv])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

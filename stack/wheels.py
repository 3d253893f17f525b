"""Wheel folders for hosts: a lock's wheels for another Python and machine, pip's own, wsnode's from the clone."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from stack.errors import StackError
from stack.paths import ROOT

LOCKS = ("node", "portal")
PYTHONS = {"node": (3, 11), "portal": (3, 12)}  # the oldest each lock is resolved for
MACHINES = ("x86_64", "aarch64")
REQUIREMENTS = "requirements.txt"
# Debian 12, the oldest release of a lab, has glibc 2.36; PEP 600 wheels name any version up to it.
_GLIBC_MINORS = range(36, 16, -1)
_PROJECT = ("pyproject.toml", "LICENSE")  # what wsnode's wheel is made from, beside its package
_EPOCH = "1577836800"  # 2020-01-01, the time of every file in wsnode's wheel
_LIMIT_S = 900
# What a user may have set for pip and is meant to count here; others (PIP_FIND_LINKS, PIP_TARGET, PIP_NO_BINARY …)
# would change what comes.
_PIP_SETTINGS = ("INDEX_URL", "EXTRA_INDEX_URL", "TRUSTED_HOST", "CERT", "CLIENT_CERT", "PROXY", "DEFAULT_TIMEOUT",
                 "CACHE_DIR", "CONFIG_FILE")  # fmt: skip


def lock_file(lock: str) -> Path:
    """The hashed lock of this name."""
    return ROOT / "requirements" / f"{lock}.txt"


def platforms(machine: str) -> list[str]:
    """The wheel platforms that run on a lab's hosts, the newest glibc first (PEP 600; PEP 599 for the old name)."""
    return [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS] + [f"manylinux2014_{machine}"]


def check(lock: str, python: str, machine: str) -> None:
    """Refuse what there cannot be wheels for.

    Raises:
        StackError: with what was given and what is wanted.
    """
    if lock not in LOCKS:
        raise StackError(f"the lock {lock!r} is none of {', '.join(LOCKS)}", "--lock NAME of these")
    if machine not in MACHINES:
        raise StackError(
            f"the machine {machine!r} is none of {', '.join(MACHINES)}", "--machine as `uname -m` on the host says"
        )
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)?", python)
    oldest = PYTHONS[lock]
    if not match or (int(match[1]), int(match[2])) < oldest:
        raise StackError(
            f"Python {python!r} is no version from {oldest[0]}.{oldest[1]} on, which {lock_file(lock).name} needs",
            "--python as `python3 --version` on the host says; a control host is Debian 13 or Ubuntu 24.04"
            if lock == "portal"
            else "--python as `python3 --version` on the host says",
        )


def for_target(lock: str, python: str, machine: str) -> str:
    """A lock's text less what the target does not need.

    pip asks the running interpreter about markers, whatever --python-version and --platform say.
    """
    from packaging.markers import Marker

    target = {
        "implementation_name": "cpython", "implementation_version": f"{python}.0", "os_name": "posix",
        "platform_machine": machine, "platform_python_implementation": "CPython", "platform_system": "Linux",
        "python_full_version": f"{python}.0", "python_version": python, "sys_platform": "linux",
    }  # fmt: skip

    def kept(entry: str) -> str:
        head, sign, rest = entry.partition(" \\\n")
        requirement, semicolon, marker = head.partition(" ; ")
        return "" if semicolon and not Marker(marker).evaluate(target) else requirement + sign + rest

    return "".join(kept(entry) for entry in re.split(r"^(?=[^\s#])", lock, flags=re.MULTILINE))


def _environment() -> dict[str, str]:
    allowed = {f"PIP_{name}" for name in _PIP_SETTINGS}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") or name in allowed}
    # pip's own 5 wait half a minute where there is no network; with none it does not say that it reached no index.
    return {**kept, "PIP_RETRIES": "2", "LC_ALL": "C.UTF-8"}


def download(folder: Path, lock: str, python: str, machine: str, say: Callable[[str], None]) -> None:
    """All wheels of a lock, and pip's own, into an empty folder; every hash checked.

    Raises:
        StackError: what could not be had, and why.
    """
    text = lock_file(lock).read_text(encoding="utf-8")
    for name, content in ((lock, for_target(text, python, machine)), ("pip", lock_file("pip").read_text("utf-8"))):
        say(f"fetching the wheels of requirements/{name}.txt for Python {python}, {machine}")
        with tempfile.NamedTemporaryFile("w", prefix="wslab-lock-", suffix=".txt", encoding="utf-8") as wanted:
            wanted.write(content)
            wanted.flush()
            _pip_download(folder, Path(wanted.name), f"requirements/{name}.txt", python, machine)


def _pip_download(folder: Path, wanted: Path, lock: str, python: str, machine: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet",
               "--no-deps", "--only-binary=:all:", "--require-hashes", "--implementation", "cp",
               "--python-version", python, "-d", str(folder), "-r", str(wanted)]  # fmt: skip
    command += [part for platform in platforms(machine) for part in ("--platform", platform)]
    try:
        done = subprocess.run(
            command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StackError(f"pip took more than {_LIMIT_S} s for {lock}", "try again") from None
    if done.returncode:
        raise _explained(done.stderr, lock, f"Python {python}, {machine}")


def _explained(said: str, lock: str, target: str) -> StackError:
    """pip's last words as one line and a way out."""
    if "No module named pip" in said:
        return StackError(f"{sys.executable} has no pip to fetch wheels with", "./wslab test makes .venv, which has it")
    if "DO NOT MATCH THE HASHES" in said:
        return StackError(
            f"what came for {lock} has other contents than the lock says: {_package(said)}",
            "the mirror or a proxy changed it; PIP_INDEX_URL= of another",
        )
    if re.search(r"NewConnectionError|NameResolution|name resolution|unreachable|ConnectTimeout|ProxyError", said):
        return StackError(
            f"the wheels of {lock} for {target} are not in the cache, and no package index can be reached",
            "once with a network (or PIP_INDEX_URL); or a folder made elsewhere: wsnode_wheelhouse, portal_wheelhouse",
        )
    missing = re.search(r"No matching distribution found for (\S+)", said)
    if missing:
        return StackError(
            f"{missing[1]} ({lock}) has no wheel for {target}, and nothing is compiled on hosts",
            "another version of it in the lock, or another Python on the host",
        )
    last = [line for line in said.splitlines() if line.startswith("ERROR:")] or said.splitlines() or ["no word"]
    return StackError(
        f"the wheels of {lock} for {target} could not be fetched: {last[-1].removeprefix('ERROR:').strip()}",
        "what pip says; PIP_INDEX_URL= of another index",
    )


def _package(said: str) -> str:
    match = re.search(r"^\s+(\S+) from \S+(?: \(from .*\))?:\s*$", said, re.MULTILINE)
    return match[1] if match else "see pip download --require-hashes"


def _sources() -> Iterator[Path]:
    """The files that wsnode's wheel is made from, in order."""
    yield from (ROOT / name for name in _PROJECT)
    yield from sorted(
        path for path in (ROOT / "wsnode").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    )  # fmt: skip


def source_digest() -> str:
    """Of all that wsnode's wheel is made from."""
    whole = hashlib.sha256()
    for file in _sources():
        whole.update(f"{file.relative_to(ROOT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def build_wsnode(folder: Path) -> Path:
    """wsnode's wheel into a folder; the same bytes for the same sources. Offline, and nothing is left in the clone.

    Raises:
        StackError: it cannot be built, with the last word of the build.
    """
    with tempfile.TemporaryDirectory(prefix="wslab-wheel-") as work:
        for file in _sources():
            target = Path(work) / "clone" / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            target.chmod(0o644)  # modes go into the wheel; the clone's depend on its owner's umask
        # The wheel's description; with the clone's own, a changed README would give every host a new environment.
        (Path(work) / "clone" / "README.md").write_text("wsnode of wslab\n", encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-c",
                 "import sys, setuptools.build_meta as build; print(build.build_wheel(sys.argv[1]))", work],
                cwd=Path(work) / "clone", env={**_environment(), "SOURCE_DATE_EPOCH": _EPOCH}, umask=0o022,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=300, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StackError("building wsnode's wheel took more than 300 s", "try again") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise StackError(
                f"wsnode's wheel could not be built by {sys.executable}: {last}",
                "./wslab makes a .venv with setuptools; run it by that" if "No module named" in last else "",
            )
        wheel = Path(work) / done.stdout.strip().splitlines()[-1]
        return Path(shutil.copy(wheel, folder / wheel.name))


def assemble(folder: Path, downloaded: Path, lock: str) -> None:
    """The folder for hosts: what was downloaded, the lock as `requirements.txt`, and for nodes wsnode's wheel, with a
    line of its own in there: one `pip install --no-index --require-hashes -r requirements.txt` installs all."""
    for wheel in sorted(downloaded.glob("*.whl")):
        try:
            os.link(wheel, folder / wheel.name)
        except OSError:  # a file system without hard links
            shutil.copyfile(wheel, folder / wheel.name)
    text = lock_file(lock).read_text(encoding="utf-8")
    if lock == "node":
        built = build_wsnode(folder)
        name, version = built.name.split("-")[:2]
        text += f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(built.read_bytes()).hexdigest()}\n"
    (folder / REQUIREMENTS).write_text(text, encoding="utf-8")

"""`compose`: what `docker compose up` needs: wheels for the images, the files that containers see, and `.env`.

All of it lies under docker/supplies and docker/rendered of the clone (git-ignored), readable by the containers' users
whatever the clone's umask was. Safe to repeat: secrets that `.env` has stay, files change only where their content did.
"""

import filecmp
import fnmatch
import json
import os
import platform
import resource
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

from stack import dotenv, labfile, supplies
from stack.errors import StackError
from stack.paths import ROOT

PYTHON = "3.13"
"""Of the images: docker/Dockerfile."""
LOCK_PLACES = (Path("/run/lock"), Path("/tmp"))  # noqa: S108  (mounted, not written to)
"""Where the portal looks for the machine's lock, in this order."""
_CAP_SYS_RESOURCE = 24
NEXT = "docker compose up --detach --wait"


def lab(machine: str) -> dict[str, Any]:
    """lab.json of the containers: docker/lab.json on this machine."""
    content: dict[str, Any] = json.loads((ROOT / "docker" / "lab.json").read_text(encoding="utf-8"))
    return content | {"machine": machine}


def render(target: Path, machine: str) -> None:
    """Write what containers see of the clone.

    Raises:
        StackError: a folder cannot be written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        content = lab(machine)
        _write(target / "lab.json", json.dumps(content, indent=1) + "\n")
        labfile.write_prometheus(target / "prometheus", content["hosts"])
        for name in ("provisioning", "dashboards"):
            mirror(ROOT / "grafana" / name, target / "grafana" / name)
        _open_to_all(target)
    except OSError as error:
        raise StackError(f"{target} cannot be written: {error}", f"rm -r {target}, as its owner") from None


def mirror(source: Path, target: Path, leave: tuple[str, ...] = ()) -> None:
    """Make a folder hold what another holds. It may be mounted meanwhile: it stays the same folder.

    Args:
        leave: patterns of names that are left out.
    """
    target.mkdir(parents=True, exist_ok=True)
    wanted = {path.relative_to(source) for path in source.rglob("*")}
    wanted = {name for name in wanted if not any(fnmatch.fnmatch(name.name, pattern) for pattern in leave)}
    for path in sorted(target.rglob("*"), reverse=True):
        if path.relative_to(target) not in wanted:
            path.rmdir() if path.is_dir() else path.unlink()
    for name in sorted(wanted):
        if (source / name).is_dir():
            (target / name).mkdir(exist_ok=True)
        elif not (target / name).exists() or not filecmp.cmp(source / name, target / name, shallow=False):
            shutil.copyfile(source / name, target / name)
    _open_to_all(target)


def settings(grafana: bool) -> dict[str, str]:
    """What `.env` must hold, as it would be written now."""
    return {
        "WSLAB_DOCKER_SECRET_KEY": secrets.token_urlsafe(48),
        "WSLAB_DOCKER_DATABASE_PASSWORD": secrets.token_hex(24),
        "WSLAB_DOCKER_ADMIN_PASSWORD": secrets.token_urlsafe(15),
        "WSLAB_DOCKER_GRAFANA_PASSWORD": secrets.token_urlsafe(15),
        "WSLAB_DOCKER_OPEN_FILES": str(open_files()),
        "WSLAB_DOCKER_CPUS": str(os.cpu_count() or 1),
        "WSLAB_DOCKER_LOCKS": str(locks()),
        "COMPOSE_PROFILES": "grafana" if grafana else "",
    }


def complete(file: Path, wanted: dict[str, str]) -> list[str]:
    """Append to `.env` what it lacks and close it to others. Returns the names that were added.

    Raises:
        StackError: it is malformed, or cannot be written.
    """
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        have = dotenv.parse(text, str(file))
        # Compose takes an empty secret for a missing one; of a name that stands twice the last line counts.
        added = [name for name in wanted if not have.get(name) and (name not in have or name != "COMPOSE_PROFILES")]
        if added:
            lines = [f"{name}={wanted[name]}" for name in added]
            head = "" if any(name.startswith("WSLAB_DOCKER_") for name in have) else "# docker compose\n"
            gap = "\n" if text and not text.endswith("\n") else ""
            # A new file is closed from its first byte on.
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as stream:
                os.fchmod(stream.fileno(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o600)
                stream.write(gap + head + "\n".join(lines) + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(f"{file} cannot be completed: {error}", "mend it or its permissions") from None
    return added


def open_files() -> int:
    """Descriptors that a process in a container may have: a million, or the ceiling where that is lower.

    The ceiling is the kernel's, and where even root may not raise limits (a container, some virtual machines) root's.
    """
    ceilings = [1 << 20, int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii"))]
    if os.geteuid() == 0 and not _may_raise_limits():
        ceilings.append(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return min(limit for limit in ceilings if limit > 0)


def _may_raise_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE (capabilities(7))."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    held = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(held, 16) >> _CAP_SYS_RESOURCE & 1)


def locks() -> Path:
    """The folder in which this machine's labs lock it against each other."""
    return next(
        (place for place in LOCK_PLACES if place.is_dir() and place.stat().st_mode & stat.S_IWOTH), LOCK_PLACES[0]
    )


def prepare(grafana: bool) -> list[str]:
    """Everything. Returns what to tell the user.

    Raises:
        StackError: with the way out.
    """
    folder = ROOT / "docker"
    for lock in ("node", "portal"):
        supply = supplies.wheel_folder(lock, PYTHON, platform.machine())
        try:
            # Without wsnode's own: the images have the clone's code, so that portal and node are of one version.
            mirror(supply.folder, folder / "supplies" / lock, leave=("wsnode-*.whl", "requirements.txt"))
        except OSError as error:
            raise StackError(f"{folder / 'supplies'} cannot be written: {error}", "run as the clone's owner") from None
    render(folder / "rendered", labfile.machine())
    added = complete(ROOT / ".env", settings(grafana))
    return [
        "docker/supplies and docker/rendered are made"
        + (f"; .env has {', '.join(added)} now" if added else "; .env is complete"),
        "the portal's first user is admin, with the password WSLAB_DOCKER_ADMIN_PASSWORD of .env",
        f"next: {NEXT}",
    ]


def _write(file: Path, text: str) -> None:
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)

"""Prometheus and node_exporter without root: from PATH, else from the distribution's own .deb, unpacked in a cache.

`apt-get download` with private state and cache, `dpkg-deb -x`, nothing installed, no service started. The binaries are
Go, so the one .deb each is enough. The cache is `${XDG_CACHE_HOME:-~/.cache}/wslab/packages` (a second clone finds it
filled), or `packages` in the state folder where that cannot be written; delete it to fetch anew.

`python -m stack.packages` fetches what is missing and prints {"NAME": {"path": …, "reason": …}, …}.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from stack.apt import Apt, missing_tools
from stack.paths import state_dir

_TIMEOUT_S = 90.0


class Found(NamedTuple):
    """A program, or the one-line reason why there is none."""

    path: Path | None
    reason: str | None


class _Program(NamedTuple):
    deb: str
    names: tuple[str, ...]


PROGRAMS = {
    "prometheus": _Program("prometheus", ("prometheus",)),
    "promtool": _Program("prometheus", ("promtool",)),
    "node_exporter": _Program("prometheus-node-exporter", ("prometheus-node-exporter", "node_exporter")),
}


def prometheus() -> Found:
    """The Prometheus server; fetched when it is not here yet."""
    return ensure("prometheus")["prometheus"]


def promtool() -> Found:
    """Prometheus' checking tool; fetched when it is not here yet."""
    return ensure("promtool")["promtool"]


def node_exporter() -> Found:
    """The node exporter; fetched when it is not here yet."""
    return ensure("node_exporter")["node_exporter"]


def cache_dirs() -> list[Path]:
    """Where unpacked packages are looked for, the first writable one being where they are put."""
    home = os.environ.get("XDG_CACHE_HOME") or (
        os.path.join(os.environ["HOME"], ".cache") if os.environ.get("HOME") else ""
    )
    shared = [Path(home) / "wslab" / "packages"] if os.path.isabs(home) else []
    return [*shared, state_dir() / "packages"]


def _version_key(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.findall(r"\d+|\D+", path.name)]


def lookup(name: str) -> Path | None:
    """The program from PATH, else the newest one in a cache, without fetching anything."""
    program = PROGRAMS[name]
    for candidate in program.names:
        on_path = shutil.which(candidate)
        if on_path:
            return Path(on_path)
    for cache in cache_dirs():
        for folder in sorted(cache.glob(f"{program.deb}_*"), key=_version_key, reverse=True):
            for candidate in program.names:
                file = folder / "usr" / "bin" / candidate
                if os.access(file, os.X_OK):
                    return file
    return None


def ensure(*names: str) -> dict[str, Found]:
    """The programs, fetched where they are missing. Never raises for what cannot be had: it is a reason."""
    found = {name: Found(lookup(name), None) for name in names}
    missing = sorted({PROGRAMS[name].deb for name, (path, _) in found.items() if path is None})
    if not missing:
        return found
    reasons = _fetch(missing)
    for name, (path, _) in found.items():
        if path is None:
            here = lookup(name)
            deb = PROGRAMS[name].deb
            reason = f"{deb}: {reasons.get(deb) or 'the package does not hold it'}; fix: apt install {deb}"
            found[name] = Found(here, None if here else reason)
    return found


def _writable_cache() -> Path:
    for cache in cache_dirs():
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(cache, os.W_OK | os.X_OK):
            return cache
    raise OSError("no writable cache folder")


def _fetch(debs: list[str]) -> dict[str, str]:
    """Download and unpack; the reason for each package that did not come."""
    lacking = missing_tools()
    if lacking:
        return dict.fromkeys(debs, f"not on PATH, and there is no {lacking[0]} to fetch it with")
    try:
        cache = _writable_cache()
        work = Path(tempfile.mkdtemp(prefix=".fetch-", dir=cache))
    except OSError as error:
        return dict.fromkeys(debs, f"nowhere to put it ({error})")
    reasons: dict[str, str] = {}
    try:
        apt = Apt(work, _TIMEOUT_S)
        updated = apt.run("update")
        for deb in debs:
            said = apt.run("download", deb)
            file = next(work.glob(f"{deb}_*.deb"), None)
            reason = _unpack(file, work, cache) if file else (said or updated or "apt-get brought nothing")
            if reason:
                reasons[deb] = reason
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return reasons


def _unpack(deb: Path, work: Path, cache: Path) -> str | None:
    """Unpack into the cache; None, or why not. Two at once: the first to finish wins, both have the same."""
    target = cache / deb.stem
    folder = work / deb.stem
    try:
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True, capture_output=True, timeout=60)
        for program in PROGRAMS.values():
            for name in program.names:
                file = folder / "usr" / "bin" / name
                if file.exists():
                    subprocess.run([file, "--version"], check=True, capture_output=True, timeout=20)
        os.rename(folder, target)
    except (OSError, subprocess.SubprocessError) as error:
        return None if target.is_dir() else f"it could not be unpacked or does not run here ({error})"
    return None


def main() -> int:
    """Fetch Prometheus and node_exporter; the answer on stdout."""
    found = ensure("prometheus", "node_exporter")
    json.dump(
        {name: {"path": path and str(path), "reason": reason} for name, (path, reason) in found.items()}, sys.stdout
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

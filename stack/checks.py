"""`check`: what must be clean before a commit. Each is one command; those whose tool or subject is not here say so."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from stack import packages
from stack.paths import ROOT


class Skipped(NamedTuple):
    """Why a check cannot be made here."""

    reason: str


class Check(NamedTuple):
    """`argv` is made when its turn comes."""

    name: str
    argv: Callable[[], list[str] | Skipped]


def _module(*arguments: str) -> Callable[[], list[str] | Skipped]:
    return lambda: [sys.executable, "-m", *arguments]


def _tracked(*patterns: str) -> list[str]:
    """Files that git knows or would add, so that no environment or cache is looked at."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return names if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in sorted(ROOT.glob(patterns[0]))]


def _yamllint() -> list[str] | Skipped:
    files = _tracked("*.yml", "*.yaml")
    return [sys.executable, "-m", "yamllint", "--strict", *files] if files else Skipped("no YAML files")


def _djlint(option: str) -> Callable[[], list[str] | Skipped]:
    def argv() -> list[str] | Skipped:
        if not any((ROOT / "portal" / "templates").rglob("*.html")):
            return Skipped("no templates")
        return [sys.executable, "-m", "djlint", option, "--quiet", "portal/templates"]

    return argv


def _shellcheck() -> list[str] | Skipped:
    program = shutil.which("shellcheck")
    if program is None:
        return Skipped("no shellcheck on PATH: apt install shellcheck")
    return [program, "wslab", ".ci/run", *_tracked("*.sh")]


def _promtool(*arguments: str) -> Callable[[], list[str] | Skipped]:
    def argv() -> list[str] | Skipped:
        path, reason = packages.promtool()
        return [str(path), *arguments] if path else Skipped(reason or "no promtool")

    return argv


CHECKS = [
    Check("ruff format", _module("ruff", "format", "--check", "--quiet")),
    Check("ruff check", _module("ruff", "check", "--quiet")),
    Check("mypy", _module("mypy")),
    Check(
        "architecture", lambda: [sys.executable, "-c", "from importlinter.cli import lint_imports_command as m; m()"]
    ),
    Check("yamllint", _yamllint),
    Check("ansible-lint", _module("ansiblelint", "--offline", "--strict", "-q", "--nocolor")),
    Check("djlint format", _djlint("--check")),
    Check("djlint", _djlint("--lint")),
    Check("shellcheck", _shellcheck),
    Check("prometheus", _promtool("check", "config", "prometheus/prometheus.yml")),
]


def check(checks: list[Check] = CHECKS) -> int:
    """Run all of them; 0 when none failed, else 1. The output of a failed one is shown."""
    failed = []
    for name, argv in checks:
        command = argv()
        if isinstance(command, Skipped):
            print(f"{name:14} skipped: {command.reason}", flush=True)
            continue
        begun = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False,
        )  # fmt: skip
        print(f"{name:14} {'ok' if done.returncode == 0 else 'FAILED'}  {time.monotonic() - begun:.1f} s", flush=True)
        if done.returncode != 0:
            failed.append(name)
            print("\n".join(f"    {line}" for line in done.stdout.splitlines()), flush=True)
    if failed:
        print(f"wslab: not clean: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0

"""wsnode alone, on the oldest Python of the lab's hosts, from its hashed lock: what a host gets."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.wsnode.peers import ROOT, peer


def _python_3_11() -> str | None:
    candidates = [
        shutil.which("python3.11"),
        shutil.which("python3"),
        *sorted(map(str, Path("~/.pyenv/versions").expanduser().glob("3.11.*/bin/python"))),
    ]
    for candidate in filter(None, candidates):
        asked = subprocess.run(
            [candidate, "-c", "import sys, venv, ensurepip; print(sys.version_info[:2])"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if asked.stdout.strip() == "(3, 11)":
            return candidate
    return None


def test_wsnode_installs_alone_on_python_3_11_and_puts_a_load(tmp_path: Path) -> None:
    interpreter = _python_3_11()
    if interpreter is None:
        pytest.skip("no Python 3.11 with venv here: wsnode's oldest Python is not tried")
    venv = tmp_path / "node"
    source = tmp_path / "source"
    shutil.copytree(ROOT / "wsnode", source / "wsnode", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run([interpreter, "-m", "venv", venv], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements" / "node.txt"], check=True, timeout=300)
    subprocess.run([*pip, "--no-deps", source], check=True, timeout=300)
    command = str(venv / "bin" / "wsnode")
    with peer("echo") as server:
        done = subprocess.run(
            [command, "load", server.url, "--clients", "5", "--interval", "50", "--ramp-up", "0", "--duration", "2",
             "--rate", "1000", "--json", "-"],
            capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    result = json.loads(done.stdout)
    assert result["counters"]["messages_received"] == result["counters"]["messages_sent"] > 150
    assert result["hosts"][0]["environment"]["stable"]["python"].startswith("3.11.")
    packages = subprocess.run([*pip[:3], "list", "--format", "json"], capture_output=True, text=True, check=True)
    assert "django" not in {package["name"].lower() for package in json.loads(packages.stdout)}

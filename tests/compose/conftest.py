"""One engine, and the lab of docker-compose.yml up in it, for the tests that need them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from stack import dotenv
from stack.client import Portal
from tests.compose import standins
from tests.compose.composition import ROOT
from tests.compose.engine import Absent, Engine, engine, make_work

T = TypeVar("T")
WANTED = (
    *("docker-compose.yml", ".dockerignore", "docker", "requirements", "wsnode", "portal", "scenarios", "prometheus"),
    *("grafana", "inventory/local", "stack", "pyproject.toml", "LICENSE"),
)


class Up:
    """The lab while it is up."""

    def __init__(self, engine: Engine, clone: Path) -> None:
        self.engine = engine
        self.clone = clone
        self.settings = dotenv.parse((clone / ".env").read_text())
        self.containers = engine.containers()
        token = engine.output(self.containers["portal"]["Id"], "cat", "/var/lib/wslab/token").strip()
        self._portal = Portal("http://127.0.0.1:8000", token)

    def call(self, question: Callable[[Portal], T]) -> T:
        """What the portal answers, asked where its port is published."""
        return self.engine.inside(lambda: question(self._portal))

    def compose(self, *arguments: str) -> str:
        """Compose's words; it must succeed."""
        done = self.engine.compose(self.clone, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def docker() -> Iterator[Engine]:
    """An engine with images for every tag."""
    work = make_work()
    try:
        tars = standins.roots() if os.geteuid() == 0 else {}
        with engine(work) as running:
            standins.load(running, tars)
            yield running
    except Absent as absent:
        pytest.skip(str(absent))
    finally:
        shutil.rmtree(work, ignore_errors=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This clone as a user who has just typed `./wslab compose` has it, under a umask that shuts others out."""
    folder = tmp_path_factory.mktemp("compose") / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *WANTED],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    before = os.umask(0o077)
    try:
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        done = subprocess.run(
            [sys.executable, "-m", "stack", "compose", "--no-grafana"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert "next: docker compose up" in done.stdout
    return folder


@pytest.fixture(scope="module")
def up(docker: Engine, clone: Path) -> Up:
    """The lab, all of it healthy."""
    for words in (["build"], ["up", "--detach", "--wait", "--wait-timeout", "240"]):
        done = docker.compose(clone, *words)
        if done.returncode:
            logs = docker.compose(clone, "logs", "--tail", "20").stdout
            pytest.fail(f"docker compose {words[0]}:\n{done.stdout[-3000:]}\n{logs[-6000:]}")
    return Up(docker, clone)

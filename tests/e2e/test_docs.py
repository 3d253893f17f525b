"""Every command that the documents show is typed here, against the lab that the tests have up."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Portal

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
# These would end what runs this test: that they exist is all that is tried.
NAMED_ONLY = ("./wslab test", "./wslab down")


def _commands() -> Iterator[tuple[str, str]]:
    for name in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                yield name, line


COMMANDS = list(dict.fromkeys(_commands()))


@pytest.mark.parametrize(("document", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_a_command_of_the_documents_works(portal: Portal, document: str, line: str) -> None:
    words = shlex.split(line)
    if line.startswith(NAMED_ONLY):
        words = [*words[:2], "--help"]
    server = portal.record().urls["server"]
    words = [server if word == "ws://127.0.0.1:3000/echo" else word for word in words]
    if words[0] == "./wslab":
        words[:1] = [sys.executable, "-m", "stack"]
    elif words[0].endswith("/python"):
        words[0] = sys.executable
    done = subprocess.run(
        words, cwd=ROOT, env=portal.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    # On a busy machine a load may miss its thresholds (1) or be invalid (3), which is no fault of the command.
    allowed = {0, 1, 3} if {"run", "demo", "load"} & set(words[:5]) else {0}
    assert done.returncode in allowed, f"{document}: {line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md", "docs/adr/README.md"])
def test_what_a_document_links_to_exists(document: str) -> None:
    folder = (ROOT / document).parent
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text())
    assert [link for link in links if not (folder / link).exists()] == []


def test_the_changelogs_first_heading_is_the_version() -> None:
    from wsnode import __version__

    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1] == __version__

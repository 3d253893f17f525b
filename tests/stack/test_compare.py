"""`compare` as it is typed, what is shown, and the exit code. What is said of real groups is tested in the portal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from stack import cli, compare
from stack.client import Portal

FOUND = {
    "base": {"title": "old"},
    "cautions": ["Of group old 1 invalid is left out."],
    "contenders": [
        {
            "side": {"title": "new"},
            "verdict": "worse",
            "sentence": "Response time p99: 10\u00a0ms → 12\u00a0ms (+20\u00a0%).",
            "differences": [
                {"part": "subject", "what": "version", "base": "1", "contender": "2", "hosts": []},
                {"part": "environment", "what": "kernel", "base": "a", "contender": "b", "hosts": ["server", "load-1"]},
            ],
            "cautions": ["new did not carry the same load: clients differ."],
        }
    ],
    "exit_code": 1,
    "url": "http://127.0.0.1:8000/runs/compare?base=g-1&contender=g-2",
}


class Answers:
    """A portal that has this comparison."""

    def __init__(self) -> None:
        self.asked: tuple[str, list[str]] | None = None

    def compare(self, base: str, contenders: list[str]) -> dict[str, Any]:
        self.asked = base, contenders
        return FOUND


def test_a_comparison_is_told_in_lines_and_its_code_handed_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = cli.parse(["compare", "g-1", "g-2", "g-3", "--json", "out.json"])
    assert (given.base, given.contenders, given.json) == ("g-1", ["g-2", "g-3"], "out.json")
    portal, file = Answers(), tmp_path / "out.json"
    assert compare.compare(cast(Portal, portal), "g-1", ["g-2", "g-3"], file) == 1
    assert portal.asked == ("g-1", ["g-2", "g-3"])
    assert json.loads(file.read_text()) == FOUND
    assert capsys.readouterr().out.splitlines() == [
        "base: old",
        "  caution: Of group old 1 invalid is left out.",
        "new: worse",
        "  Response time p99: 10 ms → 12 ms (+20 %).",
        "  subject: version 1 → 2",
        "  environment: kernel a → b (server, load-1)",
        "  caution: new did not carry the same load: clients differ.",
        "http://127.0.0.1:8000/runs/compare?base=g-1&contender=g-2",
    ]


def test_a_base_alone_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.parse(["compare", "g-1"])
    assert left.value.code == 2
    assert "CONTENDER" in capsys.readouterr().err

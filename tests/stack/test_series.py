"""`run` of several, as it is typed; what is shown and the exit code. The real thing is in test_stack.py."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from stack import cli, runs, series
from stack.client import Portal, PortalError
from stack.errors import StackError
from stack.terminal import Progress


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (None, None),
        (["nothing"], {}),
        (["version=1.3"], {"subject": {"name": "", "version": "1.3"}}),
        (["subject=echo@1.3"], {"subject": {"name": "echo", "version": "1.3"}}),
        (["scenario=calm", "clients=50"], {"scenario": "calm", "set": {"clients": 50}}),
        (["thresholds=[a < 1ms]", "reconnect=false"], {"set": {"thresholds": ["a < 1ms"], "reconnect": False}}),
    ],
)
def test_what_the_second_group_has_differently(typed: list[str] | None, meant: dict[str, Any] | None) -> None:
    alike = {"scenario": "", "set": {}, "subject": {"name": "", "version": ""}}
    assert series.read_alternate(typed) == (None if meant is None else alike | meant)


@pytest.mark.parametrize("typed", [["clients"], ["=5"], ["version="], ["nothing", "version=1"], ["subject=echo"]])
def test_what_is_no_difference_is_refused_with_an_example(typed: list[str]) -> None:
    with pytest.raises(StackError) as refused:
        series.read_alternate(typed)
    assert refused.value.fix


def test_how_often() -> None:
    assert series.read_times(None, alternating=False) == 1
    assert series.read_times(None, alternating=True) == 5
    assert series.read_times("12", alternating=False) == 12
    for wrong in ("1", "51", "-3", "many", "2.5"):
        with pytest.raises(StackError, match="wanted 2 to 50"):
            series.read_times(wrong, alternating=True)


def test_a_subject_without_a_version_is_a_declared_one() -> None:
    wanted = runs.read_wanted(cli.parse(["run", "smoke", "--subject", "chat", "--tag", "a", "--tag", "b"]))
    assert (wanted["subject"], wanted["subject_declared"], wanted["tags"]) == (None, "chat", ["a", "b"])
    wanted = runs.read_wanted(cli.parse(["run", "smoke", "--subject", "chat@1", "--baseline", "none"]))
    assert (wanted["subject"], wanted["subject_declared"]) == ({"name": "chat", "version": "1"}, "")
    assert wanted["baseline"] == "none"


def test_a_plan_is_told_in_lines() -> None:
    plan = {
        "parts": [{"generator": "load-1", "text": "opens 50 connections."}],
        "offered": "500\u00a0messages/s.",
        "moments": [["0\u00a0s", "the first client connects"]],
        "warnings": ["too short"],
        "runs": 10,
        "total_s": 220.0,
        "ahead": 2,
        "begins_s": 30.0,
    }
    assert series.show_plan(plan).splitlines() == [
        "load-1 opens 50 connections.",
        "",
        "500 messages/s.",
        "",
        "         0 s  the first client connects",
        "",
        "10 runs, after 2 other runs, begins in about 30.0 s, takes about 3 min 40 s",
        "warning: too short",
    ]


class Answers:
    """A portal of two groups whose runs end one at a time, each time it is looked at."""

    def __init__(self, ends: Iterable[tuple[str, str, str | None, str | None]]) -> None:
        self.ends = list(ends)
        self.over = 0
        self.cancelled: list[str] = []

    def group(self, group_id: str) -> dict[str, Any]:
        rows = []
        for n, (run_id, state, verdict, validity) in enumerate(self.ends):
            if (n % 4 in (0, 3)) == (group_id == "g-a"):
                over = n < self.over
                rows.append(
                    {
                        "run_id": run_id,
                        "created_at": f"2026-11-24T10:00:0{n}",
                        "scenario": "smoke",
                        "state_reason": None,
                    }
                    | {"state": state if over else "queued", "verdict": verdict, "validity": validity}
                )
        if group_id == "g-b":
            self.over += 1
        other = "g-b" if group_id == "g-a" else "g-a"
        url = f"http://portal/runs/groups/{group_id}/"
        return {"group_id": group_id, "title": "t", "kind": "alternate", "partner": other, "runs": rows, "url": url}

    def result(self, run_id: str) -> dict[str, Any]:
        found = next(end for end in self.ends if end[0] == run_id)
        if found[1] != "finished":
            raise PortalError("no result", status=404)
        return {"run_id": run_id, "state": found[1], "verdict": found[2], "validity": found[3]}


PASSED = ("finished", "passed", "valid")


@pytest.mark.parametrize(
    ("third", "code"),
    [
        (PASSED, 0),
        (("finished", "failed", "valid"), 1),
        (("finished", "passed", "invalid"), 3),
        (("finished", "passed", "suspect"), 0),
        (("cancelled", None, None), 2),
    ],
)
def test_a_group_is_followed_in_the_queues_order_and_the_worst_run_decides(
    third: tuple[str, str, str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(series.time, "sleep", lambda _: None)
    answers = Answers([("r-1", *PASSED), ("r-2", *PASSED), ("r-3", *third), ("r-4", *PASSED)])
    portal = cast("Portal", answers)
    groups = series.follow(portal, {"group_id": "g-a"}, Progress())
    said = [line.split()[:2] for line in capsys.readouterr().err.splitlines() if " of 4" in line and "r-" in line]
    assert said == [["A", "r-1"], ["B", "r-2"], ["B", "r-3"], ["A", "r-4"]]
    assert series.finish(portal, groups, tmp_path / "out.json", strict=False) == code
    kept = json.loads((tmp_path / "out.json").read_text())
    assert [group["group_id"] for group in kept["groups"]] == ["g-a", "g-b"]
    finished = [("A", "r-1"), ("B", "r-2"), ("B", "r-3"), ("A", "r-4")]
    assert [(one["group"], one["run_id"]) for one in kept["results"]] == [
        row for row in finished if row[1] != "r-3" or third[0] == "finished"
    ]
    assert "http://portal/runs/groups/g-a/" in capsys.readouterr().out

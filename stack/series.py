"""`run` of several: repetitions as a group, and two groups that alternate; and the plan before anything starts."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from stack import runs
from stack.client import ENDED, Portal, PortalError
from stack.errors import StackError
from stack.terminal import Progress, duration

USUAL_TIMES = 5
"""Runs of each group where nobody says how many: the fewest that can tell a difference from chance at 1 %."""
NOTHING = "nothing"


def read_alternate(texts: list[str] | None) -> dict[str, Any] | None:
    """What the second group has differently: `subject=NAME@VERSION`, `version=VERSION`, `scenario=NAME`, or a field's
    `FIELD=VALUE`; `nothing` for two that are alike. None: there is no second group."""
    if texts is None:
        return None
    rest = [text for text in texts if text != NOTHING]
    if len(rest) < len(texts) and rest:
        raise StackError(f"--alternate {NOTHING}: and {rest[0]!r}", "either what differs, or nothing")
    other: dict[str, Any] = {"scenario": "", "set": {}, "subject": {"name": "", "version": ""}}
    for text in rest:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise StackError(
                f"--alternate {text!r}: wanted FIELD=VALUE, subject=NAME@VERSION, version=VERSION, scenario=NAME or "
                f"{NOTHING}",
                "as in --alternate version=1.3",
            )
        if name == "subject":
            other["subject"] = runs.read_subject(value)
        elif name == "version":
            other["subject"]["version"] = value
        elif name == "scenario":
            other["scenario"] = value
        else:
            other["set"] |= runs.read_changes([text])
    return other


def read_times(text: str | None, *, alternating: bool) -> int:
    """Runs of each group; 1 where there is none."""
    if text is None:
        return USUAL_TIMES if alternating else 1
    if not text.isdecimal() or not 2 <= int(text) <= 50:
        raise StackError(f"--repeat {text!r}: wanted 2 to 50", "as in --repeat 5")
    return int(text)


def show_plan(plan: dict[str, Any]) -> str:
    """A plan as lines."""
    lines = [f"{part['generator']} {part['text']}" for part in plan["parts"]]
    lines += ["", plan["offered"], ""]
    lines += [f"{when:>12}  {what}" for when, what in plan["moments"]]
    if plan["total_s"] is not None:
        ahead = f"after {plan['ahead']} other runs, " if plan["ahead"] else ""
        several = f"{plan['runs']} runs, " if plan["runs"] > 1 else ""
        begins = f"in about {duration(plan['begins_s'])}" if plan["begins_s"] > 0 else "at once"
        lines += ["", f"{several}{ahead}begins {begins}, takes about {duration(plan['total_s'])}"]
    lines += [f"warning: {warning}" for warning in plan["warnings"]]
    return "\n".join(lines).replace("\u00a0", " ")


def both(portal: Portal, group: dict[str, Any]) -> list[dict[str, Any]]:
    """The group as it stands now, and its partner's."""
    now = portal.group(group["group_id"])
    return [now, portal.group(now["partner"])] if now["partner"] else [now]


def in_order(groups: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Their runs in the order of the queue, each with its group's letter."""
    rows = [(letter, run) for letter, group in zip("AB", groups, strict=False) for run in group["runs"]]
    return sorted(rows, key=lambda row: (row[1]["created_at"], row[1]["run_id"]))


def follow(portal: Portal, group: dict[str, Any], progress: Progress) -> list[dict[str, Any]]:
    """Show the runs until all have ended. Ctrl-C asks for the rest's end and waits for it; a second one leaves them."""
    asked, told = False, set[str]()
    heard = time.monotonic()
    while True:
        try:
            groups = both(portal, group)
            heard = time.monotonic()
            rows = in_order(groups)
            for letter, run in rows:
                if run["state"] in ENDED and run["run_id"] not in told:
                    told.add(run["run_id"])
                    progress.say(f"  {_line(letter if len(groups) > 1 else '', run)}  {len(told)} of {len(rows)}")
            if len(told) == len(rows):
                progress.clear()
                return groups
            active = next((run for _, run in rows if run["state"] not in ENDED), None)
            if active is not None:
                progress.update(f"{len(told) + 1} of {len(rows)}: {runs.live(active)}")
            time.sleep(0.5)
        except PortalError as error:
            if error.status is not None or time.monotonic() - heard > runs.SILENCE_S:
                raise
            time.sleep(0.5)
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            progress.say("  cancelling the rest (Ctrl-C again: leave them)")
            portal.cancel_group(group["group_id"])


def _line(letter: str, run: dict[str, Any]) -> str:
    words = [run["run_id"], run["state"], run["verdict"] or "", run["validity"] or ""]
    return " ".join(filter(None, [letter, *words]))


def finish(portal: Portal, groups: list[dict[str, Any]], file: Path | None, *, strict: bool) -> int:
    """Write every result of ended groups to the file, name the page, and return the exit code: the worst of the runs,
    where 2 (one did not finish) is worst, then 3 (one is invalid), then 1."""
    codes, results = [], []
    for letter, run in in_order(groups):
        try:
            result = portal.result(run["run_id"])
        except PortalError as error:
            if error.status is None:
                raise
            codes.append(runs.NOT_RUN)
            continue
        results.append({"group": letter, **result})
        codes.append(runs.exit_code(result, strict=strict))
    if file is not None:
        heads = [{key: group[key] for key in ("group_id", "title", "kind", "partner", "url")} for group in groups]
        file.write_text(json.dumps({"groups": heads, "results": results}, indent=1) + "\n", encoding="utf-8")
        print(f"results   {file}")
    print(f"page      {groups[0]['url']}")
    if len(results) < len(codes):
        print(f"wslab: {len(codes) - len(results)} of {len(codes)} runs have no result", file=sys.stderr)
    return max(codes, key=[runs.PASSED, runs.THRESHOLD_FAILED, runs.INVALID, runs.NOT_RUN].index)

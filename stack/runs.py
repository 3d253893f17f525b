"""`run`: queue a scenario through the portal, follow it, and come back with its exit code."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from stack.client import ENDED, Portal, PortalError
from stack.errors import StackError
from stack.paths import user_path
from stack.terminal import Progress

PASSED, THRESHOLD_FAILED, NOT_RUN, INVALID = 0, 1, 2, 3
CANCEL_WAIT_S = 15.0
SILENCE_S = 30.0  # how long the portal may not answer while a run is followed (it may be restarting)


def exit_code(result: dict[str, Any], *, strict: bool = False) -> int:
    """0 passed or no thresholds, 1 a threshold failed, 2 not finished, 3 invalid (with `strict`: suspect too)."""
    if result["state"] != "finished":
        return NOT_RUN
    if result["validity"] == "invalid" or (strict and result["validity"] == "suspect"):
        return INVALID
    return THRESHOLD_FAILED if result["verdict"] == "failed" else PASSED


def read_scenario(text: str) -> str | dict[str, Any]:
    """A scenario's name as it is; a file (it has a folder or ends in .yaml, .yml, .json) as its content."""
    if "/" not in text and not text.endswith((".yaml", ".yml", ".json")):
        return text
    import yaml

    path = user_path(text)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StackError(
            f"scenario file {path}: {error.strerror}", "name a scenario, or a YAML file with one"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StackError(f"scenario file {path} is not YAML: {error}", "see scenarios/smoke.yaml") from None
    if not isinstance(value, dict):
        raise StackError(f"scenario file {path} holds no fields", "see scenarios/smoke.yaml")
    return value


def read_changes(texts: list[str]) -> dict[str, Any]:
    """`clients=500` -> {"clients": 500}; values are YAML (numbers, true, [a, b], …)."""
    import yaml

    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise StackError(f"--set {text!r}: wanted FIELD=VALUE", "as in --set clients=500")
        try:
            changes[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise StackError(f"--set {text!r}: the value is not YAML", "as in --set clients=500") from None
    return changes


def read_subject(text: str | None) -> dict[str, str] | None:
    """`echo@1.2` -> {"name": "echo", "version": "1.2"}."""
    if text is None:
        return None
    name, _, version = text.rpartition("@")
    if not name or not version:
        raise StackError(f"--subject {text!r}: wanted NAME@VERSION", "as in --subject echo@1.2")
    return {"name": name, "version": version}


def read_wanted(given: argparse.Namespace) -> dict[str, Any]:
    """What `run` was asked for, as the API takes it."""
    declared = given.subject is not None and "@" not in given.subject
    return {
        "scenario": read_scenario(given.scenario),
        "set": read_changes(given.set),
        "subject": None if declared else read_subject(given.subject),
        "subject_declared": given.subject if declared else "",
        "reason": given.reason,
        "tags": given.tag,
        "baseline": given.baseline,
        **({"target": given.target} if given.target else {}),
        "accept_partial": given.accept_partial,
    }


def json_path(text: str | None) -> Path | None:
    """Where the result goes; refused before the run rather than after it."""
    if text is None:
        return None
    path = user_path(text)
    try:
        existed = path.exists()
        path.open("a").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise StackError(
            f"--json {path} cannot be written: {error.strerror}", "name a file in a folder of yours"
        ) from None
    return path


class Ended(NamedTuple):
    """A run that is over, and whether the user broke it off here."""

    run: dict[str, Any]
    broken_off: bool


def follow(portal: Portal, run_id: str, progress: Progress) -> Ended:
    """Show the run until it has ended. Ctrl-C asks for a cancel and waits for it; a second one leaves the run."""
    asked = False
    heard = time.monotonic()
    while True:
        try:
            run = portal.run(run_id)
            heard = time.monotonic()
            if run["state"] in ENDED:
                progress.clear()
                return Ended(run, asked)
            progress.update(live(run))
            time.sleep(0.5)
        except PortalError as error:
            if error.status is not None or time.monotonic() - heard > SILENCE_S:
                raise
            time.sleep(0.5)
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            progress.say("  cancelling the run (Ctrl-C again: leave it)")
            portal.cancel(run_id)


def live(run: dict[str, Any]) -> str:
    """The run's one line of progress."""
    now = run.get("progress")
    if run["state"] != "running" or not now:
        return f"{run['scenario']} {run['state']}" + (f": {run['state_reason']}" if run["state_reason"] else "")
    p99 = now["recent"].get("p99_ns")
    return (
        f"{run['scenario']} running {now['second']} s · {now['connections_open']:,} connections · {now['sent']:,} sent"
        f" · {now['received']:,} answered · {now['outstanding']:,} outstanding · {now['errors']:,} errors"
        + (f" · p99 {p99 / 1e6:.3g} ms" if p99 is not None else "")
    )


def cancel_and_wait(portal: Portal, run_id: str, progress: Progress) -> str:
    """Cancel a run and wait until it has ended, at most 15 s; its state then."""
    portal.cancel(run_id)
    deadline = time.monotonic() + CANCEL_WAIT_S
    while True:
        state: str = portal.run(run_id)["state"]
        if state in ENDED or time.monotonic() > deadline:
            progress.clear()
            return state
        progress.update(f"cancelling run {run_id}: {state}")
        time.sleep(0.2)


def finish(portal: Portal, run: dict[str, Any], file: Path | None, *, strict: bool) -> int:
    """Print the result of an ended run, write it to the file, and return the exit code."""
    from stack import summary  # it needs pydantic; `down` imports this module before there is a .venv

    try:
        result = run.get("result") or portal.result(run["run_id"])
    except PortalError as error:
        if error.status is None:
            raise
        result = None
    if result is None:
        print(f"\nrun {run['run_id']} {run['state']}: {run.get('state_reason') or 'no reason given'}")
        print(f"  {run['url']}")
        if file is not None:
            print(f"wslab: there is no result, so {file} was not written", file=sys.stderr)
        return NOT_RUN
    print(f"\n{summary.show(result)}\n")
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"result    {file}")
    print(f"page      {run['url']}")
    code = exit_code(result, strict=strict)
    if result["validity"] == "suspect" and code in (PASSED, THRESHOLD_FAILED):
        print("wslab: the measurement is suspect, see its reasons (--strict makes this exit code 3)", file=sys.stderr)
    return code

"""`demo`: everything up, one `smoke` run through the queue, its result; the stack stays until Ctrl-C."""

import signal
import time
from pathlib import Path
from types import FrameType

from stack import lifecycle, record, runs, status
from stack.client import Portal, PortalError
from stack.errors import StackError
from stack.terminal import Progress, duration

SCENARIO = "smoke"


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """A signal's handler: as Ctrl-C."""
    raise KeyboardInterrupt


def demo(state: Path, *, leave: bool, file: Path | None, strict: bool) -> int:
    """Returns the run's exit code; 2 when it was interrupted before its end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    progress = Progress()
    starting = lifecycle.Starting(state, bound=True, progress=progress)
    code = runs.NOT_RUN
    try:
        begun = time.monotonic()
        found = starting.wait()
        how = (
            f"up after {duration(time.monotonic() - begun)}" if starting.ours else "up already; used and left as it is"
        )
        print(f"the lab is {how}\n{status.addresses(found, starting.admin)}\n", flush=True)
        code, broken_off = one_run(Portal.of(found, state), progress, file, strict=strict)
        if starting.ours and not leave and not broken_off:
            print("\nThe lab stays up until Ctrl-C.", flush=True)
            _stay(state)
    except KeyboardInterrupt:
        progress.clear()
        print("", flush=True)
    finally:
        if starting.ours:
            take_down(state, progress)
    return code


def one_run(portal: Portal, progress: Progress, file: Path | None, *, strict: bool) -> tuple[int, bool]:
    """Queue `smoke`, follow it to its end and show its result: the exit code, and whether the user broke it off."""
    earlier = [row for row in portal.runs(state="finished") if row.get("scenario") == SCENARIO]
    run = portal.queue(SCENARIO, {}, None, False)
    progress.say(f"run {run['run_id']} of {SCENARIO} is queued: {run['url']}")
    ended = runs.follow(portal, run["run_id"], progress)
    code = runs.finish(portal, ended.run, file, strict=strict)
    if earlier and ended.run["state"] == "finished":
        older, newer = earlier[0]["run_id"], run["run_id"]
        print(f"compare   {portal.url}/runs/compare?base={older}&contender={newer}")
    return code, ended.broken_off


def _stay(state: Path) -> None:
    while True:
        found = record.read(state)
        if found is None or not found.supervised:
            print("the lab was stopped from elsewhere")
            return
        time.sleep(0.5)


def take_down(state: Path, progress: Progress) -> bool:
    """Cancel what runs, stop everything in order, and say so. False: nothing was up."""
    found = record.read(state)
    if found is not None and found.supervised and found.phase == "running":
        try:
            portal = Portal.of(found, state)
            active = portal.active_run()
            if active is not None:
                reached = runs.cancel_and_wait(portal, active["run_id"], progress)
                progress.say(f"  run {active['run_id']} was active: {reached}")
        except (PortalError, StackError, KeyboardInterrupt) as error:
            progress.say(f"  whether a run was active is not known: {error or 'not waited for'}")
    begun = time.monotonic()
    swept = lifecycle.stop(state, progress)
    if swept is None:
        return False
    if swept:
        print(f"cleaned up after a stack that was not stopped: {', '.join(swept)}")
    else:
        print(f"the lab is down, stopped in order in {duration(time.monotonic() - begun)}")
    return True

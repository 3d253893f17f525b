"""The supervisor's own conduct, over stand-in processes (see standin.py)."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stack import inventory, lifecycle, procfs, record, status
from stack.errors import StackError
from stack.terminal import Progress
from tests.stack.standin import SLEEP

ROOT = Path(__file__).parents[2]
Start = Callable[..., "Stack"]


class Stack:
    """A supervisor as a process of its own, and what it says."""

    def __init__(self, state: Path, services: list[dict[str, Any]]) -> None:
        self.state = state
        file = state.parent / "services.json"
        file.write_text(json.dumps(services))
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.stack.standin", str(file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []

    def until(self, *texts: str) -> str:
        """The first line from now on that holds all the texts; fails when the supervisor ends before."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.said.append(line.rstrip())
            if all(text in line for text in texts):
                return line
        raise AssertionError(f"never said {texts}:\n" + "\n".join(self.said))

    def record(self) -> record.Record:
        found = record.read(self.state)
        assert found is not None
        return found

    def process(self, name: str) -> dict[str, Any]:
        return next(row for row in self.record().processes if row["name"] == name)

    def pid(self, name: str) -> procfs.Pid:
        row = self.process(name)
        return procfs.Pid(row["pid"], row["start"])

    def end(self) -> int:
        """Stop it in order; its exit code."""
        self.child.terminate()
        self.until("Z stopped\n")
        return self.child.wait(10)


@pytest.fixture
def start(state: Path, own_ports: Path) -> Iterator[Start]:
    started: list[Stack] = []

    def go(*services: dict[str, Any]) -> Stack:
        started.append(Stack(state, list(services)))
        return started[-1]

    yield go
    for stack in started:
        stack.child.kill()
        stack.child.wait()
        assert stack.child.stdout is not None
        stack.child.stdout.close()
    left = record.read(state)
    if left is not None:
        procfs.end(procfs.family(left.id, left.leaders()), 0)
        shutil.rmtree(left.data["socket_dir"], ignore_errors=True)


def wait_gone(process: procfs.Pid, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while procfs.alive(process):
        assert time.monotonic() < deadline, f"{process} still runs"
        time.sleep(0.01)


def test_what_waits_for_another_starts_after_it_is_ready_and_stops_before_it(start: Start) -> None:
    slow = "import time; time.sleep(0.5); " + SLEEP
    stack = start({"name": "web", "stage": 1, "after": ["store"]}, {"name": "store", "code": slow, "stage": 2})
    stack.until("Z ready\n")
    assert stack.end() == 0
    order = [line.split(" ", 1)[1] for line in stack.said]
    assert order.index("store: running") < order.index("web: starting")
    assert order.index("web: stopped") < order.index("store: stopping")
    assert not (stack.state / "stack.json").exists()


def test_a_process_that_is_killed_is_started_again_and_the_restart_is_counted(start: Start) -> None:
    stack = start({"name": "web"})
    stack.until("Z ready\n")
    first = stack.pid("web")
    os.kill(first.pid, signal.SIGKILL)
    stack.until("web: restarting", "ended by SIGKILL")
    stack.until("web: running")
    assert stack.pid("web") != first
    assert stack.process("web")["restarts"] == 1


def test_workers_of_a_killed_master_do_not_outlive_it(start: Start) -> None:
    master = (
        "import subprocess, sys, time; child = subprocess.Popen(['sleep', '600']); "
        "print('child', child.pid, flush=True); print('ready', flush=True); time.sleep(600)"
    )
    stack = start({"name": "master", "code": master})
    stack.until("Z ready\n")
    text = (stack.state / "logs" / "master.log").read_text()
    worker = procfs.identify(int(text.split()[1]))
    assert worker is not None
    os.kill(stack.pid("master").pid, signal.SIGKILL)
    stack.until("master: restarting")
    wait_gone(worker)


def test_a_process_that_crashes_on_every_start_is_given_up_with_the_end_of_its_log(start: Start) -> None:
    stack = start({"name": "web", "code": "raise SystemExit('no such table: runs')"}, {"name": "other", "stage": 2})
    line = stack.until("failed: web did not start")
    assert "ended with exit code 1, 4 times in a row; given up" in line
    stack.until("no such table: runs")
    stack.until("Z stopped\n")
    assert stack.child.wait(10) == 2
    found = stack.record()
    assert found.phase == "failed"
    assert not found.supervised
    assert "no such table: runs" in (found.error or "")
    assert stack.process("other")["state"] == "stopped"


def test_an_optional_process_that_cannot_start_is_said_and_the_rest_runs(start: Start) -> None:
    stack = start({"name": "charts", "code": "raise SystemExit(3)", "optional": True}, {"name": "web"})
    stack.until("charts did not start (ended with exit code 3, 4 times in a row; given up); the lab runs without it")
    stack.until("Z ready\n")
    assert stack.process("charts")["state"] == "failed"
    assert stack.process("web")["state"] == "running"
    assert stack.end() == 0


def test_children_die_with_a_supervisor_that_is_killed(start: Start) -> None:
    stack = start({"name": "web"}, {"name": "store"})
    stack.until("Z ready\n")
    web, store = stack.pid("web"), stack.pid("store")
    stack.child.kill()
    wait_gone(web)
    wait_gone(store)


def test_the_next_start_ends_what_outlived_a_killed_supervisor_and_says_so(start: Start) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
    stack = start({"name": "web"}, {"name": "stubborn", "code": stubborn})
    stack.until("Z ready\n")
    old, sockets = stack.pid("stubborn"), Path(stack.record().data["socket_dir"])
    web = stack.pid("web")
    stack.child.kill()
    stack.child.wait()
    wait_gone(web)
    assert procfs.alive(old)
    assert status.status(stack.state)["phase"] == "down"
    assert "./wslab down" in status.status(stack.state)["error"]

    again = start({"name": "web"})
    again.until("cleaned up after a stack that was not stopped: stubborn")
    again.until("Z ready\n")
    assert not procfs.alive(old)
    assert not sockets.exists()
    assert again.end() == 0


def test_a_pid_that_was_reused_since_is_left_alone_by_the_clean_up(start: Start) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        stack = start({"name": "web"})
        stack.until("Z ready\n")
        stack.child.kill()
        stack.child.wait()
        path = stack.state / "stack.json"
        data = json.loads(path.read_text())
        data["processes"][0]["pid"] = bystander.pid  # its start time stays that of the dead process
        path.write_text(json.dumps(data))
        again = start({"name": "web"})
        again.until("Z ready\n")
        assert bystander.poll() is None
        assert again.end() == 0
    finally:
        bystander.kill()
        bystander.wait()


def test_what_does_not_stop_by_its_deadline_is_killed(start: Start) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
    stack = start({"name": "stubborn", "code": stubborn, "stop_s": 0.3})
    stack.until("Z ready\n")
    process = stack.pid("stubborn")
    begun = time.monotonic()
    assert stack.end() == 0
    assert time.monotonic() - begun < 5
    assert not procfs.alive(process)


def test_asked_to_stop_twice_it_waits_for_nothing_more(start: Start) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
    stack = start({"name": "stubborn", "code": stubborn, "stop_s": 60})
    stack.until("Z ready\n")
    stack.child.terminate()
    stack.until("stubborn: stopping")
    stack.child.terminate()
    stack.until("Z stopped\n")
    assert stack.child.wait(10) == 0


def test_stopped_while_it_starts_it_leaves_nothing_behind(start: Start) -> None:
    never = "import time; time.sleep(600)"
    stack = start({"name": "web", "code": never}, {"name": "later", "after": ["web"]})
    stack.until("web: starting")
    web = stack.pid("web")
    assert stack.end() == 0
    assert not procfs.alive(web)
    assert not (stack.state / "stack.json").exists()


def test_only_one_supervisor_has_a_state_folder(start: Start) -> None:
    stack = start({"name": "web"})
    stack.until("Z ready\n")
    second = start({"name": "web"})
    assert second.child.wait(10) == 75
    assert stack.child.poll() is None
    assert stack.end() == 0


def test_a_taken_port_is_replaced_said_and_recorded(start: Start) -> None:
    wanted = inventory.read().ports["portal"]
    with socket.create_server(("127.0.0.1", wanted)):
        stack = start({"name": "web"})
        line = stack.until(f"port {wanted} is taken: portal is on ")
        stack.until("Z ready\n")
    found = stack.record()
    port = int(line.split()[-1])
    assert found.data["ports"]["portal"] == port != wanted
    assert found.urls["portal"] == f"http://127.0.0.1:{port}"
    assert f"port {wanted} is taken: portal is on {port}" in status.status(stack.state)["notes"]
    assert stack.end() == 0


def test_status_tells_the_state_of_now_not_of_the_record(start: Start) -> None:
    stack = start({"name": "web"})
    stack.until("Z ready\n")
    web = stack.pid("web")
    os.kill(web.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while "State:\tT" not in Path(f"/proc/{web.pid}/status").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        now = status.status(stack.state)
        row = next(row for row in now["processes"] if row["name"] == "web")
        assert (row["state"], row["reason"], now["healthy"]) == ("unresponsive", "suspended by a signal", False)
    os.kill(web.pid, signal.SIGCONT)
    assert stack.end() == 0
    assert status.status(stack.state)["phase"] == "down"


def test_down_stops_in_order_and_a_second_down_finds_nothing(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    stack = start({"name": "web"})
    stack.until("Z ready\n")
    assert lifecycle.stop(stack.state, Progress(sys.stdout)) == []
    assert stack.child.wait(10) == 0
    assert lifecycle.stop(stack.state, Progress(sys.stdout)) is None


def test_a_damaged_record_is_named_with_the_way_out(state: Path) -> None:
    (state / "stack.json").write_text("{")
    with pytest.raises(StackError, match=r"stack\.json is damaged") as caught:
        record.read(state)
    assert "delete" in caught.value.fix


def test_a_record_of_another_boot_names_no_process_of_this_one(state: Path) -> None:
    me = procfs.identify(os.getpid())
    assert me is not None
    row = {"name": "web", "pid": me.pid, "start": me.start}
    data = {
        "schema_version": 1, "id": "x", "phase": "running", "error": None, "urls": {}, "processes": [row],
        "supervisor": me._asdict(), "boot_id": "of another boot",
    }  # fmt: skip
    found = record.Record(data)
    assert not found.supervised
    assert found.leaders() == []
    assert record.Record({**data, "boot_id": procfs.boot_id()}).supervised


def ask(stack: Stack, hook: str) -> str:
    """What a hook's socket says to whoever connects."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(str(Path(stack.record().data["socket_dir"]) / "hooks" / hook))
        return asking.makefile().read()


def test_a_process_is_restarted_for_who_connects_to_its_hook_and_that_is_no_crash(start: Start) -> None:
    slow = "import time; time.sleep(0.3); " + SLEEP
    stack = start({"name": "web", "code": slow, "hook": "restart_server"}, {"name": "other"})
    stack.until("Z ready\n")
    before, other = stack.pid("web"), stack.pid("other")
    for restarts in (1, 2, 3, 4, 5):  # more often than a crash is forgiven
        assert ask(stack, "restart_server") == "wslab-hook: success\n"
        assert (stack.process("web")["state"], stack.process("web")["restarts"]) == ("running", restarts)
        assert stack.pid("web") != before
        before = stack.pid("web")
    assert stack.pid("other") == other
    assert stack.end() == 0


def test_a_process_that_does_not_come_back_is_no_success_of_its_hook(start: Start, tmp_path: Path) -> None:
    flag = tmp_path / "started"
    once = f"import pathlib, sys; f = pathlib.Path({str(flag)!r}); sys.exit(7) if f.exists() else f.touch(); " + SLEEP
    stack = start({"name": "web", "code": once, "hook": "restart_server", "optional": True})
    stack.until("Z ready\n")
    assert ask(stack, "restart_server") == "ended with exit code 7, 4 times in a row; given up\nwslab-hook: failed\n"
    assert ask(stack, "restart_server").startswith("web is failed (ended with exit code 7")
    assert stack.end() == 0

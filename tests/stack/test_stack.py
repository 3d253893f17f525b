"""The real lab, all of it: up, a run, refusals, cancel, crash, kill -9, down. One start serves most of these."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stack import procfs, record, runs
from tests.stack.conftest import write_inventory
from wsnode.core.result import read_result

ROOT = Path(__file__).parents[2]
SMALL = ("--set", "clients=4", "--set", "ramp_up_s=1", "--set", "duration_s=4")


class Lab:
    """A state folder and ports of its own, and the commands in it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.state = base / "state"
        self.environment = {
            **os.environ,
            "WSLAB_STATE": str(self.state),
            "WSLAB_INVENTORY": str(write_inventory(base / "inventory")),
            "WSLAB_CWD": str(base),
        }
        for name in ("DATABASE_URL", "WSLAB_BROKER_URL", "WSLAB_LAB", "DJANGO_SETTINGS_MODULE"):
            self.environment.pop(name, None)

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "stack", *arguments]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self("status", "--json").stdout)
        return status

    def process(self, name: str) -> dict[str, Any]:
        return next(row for row in self.status()["processes"] if row["name"] == name)

    def record(self) -> record.Record:
        found = record.read(self.state)
        assert found is not None
        return found

    def remove(self) -> None:
        """Whatever a failed test left, by the mark of this stack alone."""
        found = record.read(self.state)
        if found is not None:
            procfs.end({found.supervisor} if found.supervised else set(), 20)
            procfs.end(procfs.family(found.id, found.leaders()), 5)
            shutil.rmtree(found.data["socket_dir"], ignore_errors=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Up for all tests of this module."""
    made = Lab(tmp_path_factory.mktemp("a lab with spaces"))
    try:
        done = made("up")
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"login admin, password \S{12,}", done.stdout)
        yield made
    finally:
        made.remove()


def eventually(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def test_status_shows_every_process_answering_and_no_active_run(lab: Lab) -> None:
    done = lab("status")
    assert done.returncode == 0, done.stdout
    assert "no run is active" in done.stdout
    states = {row["name"]: row["state"] for row in lab.status()["processes"]}
    assert {name for name, state in states.items() if state == "running"} >= {
        "portal", "worker-conduct", "worker-tick", "broker",
        "wsnode-server", "agent-server", "agent-load-1", "agent-load-2",
    }  # fmt: skip
    assert set(states.values()) <= {"running", "absent"}


def test_housekeeping_yields_to_what_is_measured(lab: Lab) -> None:
    rows = [row for row in lab.status()["processes"] if row["state"] == "running"]
    niceness = {row["name"]: os.getpriority(os.PRIO_PROCESS, row["pid"]) for row in rows}
    measured = {name for name, nice in niceness.items() if nice == os.getpriority(os.PRIO_PROCESS, 0)}
    assert measured == {"wsnode-server", "agent-server", "agent-load-1", "agent-load-2"}
    assert {nice for name, nice in niceness.items() if name not in measured} == {10}


def test_a_second_up_finds_it_and_shows_no_password(lab: Lab) -> None:
    done = lab("up")
    assert done.returncode == 0
    assert done.stdout.startswith("the lab is up already\n")
    assert "password " not in done.stdout.replace("changepassword ", "")


def test_what_is_private_is_closed_to_others(lab: Lab) -> None:
    assert lab.state.stat().st_mode & 0o777 == 0o700
    assert Path(lab.record().data["socket_dir"]).stat().st_mode & 0o777 == 0o700
    assert (lab.state / "token").stat().st_mode & 0o777 == 0o600


def test_addresses_are_printed_where_there_is_no_display(lab: Lab) -> None:
    lab.environment = {k: v for k, v in lab.environment.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    assert lab("open").stdout.strip() == lab.record().urls["portal"]


def test_a_run_is_queued_followed_and_written_and_its_exit_code_is_its_results(lab: Lab) -> None:
    before = lab.process("wsnode-server")
    wanted = ("--set", "before=restart_server", "--subject", "echo@1.2")
    done = lab("run", "smoke", *SMALL, *wanted, "--json", "result.json")
    after = lab.process("wsnode-server")
    assert after["pid"] != before["pid"]
    assert (after["state"], after["restarts"]) == ("running", before["restarts"] + 1)
    result = json.loads((lab.base / "result.json").read_text())
    assert done.returncode == runs.exit_code(result), done.stderr
    read = read_result(result)
    assert read.state == "finished"
    assert read.subject is not None
    assert (read.subject.name, read.subject.version) == ("echo", "1.2")
    assert read.counters.connections_opened == 4
    assert read.counters.messages_received > 50
    assert f"validity  {read.validity}" in done.stdout
    assert re.search(r"Response time +[\d.]+ (µs|ms|s)", done.stdout)
    assert f"/runs/{read.run_id}/" in done.stdout


def test_two_groups_alternate_and_each_run_is_told_and_written(lab: Lab) -> None:
    plan = lab("run", "smoke", *SMALL, "--repeat", "2", "--alternate", "size_bytes=128", "--plan")
    assert "4 runs, begins at once, takes about" in plan.stdout, plan.stderr
    done = lab("run", "smoke", *SMALL, "--repeat", "2", "--alternate", "size_bytes=128", "--json", "group.json")
    kept = json.loads((lab.base / "group.json").read_text())
    assert [one["group"] for one in kept["results"]] == ["A", "B", "B", "A"], done.stderr
    assert [one["scenario"]["size_bytes"] for one in kept["results"]] == [64, 128, 128, 64]
    codes = {runs.exit_code(one) for one in kept["results"]}
    assert done.returncode == max(codes, key=[0, 1, 3, 2].index)
    assert f"page      {kept['groups'][0]['url']}" in done.stdout


def test_a_refused_run_names_field_and_range_and_is_exit_code_2(lab: Lab) -> None:
    done = lab("run", "smoke", "--set", "clients=0", "--wait")
    assert done.returncode == 2
    assert "clients" in done.stderr
    assert "0" in done.stderr
    assert lab("run", "no-such-scenario").returncode == 2
    for words, line in (
        (("--target", "shop"), "target: 'shop' is none of this lab's; known: none"),
        (("--set", "before=hook:reboot"), "before: hook:reboot is refused: server does not offer it; it offers: "),
        (("--set", "before=$(reboot)"), "before: '$(reboot)' is refused: allowed: "),
    ):
        done = lab("run", "smoke", *words)
        assert done.returncode == 2
        assert line in done.stderr


def test_ctrl_c_cancels_the_run_that_is_followed(lab: Lab) -> None:
    child = subprocess.Popen(
        lab.argv("run", "smoke", "--set", "duration_s=60", "--wait"),
        cwd=ROOT, env=lab.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    eventually(lambda: (lab.status()["active_run"] or {}).get("state") == "running")
    assert lab("status").stdout.count("is running: http") == 1
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 2, said
    assert "cancelled" in said
    assert lab.status()["active_run"] is None


def test_a_killed_agent_is_started_again_and_answers(lab: Lab) -> None:
    before = lab.process("agent-load-2")
    os.kill(before["pid"], signal.SIGKILL)
    eventually(
        lambda: lab.process("agent-load-2")["restarts"] == 1 and lab.process("agent-load-2")["state"] == "running"
    )
    assert lab.process("agent-load-2")["pid"] != before["pid"]


def test_management_commands_see_this_labs_database(lab: Lab) -> None:
    done = lab("manage", "shell", "-v0", "-c", "from portal.runs.models import Run; print(Run.objects.count() > 0)")
    assert done.stdout.strip().endswith("True"), done.stderr


def test_after_kill_9_of_the_supervisor_nothing_lives_on_and_up_starts_anew(lab: Lab) -> None:
    old = lab.record()
    sockets = Path(old.data["socket_dir"])
    os.kill(old.supervisor.pid, signal.SIGKILL)
    eventually(lambda: not old.supervised, 10)
    assert lab("status").returncode == 3
    done = lab("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.record().id != old.id
    assert procfs.family(old.id, old.leaders()) == set()
    assert not sockets.exists()
    assert lab.status()["healthy"]


def test_down_stops_all_and_leaves_nothing(lab: Lab) -> None:
    found = lab.record()
    done = lab("down")
    assert done.returncode == 0
    assert "the lab is down, stopped in order" in done.stdout
    assert procfs.family(found.id, found.leaders()) == set()
    assert not Path(found.data["socket_dir"]).exists()
    assert not (lab.state / "stack.json").exists()


def test_demo_on_a_terminal_shows_the_result_and_ctrl_c_stops_everything(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, lab.argv("demo", "--json", "result.json"), lab.environment)
    said = b""
    stopped = False
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    said += os.read(terminal, 65536)
                except OSError:  # the terminal's other end has closed
                    break
            if not stopped and b"stays up until Ctrl-C" in said:
                assert lab.record().phase == "running"
                os.write(terminal, b"\x03")
                stopped = True
        assert stopped, said.decode(errors="replace")
        _, status = os.waitpid(pid, 0)
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
        lab.remove()
    text = said.decode(errors="replace")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["scenario"]["name"] == "smoke"
    assert os.waitstatus_to_exitcode(status) == runs.exit_code(result)
    assert "smoke running" in text
    assert "the lab is down, stopped in order" in text
    assert not (lab.state / "stack.json").exists()

import os
import signal
import subprocess
import sys

import pytest

from stack import procfs

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]


@pytest.fixture
def start():
    """Start processes that are gone after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def go(argv: list[str], **options) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, **options)
        started.append(child)
        assert child.stdout
        assert child.stdout.readline()
        return child

    yield go
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_process_is_known_by_pid_and_start_time(start) -> None:
    child = start(SLEEP)
    known = procfs.identify(child.pid)
    assert known is not None
    assert procfs.alive(known)
    assert not procfs.alive(procfs.Pid(known.pid, known.start + 1))


def test_a_pid_that_belongs_to_another_by_now_is_never_signalled(start) -> None:
    child = start(SLEEP)
    known = procfs.identify(child.pid)
    assert known is not None
    assert procfs.send(procfs.Pid(known.pid, known.start - 1), signal.SIGKILL) is False
    assert procfs.end([procfs.Pid(known.pid, known.start - 1)], 0.1) == set()
    assert procfs.alive(known)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    known = procfs.identify(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert known is not None
    assert not procfs.alive(known)
    child.wait()
    assert procfs.identify(child.pid) is None


def test_the_family_is_found_by_its_mark_also_when_its_leader_is_dead(start) -> None:
    mark = {**os.environ, procfs.MARK: "test-mark"}
    grandchild = f"import subprocess, sys; p = subprocess.Popen({SLEEP!r}, stdout=sys.stdout); print(p.pid, flush=True)"
    leader = subprocess.Popen(
        [sys.executable, "-c", grandchild], env=mark, stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    pid = int(leader.stdout.readline() or b"0") or int(leader.stdout.readline())
    leader.wait()
    found = procfs.family("test-mark")
    assert {process.pid for process in found} == {pid}
    assert {process.pid for process in procfs.session(leader.pid, "test-mark")} == {pid}
    assert procfs.session(leader.pid, "another-mark") == set()
    assert procfs.end(found, 2) == set()
    assert procfs.family("test-mark") == set()
    leader.stdout.close()


def test_what_does_not_heed_sigterm_is_killed(start) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    child = start([sys.executable, "-c", stubborn])
    known = procfs.identify(child.pid)
    assert known is not None
    assert procfs.end([known], 0.2) == {known}
    assert child.wait() == -signal.SIGKILL


def test_a_stopped_process_is_ended_too(start) -> None:
    child = start(SLEEP)
    known = procfs.identify(child.pid)
    assert known is not None
    child.send_signal(signal.SIGSTOP)
    procfs.end([known], 0.2)
    assert not procfs.alive(known)

"""The virtual lab for tests: one per session, up when the first test asks for it, in a state folder of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import procfs
from stack.lab import lifecycle, record

ROOT = Path(__file__).parents[2]


class VirtualLab:
    """A virtual lab as its user has it: by `./wslab lab`, `ansible-playbook -i inventory/virtual` and the hosts."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {**os.environ, "WSLAB_STATE": str(state), "PYTHONUNBUFFERED": "1"}

    def command(self, *words: str) -> list[str]:
        """The command line of `./wslab lab …`, without the launcher, which would look for another Python."""
        return [sys.executable, "-m", "stack", "lab", *words]

    def run(self, *words: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """`./wslab lab …` to its end."""
        return subprocess.run(
            self.command(*words), cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`./wslab lab …` in the background."""
        return subprocess.Popen(
            self.command(*words), cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def up(self, *options: str) -> str:
        """Bring it up; what the command said."""
        done = self.run("up", "--keep-inventory", *options, timeout_s=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def down(self) -> str:
        """Take it down; what the command said."""
        done = self.run("down")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def on(self, host: str, *command: str) -> str:
        """What a command prints that is run as root on a host; it must succeed."""
        done = self.run("exec", host, "--", *command)
        assert done.returncode == 0, f"{host}: {command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def play(self, playbook: str, *options: str, timeout_s: float = 900) -> subprocess.CompletedProcess[str]:
        """`ansible-playbook PLAYBOOK …` on the lab's hosts."""
        return subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "inventory/virtual", playbook, *options],
            cwd=ROOT, env={**self.environment, "ANSIBLE_NOCOLOR": "1"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip


def why_not() -> str | None:
    """Why this machine or user cannot have the tests' lab; None when it can."""
    if sys.platform != "linux":
        return "the virtual lab needs Linux"
    if os.geteuid() != 0:
        return "the virtual lab needs root"
    missing = [tool for tool in lifecycle.TOOLS if shutil.which(tool) is None]
    if missing:
        return f"the virtual lab needs {', '.join(missing)}"
    owner = record.owner()
    if owner is not None and procfs.alive(owner.supervisor):
        return f"the virtual lab of {owner.state} is up on this machine"
    return None


@pytest.fixture(scope="session")
def virtual_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualLab]:
    """Server, two load generators and control, up and bare: what a test installs stays for the next one."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    lab = VirtualLab(tmp_path_factory.mktemp("a lab") / "state")  # a blank in the path, as users have them
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture
def no_lab(virtual_lab: VirtualLab) -> Iterator[VirtualLab]:
    """The same, taken down before and after the test. Tests with it run last (see below)."""
    virtual_lab.down()
    yield virtual_lab
    virtual_lab.down()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the lab down come after those that need it up: it is brought up once for all of them."""
    items.sort(key=lambda item: "no_lab" in getattr(item, "fixturenames", ()))

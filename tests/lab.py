"""The virtual lab for tests: one per session, up when the first test asks for it, in a state folder of its own.

It is brought up once and provisioned once, so its tests come before all others and in this order: on bare hosts, on
provisioned ones, on hosts that are bare again, without a lab. After the last of them the machine is quiet.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stack import procfs
from stack.lab import lifecycle, record

ROOT = Path(__file__).parents[1]
PROVISION_S = 900.0


class VirtualLab:
    """A virtual lab as its user has it: by `./wslab lab`, `ansible-playbook -i inventory/virtual` and the hosts."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {**os.environ, "WSLAB_STATE": str(state), "PYTHONUNBUFFERED": "1"}

    def command(self, *words: str) -> list[str]:
        """The command line of `./wslab lab …`, without the launcher, which would look for another Python."""
        return [sys.executable, "-m", "stack", "lab", *words]

    def demo(self, *words: str | Path) -> subprocess.Popen[str]:
        """`./wslab demo --virtual …` in the background."""
        return self._begin(sys.executable, "-m", "stack", "demo", "--virtual", *words)

    def run(self, *words: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """`./wslab lab …` to its end."""
        return subprocess.run(
            self.command(*words), cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`./wslab lab …` in the background."""
        return self._begin(*self.command(*words))

    def _begin(self, *command: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
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

    def play(self, playbook: str, *options: str, timeout_s: float = PROVISION_S) -> subprocess.CompletedProcess[str]:
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


class Provisioned(NamedTuple):
    """The lab with all of site.yml on its hosts, and what the main job said on the way."""

    lab: VirtualLab
    said: str
    result: dict[str, Any]
    """Of its run of `smoke`."""
    changed: dict[str, int]
    """How many tasks of site.yml changed something, by host."""


def changed(recap: str) -> dict[str, int]:
    """How many tasks changed something, by host, of what ansible-playbook printed."""
    return {host: int(n) for host, n in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", recap, re.MULTILINE)}


@pytest.fixture(scope="session")
def provisioned(virtual_lab: VirtualLab, tmp_path_factory: pytest.TempPathFactory) -> Provisioned:
    """The hosts, which were bare, with everything on them, by the command that does all of it."""
    file = tmp_path_factory.mktemp("main job") / "smoke.json"
    demo = virtual_lab.demo("--exit", "--json", file)
    said, _ = demo.communicate(timeout=PROVISION_S)
    # 1, 3: it ran, and a busy machine was too slow for its thresholds or to be believed.
    assert demo.returncode in (0, 1, 3), said[-8000:]
    recap = (virtual_lab.state / "logs" / "site.log").read_text()
    return Provisioned(virtual_lab, said, json.loads(file.read_text()), changed(recap))


@pytest.fixture
def torn_down(provisioned: Provisioned) -> VirtualLab:
    """The hosts after playbooks/teardown.yml."""
    done = provisioned.lab.play("playbooks/teardown.yml", "-e", "teardown_yes=true")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return provisioned.lab


@pytest.fixture
def no_lab(virtual_lab: VirtualLab) -> Iterator[VirtualLab]:
    """No lab is up, before and after the test."""
    virtual_lab.down()
    yield virtual_lab
    virtual_lab.down()


_ORDER = ("no_lab", "torn_down", "provisioned", "virtual_lab")
"""What tells where a test comes: the first of these that it asks for."""


def in_order(items: list[pytest.Item]) -> None:
    """Sort collected tests as the module says."""

    def place(item: pytest.Item) -> int:
        asked = getattr(item, "fixturenames", ())
        return next((-n for n, name in enumerate(_ORDER, 1) if name in asked), 0)

    # Most negative first: virtual_lab, provisioned, torn_down, no_lab, then all that need none.
    items.sort(key=place)

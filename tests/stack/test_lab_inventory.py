"""The virtual lab's executable inventory: always parses, names the hosts that are up, and the lab's keys."""

import ast
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stack import labfile, procfs
from stack.lab import layout, record
from stack.paths import ROOT

SCRIPT = ROOT / "inventory" / "virtual" / "hosts"


def listed(state: Path) -> dict[str, Any]:
    """What Ansible gets."""
    done = subprocess.run(
        [SCRIPT, "--list"], env={**os.environ, "WSLAB_STATE": str(state)}, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def write_record(state: Path, process: procfs.Pid, boot: str) -> None:
    (state / "lab").mkdir(parents=True)
    data = {
        "schema_version": record.SCHEMA_VERSION,
        "boot_id": boot,
        "supervisor": process._asdict(),
        "phase": "running",
        "error": None,
        "since": "2026-11-24T08:00:00Z",
        "notes": [],
        "ssh": {"key": f"{state}/lab/ssh/key", "known_hosts": f"{state}/lab/ssh/known_hosts", "config": ""},
        "forwards": {},
        "hosts": [
            {"name": host.name, "group": host.group, "address": host.address, "state": "running"}
            for host in layout.plan(2, 1)
        ],
    }
    record.path(state).write_text(json.dumps(data))


def me() -> procfs.Pid:
    found = procfs.identify(os.getpid())
    assert found is not None
    return found


def groups(answer: dict[str, Any]) -> dict[str, list[str]]:
    return {name: value["hosts"] for name, value in answer.items() if name != "_meta"}


DEFAULT = {"servers": ["server"], "load_generators": ["load-1", "load-2"], "control": ["control"]}


def test_without_a_lab_it_names_the_hosts_that_up_would_bring(tmp_path: Path) -> None:
    answer = listed(tmp_path)
    assert groups(answer) == DEFAULT
    addresses = {name: values["ansible_host"] for name, values in answer["_meta"]["hostvars"].items()}
    assert addresses == {host.name: host.address for host in layout.plan()}


def test_with_a_lab_it_names_that_ones_hosts(tmp_path: Path) -> None:
    write_record(tmp_path / "state", me(), procfs.boot_id())
    answer = listed(tmp_path / "state")
    assert groups(answer) == {"servers": ["server", "server-2"], "load_generators": ["load-1"], "control": ["control"]}


@pytest.mark.parametrize("wrong", ["another boot", "another process", "half a record"])
def test_a_dead_labs_record_is_not_believed(tmp_path: Path, wrong: str) -> None:
    process, boot = me(), procfs.boot_id()
    if wrong == "another boot":
        boot = "00000000-0000-0000-0000-000000000000"
    if wrong == "another process":
        process = procfs.Pid(process.pid, process.start + 1)
    write_record(tmp_path / "state", process, boot)
    if wrong == "half a record":
        file = record.path(tmp_path / "state")
        file.write_text(file.read_text()[:-20])
    assert groups(listed(tmp_path / "state")) == DEFAULT


def test_a_path_with_blanks_and_percent_signs_survives_ansible_and_ssh(tmp_path: Path) -> None:
    state = tmp_path / "a state's %h"
    state.mkdir()
    host = listed(state)["_meta"]["hostvars"]["control"]
    options = shlex.split(host["ansible_ssh_common_args"])
    known_hosts = state / "lab" / "ssh" / "known_hosts"
    known_hosts.parent.mkdir(parents=True)
    known_hosts.write_text("")
    shown = subprocess.run(["ssh", "-G", *options, "control"], capture_output=True, text=True, check=True).stdout
    said = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
    assert said["stricthostkeychecking"] in ("yes", "true")
    assert said["userknownhostsfile"].replace("%%", "%") == str(known_hosts)
    assert host["ansible_ssh_private_key_file"] == str(state / "lab" / "ssh" / "id_ed25519")


def test_the_machine_has_the_name_that_the_embedded_stack_gives_it(tmp_path: Path) -> None:
    assert listed(tmp_path)["_meta"]["hostvars"]["server"]["wslab_machine"] == labfile.machine()


def test_one_hosts_variables_can_be_asked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "--host", "server"], env={**os.environ, "WSLAB_STATE": str(tmp_path)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == listed(tmp_path)["_meta"]["hostvars"]["server"]


def test_it_is_written_for_older_pythons_than_the_projects() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    assert {name for name in ("stack", "yaml") if f"import {name}" in SCRIPT.read_text()} == set()
    assert os.access(SCRIPT, os.X_OK)


def test_ansible_parses_it_with_its_group_vars(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "inventory", "-i", "inventory/virtual", "--list"],
        cwd=ROOT, env={**os.environ, "WSLAB_STATE": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["_meta"]["hostvars"]["server"]["wslab_apt_source"] == f"file:{layout.GUEST_APT}"

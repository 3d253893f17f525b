"""What makes a host unfit, told with what was found and what was wanted; and the playbook on this machine as a host."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible.roles import ROOT

SCRIPT = ROOT / "playbooks" / "files" / "fitness.py"
_spec = importlib.util.spec_from_file_location("fitness", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
fitness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fitness)

WANTED = {
    "time": 1000.0,
    "clock_s": 1,
    "way_s": 3,
    "releases": ["Debian 13", "Ubuntu 24.04"],
    "python": [3, 12],
    "cores": 2,
    "memory_mb": 1024,
    "disk_mb": 2048,
}
SEEN = {
    "time": 1000.5,
    "service_manager": "systemd",
    "release": "Debian 13",
    "python": [3, 13],
    "cores": 2,
    "memory_mb": 1024,
    "disk_mb": 2048,
    "user": 0,
}


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({}, []),
        ({"service_manager": "sh"}, ["its service manager is sh, wanted: systemd"]),
        ({"release": "Debian 12"}, ["its release is Debian 12, wanted: Debian 13, Ubuntu 24.04"]),
        ({"python": [3, 9]}, ["python: 3.9, wanted: at least 3.12"]),
        ({"python": [3, 12]}, []),
        ({"cores": 1}, ["cores: 1, wanted: at least 2"]),
        ({"memory_mb": 1023}, ["memory: 1023 MiB, wanted: at least 1024 MiB"]),
        ({"disk_mb": 2047}, ["disk: 2047 MiB, wanted: at least 2048 MiB"]),
        ({"user": 1000}, ["its user 1000 is not root and sudo did not make it so"]),
        ({"time": 998.9}, ["its clock is at least 1.1 s behind the controller's, wanted: at most 1"]),
        ({"time": 999.1}, []),
        ({"time": 1003.9}, []),  # the way to the host may have taken that long
        ({"time": 1060.0}, ["its clock is about 60.0 s ahead of the controller's, wanted: at most 1"]),
        ({"cores": 1, "disk_mb": 1}, ["cores: 1, wanted: at least 2", "disk: 1 MiB, wanted: at least 2048 MiB"]),
    ],
)
def test_each_thing_that_does_not_fit_is_said(seen: dict[str, Any], said: list[str]) -> None:
    assert list(fitness.problems(WANTED, {**SEEN, **seen})) == said


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "Debian 12"),
        ('NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\n', "Ubuntu 24.04"),
        ("ID=arch\n", "arch ?"),
        ("", "unknown ?"),
    ],
)
def test_the_release_is_read_from_os_release(text: str, release: str) -> None:
    assert fitness.release(text) == release


def test_a_port_may_be_held_by_its_own_unit_and_by_nobody_else() -> None:
    ports = {"9100": "prometheus-node-exporter.service", "3000": "wsnode-server.service", "9090": "prometheus.service"}
    held = {"a": ["prometheus-node-exporter.service"], "b": ["nginx.service", "wsnode-server.service"]}
    assert list(fitness.port_problems(ports, {9100: "a", 3000: "b"}, held.__getitem__)) == [
        "port 3000 is held by nginx.service, wanted: free, or held by wsnode-server.service"
    ]


def test_a_listening_socket_of_this_machine_is_found_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = fitness.listening(Path("/proc/net/tcp").read_text())
        (holder,) = fitness.holders(taken[port])
        assert holder.startswith(f"pid {os.getpid()} (") or holder.endswith(".service")


def test_a_repository_that_is_not_there_is_named(tmp_path: Path) -> None:
    (said,) = fitness.apt_problems(f"file:{tmp_path}/none")
    assert said.startswith(f"package source file:{tmp_path}/none/Packages cannot be read: ")
    (tmp_path / "Packages").write_text("")
    assert fitness.apt_problems(f"file:{tmp_path}/") == []


def test_the_playbook_shows_every_host_and_fails_for_those_that_do_not_fit(tmp_path: Path) -> None:
    """This machine as a host of each kind; of the third nothing answers."""
    (tmp_path / "Packages").write_text("")
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    shared = yaml.safe_load((ROOT / "inventory" / "example" / "group_vars" / "all.yml").read_text())
    del shared["ansible_ssh_common_args"]
    small = {"preflight_memory_mb": 1, "preflight_disk_mb": 1, "wslab_apt_source": f"file:{tmp_path}"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = {"node_exporter_port": server.getsockname()[1]}
        groups = {
            "servers": {"hosts": {"server-1": {**local, **taken}}},
            "load_generators": {"hosts": {"load-1": {**local, "preflight_memory_mb": 10**9}, "load-2": gone}},
        }
        inventory = tmp_path / "hosts.json"
        inventory.write_text(json.dumps({"all": {"vars": {**shared, **small}, "children": groups}}))
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                "-i", str(inventory), str(ROOT / "playbooks" / "preflight.yml"),
            ],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    said = " ".join(done.stdout.split())
    assert f"port {taken['node_exporter_port']} is held by" in said
    assert "wanted: at least 1000000000 MiB" in said
    assert "load-2: NOT FIT: it cannot be reached: " in said
    for host in ("server-1", "load-1", "load-2"):
        assert f"{host} is not fit" in said
    assert "changed=0" in said
    assert "changed=1" not in said

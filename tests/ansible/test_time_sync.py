"""Role time_sync: what it makes of chrony's answers, and that containers are left to their machine's clock."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.lab import VirtualLab

ROOT = Path(__file__).parents[2]
STEADY = "C612072A,198.18.7.42,11,1794.2,-0.000033072,0.1,0.1,1.0,0.0,0.1,0.0001,0.0002,64.2,Normal"
LOST = "00000000,,0,0.0,0.000000000,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised"
OWN = "7F7F0101,,10,1794.2,0.000000000,0.0,0.0,0.0,0.0,0.0,0.0,0.0,64.2,Normal"
SOURCES = ["^,*,198.18.7.42,10,6,17,4,0.1,0.1,0.1", "^,?,pool.lab.example,0,6,0,4294967295,0.0,0.0,0.0"]
BARE = {"time_sync_enabled": True, "time_sync_skip_containers": True, "time_sync_servers": [], "time_sync_pools": []}


Case = tuple[dict[str, Any], dict[str, Any]]
"""Variables, and facts or what tasks have registered."""


def evaluated(folder: Path, cases: list[Case], *names: str) -> list[tuple[Any, ...]]:
    """Values of the role's internal variables in each case, by Ansible itself, in one run. No host is touched."""
    content = "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | to_json }}"
    plays = [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {**BARE, **variables, "ansible_python_interpreter": sys.executable},
            "vars_files": [str(ROOT / "roles/time_sync/vars/main.yml")],
            "tasks": [
                {"ansible.builtin.set_fact": {**facts, "cacheable": True}},
                {"ansible.builtin.copy": {"content": content, "dest": str(folder / f"{number}.json")}},
            ],
        }
        for number, (variables, facts) in enumerate(cases)
    ]
    (folder / "play.yml").write_text(yaml.safe_dump(plays))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(folder / "play.yml")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads((folder / f"{number}.json").read_text()) for number in range(len(cases))]
    return [tuple(one[name] for name in names) for one in found]


def test_chronys_answer_becomes_a_line(tmp_path: Path) -> None:
    given = {"time_sync_servers": ["198.18.7.42"], "time_sync_pools": ["pool.lab.example"]}
    answers = [[STEADY, *SOURCES], [OWN], [LOST, *SOURCES], [LOST]]
    cases = [(given, {"__time_sync_said": {"rc": 0, "stdout_lines": answer}}) for answer in answers]
    unknown = ["198.18.7.42", "pool.lab.example"]
    assert evaluated(tmp_path, cases, "__time_sync_state", "__time_sync_unknown") == [
        ("in step with 198.18.7.42, stratum 11, -0.000033072 s off", []),
        ("in step with its own clock, stratum 10, 0.000000000 s off", unknown),
        ("not in step with any source yet (198.18.7.42, pool.lab.example)", []),
        ("not in step with any source yet (none known)", unknown),
    ]


def test_only_a_host_with_a_clock_of_its_own_gets_chrony(tmp_path: Path) -> None:
    container, off = "a container has its host's clock", "time_sync_enabled is false, something else keeps its clock"
    table: list[tuple[dict[str, str], list[str], str]] = [
        ({}, ["kvm"], ""),
        ({}, [], ""),
        ({}, ["container", "systemd-nspawn"], container),
        ({}, ["docker", "kvm"], container),
        ({"time_sync_skip_containers": "false"}, ["docker"], ""),
        ({"time_sync_enabled": "false"}, ["kvm"], off),
    ]
    cases: list[Case] = [(dict(variables), {"virtualization_tech_guest": kinds}) for variables, kinds, _ in table]
    assert evaluated(tmp_path, cases, "__time_sync_skipped") == [(why,) for *_, why in table]


def test_a_rival_and_a_source_with_options_are_found(tmp_path: Path) -> None:
    packages = [
        "installed chrony time-daemon",
        "installed systemd-timesyncd time-daemon",
        "config-files openntpd time-daemon",
        "installed ntpsec ntp, time-daemon",
        "installed timelimit ",
    ]
    given = {
        "time_sync_servers": ["ntp1.example.org", "192.0.2.7", "2001:db8::7", "::1", "ntp iburst"],
        "time_sync_pools": ["a\nlocal", "-x"],
    }
    facts = {"__time_sync_daemons": {"stdout_lines": packages}}
    assert evaluated(tmp_path, [(given, facts)], "__time_sync_rivals", "__time_sync_wrong") == [
        (["ntpsec"], ["ntp iburst", "a\nlocal", "-x"])
    ]


def test_the_virtual_labs_hosts_are_skipped_by_name(virtual_lab: VirtualLab) -> None:
    done = virtual_lab.play("site.yml", "--tags", "time_sync")
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split()).replace("''", "'")
    for host in ("server", "load-1", "load-2", "control"):
        assert f"time_sync: skipped on {host}: a container has its host's clock" in said
    assert "changed=1" not in done.stdout
    assert virtual_lab.run("exec", "server", "--", "test", "-e", "/etc/chrony").returncode == 1


def test_a_wrong_source_is_named_before_anything_is_touched(virtual_lab: VirtualLab) -> None:
    done = virtual_lab.play("site.yml", "--tags", "time_sync", "-e", json.dumps({"time_sync_servers": ["ntp iburst"]}))
    assert done.returncode != 0
    assert 'time_sync_servers or time_sync_pools names "ntp iburst", wanted a name or an address' in done.stdout

"""The playbooks among each other: what is provisioned is checked before, and taken off in reverse order."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible import roles
from tests.ansible.roles import ROLES, ROOT

PLAYBOOKS = ["site.yml", *(f"playbooks/{path.name}" for path in sorted((ROOT / "playbooks").glob("*.yml")))]


def plays(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return found


def imported(name: str, tasks_from: str) -> list[tuple[str, str]]:
    """(hosts, role) of each role that a playbook imports for one of its task files."""
    return [
        (play["hosts"], task["ansible.builtin.import_role"]["name"])
        for play in plays(name)
        for task in play.get("tasks", [])
        if task.get("ansible.builtin.import_role", {}).get("tasks_from") == tasks_from
    ]


def provisioned() -> list[tuple[str, str]]:
    """(hosts, role) in the order of site.yml."""
    return [
        (play["hosts"], role["role"])
        for name in ("playbooks/provision.yml", "playbooks/portal.yml")
        for play in plays(name)
        for role in play.get("roles", [])
    ]


def groups(pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(group, role) for hosts, role in pairs for group in hosts.split(":")}


def playbook(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_site_checks_first_and_exports_last() -> None:
    wanted = ["refuse", "provision", "portal", "export_lab"]
    assert [play["ansible.builtin.import_playbook"] for play in plays("site.yml")] == [
        f"playbooks/{name}.yml" for name in wanted
    ]


def test_every_role_is_provisioned_but_those_that_others_call_or_that_make_hosts() -> None:
    assert {role for _, role in provisioned()} == set(ROLES) - {"packages", "virtual_host"}


def test_the_variables_of_every_role_are_checked_on_its_hosts_before_anything_is_touched() -> None:
    checked = groups(imported("playbooks/refuse.yml", "preflight"))
    assert groups(provisioned()) == {(group, role) for group, role in checked if role != "packages"}
    assert {group for group, role in checked if role == "packages"} == {"servers", "load_generators", "control"}
    text = (ROOT / "playbooks" / "refuse.yml").read_text(encoding="utf-8")
    for role in {role for _, role in provisioned()}:
        for name in roles.options(role):
            assert not name.endswith("_packages") or name in text, f"nothing checks {name}"


def test_a_wrong_variable_stops_all_hosts_and_an_unreachable_host_none() -> None:
    by_name = {play["name"]: play for play in plays("playbooks/refuse.yml")}
    looks = by_name.pop("Look at the hosts")
    assert "any_errors_fatal" not in looks
    assert all(play["any_errors_fatal"] and not play["gather_facts"] for play in by_name.values())
    for name in ("playbooks/provision.yml", "playbooks/portal.yml", "playbooks/export_lab.yml"):
        fatal = [play["name"] for play in plays(name) if "any_errors_fatal" in play or "serial" in play]
        assert set(fatal) <= {"Refuse hosts that are this machine"}  # which contacts none


def test_teardown_takes_off_in_reverse_what_was_provisioned_and_packages_last() -> None:
    taken = imported("playbooks/teardown.yml", "teardown")
    assert groups(taken) - {pair for pair in groups(taken) if pair[1] == "packages"} == groups(provisioned())
    assert taken[-1][1] == "packages"
    assert set(taken[-1][0].split(":")) == {"servers", "load_generators", "control"}
    order = [role for _, role in provisioned()]
    assert [role for _, role in taken[:-1]] == order[::-1]


def test_every_role_has_a_tag_of_its_name() -> None:
    for name in ("playbooks/provision.yml", "playbooks/portal.yml"):
        for play in plays(name):
            assert all(role["tags"] == role["role"] for role in play.get("roles", []))


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_playbook_is_understood(name: str) -> None:
    done = playbook("--syntax-check", "-i", "inventory/example", name)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "name", ["site.yml", "playbooks/provision.yml", "playbooks/portal.yml", "playbooks/teardown.yml"]
)
def test_this_machine_is_refused_unless_it_is_allowed(name: str) -> None:
    done = playbook("-i", "inventory/local", name, "-e", "teardown_yes=true")
    assert done.returncode == 2
    said = " ".join(done.stdout.split())
    assert "control-1: its connection is local, and the roles would change this machine itself" in said
    assert not re.search(r"changed=[1-9]", done.stdout)
    assert "Gathering Facts" not in done.stdout
    assert playbook("-i", "inventory/local", name, "-e", "wslab_allow_local=true", "--list-tasks").returncode == 0

"""The inventories: whole, read by Ansible, and free of variables that nothing reads."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
INVENTORIES = ["example", "local", "virtual"]
GROUPS = ["servers", "load_generators", "control"]
PORTS = {
    "portal_port": 8000,
    "wsnode_server_port": 3000,
    "wsnode_server_metrics_port": 9091,
    "wsnode_agent_metrics_port": 9092,
    "prometheus_port": 9090,
    "grafana_port": 3001,
    "node_exporter_port": 9100,
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def ansible(
    *argv: str, environment: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """One of Ansible's programs, with the clone's own configuration."""
    program = str(Path(sys.executable).parent / argv[0])
    surroundings = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        **(environment or {}),
    }
    return subprocess.run(
        [program, *argv[1:]],
        cwd=cwd,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@functools.cache
def listed(name: str) -> dict[str, Any]:
    """What Ansible makes of an inventory."""
    done = ansible("ansible-inventory", "-i", str(ROOT / "inventory" / name), "--list")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", INVENTORIES)
def test_an_inventory_has_the_groups_with_hosts_and_every_group_its_variables(name: str) -> None:
    found = listed(name)
    for group in GROUPS:
        assert found[group]["hosts"], f"{name}: {group} is empty"
        for host in found[group]["hosts"]:
            assert found["_meta"]["hostvars"][host]["wslab_lab"] == name
    folder = ROOT / "inventory" / name / "group_vars"
    assert {path.name for path in folder.iterdir()} == {f"{group}.yml" for group in ["all", *GROUPS]}


def test_the_example_is_quiet_and_has_one_server_two_load_generators_and_one_control_host() -> None:
    done = ansible("ansible-inventory", "-i", str(ROOT / "inventory" / "example"), "--list")
    assert done.stderr == ""
    assert [len(json.loads(done.stdout)[group]["hosts"]) for group in GROUPS] == [1, 2, 1]


@pytest.mark.parametrize("name", INVENTORIES)
def test_ports_are_the_same_in_inventories_and_roles(name: str) -> None:
    given = read(ROOT / "inventory" / name / "group_vars" / "all.yml")
    assert {port: given[port] for port in PORTS} == PORTS
    for defaults in sorted(ROOT.glob("roles/*/defaults/main.yml")):
        theirs = read(defaults) or {}
        assert {port: theirs[port] for port in PORTS if port in theirs} == {
            port: value for port, value in PORTS.items() if port in theirs
        }, defaults


def known() -> set[str]:
    """Variables that a role describes, and names that stand in a playbook; `wslab_…` in any file of a role, too."""
    names: set[str] = set()
    for specs in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        names |= set(read(specs)["argument_specs"]["main"]["options"])
    for path in (ROOT / "playbooks").rglob("*.yml"):
        names |= set(re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", path.read_text(encoding="utf-8")))
    for path in (ROOT / "roles").rglob("*"):
        if path.suffix in (".yml", ".j2"):
            names |= set(re.findall(r"\bwslab_[a-z_]+\b", path.read_text(encoding="utf-8")))
    return names


@pytest.mark.parametrize("name", INVENTORIES)
def test_every_variable_of_an_inventory_is_one_that_something_reads(name: str) -> None:
    folder = ROOT / "inventory" / name
    files = [*(folder / "group_vars").glob("*.yml"), *folder.glob("vault.example.yml")]
    given = {key for path in files for key in read(path) if not key.startswith("ansible_")}
    if (folder / "hosts.yml").exists():
        for variables in listed(name)["_meta"]["hostvars"].values():
            given |= {key for key in variables if not key.startswith("ansible_")}
    assert sorted(given - known()) == []


def test_the_vault_example_names_the_secrets_of_the_roles_and_holds_none() -> None:
    example = read(ROOT / "inventory" / "example" / "vault.example.yml")
    assert set(example.values()) == {""}
    assert {"portal_secret_key", "portal_database_url", "portal_admin_password", "grafana_admin_password"} <= set(
        example
    )


def test_a_copy_of_the_example_with_enrolled_hosts_and_a_vault_is_read(tmp_path: Path) -> None:
    """known_hosts and vault.example.yml lie beside hosts.yml, and are no inventories."""
    copy = tmp_path / "a lab of mine"
    subprocess.run(["cp", "-r", str(ROOT / "inventory" / "example"), str(copy)], check=True)
    (copy / "known_hosts").write_text("192.0.2.20 ssh-ed25519 AAAA\n")
    vault = copy / "host_vars" / "control-1" / "vault.yml"
    vault.parent.mkdir(parents=True)
    (tmp_path / "password").write_text("open sesame\n")
    vault.write_text("portal_secret_key: a key of forty characters for this test only\n")
    assert (
        ansible("ansible-vault", "encrypt", "--vault-password-file", str(tmp_path / "password"), str(vault)).returncode
        == 0
    )
    assert "forty" not in vault.read_text()
    done = ansible(
        "ansible-inventory",
        "-i",
        str(copy),
        "--list",
        environment={"ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "password")},
    )
    assert done.stderr == ""
    hostvars = json.loads(done.stdout)["_meta"]["hostvars"]
    assert [host for host, variables in hostvars.items() if "portal_secret_key" in variables] == ["control-1"]


@pytest.mark.parametrize("dangling", [False, True])
def test_the_bare_command_without_an_inventory_is_one_line_with_the_choices(tmp_path: Path, dangling: bool) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("site.yml", "ansible.cfg", "playbooks", "roles"):
        (clone / name).symlink_to(ROOT / name)
    (clone / "inventory").mkdir()
    if dangling:
        (clone / "inventory" / "current").symlink_to("mine")
    done = ansible(
        "ansible-playbook", "site.yml", cwd=clone, environment={"ANSIBLE_CONFIG": str(clone / "ansible.cfg")}
    )
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("no inventory is chosen" + (" (mine is gone)" if dangling else ""))
    assert "./wslab lab up" in line
    assert "./wslab inventory use PATH" in line

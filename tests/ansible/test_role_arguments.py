"""A wrong value of any variable of any role is refused by the role's preflight, named, before anything is touched.

One run of Ansible: each case is a host of its own, of connection local, whose only oddity is that value. Nothing is
provisioned: only `tasks_from: preflight` runs, in check mode, and it is without any change.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from stack.lab import images, layout
from tests.ansible import roles
from tests.ansible.roles import ROLES, ROOT

LAB = layout.plan()
NEEDED: dict[str, dict[str, Any]] = {
    "virtual_host": images.variables(LAB, images.sources(LAB)),
    "host_tuning": {"host_tuning_for": "server"},
    "packages": {"packages_names": ["chrony"]},
    "grafana": {"grafana_package_source": "apt", "grafana_admin_password": "a password long enough"},
    "wsnode": {"wsnode_conductor_keys": ["ssh-ed25519 AAAA"], "wsnode_load": True, "wsnode_serve": True},
}
"""What a role cannot do without, or what makes it look at other variables."""

FACTS = {
    "ansible_architecture": "x86_64",
    "ansible_distribution": "Debian",
    "ansible_distribution_major_version": "13",
    "ansible_distribution_release": "trixie",
    "ansible_distribution_version": "13.1",
    "ansible_os_family": "Debian",
    "ansible_python_version": "3.13.5",
    "ansible_service_mgr": "systemd",
    "ansible_virtualization_tech_guest": [],
    "ansible_virtualization_type": "NA",
}


OF_TYPE: dict[str, Any] = {"int": "many", "list": {"a": 1}}
"""Values of another type, which Ansible refuses where the specs name the type."""


class Case(NamedTuple):
    """`value` is wrong for `variable`; None: the variable is missing, or (no variable) nothing is wrong."""

    role: str
    variable: str
    value: Any


BROKEN = "a\nb"
"""Would write a line of its own into somebody's file."""


def wrong_value(option: dict[str, Any]) -> Any:
    """A value that no option of this type can mean. Numbers and texts are of the right type: the role must refuse."""
    if option.get("choices"):
        return "nonsense"
    match option["type"]:
        case "int" | "float":
            return -1
        case "bool":
            return "perhaps"
        case "list" if option["elements"] == "str":
            return [BROKEN]
        case "list" | "dict":
            return "nonsense"
        case _:
            return BROKEN


def cases() -> list[Case]:
    """One for each variable, one more for each type in a role, and for what is required."""
    found = []
    for role in ROLES:
        types: set[str] = set()
        for variable, option in roles.options(role).items():
            # all lists of packages go through the preflight of role `packages` (playbooks/refuse.yml)
            if not variable.endswith("_packages"):
                found.append(Case(role, variable, wrong_value(option)))
            if option["type"] in OF_TYPE and option["type"] not in types:
                types.add(option["type"])
                found.append(Case(role, variable, OF_TYPE[option["type"]]))
            if option.get("required"):
                found.append(Case(role, variable, None))
    return found


CASES = cases()


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What the preflight said to each case, by its number; "" where it found nothing."""
    folder = tmp_path_factory.mktemp("arguments")
    hosts, facts = folder / "hosts.json", folder / "facts"
    facts.mkdir()
    groups: dict[str, Any] = {f"only_{role}": {"hosts": {}} for role in ROLES}
    for number, case in enumerate(CASES):
        given = {name: value for name, value in NEEDED.get(case.role, {}).items() if name != case.variable}
        if case.value is not None:
            given[case.variable] = case.value
        groups[f"only_{case.role}"]["hosts"][f"case-{number}"] = given
        (facts / f"case-{number}").write_text(json.dumps(FACTS))
    shared = {name: value for name, value in roles.SHARED.items() if not name.startswith("ansible_")}
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "wslab_address": "127.0.0.1"}
    hosts.write_text(json.dumps({"all": {"vars": {**shared, **own}, "children": groups}}))
    plays = [
        {
            "name": role,
            "hosts": f"only_{role}",
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Ask",
                    "block": [
                        {"name": "Preflight", "ansible.builtin.include_role": {"name": role, "tasks_from": "preflight"}}
                    ],
                    "rescue": [{"name": "Keep", "ansible.builtin.set_fact": {"said": "{{ ansible_failed_result }}"}}],
                }
            ],
        }
        for role in ROLES
    ]
    told = (
        "{{ dict(groups['all'] | zip(groups['all'] | map('extract', hostvars) | map(attribute='said', default={}))) }}"
    )
    copy = {"dest": str(folder / "said.json"), "content": told, "mode": "0600"}
    plays.append(
        {
            "name": "Tell",
            "hosts": "case-0",
            "gather_facts": False,
            "tasks": [{"name": "Tell", "ansible.builtin.copy": copy, "check_mode": False}],
        }
    )
    (folder / "play.yml").write_text(yaml.safe_dump(plays))
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "--check", "-i", str(hosts), str(folder / "play.yml"),
        ],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CACHE_PLUGIN": "jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(facts),
            "ANSIBLE_NOCOLOR": "1",
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name, changed in re.findall(r"^(case-\d+) .*\bchanged=(\d+)", done.stdout, re.MULTILINE):
        assert changed == ("1" if name == "case-0" else "0"), (
            f"{CASES[int(name.removeprefix('case-'))]} changed something"
        )
    answers = json.loads((folder / "said.json").read_text())
    return {number: json.dumps(answers[f"case-{number}"]) for number in range(len(CASES))}


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=lambda number: f"{CASES[number].variable}={CASES[number].value!r}"
)
def test_a_wrong_value_is_refused_and_named(number: int, said: dict[int, str]) -> None:
    case, answer = CASES[number], said[number]
    assert answer != "{}", f"{case.role} takes {case.variable} = {case.value!r}"
    message = json.loads(answer).get("msg", "") + str(json.loads(answer).get("argument_errors", ""))
    assert case.variable in message

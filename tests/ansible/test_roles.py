"""Every role has one shape; its variables are described, used, and the same in defaults and argument specs."""

import re
from pathlib import Path
from typing import Any

import pytest

from stack import checks
from tests.ansible import roles
from tests.ansible.roles import ROLES, ROOT

GIVEN_BY_ANSIBLE = {
    "ansible_facts", "ansible_check_mode", "ansible_diff_mode", "ansible_host", "ansible_managed", "ansible_play_hosts",
    "ansible_playbook_python", "group_names", "groups", "hostvars", "inventory_dir", "inventory_hostname", "item",
    "lookup", "now", "omit", "playbook_dir", "q", "query", "role_path", "undef",
    "dict", "namespace", "range",
}  # fmt: skip
NO_UNIT = {"packages": {"configure", "verify"}}
"""Tasks that a role has no use for: `packages` sets nothing up, its module reads back what dpkg says."""


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_all_roles_of_the_design_are_here() -> None:
    wanted = "grafana host_tuning node_exporter packages portal prometheus redis time_sync virtual_host wsnode"
    assert wanted.split() == ROLES


def test_a_role_has_its_files(role: str) -> None:
    folder = ROOT / "roles" / role
    wanted = {"main", "preflight", "install", "configure", "verify", "teardown"} - NO_UNIT.get(role, set())
    assert wanted <= {path.stem for path in (folder / "tasks").glob("*.yml")}
    for name in ("README.md", "defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml"):
        assert (folder / name).is_file(), f"{role} has no {name}"
    assert "meta/argument_specs.yml" in (folder / "README.md").read_text(encoding="utf-8")
    assert "import_tasks" in str(roles.task_files(role)["tasks/main.yml"])
    first = roles.task_files(role)["tasks/main.yml"][0]
    assert first.get("ansible.builtin.import_tasks") == "preflight.yml", f"{role} does not check first"


def test_a_role_says_for_what_it_is(role: str) -> None:
    info = roles.read(role, "meta/main.yml")["galaxy_info"]
    assert info["author"] == "wslab"
    assert info["license"] == "MIT"
    assert info["min_ansible_version"] == "2.21"
    assert len(info["description"]) > 10
    assert {platform["name"] for platform in info["platforms"]} <= {"Debian", "Ubuntu"}
    assert roles.read(role, "meta/main.yml").get("dependencies", []) == []


def test_preflight_by_itself_takes_the_same_arguments(role: str) -> None:
    specs = roles.read(role, "meta/argument_specs.yml")["argument_specs"]
    assert specs["preflight"] == specs["main"]


def test_defaults_and_argument_specs_are_equal_in_keys_and_values(role: str) -> None:
    described, given = roles.options(role), roles.defaults(role)
    without_default = {name for name, option in described.items() if "default" not in option}
    needed = {name for name in without_default if described[name].get("required")}
    # null in defaults: an option without a default, since a spec has no word for "none"
    assert {name: option["default"] for name, option in described.items() if "default" in option} == {
        name: value for name, value in given.items() if value is not None or name not in without_default
    }
    assert without_default - needed == {name for name, value in given.items() if value is None} & without_default


def test_variables_are_named_after_the_role_typed_and_described(role: str) -> None:
    for name, option in roles.options(role).items():
        assert name.startswith(f"{role}_") or name in roles.SHARED, name
        assert option["type"], name
        assert option["type"] != "list" or "elements" in option, name
        description = option["description"]
        assert len("".join(description) if isinstance(description, list) else description) > 5, name
    for name in roles.read(role, "vars/main.yml") or {}:
        assert re.match(rf"_{{1,2}}{role}_", name), f"{name} is internal, and must say so"


def test_every_variable_is_used(role: str) -> None:
    folder = ROOT / "roles" / role
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name not in ("meta", "__pycache__")]
    for name in roles.options(role):
        given = [path for path in files if path.suffix != ".md" and re.search(rf"\b{name}\b", _code(path, name))]
        assert given, f"nothing reads {name}"


def _code(path: Path, name: str) -> str:
    """The text without the line that gives the default."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return re.sub(rf"^{name}:", "", text, flags=re.MULTILINE) if path.parent.name == "defaults" else text


def test_no_name_is_used_that_nobody_defines(role: str) -> None:
    known = roles.names_made(role) | GIVEN_BY_ANSIBLE | set(roles.SHARED)
    for where, names in roles.names_used(role).items():
        strange = {name for name in names - known if not name.startswith("wslab_")}
        assert strange == set(), f"roles/{role}/{where}"


def test_what_is_notified_is_a_handler_and_each_handler_is_notified(role: str) -> None:
    files = roles.task_files(role)
    handlers: list[dict[str, Any]] = files.get("handlers/main.yml", [])
    listened = {name for handler in handlers for name in _listed(handler.get("listen"))} | {h["name"] for h in handlers}
    notified = {name for tasks in files.values() for task in tasks for name in _listed(task.get("notify"))}
    fixed = {name for name in notified if "{{" not in name}
    assert fixed <= listened
    if fixed == notified:
        assert {handler["name"] for handler in handlers if "listen" not in handler} <= notified


def _listed(value: object) -> list[str]:
    return [] if value is None else value if isinstance(value, list) else [str(value)]


def test_modules_are_ansibles_own_or_the_roles(role: str) -> None:
    own = {path.stem for path in (ROOT / "roles" / role / "library").glob("*.py")}
    for where, tasks in roles.task_files(role).items():
        for task in tasks:
            name, _ = roles.module(task)
            assert name == "block" or name.startswith("ansible.builtin.") or name in own, f"{role}/{where}: {name}"


def test_what_the_controller_does_needs_no_root(role: str) -> None:
    """Plays set become; a task that is delegated to the controller must say that it does not mean it."""
    for where, tasks in roles.task_files(role).items():
        for task in tasks:
            if task.get("delegate_to") == "localhost":
                assert task.get("become") is False, f"{role}/{where}: {task['name']}"


def test_nothing_ignores_errors(role: str) -> None:
    for where, tasks in roles.task_files(role).items():
        assert not [task["name"] for task in tasks if "ignore_errors" in task], f"{role}/{where}"


def test_check_lints_with_the_production_profile_offline() -> None:
    (lint,) = [check for check in checks.CHECKS if check.name == "ansible-lint"]
    argv = lint.argv()
    assert isinstance(argv, list)
    assert argv[1:5] == ["-m", "ansiblelint", "--offline", "--strict"]
    configuration = roles.yaml.safe_load((ROOT / ".ansible-lint").read_text(encoding="utf-8"))
    assert configuration["profile"] == "production"
    assert not configuration.keys() & {"skip_list", "warn_list", "kinds"}

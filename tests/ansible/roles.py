"""What the tests of roles read of them: variables, tasks, the names in expressions."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.name for path in ROOT.glob("roles/*/tasks"))
BARE = ("when", "that", "failed_when", "changed_when", "until")
"""Keywords whose value is an expression without braces."""

SHARED = yaml.safe_load((ROOT / "inventory" / "example" / "group_vars" / "all.yml").read_text(encoding="utf-8"))
"""Variables that belong to no role alone: addresses, ports."""


def read(role: str, path: str) -> Any:
    """A YAML file of a role; None where there is none."""
    file = ROOT / "roles" / role / path
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None


def options(role: str) -> dict[str, dict[str, Any]]:
    """The options of the role's entry point `main`."""
    specs = read(role, "meta/argument_specs.yml") or {}
    found: dict[str, dict[str, Any]] = specs.get("argument_specs", {}).get("main", {}).get("options", {})
    return found


def defaults(role: str) -> dict[str, Any]:
    """What defaults/main.yml gives."""
    return read(role, "defaults/main.yml") or {}


def task_files(role: str) -> dict[str, list[dict[str, Any]]]:
    """Tasks and handlers by file, blocks unrolled."""
    folder = ROOT / "roles" / role
    files = [*sorted(folder.glob("tasks/*.yml")), *sorted(folder.glob("handlers/*.yml"))]
    return {
        str(file.relative_to(folder)): list(_unrolled(yaml.safe_load(file.read_text(encoding="utf-8")) or []))
        for file in files
    }


def _unrolled(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from _unrolled(task.get(part, []))


def module(task: dict[str, Any]) -> tuple[str, Any]:
    """A task's module and arguments; ("block", None) of a block."""
    if "block" in task:
        return "block", None
    return next(
        (key, value) for key, value in task.items() if "." in key or key.startswith(("wslab_", "portal_", "wsnode_"))
    )


def _names(text: str, where: str) -> set[str]:
    """Names that are read and not set in the same text. (`jinja2.meta` would ask for Ansible's filters.)"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of '\\.' in a pattern, which means what it says
            tree = jinja2.Environment(autoescape=True).parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise AssertionError(f"{where}: {error}: {text}") from error
    found = list(tree.find_all(jinja2.nodes.Name))
    made = {name.name for name in found if name.ctx != "load"} | {"loop"}
    return {name.name for name in found if name.ctx == "load"} - made


def _in(value: object, where: str, bare: frozenset[str] = frozenset(), is_bare: bool = False) -> set[str]:
    """Names in all strings of a value. `bare`: keys below which a string is an expression."""
    if isinstance(value, dict):
        return set().union(*(_in(item, where, bare, key in bare) | _in(key, where) for key, item in value.items()))
    if isinstance(value, list):
        return set().union(*(_in(item, where, bare, is_bare) for item in value))
    if not isinstance(value, str):
        return set()
    return _names("{{" + value + "}}" if is_bare else value, where)


def names_used(role: str) -> dict[str, set[str]]:
    """Names that expressions and templates of the role read, by file."""
    folder = ROOT / "roles" / role
    found = {}
    for file in sorted(folder.rglob("*")):
        where, kind = str(file.relative_to(folder)), file.parent.name
        if file.suffix == ".yml" and kind in ("tasks", "handlers", "vars", "defaults"):
            bare = frozenset(BARE) if kind in ("tasks", "handlers") else frozenset()
            found[where] = _in(yaml.safe_load(file.read_text(encoding="utf-8")), f"{role}/{where}", bare)
        elif file.suffix == ".j2":
            found[where] = _names(file.read_text(encoding="utf-8"), f"{role}/{where}")
    return found


def names_made(role: str) -> set[str]:
    """Names that the role itself gives a value: options, vars, registered, set, and those of a task."""
    made = {*options(role), *defaults(role), *(read(role, "vars/main.yml") or {})}
    for task in (task for tasks in task_files(role).values() for task in tasks):
        made |= set(task.get("vars", {}))
        if "register" in task:
            made.add(task["register"])
        if isinstance(arguments := task.get("ansible.builtin.set_fact"), dict):
            made |= set(arguments)
        control = task.get("loop_control", {})
        made |= {control[key] for key in ("loop_var", "index_var") if key in control}
    return made

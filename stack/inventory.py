"""The local inventory: the hosts of the embedded lab and the one home of its port numbers."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from stack.errors import StackError
from stack.paths import ROOT

EXAMPLE = "inventory/local of a fresh clone"
_GROUPS = {"servers": "server", "load_generators": "load_generator"}
_PORTS = {
    "portal": "portal_port",
    "server": "wsnode_server_port",
    "server-metrics": "wsnode_server_metrics_port",
    "prometheus": "prometheus_port",
    "grafana": "grafana_port",
    "node-exporter": "node_exporter_port",
}


class Host(NamedTuple):
    """A host of the lab. `role` is server or load_generator."""

    name: str
    role: str


class Inventory(NamedTuple):
    """Hosts in order, and the wanted port of every listening process by its name (agents as `agent-HOST`)."""

    hosts: list[Host]
    ports: dict[str, int]
    targets: list[dict[str, Any]]
    """`wslab_targets` as it stands there: what else runs may aim at. The portal checks it."""


def _mapping(path: Path) -> dict[str, Any]:
    import yaml  # here: `down` and `status` work before there is a .venv

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise StackError(f"{path} cannot be read: {error}", f"compare it with {EXAMPLE}") from None
    if not isinstance(value, dict):
        raise StackError(f"{path} is no mapping", f"compare it with {EXAMPLE}")
    return value


def _port(path: Path, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1024 <= value <= 65535:
        raise StackError(f"{path}: {name} is {value!r}, wanted: a port from 1024 to 65535", f"mend {path}")
    return value


def _folder() -> Path:
    """$WSLAB_INVENTORY (relative to the clone), or inventory/local."""
    given = os.environ.get("WSLAB_INVENTORY")
    return ROOT / given if given else ROOT / "inventory" / "local"


def read(folder: Path | None = None) -> Inventory:
    """Read hosts.yml and group_vars/all.yml.

    Raises:
        StackError: a file or a port is missing or wrong, named.
    """
    folder = folder or _folder()
    defaults_path, hosts_path = folder / "group_vars" / "all.yml", folder / "hosts.yml"
    defaults, tree = _mapping(defaults_path), _mapping(hosts_path)
    ports = {name: _port(defaults_path, key, defaults.get(key)) for name, key in _PORTS.items()}
    hosts: list[Host] = []
    try:
        for group, role in _GROUPS.items():
            for name, variables in tree["all"]["children"][group]["hosts"].items():
                hosts.append(Host(name, role))
                key = "wsnode_agent_metrics_port"
                ports[f"agent-{name}"] = _port(hosts_path, f"{name}'s {key}", (variables or {}).get(key))
    except (KeyError, TypeError, AttributeError) as error:
        raise StackError(f"{hosts_path} lacks {error}", f"compare it with {EXAMPLE}") from None
    targets = defaults.get("wslab_targets") or []
    if not isinstance(targets, list) or not all(isinstance(target, dict) for target in targets):
        raise StackError(f"{defaults_path}: wslab_targets is no list of mappings", f"compare it with {EXAMPLE}")
    return Inventory(hosts, ports, targets)

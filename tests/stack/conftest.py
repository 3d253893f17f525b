"""A state folder and an inventory of free high ports for each test: nothing here touches a developer's own lab."""

import socket
from pathlib import Path

import pytest
import yaml

from stack import inventory


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def write_inventory(folder: Path) -> Path:
    """The local inventory with other ports."""
    source = Path(inventory.__file__).parent.parent / "inventory" / "local"
    defaults = yaml.safe_load((source / "group_vars" / "all.yml").read_text())
    hosts = yaml.safe_load((source / "hosts.yml").read_text())
    ports = iter(free_ports(len(defaults) + 3))
    (folder / "group_vars").mkdir(parents=True)
    (folder / "group_vars" / "all.yml").write_text(
        yaml.safe_dump({name: next(ports) if type(value) is int else value for name, value in defaults.items()})
    )
    for group in ("servers", "load_generators"):
        for variables in hosts["all"]["children"][group]["hosts"].values():
            variables["wsnode_agent_metrics_port"] = next(ports)
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return folder


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own $WSLAB_STATE."""
    folder = tmp_path / "state"
    (folder / "logs").mkdir(parents=True)
    monkeypatch.setenv("WSLAB_STATE", str(folder))
    return folder


@pytest.fixture
def own_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own $WSLAB_INVENTORY with free high ports."""
    folder = write_inventory(tmp_path / "inventory")
    monkeypatch.setenv("WSLAB_INVENTORY", str(folder))
    return folder

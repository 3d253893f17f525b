"""Roles prometheus, redis and grafana as far as no host is needed: what they would put in place, and that it works."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import yaml

from stack import broker
from stack.paths import ROOT
from tests.ansible.roles import SHARED
from tests.monitoring.conftest import program

INVENTORY = {
    "servers": {
        "server-1": {"ansible_host": "198.51.100.1", "wsnode_server_metrics_port": 19091},
        "server-2": {"ansible_host": "2001:db8::2"},
    },
    "load_generators": {
        "load-1": {"ansible_host": "ssh-alias", "wslab_address": "198.51.100.11"},
        "load-2": {"ansible_host": "198.51.100.12"},
        "load-3": {"ansible_host": "198.51.100.12", "wsnode_agent_metrics_port": 19092},  # on one machine with load-2
        "server-2": {},  # does both
        "load-x": {"ansible_host": "198.51.100.13"},
    },
    "control": {"control-1": {"ansible_host": "198.51.100.21", "prometheus_exclude": ["load-x"]}},
    "spare": {"nobody": {}},
}
RENDERED = {
    "prometheus": ["files", "folder", "drop_in", "targets", "groups", "flags"],
    "redis": ["files", "configuration", "drop_in", "socket", "data", "settings"],
    "grafana": ["files", "placed", "folder", "staged", "prometheus_url"],
}


def load(path: str) -> ModuleType:
    """A module or plugin of a role, which is in no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "roles" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


state = load("prometheus/library/wslab_prometheus_state.py")
faults = load("grafana/filter_plugins/grafana.py").grafana_faults


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The roles' internal variables on the control host of `INVENTORY`, by role and name.

    Only their preflights run, and a task that tells, in copies of the roles: names as `role_path` exist only inside.
    """
    folder = tmp_path_factory.mktemp("rendered")
    tasks = []
    for role, names in RENDERED.items():
        shutil.copytree(ROOT / "roles" / role, folder / "roles" / role)
        said = {name: f"{{{{ __{role}_{name} }}}}" for name in names}
        copy = {"dest": str(folder / f"{role}.json"), "content": "{{ said | to_json }}", "mode": "0600"}
        tell = [{"name": "Tell", "vars": {"said": said}, "ansible.builtin.copy": copy}]
        (folder / "roles" / role / "tasks" / "tell.yml").write_text(yaml.safe_dump(tell))
        tasks += [
            {"name": role, "ansible.builtin.include_role": {"name": role, "tasks_from": part}}
            for part in ("preflight", "tell")
        ]
    for source in ("prometheus", "grafana"):
        (folder / source).symlink_to(ROOT / source)
    play(folder, INVENTORY, "control-1", tasks)
    return {role: json.loads((folder / f"{role}.json").read_text()) for role in RENDERED}


def play(folder: Path, inventory: dict[str, Any], host: str, tasks: list[dict[str, Any]], wanted: int = 0) -> str:
    """What Ansible says to tasks with the roles in `folder`; all hosts are this machine, and must end with `wanted`."""
    shared = {name: value for name, value in SHARED.items() if not name.startswith(("ansible_", "wslab_address"))}
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups = {name: {"hosts": hosts} for name, hosts in inventory.items()}
    (folder / "hosts.json").write_text(json.dumps({"all": {"vars": {**shared, **own}, "children": groups}}))
    (folder / "play.yml").write_text(yaml.safe_dump([{"hosts": host, "gather_facts": False, "tasks": tasks}]))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", folder / "hosts.json", folder / "play.yml"],
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_ROLES_PATH": f"{folder / 'roles'}:{ROOT / 'roles'}",
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == wanted, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def placed(files: dict[str, str], root: Path) -> None:
    """Files below another root."""
    for path, text in files.items():
        target = root / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


# --- prometheus -------------------------------------------------------------------------------------------------------

TARGETS = [
    "wsnode-server server-1 198.51.100.1:19091",
    "wsnode-server server-2 [2001:db8::2]:9091",
    "wsnode-agent load-1 198.51.100.11:9092",
    "wsnode-agent load-2 198.51.100.12:9092",
    "wsnode-agent load-3 198.51.100.12:19092",
    "wsnode-agent server-1 198.51.100.1:9092",
    "wsnode-agent server-2 [2001:db8::2]:9092",
    "node control-1 198.51.100.21:9100",
    "node load-1 198.51.100.11:9100",
    "node load-2 198.51.100.12:9100",
    "node load-3 198.51.100.12:9100",
    "node server-1 198.51.100.1:9100",
    "node server-2 [2001:db8::2]:9100",
]


def test_targets_are_the_inventorys_hosts_each_with_its_own_address_and_port(rendered: dict[str, Any]) -> None:
    ours = rendered["prometheus"]
    assert [target["name"] for target in ours["targets"]] == TARGETS
    found = []
    for job in ("wsnode-server", "wsnode-agent", "node"):
        for entry in json.loads(ours["files"][f"{ours['folder']}/targets/{job}.json"]):
            assert entry["labels"].keys() == {"job", "host"}
            found.append(" ".join([*entry["labels"].values(), *entry["targets"]]))
    assert sorted(found) == sorted(" ".join([*name.split()[1::-1], name.split()[2]]) for name in TARGETS)


def test_configuration_and_rules_are_the_clones_to_the_byte(rendered: dict[str, Any]) -> None:
    ours = rendered["prometheus"]
    source = ROOT / "prometheus"
    paths = [source / "prometheus.yml", *(source / "rules").glob("*.yml")]
    wanted = {f"{ours['folder']}/{path.relative_to(source)}": path.read_text() for path in paths}
    assert {path: ours["files"].get(path) for path in wanted} == wanted
    targets = {f"{ours['folder']}/targets/{job}.json" for job in ("wsnode-server", "wsnode-agent", "node")}
    assert ours["files"].keys() == wanted.keys() | targets | {ours["drop_in"]}


def test_promtool_accepts_what_the_role_puts_in_place(rendered: dict[str, Any], tmp_path: Path) -> None:
    ours = rendered["prometheus"]
    placed(ours["files"], tmp_path)
    configuration = tmp_path / ours["folder"].removeprefix("/") / "prometheus.yml"
    command = [program("promtool"), "check", "config", configuration]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 rule files found" in done.stdout


def test_what_collides_is_refused_with_both_names(tmp_path: Path) -> None:
    agents = {"load-1": {"ansible_host": "198.51.100.1"}, "load-2": {"ansible_host": "198.51.100.1"}}
    inventory = {"load_generators": agents, "control": {"control-1": {"prometheus_port": 8000}}}
    task = {"name": "p", "ansible.builtin.include_role": {"name": "prometheus", "tasks_from": "preflight"}}
    said = " ".join(play(tmp_path, inventory, "control-1", [task], wanted=2).split())
    assert "prometheus_port is 8000 as portal_port is, wanted another port" in said
    assert "load-1 and load-2 would be scraped at one address" in said


class Running(NamedTuple):
    """A real Prometheus with what the role puts in place, and what it has to answer."""

    url: str
    config: str
    flags: dict[str, str]


@pytest.fixture(scope="module")
def running(rendered: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The targets are all one closed port of this machine: nothing may go out to the inventory's addresses."""
    binary = program("prometheus")
    ours, root = rendered["prometheus"], tmp_path_factory.mktemp("prometheus")
    with socket.socket() as held, socket.socket() as closed:
        held.bind(("127.0.0.1", 0))
        closed.bind(("127.0.0.1", 0))  # not listening
        port = held.getsockname()[1]
        silent = f"127.0.0.1:{closed.getsockname()[1]}"
        files = dict(ours["files"])
        for path in files:
            if "/targets/" in path:
                entries = json.loads(files[path])
                files[path] = json.dumps([{**entry, "targets": [silent]} for entry in entries])
        placed(files, root)
        config = root / ours["folder"].removeprefix("/")
        flags = {
            **ours["flags"],
            "config.file": str(config / "prometheus.yml"),
            "storage.tsdb.path": str(root / "data"),
            "web.listen-address": f"127.0.0.1:{port}",
        }
        assert all(f"--{name}={value} \\" in ours["files"][ours["drop_in"]] for name, value in ours["flags"].items())
        held.close()
        words = [binary, *(f"--{name}={value}" for name, value in flags.items()), "--log.level=warn"]
        with (root / "log").open("w") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
            try:
                yield Running(f"http://127.0.0.1:{port}", str(config), flags)
            finally:
                process.terminate()


def differences(running: Running, **changed: Any) -> tuple[list[str], list[str]]:
    """What the module that verifies finds: (differences, targets that are down), once all targets were tried."""
    asked = {
        "config": running.config,
        "flags": running.flags,
        "groups": ["eventloop", "host", "lab", "load", "processes", "server"],
        "targets": [],
        **changed,
    }
    prometheus, deadline = state.Prometheus(running.url), time.monotonic() + 40
    while True:
        found, down = state.look(prometheus, asked)
        if len(down) == len(TARGETS) or time.monotonic() > deadline:
            return found, down
        time.sleep(0.1)


def test_a_prometheus_as_set_up_passes_though_its_targets_are_down(running: Running) -> None:
    _, down = differences(running)
    assert len(down) == len(TARGETS)
    assert "connect: connection refused" in down[0]
    known = [line.partition(": ")[0] for line in down]
    assert [name.split()[:2] for name in known] == sorted(name.split()[:2] for name in TARGETS)
    assert differences(running, targets=known)[0] == []


def test_each_difference_of_a_running_prometheus_is_named(running: Running) -> None:
    known = [line.partition(": ")[0] for line in differences(running)[1]]
    flags = {**running.flags, "storage.tsdb.retention.time": "16d", "storage.tsdb.retention.size": "10240MB"}
    found, _ = differences(
        running, flags=flags, groups=["host", "lab", "load", "processes", "server", "new"],
        targets=["node load-9 127.0.0.1:9100", *known[1:]],
    )  # fmt: skip
    assert found == [
        "flag --storage.tsdb.retention.time is '15d', wanted '16d'",
        "rule group new is not loaded",
        "rule group eventloop is loaded, but not in the clone",
        "target node load-9 127.0.0.1:9100 is not known",
        f"target {known[0]} is known, but not in the inventory",
    ]


def test_files_newer_than_what_was_loaded_are_a_difference(running: Running) -> None:
    path = Path(running.config, "rules", "lab.yml")
    before = path.stat()
    known = [line.partition(": ")[0] for line in differences(running)[1]]
    try:
        os.utime(path, (time.time() + 5, time.time() + 5))
        (found,), _ = differences(running, targets=known)
        assert "older than the files; fix: systemctl reload prometheus" in found
    finally:
        os.utime(path, (before.st_atime, before.st_mtime))


def test_no_prometheus_at_all_is_one_difference() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        asked = {"config": "/", "flags": {}, "groups": [], "targets": []}
        (found,), down = state.look(state.Prometheus(url), asked)
    assert "does not answer at" in found
    assert down == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2w1d", 15 * 86400), ("15d", 15 * 86400), ("1y", 365 * 86400), ("90s", 90), ("1m30s", 90), ("500ms", 0.5),
        ("10GiB", 10 << 30), ("10GB", 10 << 30), ("512MB", 512 << 20), ("0B", 0),
        ("127.0.0.1:9090", "127.0.0.1:9090"), ("/var/lib/15d", "/var/lib/15d"), ("", ""), ("7 apples", "7 apples"),
    ],
)  # fmt: skip
def test_durations_and_sizes_are_compared_by_what_they_mean(text: str, wanted: float | str) -> None:
    assert state.amount(text) == wanted


# --- redis ------------------------------------------------------------------------------------------------------------


def test_redis_accepts_its_configuration_and_has_it_in_force(rendered: dict[str, Any]) -> None:
    """Run here by Redis, or Valkey, which reads the same: only socket and folder lie elsewhere."""
    binary, reason = broker.binary()
    if binary is None:
        pytest.skip(f"no broker: {reason}")
    ours = rendered["redis"]
    with tempfile.TemporaryDirectory(prefix="wslab-") as folder:  # short: a socket's path has at most 108 bytes
        text = ours["files"][ours["configuration"]]
        for path, here in ((ours["socket"], "s"), (ours["data"], "")):
            assert path in text
            text = text.replace(path, f"{folder}/{here}".rstrip("/"))
        Path(folder, "conf").write_text(text)
        with subprocess.Popen([binary, f"{folder}/conf"], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout
                assert any("accept connections" in line for line in process.stdout), "it did not start"
                assert Path(folder, "s").stat().st_mode & 0o777 == 0o770
                found = configuration(Path(folder, "s"))
            finally:
                process.terminate()
    wanted = {name: str(value) for name, value in ours["settings"].items()}
    assert {**found, "unixsocket": ours["socket"], "dir": ours["data"]} == wanted
    assert wanted["port"] == "0"
    assert wanted["maxmemory-policy"] == "noeviction"
    assert ours["configuration"] in ours["files"][ours["drop_in"]]


def configuration(path: Path) -> dict[str, str]:
    """What CONFIG GET says of the settings that the role verifies."""
    names = ("port", "unixsocket", "dir", "appendonly", "maxmemory", "maxmemory-policy")
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(str(path))
        lines = channel.makefile("rb")
        found = {}
        for name in names:
            channel.sendall(f"CONFIG GET {name}\r\n".encode())
            assert lines.readline() == b"*2\r\n"
            key, value = [lines.readline() and lines.readline().decode().strip() for _ in range(2)]
            found[key] = value
    return found


# --- grafana ----------------------------------------------------------------------------------------------------------

FOLDER = "/etc/grafana/wslab"
URL = "http://127.0.0.1:9090"


def test_without_a_package_the_same_files_lie_where_they_can_be_looked_at(rendered: dict[str, Any]) -> None:
    ours = rendered["grafana"]
    moved = {path.replace(ours["staged"], ours["folder"]): text for path, text in ours["placed"].items()}
    assert moved == ours["files"]
    assert not [path for path in ours["placed"] if not path.startswith(f"{ours['staged']}/")]
    for path in [*(ROOT / "grafana").glob("dashboards/*.json"), *(ROOT / "grafana").glob("provisioning/*/*.yml")]:
        assert ours["files"][f"{ours['folder']}/{path.relative_to(ROOT / 'grafana')}"] == path.read_text()


def test_grafana_lets_nobody_in_by_itself_and_tells_nobody(rendered: dict[str, Any]) -> None:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(rendered["grafana"]["files"][f"{FOLDER}/grafana.ini"])
    assert (ini["server"]["http_addr"], ini["server"]["http_port"]) == ("127.0.0.1", "3001")
    assert ini["auth.anonymous"]["enabled"] == "false"
    assert ini["security"]["admin_password"] == "$__file{/etc/grafana/wslab.password}"
    assert {ini["analytics"][name] for name in ini["analytics"]} == {"false"}


def test_the_clones_dashboards_and_provisioning_are_faultless(rendered: dict[str, Any]) -> None:
    assert faults(rendered["grafana"]["files"], FOLDER, URL) == []


BOARD = "dashboards/wslab-run.json"
SOURCE = "provisioning/datasources/prometheus.yml"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (BOARD, "{", "", f"{BOARD} is no JSON"),
        (BOARD, '"wslab-run"', '"other"', f"{BOARD} has no uid 'wslab-run', by which runs link to it"),
        (BOARD, '"wslab-prometheus"', '"elsewhere"', f"{BOARD} names data source 'elsewhere', which is not"),
        (BOARD, '"panels"', '"panes"', f"{BOARD} has no panels"),
        (SOURCE, "$PROMETHEUS_URL", "http://127.0.0.1:9999", "reads from http://127.0.0.1:9999, wanted http://127.0.0.1"),
        (SOURCE, "$PROMETHEUS_URL", "$PROMETHEUS", f"{SOURCE} uses $PROMETHEUS, which the unit's environment lacks"),
        (SOURCE, "uid: wslab-prometheus", "uid: another", "names data source 'wslab-prometheus', which is not"),
        (SOURCE, "datasources:", "datasources: [", f"{SOURCE} is no provisioning file"),
        ("provisioning/dashboards/wslab.yml", "$DASHBOARDS", "/srv", f"does not read {FOLDER}/dashboards"),
        ("grafana.ini", "[server]", "[server", "grafana.ini cannot be read"),
        ("environment", "PROMETHEUS_URL=", "URL=", "uses $PROMETHEUS_URL, which the unit's environment lacks"),
    ],
)  # fmt: skip
def test_each_fault_of_grafanas_files_is_named(
    rendered: dict[str, Any], name: str, old: str, new: str, said: str
) -> None:
    files = dict(rendered["grafana"]["files"])
    text = files[f"{FOLDER}/{name}"]
    assert old in text
    files[f"{FOLDER}/{name}"] = text.replace(old, new, 1 if old == "{" else -1)
    found = faults(files, FOLDER, URL)
    assert any(said in one for one in found), found


def test_no_dashboards_at_all_are_a_fault(rendered: dict[str, Any]) -> None:
    files = {path: text for path, text in rendered["grafana"]["files"].items() if "/dashboards/wslab-" not in path}
    assert faults(files, FOLDER, URL) == ["there are no dashboards"]

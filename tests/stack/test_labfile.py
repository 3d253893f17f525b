"""lab.json and Prometheus' files, as those who read them understand them."""

import json
import subprocess
from pathlib import Path

import pytest

from portal.labs.lab import load_lab
from stack import inventory, labfile, packages
from stack.paths import ROOT
from stack.services import Lab


@pytest.fixture
def lab(tmp_path: Path, state: Path) -> Lab:
    known = inventory.read()
    return Lab(state, tmp_path / "sockets", known, known.ports)


def write(lab: Lab, prometheus: bool = True, node_exporter: bool = True, grafana: bool = False) -> None:
    labfile.write(lab, prometheus=prometheus, node_exporter=node_exporter, grafana=grafana)


def targets(state: Path) -> dict[str, list[tuple[str, str, str]]]:
    """{file: [(address, job, host)]}."""
    folder = state / "prometheus" / "targets"
    return {
        file.stem: [
            (group["targets"][0], group["labels"]["job"], group["labels"]["host"])
            for group in json.loads(file.read_text())
        ]
        for file in folder.iterdir()
    }


def test_the_portal_reads_the_lab_with_the_ports_of_the_inventory(lab: Lab, state: Path) -> None:
    write(lab)
    read = load_lab(state / "lab.json")
    assert (read.lab, read.prometheus_url, read.grafana_url) == ("local", "http://127.0.0.1:9090", None)
    assert read.run_url("echo") == "ws://127.0.0.1:3000/echo"
    assert [(host.name, host.role, host.metrics_ports) for host in read.hosts] == [
        ("server", "server", {"wsnode-server": 9091, "wsnode-agent": 9094, "node": 9100}),
        ("load-1", "load_generator", {"wsnode-agent": 9092}),
        ("load-2", "load_generator", {"wsnode-agent": 9093}),
    ]
    assert read.hosts[1].socket == str(lab.sockets / "agent-load-1.sock")


def test_what_cannot_be_had_is_null_and_not_scraped(lab: Lab, state: Path) -> None:
    write(lab)
    assert set(targets(state)) == {"wsnode-server", "wsnode-agent", "node"}
    write(lab, prometheus=False, node_exporter=False)
    read = load_lab(state / "lab.json")
    assert read.prometheus_url is None
    assert "node" not in read.server.metrics_ports
    assert set(targets(state)) == {"wsnode-server", "wsnode-agent"}


def test_every_service_is_scraped_under_its_job_and_host(lab: Lab, state: Path) -> None:
    write(lab)
    assert targets(state) == {
        "wsnode-server": [("127.0.0.1:9091", "wsnode-server", "server")],
        "wsnode-agent": [
            ("127.0.0.1:9094", "wsnode-agent", "server"),
            ("127.0.0.1:9092", "wsnode-agent", "load-1"),
            ("127.0.0.1:9093", "wsnode-agent", "load-2"),
        ],
        "node": [("127.0.0.1:9100", "node", "server")],
    }


def test_prometheus_accepts_what_it_is_given(lab: Lab, state: Path) -> None:
    program, reason = packages.promtool()
    if program is None:
        pytest.skip(f"no promtool: {reason}")
    write(lab)
    checked = subprocess.run(
        [program, "check", "config", state / "prometheus" / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_has_the_projects_rules_and_none_of_before(lab: Lab, state: Path) -> None:
    rules = state / "prometheus" / "rules"
    rules.mkdir(parents=True)
    (rules / "gone.yml").write_text("groups: []\n")
    write(lab)
    made = {file.name: file.read_text() for file in rules.iterdir()}
    assert made == {file.name: file.read_text() for file in (ROOT / "prometheus" / "rules").glob("*.yml")}
    assert len(made) >= 6


def test_a_port_of_the_inventory_that_is_none_is_named(own_ports: Path) -> None:
    from stack.errors import StackError

    file = own_ports / "group_vars" / "all.yml"
    file.write_text(file.read_text().replace("portal_port: ", "portal_port: 1"))  # six digits
    with pytest.raises(StackError, match=r"all\.yml: portal_port is 1\d+, wanted: a port from 1024 to 65535"):
        inventory.read()

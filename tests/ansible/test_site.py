"""site.yml on the virtual lab, and the main job on what it makes: a run from the queue, over SSH, to its result."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portal.labs.lab import Lab, load_lab
from stack import labfile
from stack.client import ENDED, Portal
from stack.lab import record
from stack.lab.demo import portal_of
from tests.ansible.conftest import VirtualLab
from wsnode.core.scenario import Plan, Scenario

HOSTS = ("control", "load-1", "load-2", "server")
RUN_S = 90
NS = 1_000_000_000


def changed(lab: VirtualLab, *options: str) -> dict[str, int]:
    """What a run of a playbook, which must succeed, changed on each host."""
    done = lab.play(*options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return {host: int(n) for host, n in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", done.stdout, re.MULTILINE)}


@pytest.fixture(scope="module")
def made(virtual_lab: VirtualLab) -> Iterator[VirtualLab]:
    """The lab with all of site.yml on its hosts."""
    first = changed(virtual_lab, "site.yml")
    assert sorted(first) == sorted(HOSTS)
    assert min(first.values()) > 0
    yield virtual_lab
    changed(virtual_lab, "playbooks/teardown.yml", "-e", "teardown_yes=true")


@pytest.fixture(scope="module")
def portal(made: VirtualLab) -> Portal:
    found = record.read(made.state)
    assert found is not None
    return portal_of(found)


@pytest.fixture(scope="module")
def result(portal: Portal) -> dict[str, Any]:
    """Of `smoke`, queued through the API of the control host's portal."""
    run = portal.queue("smoke", {}, None, accept_partial=False)
    deadline = time.monotonic() + RUN_S
    while (now := portal.run(run["run_id"]))["state"] not in ENDED:
        assert time.monotonic() < deadline, now
        time.sleep(0.5)
    assert now["state"] == "finished", now["state_reason"]
    return portal.result(run["run_id"])


def test_a_second_run_changes_nothing_and_check_mode_sees_nothing_to_change(made: VirtualLab) -> None:
    assert changed(made, "site.yml") == dict.fromkeys(HOSTS, 0)
    assert changed(made, "site.yml", "--check", "--diff") == dict.fromkeys(HOSTS, 0)


def test_the_portal_is_told_its_hosts_with_what_they_are(made: VirtualLab, tmp_path: Path) -> None:
    file = tmp_path / "lab.json"
    file.write_text(made.on("control", "cat", "/etc/wslab/lab.json"))
    lab: Lab = load_lab(file)
    assert lab.machine == labfile.machine()
    assert [host.name for host in lab.hosts] == ["server", "load-1", "load-2"]
    for host in lab.hosts:
        assert host.host_keys[0].split()[:2] in [
            line.split()[1:3] for line in (made.state / "lab" / "ssh" / "known_hosts").read_text().splitlines()
        ]
        assert host.facts is not None
        assert host.facts.distribution is not None
        assert host.facts.distribution.startswith("Debian 13")
        assert host.facts.tuning_profile == "tuned"
    assert lab.server.facts is not None
    assert lab.server.facts.tuned["net.core.somaxconn"] == "65535"


def test_no_unit_has_failed_and_the_portals_units_log_no_error(made: VirtualLab) -> None:
    for host in HOSTS:
        assert made.on(host, "systemctl", "list-units", "--failed", "--no-legend") == ""
    units = [f"--unit={unit}" for unit in ("wslab-portal", "wslab-conduct", "wslab-tick", "prometheus", "redis-server")]
    assert made.on("control", "journalctl", "--no-pager", "--quiet", "--priority=err", *units) == ""


def test_a_run_over_ssh_counts_every_message(result: dict[str, Any]) -> None:
    scenario = Scenario.model_validate(result["scenario"])
    offered = scenario.pacing().offered(Plan.whole(scenario, "ws://x").share, scenario.duration_s * NS)
    counters = result["counters"]
    assert counters["messages_due"] == offered
    assert counters["messages_due"] == counters["messages_sent"] + counters["messages_unsent"]
    assert counters["connections_opened"] == scenario.clients
    generators = [host for host in result["hosts"] if host["role"] == "load_generator"]
    assert [host["name"] for host in generators] == ["load-1", "load-2"]
    assert sum(host["counters"]["messages_due"] for host in generators) == offered
    for host in generators:
        assert abs(host["start_skew_s"]) < 0.05 + host["clock_bound_s"]


def test_the_run_has_evidence_of_every_host_from_the_control_hosts_prometheus(result: dict[str, Any]) -> None:
    assert {row["name"]: row["no_data"] for row in result["evidence"] if row["value"] is None} == {}
    assert len(result["evidence"]) >= 25
    text = json.dumps(result["evidence"])
    assert all(f'host=\\"{name}\\"' in text or name in text for name in ("server", "load-1", "load-2"))
    stable = {host["name"]: host["environment"]["stable"] for host in result["hosts"]}
    assert stable["server"]["net.core.somaxconn"] == "65535"
    assert stable["load-1"]["net.ipv4.ip_local_port_range"] == "1024 65535"
    # One kernel for all of them, which the result says.
    assert len({facts["boot_id"] for facts in stable.values()}) == 1
    assert any("shares a kernel" in note for note in result["notes"])

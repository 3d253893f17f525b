"""site.yml on the virtual lab as a whole, and the run that the main job makes on it: from the queue to its result."""

from __future__ import annotations

import json
from pathlib import Path

from portal.labs.lab import Lab, load_lab
from stack import labfile
from tests.lab import Provisioned, VirtualLab, changed
from wsnode.core.scenario import Plan, Scenario

HOSTS = ("control", "load-1", "load-2", "server")
NS = 1_000_000_000


def changes(lab: VirtualLab, *options: str) -> dict[str, int]:
    """What a run of a playbook, which must succeed, changed on each host."""
    done = lab.play(*options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return changed(done.stdout)


def test_the_main_job_provisions_every_host_and_runs_smoke(provisioned: Provisioned) -> None:
    assert sorted(provisioned.changed) == sorted(HOSTS)
    assert min(provisioned.changed.values()) > 0
    run_id = provisioned.result["run_id"]
    assert f"run {run_id} of smoke is queued: " in provisioned.said
    assert provisioned.result["state"] == "finished"
    # Whoever had the lab up before keeps it.
    assert "4 hosts were up already and stay so" in provisioned.said


def test_a_second_run_changes_nothing_and_check_mode_sees_nothing_to_change(
    provisioned: Provisioned,
) -> None:
    assert changes(provisioned.lab, "site.yml") == dict.fromkeys(HOSTS, 0)
    assert changes(provisioned.lab, "site.yml", "--check", "--diff") == dict.fromkeys(HOSTS, 0)


def test_the_portal_is_told_its_hosts_with_what_they_are(provisioned: Provisioned, tmp_path: Path) -> None:
    file = tmp_path / "lab.json"
    file.write_text(provisioned.lab.on("control", "cat", "/etc/wslab/lab.json"))
    lab: Lab = load_lab(file)
    assert lab.machine == labfile.machine()
    known = (provisioned.lab.state / "lab" / "ssh" / "known_hosts").read_text()
    assert [host.name for host in lab.hosts] == ["server", "load-1", "load-2"]
    for host in lab.hosts:
        assert host.host_keys[0].split()[:2] in [line.split()[1:3] for line in known.splitlines()]
        assert host.facts is not None
        assert host.facts.distribution is not None
        assert host.facts.distribution.startswith("Debian 13")
        assert host.facts.tuning_profile == "tuned"
    assert lab.server.facts is not None
    assert lab.server.facts.tuned["net.core.somaxconn"] == "65535"


def test_no_unit_has_failed_and_the_portals_units_log_no_error(provisioned: Provisioned) -> None:
    for host in HOSTS:
        assert provisioned.lab.on(host, "systemctl", "list-units", "--failed", "--no-legend") == ""
    units = [f"--unit={unit}" for unit in ("wslab-portal", "wslab-conduct", "wslab-tick", "prometheus", "redis-server")]
    assert provisioned.lab.on("control", "journalctl", "--no-pager", "--quiet", "--priority=err", *units) == ""


def test_a_run_over_ssh_counts_every_message(provisioned: Provisioned) -> None:
    result = provisioned.result
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


def test_the_run_has_evidence_of_every_host_from_the_control_hosts_prometheus(provisioned: Provisioned) -> None:
    result = provisioned.result
    assert {row["name"]: row["no_data"] for row in result["evidence"] if row["value"] is None} == {}
    assert len(result["evidence"]) >= 25
    text = json.dumps(result["evidence"])
    assert all(f'host=\\"{name}\\"' in text or name in text for name in ("server", "load-1", "load-2"))
    stable = {host["name"]: host["environment"]["stable"] for host in result["hosts"]}
    assert stable["server"]["net.core.somaxconn"] == "65535"
    assert stable["load-1"]["net.ipv4.ip_local_port_range"] == "1024 65535"
    # One kernel for all of them, which the result says.
    assert len({facts["boot_id"] for facts in stable.values()}) == 1
    assert any("share a kernel" in note for note in result["notes"])


def test_teardown_takes_off_what_site_put_there(torn_down: VirtualLab) -> None:
    for host in HOSTS:
        left = torn_down.run(
            "exec", host, "--", "ls", "-d", "/etc/wsnode", "/opt/wsnode", "/opt/wslab", "/etc/prometheus"
        )
        assert left.stdout == ""
        units = torn_down.on(
            host, "systemctl", "list-units", "--all", "--no-legend", "wsnode*", "wslab*", "prometheus*"
        )
        assert units == ""

"""Redis, Prometheus and Grafana on the virtual lab's control host, from bare to bare."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.paths import ROOT
from tests.ansible import standin_grafana
from tests.lab import VirtualLab

UNITS = ("redis-server", "prometheus", "grafana-server")
ROLES = ("redis", "prometheus", "grafana")
PASSWORD = "correct-horse-battery"


def play(lab: VirtualLab, *options: str) -> subprocess.CompletedProcess[str]:
    """The roles of this module on the control host, as their playbook runs them."""
    return lab.play("playbooks/portal.yml", "--limit", "control", "--tags", ",".join(ROLES), *options)


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks changed something, of a run that must succeed."""
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    (found,) = re.findall(r"^control .*\bchanged=(\d+)", done.stdout, re.MULTILINE)
    return int(found)


def teardown(lab: VirtualLab) -> int:
    """Take off what is on the control host."""
    return changed(lab.play("playbooks/teardown.yml", "--limit", "control", "-e", "teardown_yes=true"))


NOTED_BY_THE_HOST = [
    "/proc",
    "/sys",
    "/run",
    "/tmp",
    "/var/tmp",
    "/root",
    "/var/log",
    "/var/cache",
    "/var/lib/apt",
    "/var/lib/dpkg",
]
"""Folders where a host, apt and dpkg write of themselves."""


def seen(lab: VirtualLab) -> list[str]:
    """Files with mode and owner, users and enabled units."""
    left_out = " -o ".join(f"-path {folder}" for folder in NOTED_BY_THE_HOST)
    look = rf"""find / -xdev \( {left_out} \) -prune -o -printf '%p %M %u %g %l\n' | sort
        getent passwd; getent group; systemctl list-unit-files --state=enabled --no-legend"""
    return lab.on("control", "sh", "-c", look).splitlines()


def pids(lab: VirtualLab) -> dict[str, str]:
    """The main process of each unit; "0" where it does not run."""
    said = lab.on("control", "systemctl", "show", "--property=MainPID", "--value", *UNITS)
    return dict(zip(UNITS, said.split(), strict=True))


@pytest.fixture(scope="module")
def bare(virtual_lab: VirtualLab) -> Iterator[list[str]]:
    """What is on the control host before anything is put there."""
    teardown(virtual_lab)
    yield seen(virtual_lab)
    teardown(virtual_lab)


@pytest.fixture(scope="module")
def looked(bare: list[str], virtual_lab: VirtualLab) -> str:
    """What check mode says on the bare host."""
    done = play(virtual_lab, "--check", "--diff")
    assert changed(done) > 0
    assert seen(virtual_lab) == bare
    return done.stdout


@pytest.fixture(scope="module")
def control(looked: str, virtual_lab: VirtualLab) -> VirtualLab:
    """The lab with the three roles on its control host."""
    assert looked
    assert changed(play(virtual_lab)) > 0
    return virtual_lab


def test_check_mode_lists_each_change_to_a_bare_host_and_makes_none(looked: str) -> None:
    for line in (
        "+redis-server",
        "+prometheus",
        "+++ after: /etc/redis/wslab.conf",
        "+++ after: /etc/prometheus/wslab/rules/lab.yml",
        "+++ after: /etc/prometheus/wslab/targets/node.json",
        "+++ after: /var/lib/wslab/grafana/dashboards/wslab-run.json",
    ):
        assert line in looked.splitlines()


def test_a_second_run_changes_nothing_and_check_mode_sees_nothing_to_change(control: VirtualLab) -> None:
    again = play(control)
    assert changed(again) == 0
    assert "grafana: not installed: no package source" in again.stdout
    assert changed(play(control, "--check", "--diff")) == 0


def test_nothing_listens_but_prometheus_on_the_loopback_and_redis_on_its_socket(control: VirtualLab) -> None:
    tcp = {line.split()[3] for line in control.on("control", "ss", "-ltnH").splitlines()}
    assert {address for address in tcp if not address.endswith(":22")} == {"127.0.0.1:9090"}
    assert control.on("control", "stat", "-c", "%a %U %G", "/run/redis/redis.sock") == "770 redis redis\n"
    ping = ("--", "redis-cli", "-s", "/run/redis/redis.sock", "ping")
    assert control.on("control", "runuser", "-u", "nobody", "-g", "redis", *ping) == "PONG\n"
    stranger = control.run("exec", "control", "--", "runuser", "-u", "nobody", *ping)
    assert "Permission denied" in stranger.stdout + stranger.stderr


def test_a_changed_variable_restarts_its_unit_only(control: VirtualLab) -> None:
    before = pids(control)
    assert changed(play(control, "-e", "prometheus_retention_days=7")) == 2  # the flags, the restart
    after = pids(control)
    assert {unit for unit in UNITS if before[unit] != after[unit]} == {"prometheus"}
    assert "0" not in {after["prometheus"], after["redis-server"]}
    flags = control.on("control", "cat", f"/proc/{after['prometheus']}/cmdline").split("\0")
    assert "--storage.tsdb.retention.time=7d" in flags
    assert changed(play(control)) == 2


def test_a_broken_rule_is_refused_with_the_old_rules_in_force(control: VirtualLab, tmp_path: Path) -> None:
    source = tmp_path / "prometheus"
    shutil.copytree(ROOT / "prometheus", source)
    rule = source / "rules" / "lab.yml"
    rule.write_text(rule.read_text().replace("expr:", "expr: sum(", 1))
    before = pids(control)
    done = play(control, "-e", f"prometheus_source={source}")
    assert done.returncode != 0
    assert "/etc/prometheus/wslab/rules/lab.yml" in done.stdout + done.stderr
    assert "nothing was changed" in done.stdout + done.stderr
    assert (
        control.on("control", "cat", "/etc/prometheus/wslab/rules/lab.yml")
        == (ROOT / "prometheus" / "rules" / "lab.yml").read_text()
    )
    assert pids(control) == before
    assert changed(play(control)) == 0


def test_grafana_comes_from_a_deb_with_a_password_that_is_nowhere_told(control: VirtualLab, tmp_path: Path) -> None:
    """The package is a stand-in (see there): the real one cannot be had here."""
    given = tmp_path / "given.json"
    variables = {
        "grafana_package_source": str(standin_grafana.build(tmp_path)),
        "grafana_packages": [],
        "grafana_admin_password": PASSWORD,
    }
    given.write_text(json.dumps(variables))
    before = pids(control)
    first = play(control, "-e", f"@{given}", "-vv", "--diff")
    assert changed(first) > 0
    again = play(control, "-e", f"@{given}")
    assert changed(again) == 0
    given.write_text(json.dumps({**variables, "grafana_admin_password": PASSWORD[::-1]}))
    other = play(control, "-e", f"@{given}")
    assert changed(other) == 2  # the file, and Grafana's own copy; that it lets admin in is verified by the role
    after = pids(control)
    assert after["grafana-server"] != "0"
    assert {unit: after[unit] for unit in UNITS[:2]} == {unit: before[unit] for unit in UNITS[:2]}
    assert "127.0.0.1:3001" in control.on("control", "ss", "-ltnH")
    assert control.on("control", "stat", "-c", "%a %U %G", "/etc/grafana/wslab.password") == "640 root grafana\n"
    journal = control.on("control", "journalctl", "--no-pager", "--boot")
    for told in (first.stdout, first.stderr, again.stdout, other.stdout, other.stderr, journal):
        assert PASSWORD not in told
        assert PASSWORD[::-1] not in told


def test_teardown_leaves_the_host_as_it_was(control: VirtualLab, bare: list[str]) -> None:
    assert len(seen(control)) > len(bare)
    assert teardown(control) > 0
    assert seen(control) == bare
    assert teardown(control) == 0

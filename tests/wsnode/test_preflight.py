"""Whether a host is fit, with the numbers that say so; and the facts that describe it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from typing import Any

import pytest

from tests.wsnode.agents import plan
from wsnode import __version__, environment, preflight
from wsnode.cli import main
from wsnode.preflight import Finding, Need, findings, fit

MIB = 1 << 20


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Overrides files of the kernel's by path; None takes one away."""
    files: dict[str, str | None] = {}
    real = environment.text
    monkeypatch.setattr(environment, "text", lambda path: files[str(path)] if str(path) in files else real(path))

    def override(**_: Any) -> None: ...

    override.files = files  # type: ignore[attr-defined]
    return override


def by_check(found: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in found}


def set_files(kernel: Any, **files: str | None) -> None:
    names = {
        "port_range": "/proc/sys/net/ipv4/ip_local_port_range",
        "reserved": "/proc/sys/net/ipv4/ip_local_reserved_ports",
        "sockstat": "/proc/net/sockstat",
        "meminfo": "/proc/meminfo",
        "file_max": "/proc/sys/fs/file-max",
        "file_nr": "/proc/sys/fs/file-nr",
        "clocksource": "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        "conntrack_max": "/proc/sys/net/netfilter/nf_conntrack_max",
        "conntrack_count": "/proc/sys/net/netfilter/nf_conntrack_count",
    }
    kernel.files.update({names[name]: value for name, value in files.items()})


def test_this_host_is_fit_for_a_small_load() -> None:
    found = findings(Need.of(plan()))
    assert fit(found)
    assert {finding.check for finding in found} >= {
        "open files",
        "open files of the machine",
        "source ports",
        "processors",
        "clock source",
        "memory",
        "uvloop",
        "target",
    }
    assert by_check(found)["open files"].value.split()[0].replace(",", "") == str(
        environment.environment()["stable"]["open_file_limit"]
    )


@pytest.mark.parametrize(("clients", "level"), [(10_000, "ok"), (239_616, "ok"), (239_617, "unfit")])
def test_more_processes_than_a_load_can_have_are_refused_with_need_and_limit(
    monkeypatch: pytest.MonkeyPatch, clients: int, level: str
) -> None:
    monkeypatch.setattr(preflight, "raise_descriptor_limit", lambda: 1104)  # 936 of 1,040 in each process
    finding = by_check(findings(Need(clients)))["open files"]
    assert finding.level == level
    if level == "unfit":
        assert "239,617 clients take 257 processes, and there can be 256" in finding.message
        assert "raise LimitNOFILE" in finding.message


def test_a_plans_need_is_its_share() -> None:
    need = Need.of(plan(count=25, clients=100, interval_ms=200, ramp_up_s=2, rate_per_s=40, duration_s=10))
    assert need == Need(25, messages_per_s=125.0, connects_per_s=10.0, url="ws://127.0.0.1:9/echo")
    assert Need.of(plan(ramp_up_s=0, rate_per_s=100)).connects_per_s == 100.0


@pytest.mark.parametrize(
    ("clients", "time_wait", "level"),
    [(800, 0, "ok"), (801, 0, "warn"), (1000, 0, "warn"), (1001, 0, "unfit"), (700, 300, "ok"), (700, 301, "warn")],
)
def test_source_ports_must_suffice_for_the_clients(kernel: Any, clients: int, time_wait: int, level: str) -> None:
    set_files(kernel, port_range="1000\t2099", reserved="1500-1598,1600,3000", sockstat=f"TCP: inuse 5 tw {time_wait}")
    finding = by_check(findings(Need(clients)))["source ports"]
    assert finding.level == level
    assert finding.value == f"1,000 for one address, {time_wait:,} connections in TIME_WAIT"
    assert f"{clients:,} clients" in finding.message
    assert ("ip_local_port_range" in finding.message) == (level != "ok")


@pytest.mark.parametrize(("available_mib", "level"), [(1000, "ok"), (700, "warn"), (500, "unfit")])
def test_memory_must_suffice_by_estimate(kernel: Any, available_mib: int, level: str) -> None:
    cores = preflight.cores()
    clients = (600 * MIB - cores * preflight.WORKER_BYTES) // preflight.CONNECTION_BYTES
    set_files(kernel, meminfo=f"MemTotal: 99999999 kB\nMemAvailable: {available_mib * 1024} kB")
    finding = by_check(findings(Need(clients)))["memory"]
    assert finding.level == level
    assert finding.value == f"{available_mib:,} MiB available"


def test_too_few_open_files_on_the_machine_make_it_unfit(kernel: Any) -> None:
    set_files(kernel, file_max="5000", file_nr="1000\t0\t5000")
    assert by_check(findings(Need(100)))["open files of the machine"].level == "ok"
    finding = by_check(findings(Need(4500)))["open files of the machine"]
    assert (finding.level, finding.value) == ("unfit", "1,000 of 5,000 in use")
    assert not fit(findings(Need(4500)))


def test_more_messages_than_cores_can_send_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "cores", lambda: 2)
    assert by_check(findings(Need(100, messages_per_s=30_000)))["processors"].level == "ok"
    finding = by_check(findings(Need(100, messages_per_s=30_001)))["processors"]
    assert (finding.level, finding.value) == ("warn", "2 usable")
    assert finding.wanted.startswith("3 for 30,001 messages/s")
    assert by_check(findings(Need(100, connects_per_s=3_001)))["processors"].level == "warn"


@pytest.mark.parametrize(("source", "level"), [("tsc", "ok"), ("kvm-clock", "ok"), ("hpet", "warn")])
def test_a_slow_clock_source_is_a_warning(kernel: Any, source: str, level: str) -> None:
    set_files(kernel, clocksource=source)
    assert by_check(findings())["clock source"].level == level


@pytest.mark.parametrize(
    ("count", "limit", "level"), [("0", "10", "ok"), ("20", "262144", "ok"), ("20", "2000", "warn")]
)
def test_a_short_table_of_tracked_connections_is_a_warning(kernel: Any, count: str, limit: str, level: str) -> None:
    set_files(kernel, conntrack_max=limit, conntrack_count=count)
    assert by_check(findings(Need(1000)))["tracked connections"].level == level


def test_what_this_kernel_does_not_have_is_not_judged(kernel: Any) -> None:
    set_files(kernel, port_range=None, conntrack_max=None, meminfo=None, clocksource=None, file_max=None)
    found = by_check(findings(Need(10)))
    assert not {"source ports", "tracked connections", "memory", "clock source"} & set(found)
    stable = environment.environment()["stable"]
    assert stable["net.ipv4.ip_local_port_range"] is None
    assert stable["memory_bytes"] is None


@pytest.mark.parametrize(("url", "level"), [("ws://localhost:3000/echo", "ok"), ("ws://name.invalid/echo", "unfit")])
def test_the_target_must_have_an_address(url: str, level: str) -> None:
    finding = by_check(findings(Need(1, url=url)))["target"]
    assert finding.level == level
    assert ("127.0.0.1" in finding.value) == (level == "ok")


def test_a_hosts_environment_separates_what_stays_from_what_moves() -> None:
    seen = environment.environment({"agent_name": "load-1"})
    assert set(seen) == {"stable", "volatile"}
    stable = seen["stable"]
    assert stable["kernel"] == platform.release()
    assert stable["python"] == platform.python_version()
    assert stable["wsnode"] == __version__
    assert stable["cpu_count"] == os.cpu_count()
    assert stable["agent_name"] == "load-1"
    assert set(environment.SYSCTLS) <= set(stable)
    assert list(stable) == sorted(stable)
    assert all(isinstance(value, str | int | float | None) for part in seen.values() for value in part.values())
    assert environment.environment({"agent_name": "load-1"})["stable"] == stable
    json.dumps(seen)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        ({"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/cpu.max": "50000 100000"}, "50000 100000"),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/x",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "20000",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            "20000 100000",
        ),
        ({"/proc/self/cgroup": "4:cpu:/x", "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1"}, None),
    ],
)
def test_a_cgroups_quota_is_found_in_both_versions(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], wanted: str | None
) -> None:
    monkeypatch.setattr(environment, "text", lambda path: files.get(str(path)))
    assert environment.cgroup_limit("cpu.max") == wanted


def test_the_command_shows_a_table_and_exits_with_0_or_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", "--clients", "10", "--url", "ws://127.0.0.1:3000/echo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "fit"
    assert any(line.startswith("OK    target") and "127.0.0.1:3000" in line for line in lines)
    assert main(["preflight", "--clients", "100000000"]) == 1
    assert any(line.startswith("UNFIT source ports") for line in capsys.readouterr().out.splitlines())


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fit"] is True
    assert set(document["findings"][0]) == {"check", "level", "value", "wanted", "fix", "message"}
    assert document["environment"]["stable"]["boot_id"] == environment.boot_id()


@pytest.mark.parametrize("options", [["--clients", "0"], ["--clients", "x"], ["--url", "http://x"]])
def test_wrong_options_exit_with_2(options: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["preflight", *options])
    assert error.value.code == 2

"""What the host is: each fact against another source of the same."""

from __future__ import annotations

import ctypes
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.wsnode.agents import local_agent, run
from tests.wsnode.serving import serving
from wsnode import interfaces as interfaces_module
from wsnode import timekeeping
from wsnode.agent.config import Config
from wsnode.agent.hooks import Hooks, start_id
from wsnode.environment import environment
from wsnode.interfaces import drops, interfaces


def names() -> set[str]:
    return {fact.split(".")[1] for fact in interfaces()}


def test_the_interfaces_are_those_with_an_address_that_others_can_reach() -> None:
    reachable = {
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(a.family == socket.AF_INET and not a.address.startswith("127.") for a in addresses)
    }
    assert names() <= reachable
    assert "lo" not in names()


def test_mtu_and_driver_are_the_kernels() -> None:
    facts, stats = interfaces(), psutil.net_if_stats()
    for name in names():
        assert facts[f"nic.{name}.mtu_bytes"] == stats[name].mtu
        if facts[f"nic.{name}.driver"] is None:
            assert facts[f"nic.{name}.speed_mbit"] is None


@pytest.mark.skipif(shutil.which("ethtool") is None, reason="no ethtool: apt install ethtool")
def test_offloads_are_those_that_ethtool_shows() -> None:
    said = {"rx-checksumming": "rx_checksum", "tx-checksumming": "tx_checksum", "tcp-segmentation-offload": "tso"}
    said |= {"generic-segmentation-offload": "gso", "generic-receive-offload": "gro"}
    facts = interfaces()
    for name in names():
        shown = subprocess.run(["ethtool", "-k", name], capture_output=True, text=True, check=True).stdout
        on = sorted(said[line.split(":")[0]] for line in shown.splitlines()
                    if line.split(":")[0] in said and line.split(": ")[1].startswith("on"))  # fmt: skip
        assert facts[f"nic.{name}.offloads"] == " ".join(on)


def test_packets_that_an_interface_dropped_are_those_that_ip_counts() -> None:
    found = drops()
    assert {key.split(".")[1] for key in found if key.startswith("nic.")} == names()
    for name, io in psutil.net_io_counters(pernic=True).items():
        if name in names():
            # psutil reads /proc/net/dev, where what was dropped and what was missed are one.
            rx = [found[f"nic.{name}.{counter}"] or 0 for counter in ("rx_dropped", "rx_missed")]
            assert sum(rx) <= io.dropin
            assert (found[f"nic.{name}.tx_dropped"] or 0) <= io.dropout


def test_packets_dropped_from_the_backlog_are_added_up_over_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "softnet_stat"
    file.write_text("0002e7c8 0000001f 00000000\n00033dba 00000002 0000000a\n")
    monkeypatch.setattr(interfaces_module, "_SOFTNET", file)
    assert drops()["packets_dropped"] == 33
    file.unlink()
    assert drops()["packets_dropped"] is None


def test_drops_are_volatile_and_this_kernel_shows_its_own() -> None:
    with open("/proc/net/softnet_stat", encoding="ascii") as kernels:
        before = sum(int(line.split()[1], 16) for line in kernels)
    read = environment()
    assert int(read["volatile"]["packets_dropped"] or 0) >= before
    assert not any("dropped" in key for key in read["stable"])


def test_machine_and_boot_are_named_and_the_machines_id_is_not_given_away() -> None:
    stable = environment()["stable"]
    assert re.fullmatch(r"[0-9a-f]{16}", str(stable["machine_id"]))
    with open("/etc/machine-id", encoding="ascii") as file:
        assert str(stable["machine_id"]) not in file.read()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        assert stable["boot_id"] == file.read().strip()


@pytest.mark.parametrize(
    ("state", "fields", "expected"),
    [
        (0, {"status": 0x2001, "offset": 1_500_000, "maxerror": 20_000}, (True, 0.0015, 0.02)),
        (0, {"status": 0x0001, "offset": -1500, "maxerror": 500}, (True, -0.0015, 0.0005)),
        (5, {"status": 0x0040, "offset": 7, "maxerror": 16_000_000}, (False, None, None)),
        (0, {"status": 0x0041}, (False, None, None)),
        (-1, {}, (None, None, None)),
    ],
)
def test_the_clocks_state_is_the_kernels_word(
    monkeypatch: pytest.MonkeyPatch, state: int, fields: dict[str, int], expected: tuple[bool | float | None, ...]
) -> None:
    class Libc:
        def adjtimex(self, at: object) -> int:
            assert at._obj.modes == 0, "only read"  # type: ignore[attr-defined]
            for name, value in fields.items():
                setattr(at._obj, name, value)  # type: ignore[attr-defined]
            return state

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc())
    assert tuple(timekeeping.clock_state().values()) == expected


def test_the_real_kernel_answers_for_its_clock() -> None:
    assert set(timekeeping.clock_state()) == {"clock_synchronised", "clock_offset_s", "clock_max_error_s"}
    now = timekeeping._Timex()
    assert ctypes.CDLL(None).adjtimex(ctypes.byref(now)) >= 0
    assert abs(now.sec - time.time()) <= 2
    assert 9_000 <= now.tick <= 11_000


def test_every_kernel_setting_that_the_lab_tunes_is_read_as_observed() -> None:
    role = Path(__file__).parents[2] / "roles" / "host_tuning" / "defaults" / "main.yml"
    tuned = {setting["key"] for setting in yaml.safe_load(role.read_text())["host_tuning_sysctls"]}
    assert len(tuned) >= 10
    stable = environment()["stable"]
    assert tuned <= set(stable)
    for key in tuned:
        shown = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False).stdout.split()
        assert (stable[key] or "").split() == shown, key


def test_an_agent_adds_its_caps_and_what_the_server_on_its_host_says() -> None:
    async def work(health: str) -> None:
        config = Config(max_clients=50, cores=1)
        async with local_agent("server", role="server", config=config) as agent:
            agent._options["hooks"] = Hooks(agent.folder / "hooks", health)
            await agent.stop()
            await agent.start()
            stable = (await (await agent.talk()).ask("preflight"))["environment"]["stable"]
            assert (stable["agent.max_clients"], stable["agent.cores"]) == (50, 1)
            assert "agent.max_rate_per_s" not in stable
            assert (stable["server.engine"], stable["server.workers"]) == ("lean", "1")
            assert stable["server.start_id"] == start_id(health)

    with serving("--engine", "lean", "--workers", "1") as server:
        run(work(f"http://127.0.0.1:{server.port}/healthz"))

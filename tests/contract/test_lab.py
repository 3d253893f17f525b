"""`lab.json`: read as its golden file says, written by the embedded stack, refused with a clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portal.labs.lab import SCHEMA_VERSION, Lab, LabError, load_lab

GOLDEN = Path(__file__).with_name("lab.json")


def test_the_golden_file_is_read_and_written_without_loss() -> None:
    lab = load_lab(GOLDEN)
    assert lab.model_dump(mode="json") == json.loads(GOLDEN.read_text())
    assert lab.schema_version == SCHEMA_VERSION == 3
    assert lab.server.name == "server"
    assert [host.name for host in lab.load_generators] == ["load-1"]
    assert lab.run_url("echo") == "ws://198.18.0.11:3000/echo"


def test_the_schemas_fields_are_those_of_the_design() -> None:
    schema = Lab.model_json_schema()
    assert set(schema["properties"]) == {
        "schema_version", "lab", "machine", "hosts", "jump_hosts", "targets", "consent_token", "prometheus_url",
        "grafana_url",
    }  # fmt: skip
    assert set(schema["$defs"]["LabHost"]["properties"]) == {
        "name", "role", "transport", "address", "port", "user", "host_keys", "proxy_jump", "socket", "metrics_ports",
        "ws_url", "hooks", "facts",
    }  # fmt: skip
    assert set(schema["$defs"]["Target"]["properties"]) == {
        "name", "scheme", "host", "ports", "path", "consent", "networks", "runs_on",
    }  # fmt: skip
    assert set(schema["$defs"]["JumpHost"]["properties"]) == {"name", "address", "port", "user", "host_keys"}
    assert set(schema["$defs"]["HostFacts"]["properties"]) == {
        "distribution", "kernel", "architecture", "cpu_count", "memory_bytes", "python", "virtualization", "wsnode",
        "open_files", "tuning_profile", "tuned", "provisioned_at",
    }  # fmt: skip


def test_what_nobody_saw_of_a_host_may_be_left_out() -> None:
    data = json.loads(GOLDEN.read_text())
    data["hosts"][0]["facts"] = {"kernel": "6.12.41", "tuned": {}}
    del data["hosts"][1]["facts"]
    server, load = Lab.model_validate_json(json.dumps(data)).hosts
    assert load.facts is None
    assert server.facts is not None
    assert (server.facts.kernel, server.facts.cpu_count, server.facts.provisioned_at) == ("6.12.41", None, None)


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        place: Any = data
        for part in parents:
            place = place[int(part) if part.isdigit() else part]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_set("schema_version", 2), "schema_version is 2, wanted 3"),
        (_set("machine", "../evil"), "machine: String should match pattern"),
        (_set("hosts.0.role", "proxy"), "hosts.0.role: Input should be 'server' or 'load_generator'"),
        (_set("hosts.0.password", "x"), "hosts.0.password: Extra inputs are not permitted"),
        (_set("hosts.0.metrics_ports", {"node": 70000}), "less than or equal to 65535"),
        (_set("hosts.0.port", "22"), "hosts.0.port: Input should be a valid integer"),
        (_set("hosts.0.facts.ansible_env", {}), "hosts.0.facts.ansible_env: Extra inputs are not permitted"),
        (_set("hosts.0.facts.cpu_count", "8"), "hosts.0.facts.cpu_count: Input should be a valid integer"),
        (_set("hosts.0.facts.cpu_count", True), "hosts.0.facts.cpu_count: Input should be a valid integer"),
        (_set("hosts.0.facts.memory_bytes", 0), "hosts.0.facts.memory_bytes: Input should be greater than or equal"),
        (_set("hosts.0.facts.kernel", "6.12\nx"), "hosts.0.facts.kernel: String should match pattern"),
        (_set("hosts.0.facts.kernel", "6" * 101), "hosts.0.facts.kernel: String should match pattern"),
        (_set("hosts.0.facts.tuning_profile", "fast"), "tuning_profile: Input should be 'baseline' or 'tuned'"),
        (_set("hosts.0.facts.tuned", {"net.core.somaxconn": 65535}), "net.core.somaxconn: Input should be a valid str"),
        (_set("hosts.0.facts.tuned", {"somaxconn": "1"}), "String should match pattern"),
        (_set("hosts.0.facts.tuned", {f"a.b{n}": "1" for n in range(201)}), "at most 200 items"),
        (_set("hosts.0.facts.provisioned_at", "2026-11-24T08:20:00"), "provisioned_at: Input should have timezone"),
        (_set("hosts.0.facts.provisioned_at", "2026-11-24T08:20:00+01:00"), "wanted UTC, such as 2026-11-24T08:20:00Z"),
        (_set("hosts.0.socket", "agent.sock"), "hosts.0.socket: String should match pattern '^/'"),
        (_set("hosts.0.ws_url", None), "hosts: the server server has no ws_url"),
        (_set("hosts.0.proxy_jump", "other"), "server is reached over 'other', which is not in jump_hosts"),
        (_set("hosts.0.user", None), "server is reached by ssh and has no user to log in as"),
        (_set("hosts.1.role", "server"), "hosts: 2 with the role server, wanted exactly one"),
        (_set("hosts.1.name", "server"), "hosts: the name 'server' is there twice"),
        (_set("hosts", []), "hosts: Tuple should have at least 1 item"),
        (_set("hosts.0.hooks", ["restart_server; reboot"]), "hosts.0.hooks.0: String should match pattern"),
        (_set("hosts.0.hooks", ["../../bin/sh"]), "hosts.0.hooks.0: String should match pattern"),
        (_set("targets.0.host", "shop.example.org/x"), "targets.0.host: String should match pattern"),
        (_set("targets.0.host", "user@shop.example.org"), "targets.0.host: String should match pattern"),
        (_set("targets.0.scheme", "http"), "targets.0.scheme: Input should be 'ws' or 'wss'"),
        (_set("targets.0.ports", "8450-8443"), "'8450-8443' is not a port or a range of ports"),
        (_set("targets.0.ports", "70000"), "'70000' is not a port or a range of ports"),
        (_set("targets.0.path", "live"), "targets.0.path: String should match pattern"),
        (_set("targets.0.path", "/live HTTP/1.1\r\nX: y"), "targets.0.path: String should match pattern"),
        (_set("targets.0.networks", ["203.0.113.7/24"]), "203.0.113.7/24 has host bits set"),
        (_set("targets.0.name", "beside"), "targets: the name 'beside' is there twice"),
        (_set("targets.1.runs_on", "load-1"), "targets: beside runs on 'load-1', which is not the lab's server"),
        (_set("consent_token", None), "targets: shop is to show consent_token, and the lab has none"),
        (_set("prometheus_url", "127.0.0.1:9090"), "prometheus_url: String should match pattern"),
    ],
)
def test_a_wrong_value_is_named_with_the_file(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    data = json.loads(GOLDEN.read_text())
    change(data)
    file = tmp_path / "lab.json"
    file.write_text(json.dumps(data))
    with pytest.raises(LabError) as error:
        load_lab(file)
    assert str(error.value).startswith(f"{file}: ")
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file or directory; start the stack (./wslab up) or export the inventory"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "schema_version is None, wanted 3"),
    ],
)
def test_a_file_that_is_missing_or_no_lab_says_how_to_get_one(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    file = tmp_path / "lab.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LabError) as error:
        load_lab(file)
    assert complaint in str(error.value)
    assert "WSLAB_LAB" in str(error.value)

"""What docker-compose.yml promises, read off the file: no daemon is needed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.labs.lab import load_lab
from stack import compose, inventory
from stack.services import COLLECTORS
from tests.compose.composition import ROOT, base_image, composition, default, image_tags, services, variables
from wsnode.agent.config import Config

EVERY = sorted(services())
OWN = [name for name in EVERY if name not in image_tags()]
AGENTS = {"server-agent": "server", "load-1": "load-1", "load-2": "load-2"}


def command(service: str) -> list[str]:
    """A service's command line."""
    given = services()[service].get("command", [])
    return shlex.split(given) if isinstance(given, str) else given


def option(service: str, name: str) -> str:
    line = command(service)
    return line[line.index(name) + 1]


def test_it_is_a_compose_file_by_the_specifications_schema() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", EVERY)
def test_every_service_is_bounded_watched_and_without_rights(name: str) -> None:
    service = services()[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"]["start_interval"] == "1s"
    assert {"mem_limit", "cpus", "cpu_shares", "pids_limit"} <= service.keys()
    user, group = service["user"].split(":")
    assert int(user) > 0, "Grafana's image has the group root; no user is root"
    assert int(group) > 0 or name == "grafana"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]


def test_the_machines_cpu_goes_to_what_is_measured_first() -> None:
    measured = {"server", "server-agent", "load-1", "load-2"}
    assert {name for name, service in services().items() if service["cpu_shares"] == 4096} == measured
    assert {service["cpu_shares"] for name, service in services().items() if name not in measured} == {256}


def test_all_ports_are_on_this_machine_only_and_those_of_the_local_inventory() -> None:
    published: dict[str, int] = {}
    for name, service in services().items():
        for port in service.get("ports", []):
            address, outside, inside = re.fullmatch(r"([\d.]+):(\d+):(\d+)", default(port)).groups()  # type: ignore[union-attr]
            assert address == "127.0.0.1", port
            published[f"{name}:{inside}"] = int(outside)
    ports = inventory.read(ROOT / "inventory" / "local").ports
    assert published == {
        "portal:8000": ports["portal"],
        "server:3000": ports["server"],
        "server:9091": ports["server-metrics"],
        "server:9100": ports["node-exporter"],
        "load-1:9092": ports["agent-load-1"],
        "load-2:9092": ports["agent-load-2"],
        "prometheus:9090": ports["prometheus"],
        "grafana:3000": ports["grafana"],
    }


def test_what_uses_the_network_of_the_machine_or_of_another_is_known() -> None:
    modes = {name: service["network_mode"] for name, service in services().items() if "network_mode" in service}
    assert modes == {"redis": "none", "node_exporter": "service:server", "server-agent": "service:server"}
    networks = {name: set(service["networks"]) for name, service in services().items() if "networks" in service}
    assert {name for name, found in networks.items() if "data" in found} == {"portal", "worker", "tick", "postgres"}
    assert networks["postgres"] == {"data"}
    assert composition()["networks"]["data"] == {"internal": True}
    assert {name for name, found in networks.items() if "lab" in found} == {"server", "load-1", "load-2", "prometheus"}


# --- secrets ------------------------------------------------------------------------------------
def test_no_secret_has_a_default_and_each_is_made_by_the_command_that_the_message_names() -> None:
    secret = [found for found in variables(composition()) if re.search(r"KEY|PASSWORD|SECRET|TOKEN", found.name)]
    assert {found.name for found in secret} == {
        "WSLAB_DOCKER_SECRET_KEY", "WSLAB_DOCKER_DATABASE_PASSWORD", "WSLAB_DOCKER_ADMIN_PASSWORD",
        "WSLAB_DOCKER_GRAFANA_PASSWORD",
    }  # fmt: skip
    for found in secret:
        assert found.operator == ":?", found
        assert "./wslab compose" in found.rest, found


def test_whatever_must_be_set_is_written_by_the_command() -> None:
    required = {found.name for found in variables(composition()) if found.operator == ":?"}
    assert required <= compose.settings(grafana=True).keys()
    known = {found.name for found in variables(composition())}
    assert compose.settings(grafana=True).keys() <= known


@pytest.mark.parametrize("name", EVERY)
def test_no_secret_stands_in_an_environment_as_it_is(name: str) -> None:
    for key, value in services()[name].get("environment", {}).items():
        if re.search(r"KEY|PASSWORD|SECRET|TOKEN", key):
            assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), key


def test_only_the_portals_first_start_is_told_the_administrators_password() -> None:
    told = [name for name, service in services().items() if "ADMIN_PASSWORD" in str(service.get("environment"))]
    assert told == ["portal", "grafana"]


# --- images -------------------------------------------------------------------------------------
@pytest.mark.parametrize("image", [*image_tags().values(), base_image()])
def test_every_image_of_a_registry_is_pinned_to_a_patch_release(image: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)*$", image) or re.fullmatch(r"postgres:\d+\.\d+-[a-z]+", image), image


def test_own_images_are_built_once_each_and_without_a_network() -> None:
    builders = {name: services()[name]["build"] for name in OWN if "build" in services()[name]}
    common = {"context": ".", "dockerfile": "docker/Dockerfile", "network": "none"}
    assert builders == {"portal": common | {"target": "portal"}, "server": common | {"target": "node"}}
    policies = {name: services()[name]["pull_policy"] for name in OWN}
    assert policies == {name: "build" if name in builders else "never" for name in OWN}


def test_the_wheels_are_made_for_the_images_python() -> None:
    assert base_image().startswith(f"python:{compose.PYTHON}.")


def test_the_build_context_holds_what_the_dockerfile_copies_and_no_more() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    wanted = {source.split("/")[0] for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for source in line.split()}
    wanted |= {source.split("/")[0] for source in re.findall(r"source=([^,\s]+)", text)}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == wanted
    assert "docker/rendered" in ignored, "it is this machine's, and mounted"


# --- volumes ------------------------------------------------------------------------------------
def mounts() -> list[tuple[str, str, str]]:
    """(service, source, target[:ro]) of all."""
    found = []
    for name, service in services().items():
        for volume in service.get("volumes", []):
            source, _, target = default(volume).partition(":")
            found.append((name, source, target))
    return found


def test_every_volume_has_a_name_and_what_comes_from_the_machine_is_read_only() -> None:
    named = composition()["volumes"].keys()
    assert {source for _, source, _ in mounts() if source[0] not in "./"} == named
    for name, source, target in mounts():
        if source.startswith("./"):
            assert source.startswith("./docker/rendered/")
            assert target.endswith(":ro"), (name, source)
    assert [mount for mount in mounts() if mount[1].startswith("/")] == [("worker", "/run/lock", "/run/lock")]


def test_the_worker_reaches_every_agent_by_the_socket_that_lab_json_names(tmp_path: Path) -> None:
    file = tmp_path / "lab.json"
    file.write_text(json.dumps(compose.lab("m")))
    lab = load_lab(file)
    shared = {(name, target): source for name, source, target in mounts()}
    assert set(AGENTS.values()) == {host.name for host in lab.hosts}
    for service, name in AGENTS.items():
        host = next(host for host in lab.hosts if host.name == name)
        assert (option(service, "--name"), option(service, "--role")) == (host.name, host.role)
        assert option(service, "--socket") == "/run/wsnode/agent.sock"
        assert shared[service, "/run/wsnode"] == shared["worker", str(Path(host.socket).parent)]
        assert host.metrics_ports["wsnode-agent"] == int(option(service, "--metrics-port"))
        assert host.address == name
    ports = lab.server.metrics_ports
    assert ports["wsnode-server"] == int(option("server", "--metrics-port"))
    assert f"--web.listen-address=0.0.0.0:{ports['node']}" in command("node_exporter")
    assert lab.server.ws_url == f"ws://server:{option('server', '--port')}"
    assert f"--web.listen-address={str(lab.prometheus_url).replace('http://prometheus', '0.0.0.0')}" in command(
        "prometheus"
    )


def test_a_shared_socket_is_open_to_its_owner_and_to_who_is_added_to_the_group() -> None:
    volumes = composition()["volumes"]
    for name in ("agent-server", "agent-load-1", "agent-load-2"):
        assert volumes[name]["driver_opts"]["o"].startswith("uid=10001,gid=10001,mode=0750,")
    assert volumes["redis-socket"]["driver_opts"]["o"].startswith("uid=999,gid=999,mode=0750,")
    added = {name: service["group_add"] for name, service in services().items() if "group_add" in service}
    assert added == {"portal": ["999"], "worker": ["999", "10001"], "tick": ["999"]}


# --- what other files say, too ------------------------------------------------------------------
def table(role: str) -> dict[str, Any]:
    """host_tuning's sysctls of a role that are a network's own."""
    path = ROOT / "roles" / "host_tuning" / "defaults" / "main.yml"
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))["host_tuning_sysctls"]
    return {row["key"]: row for row in rows if role in row["for"] and re.match(r"net\.(core|ipv4)\.", row["key"])}


@pytest.mark.parametrize(("service", "role"), [("server", "server"), ("load-1", "load_generator")])
def test_containers_are_tuned_as_the_role_tunes_hosts(service: str, role: str) -> None:
    sysctls, rows = services()[service]["sysctls"], table(role)
    assert sysctls.keys() == rows.keys()
    defaults = yaml.safe_load((ROOT / "roles" / "host_tuning" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    for key, row in rows.items():
        if row["kind"] == "cap":
            assert sysctls[key].split()[-1] == str(defaults["host_tuning_socket_buffer_max_bytes"])
        elif row["kind"] == "include":
            assert sysctls[key] == option(service, "--metrics-port"), "what listens in that network"
        else:
            assert sysctls[key] == str(row["value"])


def test_both_load_generators_are_the_same_but_for_their_names() -> None:
    first, second = (json.dumps(services()[name]).replace("9093", "9092") for name in ("load-1", "load-2"))
    assert first == second.replace("load-2", "load-1").replace("LOAD_2", "LOAD_1")


def test_node_exporter_collects_what_the_other_labs_collect() -> None:
    asked = [part.removeprefix("--collector.") for part in command("node_exporter") if part.startswith("--collector.")]
    assert asked == ["disable-defaults", *COLLECTORS]


def test_agents_may_aim_at_the_lab_and_at_nothing_else() -> None:
    config = Config.read(str(ROOT / "docker" / "agent.toml"))
    [subnet] = [default(item["subnet"]) for item in composition()["networks"]["lab"]["ipam"]["config"]]
    inside = subnet.replace(".0/24", ".7")
    port = int(option("server", "--port"))
    assert config.may_aim([inside], port).refused is None
    assert config.may_aim([inside], 9091).refused
    for address in ("127.0.0.1", "10.0.0.7", "192.168.0.7", "172.17.0.1", "203.0.113.7"):
        assert config.may_aim([address], port).refused, address
    for service in ("load-1", "load-2"):
        assert option(service, "--config") == "/opt/wslab/agent.toml"


def test_grafana_is_given_what_its_provisioning_asks_for() -> None:
    files = [path.read_text() for path in (ROOT / "grafana" / "provisioning").rglob("*.yml")]
    asked = {name for text in files for name in re.findall(r"\$([A-Z][A-Z_]+)", text)}
    environment = services()["grafana"]["environment"]
    assert asked <= environment.keys()
    assert f"./docker/rendered/grafana/dashboards:{environment['DASHBOARDS']}:ro" in services()["grafana"]["volumes"]
    assert services()["grafana"]["profiles"] == ["grafana"]


def test_the_page_names_every_setting_and_every_port() -> None:
    page = (ROOT / "docs" / "compose.md").read_text(encoding="utf-8")
    for found in variables(composition()):
        assert f"`{found.name}`" in page, found.name
    for service in services().values():
        for port in service.get("ports", []):
            assert re.search(rf"^\| .*\b{default(port).split(':')[1]}\b.* \|", page, re.MULTILINE), port

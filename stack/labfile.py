"""lab.json for the portal, and Prometheus' configuration and targets, from the ports really in use."""

import hashlib
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from stack.errors import StackError
from stack.paths import ROOT
from stack.ports import HOST
from stack.record import write_json
from stack.services import Lab, services

SCHEMA_VERSION = 3


def machine() -> str:
    """A stable name of this machine that does not give its machine-id away; its host name where it has none."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return hashlib.sha256(f"wslab:{text}".encode()).hexdigest()[:16]
    return socket.gethostname()


def consent_token() -> str:
    """What a target outside shows where its owner wants this machine's load."""
    return "wslab-" + hashlib.sha256(f"wslab consent {machine()}".encode()).hexdigest()[:32]


def _hosts(lab: Lab, node_exporter: bool) -> list[dict[str, Any]]:
    hosts: list[dict[str, Any]] = []
    hooks = [service.hook for service in services(lab.inventory) if service.hook]
    for host in lab.inventory.hosts:
        ports = {"wsnode-agent": lab.ports[f"agent-{host.name}"]}
        serves = host.role == "server"
        if serves:
            ports = {"wsnode-server": lab.ports["server-metrics"], **ports}
            if node_exporter:
                ports["node"] = lab.ports["node-exporter"]  # scraped once: all hosts are this machine
        hosts.append(
            {
                "name": host.name,
                "role": host.role,
                "transport": "local",
                "address": HOST,
                "port": None,
                "user": None,
                "host_keys": [],
                "proxy_jump": None,
                "socket": str(lab.agent_socket(host.name)),
                "metrics_ports": ports,
                "ws_url": lab.server_url if serves else None,
                "hooks": hooks if serves else [],
            }
        )
    return hosts


def write(lab: Lab, *, prometheus: bool, node_exporter: bool, grafana: bool) -> None:
    """Write lab.json and everything in state/prometheus. Absent services are null, never a dead address."""
    hosts = _hosts(lab, node_exporter)
    write_json(
        lab.state / "lab.json",
        {
            "schema_version": SCHEMA_VERSION,
            "lab": "local",
            "machine": machine(),
            "hosts": hosts,
            "targets": [{**target, "ports": str(target.get("ports"))} for target in lab.inventory.targets],
            "consent_token": consent_token(),
            "prometheus_url": lab.url("prometheus") if prometheus else None,
            "grafana_url": lab.url("grafana") if grafana else None,
        },
    )
    write_prometheus(lab.state / "prometheus", hosts)


def write_prometheus(folder: Path, hosts: list[dict[str, Any]]) -> None:
    """Configuration, rules and targets of hosts as lab.json has them, for a Prometheus whose folder this is."""
    source = ROOT / "prometheus"
    targets, rules = folder / "targets", folder / "rules"
    try:
        for made in (targets, rules, folder / "data"):
            made.mkdir(parents=True, exist_ok=True)
        wanted: dict[str, list[dict[str, Any]]] = {}
        for host in hosts:
            for job, port in host["metrics_ports"].items():
                wanted.setdefault(f"{job}.json", []).append(
                    {"targets": [f"{host['address']}:{port}"], "labels": {"job": job, "host": host["name"]}}
                )
        for name, groups in wanted.items():
            write_json(targets / name, groups)
        _drop_others(targets, set(wanted))
        shutil.copyfile(source / "prometheus.yml", folder / "prometheus.yml")
        rule_files = sorted((source / "rules").glob("*.yml"))
        for file in rule_files:
            shutil.copyfile(file, rules / file.name)
        _drop_others(rules, {file.name for file in rule_files})
    except OSError as error:
        raise StackError(f"Prometheus' files cannot be written: {error}", f"see {folder}") from None


def _drop_others(folder: Path, keep: set[str]) -> None:
    for name in os.listdir(folder):
        if name not in keep:
            (folder / name).unlink()

"""What playbooks/export_lab.yml lets out of the inventory: the fields of the portal's model, and nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.labs.lab import load_lab
from tests.ansible import roles
from tests.ansible.roles import ROOT

SECRET = "vaulted-secret-4711"
PLAIN_SECRET = "plain-secret-0815"


class Inventory:
    """A lab whose hosts are all this machine. The playbook only reads of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "lab.json"
        (folder / "password").write_text("open sesame\n")

    def write(self, servers: dict[str, Any], load_generators: dict[str, Any], variables: dict[str, Any]) -> None:
        """Hosts with their variables, and variables of all."""
        groups = {"servers": {"hosts": servers}, "load_generators": {"hosts": load_generators}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}, sort_keys=False))
        own = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "host_tuning_profile": "tuned",
            "host_tuning_in_force": {
                "net.ipv4.tcp_rmem": "4096\t131072\t6291456",
                "net.core.somaxconn": 65535,
                "x.y": "",
            },
        }
        shared = {name: value for name, value in roles.SHARED.items() if name != "ansible_ssh_common_args"}
        (self.folder / "group_vars").mkdir(exist_ok=True)
        (self.folder / "group_vars" / "all.yml").write_text(yaml.safe_dump({**shared, **own, **variables}))

    def vault(self, host: str, **secrets: str) -> None:
        """Encrypted variables of a host."""
        file = self.folder / "host_vars" / host / "vault.yml"
        file.parent.mkdir(parents=True)
        file.write_text(yaml.safe_dump(secrets))
        done = self._run("ansible-vault", "encrypt", str(file))
        assert done.returncode == 0, done.stderr
        assert SECRET not in file.read_text()

    def export(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the playbook."""
        playbook = str(ROOT / "playbooks" / "export_lab.yml")
        inventory = str(self.folder / "hosts.yml")
        return self._run("ansible-playbook", *options, "-i", inventory, "-e", f"export_lab_file={self.file}", playbook)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.folder / "password"),
        }
        return subprocess.run(
            [str(Path(sys.executable).parent / program), *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path)


GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
"""Nothing listens on port 9: unreachable at once."""


def test_only_the_models_fields_get_out_whatever_else_the_inventory_holds(inventory: Inventory) -> None:
    inventory.write(
        {
            "server-1": {"wslab_address": "fd00::20", "wsnode_server_port": "3000", "password": PLAIN_SECRET},
            "spare": {},
        },
        {"load-1.a_b": {"wslab_address": "192.0.2.41", "wslab_ssh_port": "2222", "wslab_proxy_jump": "bastion"}},
        {
            "ansible_become_password": PLAIN_SECRET,
            "motd": 'quote " brace } \n ü {{ nobody_defines_this }}',
            "wslab_targets": [
                {
                    "name": "shop",
                    "scheme": "wss",
                    "host": "shop.example.org",
                    "ports": 8443,
                    "path": "/live",
                    "token": PLAIN_SECRET,
                },
                {"name": "beside", "scheme": "ws", "host": "192.0.2.9", "ports": "4000-4009", "consent": False},
            ],
            "wslab_jump_hosts": [
                {
                    "name": "bastion",
                    "address": "192.0.2.1",
                    "port": 22,
                    "user": "wslab",
                    "host_keys": ["ssh-ed25519 AAAA"],
                    "password": PLAIN_SECRET,
                }
            ],
        },
    )
    inventory.vault("server-1", portal_secret_key=SECRET, ansible_password=SECRET, wslab_secret=SECRET)
    done = inventory.export("-vvv", "--diff")
    assert done.returncode == 0, done.stdout[-3000:]
    written = inventory.file.read_text()
    for secret in (SECRET, PLAIN_SECRET):
        assert secret not in written
        assert secret not in done.stdout + done.stderr

    found = load_lab(inventory.file)
    assert (found.lab, found.machine) == ("example", "example")
    assert [host.name for host in found.hosts] == ["server-1", "load-1.a_b"]
    server, load = found.hosts
    assert server.ws_url == "ws://[fd00::20]:3000"
    assert server.metrics_ports == {"wsnode-agent": 9092, "node": 9100, "wsnode-server": 9091}
    assert (load.ws_url, load.port, load.proxy_jump, load.user) == (None, 2222, "bastion", "wslab")
    assert load.metrics_ports == {"wsnode-agent": 9092, "node": 9100}
    assert load.socket == "/run/wsnode/agent.sock"
    assert server.facts is not None
    assert server.facts.tuned == {"net.core.somaxconn": "65535", "net.ipv4.tcp_rmem": "4096 131072 6291456"}
    assert server.facts.tuning_profile == "tuned"
    assert (server.facts.cpu_count or 0) >= 1
    assert [target.text for target in found.targets] == [
        "wss://shop.example.org:8443/live, with its consent",
        "ws://192.0.2.9:4000-4009",
    ]
    assert re.fullmatch(r"[0-9a-f]{32}", found.consent_token or "")
    assert (server.hooks, load.hooks) == ((), ())
    assert found.jump_hosts[0].address == "192.0.2.1"
    assert (found.prometheus_url, found.grafana_url) == ("http://127.0.0.1:9090", None)


def test_a_second_export_changes_nothing_and_a_changed_value_is_a_new_time(inventory: Inventory) -> None:
    inventory.write({"server-1": {}}, {"load-1": {}}, {})
    assert inventory.export().returncode == 0
    first = json.loads(inventory.file.read_text())
    for host in first["hosts"]:
        host["facts"]["provisioned_at"] = "2026-01-02T03:04:05Z"
    inventory.file.write_text(json.dumps(first, indent=2) + "\n")
    again = inventory.export()
    assert again.returncode == 0
    assert not re.search(r"changed=[1-9]", again.stdout)
    assert json.loads(inventory.file.read_text()) == first

    inventory.write({"server-1": {}}, {"load-1": {"host_tuning_profile": "baseline"}}, {})
    assert inventory.export().returncode == 0
    server, load = json.loads(inventory.file.read_text())["hosts"]
    assert server["facts"]["provisioned_at"] == "2026-01-02T03:04:05Z"
    assert load["facts"]["provisioned_at"] > "2026-01-02T03:04:05Z"


def test_a_host_that_is_away_keeps_its_entry_and_one_that_never_was_there_is_named(inventory: Inventory) -> None:
    inventory.write({"server-1": {}}, {"load-1": {}}, {})
    assert inventory.export().returncode == 0
    before = json.loads(inventory.file.read_text())["hosts"]

    inventory.write({"server-1": {}}, {"load-1": GONE, "load-2": {}}, {})
    assert inventory.export().returncode == 4  # Ansible's own for "unreachable"
    after = json.loads(inventory.file.read_text())["hosts"]
    assert [host["name"] for host in after] == ["server-1", "load-1", "load-2"]
    assert after[:2] == before

    inventory.write({"server-1": {}}, {"load-1": {}, "load-3": GONE}, {})
    done = inventory.export()
    assert done.returncode == 4
    assert "lab.json was written without load-3: not reached now, and never before" in done.stdout
    assert [host.name for host in load_lab(inventory.file).hosts] == ["server-1", "load-1"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"wslab_lab": 'my "lab"'}, "lab: String should match"),
        (
            {"wslab_targets": [{"name": "shop", "scheme": "http", "host": "shop.example.org", "ports": 80}]},
            "targets.0.scheme: Input should be 'ws' or 'wss'",
        ),
        ({"wslab_targets": [{"name": "shop", "scheme": "ws", "host": "shop.example.org"}]}, "targets.0.ports"),
        ({"wslab_proxy_jump": "nowhere"}, "is reached over 'nowhere', which is not in jump_hosts"),
        (
            {"wslab_measured_server": "nobody"},
            "wslab_measured_server is nobody, wanted a host of the group servers: server-1",
        ),
    ],
)
def test_what_the_portal_would_refuse_is_named_and_not_written(
    inventory: Inventory, variables: dict[str, Any], said: str
) -> None:
    inventory.write({"server-1": {}}, {"load-1": {}}, variables)
    done = inventory.export()
    assert done.returncode == 2
    assert said in done.stdout + done.stderr
    assert not inventory.file.exists()

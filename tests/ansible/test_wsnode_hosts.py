"""Roles wsnode and node_exporter on real systemd hosts: the virtual lab's server and its load generators."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.lab import VirtualLab

NODES = ["server", "load-1", "load-2"]
SERVER, GATEWAY = "198.18.0.20", "198.18.0.1"
UNITS = {"server": ["wsnode-server", "wsnode-agent"], "load-1": ["wsnode-agent"], "load-2": ["wsnode-agent"]}
WSNODE = "/opt/wsnode/venv/bin/wsnode"

PLAY = """\
- name: Nodes
  hosts: servers:load_generators
  become: true
  gather_facts: true
  gather_subset: [min, virtual]
  roles: [node_exporter, wsnode]
"""
TEARDOWN = """\
- name: Nodes
  hosts: servers:load_generators
  become: true
  gather_facts: false
  tasks:
    - {name: wsnode, ansible.builtin.include_role: {name: wsnode, tasks_from: teardown}}
    - {name: node_exporter, ansible.builtin.include_role: {name: node_exporter, tasks_from: teardown}}
    - {name: Packages, ansible.builtin.include_role: {name: packages, tasks_from: teardown}}
"""
TRACES = """\
for user in wsnode wslab; do getent passwd $user; getent group $user; done
ls -d /etc/wsnode /opt/wsnode /var/lib/wsnode /run/wsnode /run/wsnode-hooks /home/wslab /etc/systemd/system/*wsnode* \
  /etc/systemd/system/prometheus-node-exporter.service.d /usr/bin/prometheus-node-exporter 2>/dev/null
systemctl list-unit-files --no-legend 'wsnode*' 'prometheus-node*'
systemctl list-units --no-legend --state=active,activating,failed 'wsnode*' 'prometheus-node*'
true
"""

HOLD = """\
import json, socket, sys, time
from wsnode.core.scenario import Plan, Scenario
url, seconds = sys.argv[1], int(sys.argv[2])
scenario = Scenario(
    clients=10, interval_ms=100, ramp_up_s=1, duration_s=seconds, rate_per_s=100, reply_timeout_s=1, drain_s=1
)
channel = socket.socket(socket.AF_UNIX)
channel.connect("/run/wsnode/agent.sock")
lines = channel.makefile("rb")
def ask(kind, **fields):
    channel.sendall(json.dumps({"type": kind, "id": 1, "run_id": "held", "epoch": 1, **fields}).encode() + b"\\n")
    while (line := json.loads(lines.readline())).get("id") != 1:
        pass
    print(json.dumps(line), flush=True)
    if line["type"] == "refusal":
        sys.exit(3)
ask("prepare", plan=Plan.whole(scenario, url).model_dump(mode="json"))
ask("go", start_at=time.time_ns() + 1_500_000_000)
"""
"""Begins a load on this host's agent, as a conductor does, and leaves it alone."""

HOOK = """\
import json, socket, sys
channel = socket.socket(socket.AF_UNIX)
channel.connect("/run/wsnode/agent.sock")
lines = channel.makefile("rb")
lines.readline()
asked = {"type": "hook", "id": 1, "run_id": sys.argv[1], "epoch": 1, "name": sys.argv[2]}
channel.sendall(json.dumps(asked).encode() + b"\\n")
print(lines.readline().decode())
"""
"""Asks this host's agent for a hook, as a conductor does."""

VIEW = """\
{ echo '[Service]
Type=oneshot
StandardOutput=file:/run/view.json
ExecStart=/opt/wsnode/venv/bin/wsnode preflight --json'
  sed -n '/^Type/,/^.Install/p' /etc/systemd/system/$1 |
    grep -v -e ^Type -e '^  --' -e ^Exec -e ^Restart -e ^RuntimeDir -e Install
} > /run/systemd/system/view.service
rm -f /run/view.json
systemctl daemon-reload && systemctl start view.service && cat /run/view.json
rm -f /run/systemd/system/view.service && systemctl daemon-reload
"""
"""What `wsnode preflight` sees in a unit that is this one, but for what it executes and its runtime folder."""


class Nodes(NamedTuple):
    """Hosts with both roles."""

    lab: VirtualLab
    folder: Path
    said: str

    def play(self, *options: str, text: str = PLAY) -> subprocess.CompletedProcess[str]:
        """The play, or another, on all of them."""
        return play(self.lab, self.folder, text, *options)

    def on(self, host: str, script: str, *words: str) -> str:
        """What a shell script prints there."""
        return self.lab.on(host, "sh", "-c", script, "sh", *words)

    def started(self) -> dict[str, str]:
        """When each unit was started, by host and unit."""
        return {
            f"{host} {unit}": self.on(host, f"systemctl show -P ActiveEnterTimestamp --timestamp=us {unit}").strip()
            for host, units in UNITS.items()
            for unit in units
        }


def play(lab: VirtualLab, folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "play.yml").write_text(text)
    return lab.play(str(folder / "play.yml"), *options)


def counts(done: subprocess.CompletedProcess[str], word: str) -> dict[str, int]:
    """A figure of the recap, by host."""
    found = re.findall(rf"^(\S+) +: .*\b{word}=(\d+)", done.stdout, re.MULTILINE)
    return {host: int(number) for host, number in found}


@pytest.fixture(scope="module")
def nodes(virtual_lab: VirtualLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Provisioned out of bare hosts; bare again afterwards."""
    folder = tmp_path_factory.mktemp("nodes")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "conductor", "-f", key], check=True)
    given = {"wsnode_conductor_keys": [key.with_suffix(".pub").read_text().strip()], "wsnode_conductor_from": [GATEWAY]}
    (folder / "given.json").write_text(json.dumps(given))
    done = play(virtual_lab, folder, PLAY, "-e", f"@{folder}/given.json")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield Nodes(virtual_lab, folder, done.stdout)
    finally:
        down = play(virtual_lab, folder, TEARDOWN)
    assert down.returncode == 0, down.stdout + down.stderr


def test_a_second_run_changes_nothing(nodes: Nodes) -> None:
    before = nodes.started()
    done = nodes.play("--diff", "-e", f"@{nodes.folder}/given.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts(done, "changed") == dict.fromkeys(NODES, 0), done.stdout
    assert nodes.started() == before


def test_services_are_the_users_and_their_files_the_groups(nodes: Nodes) -> None:
    script = "stat -c '%n %a %U:%G' /etc/wsnode/*.toml /run/wsnode/agent.sock /run/wsnode /var/lib/wsnode"
    common = ["/run/wsnode/agent.sock 660 wsnode:wsnode", "/run/wsnode 750 wsnode:wsnode"]
    agent = ["/etc/wsnode/agent.toml 640 root:wsnode"]
    assert nodes.on("load-1", script).splitlines() == [*agent, *common, "/var/lib/wsnode 700 wsnode:wsnode"]
    said = nodes.on("server", script).splitlines()
    assert said == [*agent, "/etc/wsnode/serve.toml 640 root:wsnode", *common, "/var/lib/wsnode 700 wsnode:wsnode"]
    assert nodes.on("server", "getent passwd wsnode | cut -d: -f7; getent passwd wslab | cut -d: -f7").split() == [
        "/usr/sbin/nologin", "/bin/sh",
    ]  # fmt: skip
    assert nodes.on("server", "getent shadow wslab | cut -d: -f2") == "*\n"


@pytest.mark.parametrize(("host", "unit"), [(host, unit) for host in ("server", "load-1") for unit in UNITS[host]])
def test_a_unit_is_hardened_and_sees_what_root_sees(nodes: Nodes, host: str, unit: str) -> None:
    security = nodes.on(host, f"systemd-analyze security --no-pager {unit}.service | tail -1")
    assert float(re.findall(r": ([0-9.]+) ", security)[0]) <= 2.0, security
    inside = json.loads(nodes.on(host, VIEW, f"{unit}.service"))
    # Root's view is a service's too: what the virtual lab's container forbids to all of them is not the unit's doing.
    limit = nodes.on(host, f"systemctl show -P LimitNOFILE {unit}").strip()
    bare = f"systemd-run --quiet --pipe --wait -p LimitNOFILE={limit} {WSNODE} preflight --json"
    outside = json.loads(nodes.on(host, bare))
    one, other = (found["environment"]["stable"] for found in (inside, outside))
    assert one.keys() == other.keys()
    # A unit has a /proc of its own, in which a container shows its kernel's boot id: hosts that share one are known.
    assert {key for key in one if one[key] != other[key]} <= {"boot_id"}
    assert one["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    unknown = [{key for key, value in view["environment"]["volatile"].items() if value is None}
               for view in (inside, outside)]  # fmt: skip
    assert unknown[0] == unknown[1]
    levels = [[(found["check"], found["level"]) for found in view["findings"]] for view in (inside, outside)]
    assert levels[0] == levels[1]


def test_a_load_runs_as_the_services_user(nodes: Nodes) -> None:
    load = (
        f"{WSNODE} load ws://{SERVER}:3000/echo --clients 20 --interval 100 --ramp-up 1 --duration 4 --rate 50 --json -"
    )
    result = json.loads(nodes.on("load-1", f"runuser -u wsnode -- {load} || test $? -eq 3"))
    counters = result["counters"]
    assert counters["connections_opened"] == counters["connections_attempted"] == 20
    assert counters["messages_received"] == counters["messages_sent"] > 500
    # What the server counted is read over the network, as Prometheus does.
    read = f"from urllib.request import urlopen; print(urlopen('http://{SERVER}:9091/metrics').read().decode())"
    page = nodes.on("load-1", 'python3 -c "$1"', read)
    opened = re.findall(r"^websocket_connections_opened_total\S* (\S+)$", page, re.MULTILINE)
    assert sum(map(float, opened)) >= 20, page


def refused(nodes: Nodes, url: str) -> Any:
    said = nodes.on("load-1", f'{WSNODE.replace("bin/wsnode", "bin/python")} -c "$1" {url} 5; test $? -eq 3', HOLD)
    return json.loads(said)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ws://198.18.0.42:3000/echo", "198.18.0.42 is not within this agent's allow_targets (198.18.0.20/32)"),
        ("ws://127.0.0.1:9092/metrics", "127.0.0.1 is not within this agent's allow_targets (198.18.0.20/32)"),
        (f"ws://{SERVER}:22/", "port 22 is not within this agent's allow_ports (3000)"),
    ],
)
def test_a_load_aims_at_the_labs_servers_only(nodes: Nodes, url: str, words: str) -> None:
    answer = refused(nodes, url)
    assert (answer["type"], answer["code"]) == ("refusal", "not_allowed")
    assert words in answer["message"]


def hooked(nodes: Nodes, run_id: str, name: str, host: str = "server") -> Any:
    return json.loads(nodes.on(host, 'python3 -c "$@"', HOOK, run_id, name))


def test_a_restart_of_the_server_is_asked_of_root_who_does_just_that(nodes: Nodes) -> None:
    before = nodes.started()
    answer = hooked(nodes, "restart-1", "restart_server")
    assert answer["type"] == "answer", answer
    done = answer["data"]
    assert done["server_before"] not in (None, done["server_after"])
    assert done["server_after"] is not None
    after = nodes.started()
    assert {unit for unit in before if before[unit] != after[unit]} == {"server wsnode-server"}
    # Asked again for the same run, it was done already.
    assert hooked(nodes, "restart-1", "restart_server")["data"] == done
    assert nodes.started() == after
    # The agent's user may ask, and do nothing of it itself; others may not even ask.
    may_not = "runuser -u wsnode -- systemctl restart wsnode-server.service 2>&1 < /dev/null; test $? -ne 0"
    assert nodes.on("server", may_not)
    ask = "python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('/run/wsnode-hooks/restart_server')\" 2>&1"
    assert "PermissionError" in nodes.on("server", f"runuser -u nobody -- {ask}; test $? -ne 0")
    assert nodes.started() == after
    modes = nodes.on("server", "stat -c '%n %a %U:%G' /run/wsnode-hooks /run/wsnode-hooks/*").splitlines()
    assert modes == ["/run/wsnode-hooks 755 root:root", "/run/wsnode-hooks/restart_server 660 root:wsnode"]
    said = hooked(nodes, "restart-2", "restart_server", host="load-1")
    assert said["message"] == "there is no hook restart_server on this host; known: none"


def test_hooks_of_an_admin_come_and_go_with_the_inventory(nodes: Nodes) -> None:
    nodes.on(
        "server",
        "printf '#!/bin/sh\nid -un; echo \"$@\"; exit $1\n' > /usr/local/sbin/warm; chmod 755 /usr/local/sbin/warm",
    )
    hooks = {
        "warm_cache": ["/usr/local/sbin/warm", "0", "a b; reboot $HOME 100%"],
        "broken": ["/usr/local/sbin/warm", "3"],
    }
    (nodes.folder / "hooks.json").write_text(json.dumps({"wsnode_hooks": hooks, "wsnode_hook_timeout_s": 20}))
    given = ["--limit", "server", "-e", f"@{nodes.folder}/given.json"]
    done = nodes.play(*given, "-e", f"@{nodes.folder}/hooks.json")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = hooked(nodes, "warm-1", "warm_cache")
    assert answer["data"]["words"] == "root\n0 a b; reboot $HOME 100%", answer
    answer = hooked(nodes, "warm-2", "broken")
    assert answer["message"] == "broken failed (exit-code exited 3): root\n3"
    again = nodes.play(*given, "-e", f"@{nodes.folder}/hooks.json")
    assert (again.returncode, counts(again, "changed")) == (0, {"server": 0}), again.stdout
    nodes.on("server", "chown nobody /usr/local/sbin/warm")
    refused = nodes.play(*given, "-e", f"@{nodes.folder}/hooks.json")
    assert (refused.returncode, counts(refused, "changed")) == (2, {"server": 0}), refused.stdout
    assert "/usr/local/sbin/warm is not root's" in " ".join(refused.stdout.split())
    gone = nodes.play(*given)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert nodes.on("server", "ls /run/wsnode-hooks; rm /usr/local/sbin/warm") == "restart_server\n"
    assert "warm" not in nodes.on(
        "server", "systemctl list-units --all --no-legend 'wsnode-hook*'; ls /etc/systemd/system"
    )
    said = hooked(nodes, "warm-3", "warm_cache")
    assert said["message"] == "there is no hook warm_cache on this host; known: restart_server"


def test_the_servers_agent_makes_no_load(nodes: Nodes) -> None:
    hello = json.loads(nodes.on("server", f"{WSNODE} agent connect < /dev/null").splitlines()[0])
    assert (hello["name"], hello["capabilities"]) == ("server", ["observe"])
    hello = json.loads(nodes.on("load-2", f"{WSNODE} agent connect < /dev/null").splitlines()[0])
    assert (hello["name"], hello["capabilities"]) == ("load-2", ["observe", "load"])


def ssh(nodes: Nodes, *words: str, stdin: str = "", host: str = SERVER) -> subprocess.CompletedProcess[str]:
    """`ssh` with the conductor's key."""
    options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
               "LogLevel=ERROR", "ExitOnForwardFailure=yes"]  # fmt: skip
    return subprocess.run(
        ["ssh", "-F", "none", "-i", nodes.folder / "key", *(f"-o{option}" for option in options), *words[:-1],
         f"wslab@{host}", *words[-1:]],
        input=stdin, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_the_conductors_key_reaches_the_agent_and_nothing_else(nodes: Nodes) -> None:
    question = '{"type":"list","id":1}\n'
    for command in ("", "id; cat /etc/passwd", "/bin/sh"):
        done = ssh(nodes, command, stdin=question)
        hello, answer = map(json.loads, done.stdout.splitlines())
        assert (hello["type"], hello["name"]) == ("hello", "server")
        assert answer == {"type": "answer", "id": 1, "data": {"loads": []}}
        assert done.stderr == ""
    terminal = ssh(nodes, "-tt", "", stdin="")
    assert "PTY allocation request failed" in terminal.stderr
    for way in (["-N", "-R", "19998:127.0.0.1:22"], ["-W", "127.0.0.1:22"]):
        done = ssh(nodes, *way, "")
        assert done.returncode == 255, way
        assert "SSH-2.0" not in done.stdout


def test_the_conductors_key_is_of_no_use_from_elsewhere(nodes: Nodes) -> None:
    key = (nodes.folder / "key").read_text()
    script = (
        'umask 077; printf %s "$1" > /run/key; ssh -i /run/key -o BatchMode=yes -o StrictHostKeyChecking=no'
        f" -o UserKnownHostsFile=/dev/null wslab@{SERVER} < /dev/null 2>&1; rm /run/key; true"
    )
    assert "Permission denied" in nodes.on("load-2", script, key)


def test_a_changed_file_restarts_just_its_unit_and_check_mode_none(nodes: Nodes) -> None:
    before = nodes.started()
    change = ["--limit", "server", "-e", f"@{nodes.folder}/given.json", "-e", "wsnode_agent_keep_days=7"]
    checked = nodes.play("--check", "--diff", *change)
    assert (checked.returncode, counts(checked, "changed")) == (0, {"server": 1}), checked.stdout
    assert "-keep_days = 14.0\n+keep_days = 7.0\n" in checked.stdout
    assert nodes.started() == before
    done = nodes.play(*change)
    assert done.returncode == 0, done.stdout
    after = nodes.started()
    assert {unit for unit in before if before[unit] != after[unit]} == {"server wsnode-agent"}
    done = nodes.play("-e", "wsnode_server_ping_interval_s=10", *change)
    assert done.returncode == 0, done.stdout
    last = nodes.started()
    assert {unit for unit in after if after[unit] != last[unit]} == {"server wsnode-server"}


def test_what_a_run_that_was_cut_short_left_undone_the_next_one_does(nodes: Nodes) -> None:
    """The file is new, and nobody has restarted the service: Ansible itself sees no change."""
    before = nodes.started()
    nodes.on("load-2", "touch /etc/wsnode/agent.toml")
    done = nodes.play("--limit", "load-2", "-e", f"@{nodes.folder}/given.json")
    assert done.returncode == 0, done.stdout
    after = nodes.started()
    assert {unit for unit in before if before[unit] != after[unit]} == {"load-2 wsnode-agent"}


def test_provisioning_ends_no_load(nodes: Nodes) -> None:
    begin = f'{WSNODE.replace("bin/wsnode", "bin/python")} -c "$1" ws://{SERVER}:3000/echo 50'
    answers = [json.loads(line) for line in nodes.on("load-2", begin, HOLD).splitlines()]
    assert [answer["type"] for answer in answers] == ["answer", "answer"]
    change = ["--limit", "load-2", "-e", "wsnode_agent_keep_days=3"]
    done = nodes.play(*change)
    assert (done.returncode, counts(done, "changed")) == (2, {"load-2": 0}), done.stdout
    assert "Its agent is carrying out run held" in " ".join(done.stdout.split())
    assert json.loads(nodes.on("load-2", f"{WSNODE} agent list --json"))["loads"][0]["state"] in ("prepared", "running")
    allowed = nodes.play(*change, "-e", "wsnode_restart_during_load=true")
    assert allowed.returncode == 0, allowed.stdout
    [ended] = json.loads(nodes.on("load-2", f"{WSNODE} agent list --json"))["loads"]
    assert (ended["state"], ended["reason"]) == ("stopped", "the agent was stopped")


def test_a_service_that_does_not_come_is_shown_with_its_journal(nodes: Nodes) -> None:
    nodes.on("server", "systemd-run --quiet --unit=taker python3 -m http.server 8080")
    try:
        done = nodes.play("--limit", "server", "-e", "wsnode_server_port=8080", "-e", "wsnode_start_timeout_s=5")
        assert done.returncode == 2
        said = " ".join(done.stdout.split())
        assert "wsnode-server.service is" in said
        assert "port 8080 on 0.0.0.0 is taken" in said
    finally:
        nodes.on("server", "systemctl stop taker")
        again = nodes.play("--limit", "server", "-e", f"@{nodes.folder}/given.json")
    assert again.returncode == 0, again.stdout


def test_a_rebooted_host_comes_back_by_itself(nodes: Nodes) -> None:
    before = nodes.on("load-1", "cat /proc/sys/kernel/random/boot_id")
    nodes.lab.run("exec", "load-1", "--", "systemctl", "reboot")
    deadline = time.monotonic() + 60
    while True:
        done = nodes.lab.run(
            "exec", "load-1", "--", "sh", "-c", f"cat /proc/sys/kernel/random/boot_id && {WSNODE} agent list"
        )
        if done.returncode == 0 and not done.stdout.startswith(before):
            break
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.3)
    assert done.stdout.splitlines()[1] == "load-1: no loads"
    assert nodes.on("load-1", "systemctl is-active prometheus-node-exporter wsnode-agent") == "active\nactive\n"


def test_teardown_leaves_no_trace_and_takes_twice_and_bare_hosts(nodes: Nodes) -> None:
    """The last of this file: what comes after it finds bare hosts."""
    for _ in range(2):
        done = nodes.play(text=TEARDOWN)
        assert done.returncode == 0, done.stdout
        for host in NODES:
            assert nodes.on(host, TRACES) == "", host
    assert counts(done, "changed") == dict.fromkeys(NODES, 0), done.stdout
    checked = nodes.play("--check", "--diff")
    assert checked.returncode == 0, checked.stdout
    assert counts(checked, "failed") == dict.fromkeys(NODES, 0)
    for path in ("/etc/wsnode/serve.toml", "/etc/wsnode/agent.toml", "/etc/systemd/system/wsnode-server.service"):
        assert f"after: {path}" in checked.stdout
    assert nodes.on("load-1", TRACES) == ""

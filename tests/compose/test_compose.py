"""docker-compose.yml on a real engine: up, healthy, a run from the API to its result, down without a trace.

Images of a registry are stand-ins (standins.py); Grafana has none and stays out by its profile.
"""

from __future__ import annotations

import http.cookiejar
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from portal.runs.machine import Holder, MachineLock
from stack import labfile
from tests.compose.composition import services
from tests.compose.conftest import Up
from tests.compose.engine import Engine
from wsnode.core.scenario import Plan, Scenario

RUN = {"ramp_up_s": 1, "duration_s": 8}
LOOPBACK = "0100007F"


def eventually(question: Callable[[], Any], seconds: float) -> Any:
    """The first answer that is not None or false."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.3)
    return answer


def test_without_secrets_it_refuses_and_says_what_makes_them(docker: Engine, clone: Path, tmp_path: Path) -> None:
    shutil.copyfile(clone / "docker-compose.yml", tmp_path / "docker-compose.yml")
    done = docker.compose(tmp_path, "up", "--detach")
    assert done.returncode != 0
    assert re.search(r"required variable WSLAB_DOCKER_\w+ is missing a value: run ./wslab compose first", done.stdout)
    assert docker.containers() == {}


def test_every_service_but_grafana_is_healthy(up: Up) -> None:
    assert up.containers.keys() == services().keys() - {"grafana"}
    health = {name: container["State"]["Health"]["Status"] for name, container in up.containers.items()}
    assert set(health.values()) == {"healthy"}, health
    assert {name: container["RestartCount"] for name, container in up.containers.items()} == dict.fromkeys(health, 0)


def test_no_process_is_root_and_none_can_write_beside_its_volumes(up: Up) -> None:
    for name, container in up.containers.items():
        user, _, written = up.engine.output(
            container["Id"], "sh", "-c", "id -u; grep CapBnd /proc/self/status; touch /etc/x 2>&1"
        ).partition("\n")
        assert int(user) > 0, name
        assert "CapBnd:\t0000000000000000" in written, name
        assert "Read-only file system" in written, name
        assert container["HostConfig"]["Memory"] > 0
        assert container["HostConfig"]["NanoCpus"] > 0


def test_every_port_is_open_on_the_loopback_only(up: Up) -> None:
    rows = Path(f"/proc/{up.engine.pid}/net/tcp").read_text().splitlines()[1:]
    listening = {row.split()[1] for row in rows if row.split()[3] == "0A"}
    assert {int(address.split(":")[1], 16) for address in listening} == {3000, 8000, 9090, 9091, 9092, 9093, 9100}
    assert {address.split(":")[0] for address in listening} == {LOOPBACK}
    more = Path(f"/proc/{up.engine.pid}/net/tcp6").read_text().splitlines()[1:]
    assert [row for row in more if row.split()[3] == "0A"] == []


def test_prometheus_reaches_every_target(up: Up) -> None:
    def targets() -> set[tuple[str, str]] | None:
        with urllib.request.urlopen("http://127.0.0.1:9090/api/v1/query?query=up==1", timeout=10) as answer:
            rows = json.load(answer)["data"]["result"]
        found = {(row["metric"]["job"], row["metric"]["host"]) for row in rows}
        return found if len(found) == 5 else None

    assert eventually(lambda: up.engine.inside(targets), 60) == {
        ("wsnode-server", "server"),
        ("wsnode-agent", "server"),
        ("wsnode-agent", "load-1"),
        ("wsnode-agent", "load-2"),
        ("node", "server"),
    }


def test_the_first_administrator_has_the_password_of_env(up: Up) -> None:
    def log_in(password: str) -> str:
        jar = http.cookiejar.CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        with browser.open("http://127.0.0.1:8000/accounts/login/", timeout=10) as page:
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
        assert token
        form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token[1]}
        with browser.open(
            "http://127.0.0.1:8000/accounts/login/", urllib.parse.urlencode(form).encode(), timeout=10
        ) as page:
            return str(page.url)

    password = up.settings["WSLAB_DOCKER_ADMIN_PASSWORD"]
    assert up.engine.inside(lambda: log_in(password)) == "http://127.0.0.1:8000/"
    assert up.engine.inside(lambda: log_in("x" + password)) == "http://127.0.0.1:8000/accounts/login/"


def test_management_commands_and_a_backup_work_as_the_page_shows_them(up: Up) -> None:
    said = up.compose("exec", "-T", "portal", "python", "-m", "portal.manage", "ensure_admin", "--json")
    assert json.loads(said) == {"username": "admin", "password": None}
    dump = up.compose("exec", "-T", "postgres", "pg_dump", "--username", "wslab", "wslab")
    assert "CREATE TABLE public.runs_run (" in dump


def test_a_run_waits_for_this_machines_lock_and_brings_its_result(up: Up) -> None:
    lock = MachineLock(labfile.machine(), Holder("r-other", "http://other.example"))
    eventually(lock.acquire, 180)  # another lab of this machine may have a load going
    with lock:
        run_id = up.call(lambda portal: portal.queue("smoke", RUN, {"name": "echo", "version": "1"}, False))["run_id"]
        reason = eventually(lambda: up.call(lambda portal: portal.run(run_id))["state_reason"], 30)
        assert reason == "waits for the machine: run r-other of http://other.example has it"
    run = eventually(lambda: over(up.call(lambda portal: portal.run(run_id))), 180)
    assert run["state"] == "finished", run["state_reason"]
    result = up.call(lambda portal: portal.result(run_id))
    assert result["validity"] != "invalid", result["reasons"]
    assert_whole(result)
    assert_seen_by_prometheus(result)


def over(run: Any) -> Any:
    return run if run["state"] in ("finished", "failed", "cancelled", "lost") else None


def assert_whole(result: Any) -> None:
    """Every message that the scenario offers was due, what was sent came back, and each part ran where it should."""
    given = {name: value for name, value in result["scenario"].items() if name in Scenario.model_fields}
    scenario = Scenario.model_validate(given)
    [whole] = Plan.divide(scenario, "ws://server:3000/echo", 1)
    counters = result["counters"]
    assert counters["messages_due"] == scenario.pacing().offered(whole.share, 8 * 10**9)
    assert counters["messages_due"] == counters["messages_sent"] + counters["messages_unsent"]
    assert counters["messages_sent"] == counters["messages_received"] > 3000
    assert (counters["connections_opened"], counters["connections_failed"]) == (100, 0)
    hosts = {host["name"]: host for host in result["hosts"]}
    assert {name: host["role"] for name, host in hosts.items()} == {
        "server": "server", "load-1": "load_generator", "load-2": "load_generator",
    }  # fmt: skip
    assert [hosts[name]["counters"]["connections_opened"] for name in ("load-1", "load-2")] == [50, 50]
    for name, key, value in (
        ("server", "net.core.somaxconn", "65535"),
        ("server", "net.ipv4.tcp_slow_start_after_idle", "0"),
        ("load-1", "net.ipv4.ip_local_port_range", "1024 65535"),
        ("load-2", "net.ipv4.tcp_tw_reuse", "1"),
    ):
        assert f'"{key}": "{value}"' in json.dumps(hosts[name]["environment"]), (name, key)


def assert_seen_by_prometheus(result: Any) -> None:
    """The server's figures, the generators' and the host's, without a link where there is no Grafana."""
    rows = {row["name"]: row for row in result["evidence"]}
    assert {name: row["no_data"] for name, row in rows.items() if row["value"] is None} == {}
    assert {row["grafana_url"] for row in rows.values()} == {None}
    assert all(row["promql"] for row in rows.values())
    assert rows["Server connections, most"]["value"] == 100
    assert 400 < rows["Server messages received"]["value"] < 600
    assert 400 < rows["Generator messages sent"]["value"] < 600
    # In the server's network: its own sockets, and none of the machine's.
    assert 100 <= rows["Host TCP sockets in use, most"]["value"] < 130


def test_a_second_up_changes_nothing(up: Up) -> None:
    up.compose("up", "--detach", "--wait")
    again = {name: container["Id"] for name, container in up.engine.containers().items()}
    assert again == {name: container["Id"] for name, container in up.containers.items()}


def test_down_leaves_no_container_volume_or_network(up: Up) -> None:
    up.compose("down", "--volumes")
    assert up.engine.containers() == {}
    assert up.engine.ask("GET", "/volumes")["Volumes"] == []
    assert {network["Name"] for network in up.engine.ask("GET", "/networks")} == {"bridge", "host", "none"}

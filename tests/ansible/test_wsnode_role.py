"""Roles wsnode and node_exporter without any host: what they look at, and that programs take what they write."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from stack import services
from stack.errors import StackError
from tests.ansible import roles
from tests.ansible.roles import ROOT
from wsnode.agent.config import Allowed, Config
from wsnode.server.options import ServeOptions

PREFIXES: dict[str, type[BaseModel]] = {"wsnode_server_": ServeOptions, "wsnode_agent_": Config}
OF_THE_ROLE = {"wsnode_agent_metrics_host", "wsnode_agent_metrics_port"}
"""Options of the agent's command line, and not of its file."""


def load(path: str) -> ModuleType:
    """A Python file of a role, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "roles" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


look = load("wsnode/library/wsnode_look.py")
state = load("wsnode/library/wsnode_state.py")
wheels = load("wsnode/files/wheels.py")
exporter = load("node_exporter/library/wslab_node_exporter_state.py")


# The variables are the programs' own


def limits(model: type[BaseModel], field: str) -> dict[str, float]:
    """A field's bounds, wherever pydantic keeps them."""
    info = model.model_fields[field]
    found: dict[str, float] = {}
    for holder in (info, *get_args(info.annotation)):
        for rule in getattr(holder, "metadata", None) or getattr(holder, "__metadata__", ()):
            for rules in (rule, *getattr(rule, "metadata", ())):
                for word, name in (("ge", "least"), ("le", "most"), ("gt", "above")):
                    if getattr(rules, word, None) is not None:
                        found[name] = getattr(rules, word)
    return found


def variables(prefix: str) -> set[str]:
    return {name for name in roles.options("wsnode") if name.startswith(prefix)} - OF_THE_ROLE


@pytest.mark.parametrize("prefix", PREFIXES)
def test_each_option_of_a_program_is_a_variable(prefix: str) -> None:
    assert variables(prefix) == {prefix + field for field in PREFIXES[prefix].model_fields}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_bounds_are_those_of_the_program(prefix: str) -> None:
    written = roles.read("wsnode", "vars/main.yml")["__wsnode_bounds"]
    for name in variables(prefix):
        known = limits(PREFIXES[prefix], name.removeprefix(prefix))
        if name.endswith("_port"):  # without privileges
            assert written[name] == {"least": 1024, "most": known["most"]}
        elif roles.options("wsnode")[name]["type"] in ("int", "float"):
            assert written[name] == known != {}, name
    assert written["wsnode_agent_metrics_port"] == {"least": 1024, "most": 65535}


def test_defaults_are_those_of_the_programs_but_for_addresses_and_targets() -> None:
    given = roles.defaults("wsnode")
    own = {"wsnode_server_host", "wsnode_server_metrics_host", "wsnode_agent_allow_targets", "wsnode_agent_allow_ports"}
    own |= {"wsnode_agent_targets", "wsnode_agent_consent_token"}
    for prefix, model in PREFIXES.items():
        for name in variables(prefix) - own:
            default = model.model_fields[name.removeprefix(prefix)].default
            assert given[name] == (list(default) if isinstance(default, tuple) else default), name  # YAML has no tuples
    engines = get_args(ServeOptions.model_fields["engine"].annotation)
    assert roles.options("wsnode")["wsnode_server_engine"]["choices"] == list(engines)


# What preflight looks at


def test_numbers_out_of_bounds_are_named_with_what_is_wanted() -> None:
    bounds = {"a": {"least": 1, "most": 9}, "b": {"least": 1}, "c": {"above": 0}, "d": {"least": 0, "most": 1}}
    assert list(look.out_of_bounds({"a": "9", "b": 10**9, "c": 0.1, "d": 0}, bounds)) == []
    assert list(look.out_of_bounds({"a": None, "c": None}, bounds)) == []
    assert list(look.out_of_bounds({"a": 10, "b": 0, "c": 0, "d": "nan"}, bounds)) == [
        "a is 10, wanted 1 to 9",
        "b is 0, wanted 1 or more",
        "c is 0, wanted more than 0",
        "d is nan, wanted 0 to 1",
    ]
    assert list(look.out_of_bounds({"a": "many"}, bounds)) == ["a is many, wanted 1 to 9"]


def test_listeners_of_one_host_have_ports_of_their_own() -> None:
    assert list(look.shared_ports({"a": 1, "b": "2", "c": ""}, ["a", "b", "c"])) == []
    [said] = look.shared_ports({"a": 1, "b": "1", "c": 3}, ["a", "b", "c"])
    assert said == "a and b are 1, wanted different ports"


def test_an_address_of_another_machine_is_named() -> None:
    assert list(look.foreign_addresses({"a": "127.0.0.1", "b": "0.0.0.0"}, ["a", "b"])) == []
    [said] = look.foreign_addresses({"a": "192.0.2.1"}, ["a"])
    assert said.startswith("a is '192.0.2.1', wanted an address of this host")


ADDRESSES = {"server-1": "192.0.2.20", "server-6": "2001:db8::1"}


def allowed(targets: list[str], ports: list[str], load: bool = True) -> Any:
    asked = {"load": load, "targets": targets, "target_ports": ports}
    return look.allowed({**asked, "addresses": ADDRESSES})


def servers(*servers: dict[str, Any], load: bool = True) -> Any:
    return look.servers({"load": load, "servers": servers, "addresses": ADDRESSES})


def test_targets_are_hosts_addresses_and_networks() -> None:
    found = allowed(["server-1", "server-6", "198.51.100.0/24", "192.0.2.20"], ["3000", "8000-8100"])
    networks = ["192.0.2.20/32", "2001:db8::1/128", "198.51.100.0/24"]
    assert found == (networks, ["3000", "8000-8100"], [])
    Config(allow_targets=tuple(networks), allow_ports=tuple(found[1]))
    assert allowed(["server-1"], ["3000"], load=False) == ([], [], [])


def test_servers_beside_them_have_ports_and_conditions_of_their_own() -> None:
    shop = {"name": "shop", "scheme": "wss", "host": "127.0.0.1", "ports": "8443-8450"}
    near = {"name": "near", "scheme": "ws", "host": "server-1", "ports": 4000, "consent": False}
    wide = {"name": "wide", "scheme": "ws", "host": "no host.invalid", "ports": "80", "networks": ["203.0.113.0/24"]}
    found, problems = servers(shop, near, wide)
    assert problems == []
    assert found == [
        {"networks": ["127.0.0.1/32"], "ports": ["8443-8450"], "consent": True},
        {"networks": ["192.0.2.20/32"], "ports": ["4000"], "consent": False},
        {"networks": ["203.0.113.0/24"], "ports": ["80"], "consent": True},
    ]
    config = Config(allow_targets=(), targets=tuple(found), consent_token="wslab-0123456789abcdef")
    assert config.may_aim(["127.0.0.1"], 8444) == (None, True)
    assert config.may_aim(["192.0.2.20"], 4000) == (None, False)
    assert config.may_aim(["192.0.2.20"], 8444).refused is not None
    assert servers(shop, load=False) == ([], [])


def test_hooks_are_names_and_programs_that_root_alone_can_change(tmp_path: Path) -> None:
    assert list(look.wrong_hooks({"warm_cache": ["/bin/sh", "-c", "echo $HOME 100%"], "x": ["/usr/bin/env"]})) == []
    mine = tmp_path / "mine"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to("/bin/sh")
    for hooks, words in (
        ({"restart; reboot": ["/bin/sh"]}, "holds the name 'restart; reboot', wanted up to 32 letters"),
        ({"../x": ["/bin/sh"]}, "holds the name '../x'"),
        ({"x\n": ["/bin/sh"]}, "holds the name 'x\\n'"),
        ({"x": "/bin/sh -c reboot"}, "wanted a list of words"),
        ({"x": []}, "wanted a list of words"),
        ({"x": ["/bin/sh", 7]}, "wanted a list of words"),
        ({"x": ["/bin/sh", "a\nExecStartPre=/bin/reboot"]}, "wanted words of visible characters"),
        ({"x": ["sh"]}, "wanted the absolute path of a program"),
        ({"x": ["/nowhere/program"]}, "No such file"),
        ({"x": ["/etc/passwd"]}, "/etc/passwd is no program"),
        ({"x": [str(mine)]}, "others than root may write to /tmp"),
        ({"x": [str(link)]}, "others than root may write to /tmp"),
    ):
        [problem] = look.wrong_hooks(hooks)
        assert words in problem, (hooks, problem)


@pytest.mark.parametrize(
    ("targets", "ports", "words"),
    [
        (["198.51.100.1/24"], [], "wsnode_agent_allow_targets holds '198.51.100.1/24', wanted a network"),
        (["no host.invalid"], [], "wsnode_agent_allow_targets holds 'no host.invalid', which has no address here"),
        ([], ["0"], "wsnode_agent_allow_ports holds '0', wanted a port"),
        ([], ["9-8"], "wsnode_agent_allow_ports holds '9-8', wanted a port"),
        ([], ["http"], "wsnode_agent_allow_ports holds 'http', wanted a port"),
    ],
)
def test_targets_that_mean_nothing_are_named(targets: list[str], ports: list[str], words: str) -> None:
    [problem] = allowed(targets, ports)[2]
    assert problem.startswith(words)
    [problem] = servers({"host": "127.0.0.1", "ports": (ports or ["80"])[0], "networks": targets or ["127.0.0.1"]})[1]
    assert problem.startswith("wsnode_agent_targets holds ")


def test_a_user_who_is_somebody_elses_is_not_taken() -> None:
    assert list(look.foreign_users({"wslab-nobody-has-this": "x"})) == []
    [said] = look.foreign_users({"root": "services of wslab"})
    assert said.startswith("user root is there and not the role's")


def test_an_interpreter_must_be_able_to_make_an_environment(tmp_path: Path) -> None:
    assert look.interpreter(sys.executable) == f"{sys.version_info[0]}.{sys.version_info[1]}"
    for script, words in (("echo 3.10", "which is Python 3.10, wanted"), ("echo no venv; exit 1", "(no venv)")):
        fake = tmp_path / "python"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        with pytest.raises(ValueError, match=re.escape(words)):
            look.interpreter(str(fake))
    with pytest.raises(ValueError, match="wanted Python 3\\.11 or newer"):
        look.interpreter("/nowhere/python3")


def test_loads_are_the_agents_active_ones(tmp_path: Path) -> None:
    states = ["prepared", "running", "finished", "stopped"]
    said = {"loads": [{"run_id": state, "state": state} for state in states]}
    agent = tmp_path / "wsnode"
    agent.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
    agent.chmod(0o755)
    assert look.loads(str(agent)) == ["prepared", "running"]
    agent.write_text("#!/bin/sh\nexit 2\n")
    assert look.loads(str(agent)) == []


# What is written


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The files of three hosts, by host and path, as the role renders them: a server, a load generator, one of both."""
    folder = tmp_path_factory.mktemp("written")
    given: dict[str, dict[str, Any]] = {
        "server": {
            "wsnode_server_workers": 2,
            "wsnode_server_drain_timeout_s": 12.5,
            "wsnode_open_files": 2**30,
            "wsnode_server_coalesce_ms": "2.5",
            "wsnode_server_pin": "true",
        },
        "load-1": {"wsnode_agent_max_clients": 1000, "wsnode_agent_max_rate_per_s": "0.5", "wsnode_open_files": 20_000},
        "both": {
            "wsnode_agent_allow_targets": ["server", "198.51.100.0/24"],
            "wsnode_agent_allow_ports": ["8000-8100"],
            "wsnode_agent_targets": [
                {"name": "shop", "scheme": "wss", "host": "shop.invalid", "ports": 8443, "networks": ["203.0.113.0/24"]}
            ],
            "wsnode_hooks": {"warm_cache": ["/usr/bin/env", "X=a b", "100%", "$HOME", 'say "hi" \\ ü;reboot']},
            "wsnode_hook_timeout_s": 7,
        },
    }
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "wslab_address": "127.0.0.1"}
    groups = {"servers": ["server", "both"], "load_generators": ["load-1", "both"]}
    inventory = {
        "vars": {**{k: v for k, v in roles.SHARED.items() if not k.startswith("ansible_")}, **own},
        "hosts": given,
        "children": {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in groups.items()},
    }
    (folder / "hosts.json").write_text(json.dumps({"all": inventory}))
    (folder / "templates").symlink_to(ROOT / "roles" / "wsnode" / "templates")  # looked for beside the play
    preflight = {"name": "wsnode", "tasks_from": "preflight", "public": True}
    keep = {"dest": f"{folder}/{{{{ inventory_hostname }}}}.json", "content": "{{ __wsnode_files }}", "mode": "0600"}
    tasks = [
        {"name": "Look", "ansible.builtin.include_role": preflight},
        {"name": "Keep", "ansible.builtin.copy": keep},
    ]
    (folder / "play.yml").write_text(
        json.dumps([{"name": "Render", "hosts": "all", "gather_facts": False, "tasks": tasks}])
    )
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", folder / "hosts.json", folder / "play.yml"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {host: json.loads((folder / f"{host}.json").read_text()) for host in given}


AGENT_UNIT, SERVER_UNIT = (f"/etc/systemd/system/wsnode-{name}.service" for name in ("agent", "server"))


def hooks(*names: str) -> set[str]:
    return {f"/etc/systemd/system/wsnode-hook-{name}{end}" for name in names for end in (".socket", "@.service")}


def test_a_host_has_the_files_of_what_it_does(written: dict[str, dict[str, str]]) -> None:
    agent, server = {"/etc/wsnode/agent.toml", AGENT_UNIT}, {"/etc/wsnode/serve.toml", SERVER_UNIT}
    assert {host: set(files) for host, files in written.items()} == {
        "server": agent | server | hooks("restart_server"), "load-1": agent,
        "both": agent | server | hooks("restart_server", "warm_cache"),
    }  # fmt: skip


def test_the_programs_read_what_was_given(written: dict[str, dict[str, str]], tmp_path: Path) -> None:
    def read(host: str, name: str) -> str:
        file = tmp_path / f"{host}.toml"
        file.write_text(written[host][f"/etc/wsnode/{name}.toml"])
        return str(file)

    assert ServeOptions.read({}, Path(read("server", "serve"))) == ServeOptions(
        host="0.0.0.0", metrics_host="127.0.0.1", workers=2, drain_timeout_s=12.5, coalesce_ms=2.5, pin=True
    )
    token = hashlib.sha256(b"wslab consent example example").hexdigest()[:32]
    assert Config.read(read("server", "agent")) == Config(allow_targets=(), allow_ports=(), consent_token=token)
    assert Config.read(read("load-1", "agent")) == Config(
        allow_targets=("127.0.0.1/32",),
        allow_ports=("3000",),
        max_clients=1000,
        max_rate_per_s=0.5,
        consent_token=token,
    )
    both = Config.read(read("both", "agent"))
    assert both == Config(
        allow_targets=("127.0.0.1/32", "198.51.100.0/24"),
        allow_ports=("8000-8100",),
        targets=(Allowed(networks=("203.0.113.0/24",), ports=("8443",)),),
        consent_token=token,
    )


def test_a_hooks_words_reach_its_program_as_they_stand(written: dict[str, dict[str, str]]) -> None:
    service = written["both"]["/etc/systemd/system/wsnode-hook-warm_cache@.service"]
    [command] = re.findall(r"^ExecStart=(.*)$", service, re.MULTILINE)
    assert command == r'''"/usr/bin/env" "X=a b" "100%%" "$$HOME" "say \"hi\" \\ \u00fc;reboot"'''
    assert "\nTimeoutStartSec=7\n" in service
    assert "StandardInput=null" in service
    restart = written["both"]["/etc/systemd/system/wsnode-hook-restart_server@.service"]
    assert '\nExecStart="/usr/bin/systemctl" "restart" "wsnode-server.service"\n' in restart
    assert "\nCapabilityBoundingSet=\n" in restart
    socket_unit = written["server"]["/etc/systemd/system/wsnode-hook-restart_server.socket"]
    for line in ("SocketUser=root", "SocketGroup=wsnode", "SocketMode=0660", "Accept=yes", "MaxConnections=1"):
        assert f"\n{line}\n" in socket_unit
    asks = {host: re.findall(r"--health (\S+)", files[AGENT_UNIT]) for host, files in written.items()}
    well = ["http://127.0.0.1:3000/healthz"]
    assert asks == {"server": well, "load-1": [], "both": well}


def test_a_unit_has_its_role_its_patience_and_no_more_files_than_the_kernel_allows(
    written: dict[str, dict[str, str]],
) -> None:
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    assert f"\nLimitNOFILE={min(2**30, most)}\n" in written["server"][SERVER_UNIT]
    assert "\nLimitNOFILE=20000\n" in written["load-1"][AGENT_UNIT]
    assert "\nTimeoutStopSec=28\n" in written["server"][SERVER_UNIT]  # the drain, and some
    told = {host: re.findall(r"--(?:name|role) (\S+)", files[AGENT_UNIT]) for host, files in written.items()}
    assert told == {
        "server": ["server", "server"], "load-1": ["load-1", "load_generator"], "both": ["both", "load_generator"],
    }  # fmt: skip
    lent = {host for host, files in written.items() if "DeviceAllow=/dev/cpu_dma_latency w" in files[AGENT_UNIT]}
    assert lent == {"load-1", "both"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt install systemd")
def test_units_are_hardened_and_function_comes_first(written: dict[str, dict[str, str]], tmp_path: Path) -> None:
    for host, path in (("server", SERVER_UNIT), ("server", AGENT_UNIT), ("load-1", AGENT_UNIT)):
        text = written[host][path]
        assert re.search(r"^RestrictAddressFamilies=.*AF_NETLINK", text, re.MULTILINE)
        assert re.search(r"^SystemCallFilter=@system-service .*\badjtimex\b", text, re.MULTILINE)
        assert not re.search(r"^(ProcSubset|ProtectClock|IPAddressDeny|SystemCallFilter=~.*@res)", text, re.MULTILINE)
        unit = tmp_path / Path(path).name
        # The threshold is of ten times the exposure; a folder of root's stands for the program, which is not here.
        unit.write_text(re.sub(r"/opt/wsnode/venv/bin/wsnode", "/bin/true", text))
        for words in (["security", "--offline=true", "--no-pager", "--threshold=20"], ["verify", "--man=no"]):
            done = subprocess.run(["systemd-analyze", *words, unit], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert unit.name not in done.stderr, done.stderr


# What must be restarted


def test_a_service_is_stale_where_a_file_or_link_changed_after_its_start(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    link.symlink_to("nowhere")
    shown = {"MainPID": "7", "ExecMainStartTimestamp": "Tue 2026-11-24 09:00:00.500000 UTC"}
    start = state.started_at(shown)
    assert start == 1795510800.5
    for path in (file, link):
        os.utime(path, (start - 0.1, start - 0.1), follow_symlinks=False)
    files = [str(file), str(link), str(tmp_path / "missing")]
    assert state.stale(shown, files) == []
    os.utime(link, (start + 0.1, start + 0.1), follow_symlinks=False)
    assert state.stale(shown, files) == [str(link)]
    assert state.stale({**shown, "MainPID": "0"}, files) == []
    assert state.stale({"MainPID": "7", "ExecMainStartTimestamp": ""}, files) == []


def test_what_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    problems, said = state.silent({"socket": "/nowhere/s", "answers": [["0.0.0.0", port, "/healthz"]]})
    assert said is None
    assert problems[0].startswith("/nowhere/s does not say hello (")
    assert problems[1].startswith(f"http://127.0.0.1:{port}/healthz does not answer (")
    assert [state.reachable(host) for host in ("::", "2001:db8::1")] == ["[::1]", "[2001:db8::1]"]


# The wheels


def test_a_wheelhouse_holds_a_folder_for_each_python_and_machine(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="has no folder") as refused:
        wheels.from_wheelhouse(tmp_path, "3.11", "x86_64")
    folder = tmp_path / "node-3.11-x86_64"
    assert f"--python 3.11 --machine x86_64 --out {folder}" in refused.value.show()
    folder.mkdir()
    (folder / "requirements.txt").write_text("a==1\n")
    (folder / "a-1.whl").write_text("x")
    found = wheels.from_wheelhouse(tmp_path, "3.11", "x86_64")
    assert found.folder == folder
    (folder / "a-1.whl").write_text("y")
    assert wheels.from_wheelhouse(tmp_path, "3.11", "x86_64").digest != found.digest
    archive = wheels.archive(folder)
    try:
        with tarfile.open(archive) as tar:
            assert tar.getnames() == ["a-1.whl", "requirements.txt"]
    finally:
        os.unlink(archive)


# node_exporter


def test_the_embedded_lab_has_the_same_collectors() -> None:
    assert roles.read("node_exporter", "vars/main.yml")["__node_exporter_collectors"] == list(services.COLLECTORS)


def test_a_collector_that_fails_or_is_too_many_is_named_and_one_that_cannot_work_let_pass() -> None:
    page = "".join(f'node_scrape_collector_success{{collector="{name}"}} {value}\n' for name, value in
                   {"cpu": 1, "stat": 0, "wifi": 1, "conntrack": 0, "pressure": 0}.items())  # fmt: skip
    optional = {"conntrack": {"file": "/nowhere", "why": "no module"}, "pressure": {"file": "/proc", "why": "no PSI"}}
    wanted = ["cpu", "stat", "conntrack", "pressure", "netdev"]
    assert exporter.judge(page, wanted, optional) == (
        ["collector wifi is there, wanted: not", "collector stat fails", "collector pressure fails",
         "collector netdev is not there"],
        ["no module"],
    )  # fmt: skip


def test_a_clock_may_be_looked_at_or_not_and_that_is_tried() -> None:
    assert exporter.lacks({"call": "adjtimex"}) is False

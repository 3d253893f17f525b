"""The virtual lab's own conduct: its hosts, what it shows of them, and that nothing of it stays behind."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from stack import procfs
from stack.lab import images, kernel, layout, record
from tests.lab import ROOT, VirtualLab

HOSTS = ["control", "server", "load-1", "load-2"]
SMALL = ("--load-generators", "1")
Row = dict[str, object]
T = TypeVar("T")


def until(look: Callable[[], T | None], seconds: float = 40) -> T:
    """What `look` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)
    return seen


def row(lab: VirtualLab, name: str) -> Row:
    found = record.read(lab.state)
    assert found is not None
    return found.host(name)


def pid(seen: Row) -> procfs.Pid:
    assert isinstance(seen["pid"], int)
    assert isinstance(seen["start"], int)
    return procfs.Pid(seen["pid"], seen["start"])


def supervisor(lab: VirtualLab) -> procfs.Pid:
    found = record.read(lab.state)
    assert found is not None
    return found.supervisor


def assert_nothing_left(lab: VirtualLab) -> None:
    """By the kernel's own lists, read here and not by the code under test."""
    assert kernel.remains() == []
    assert "wslab" not in Path("/proc/self/mountinfo").read_text().replace(str(ROOT), "")
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith("wslab")]
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    assert "198.18.0." not in routes
    named = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert "wslab-" not in named
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"machine=wslab-|stack\.lab\.supervisor|virtual_lab\.yml|wslab/images/", lines)
    assert not layout.RUN.exists()
    assert not (lab.state / "lab" / "hosts").exists()
    assert not record.path(lab.state).exists()


# The lab is up


def test_every_host_is_up_bare_and_of_its_own_network(virtual_lab: VirtualLab) -> None:
    now = json.loads(virtual_lab.run("status", "--json").stdout)
    assert (now["phase"], now["healthy"]) == ("running", True)
    assert [host["name"] for host in now["hosts"]] == HOSTS
    assert {host["state"] for host in now["hosts"]} == {"running"}
    bare = "command -v prometheus redis-server pip; ls /etc/apt/sources.list.d"
    script = f"systemctl is-system-running; ip -br -4 addr show host0; {bare}"
    said = virtual_lab.on("load-2", "sh", "-c", script).split()
    assert said == ["running", said[1], "UP", "198.18.0.41/24"]


def test_what_the_roles_install_lies_at_hand_for_every_host(virtual_lab: VirtualLab) -> None:
    bare = virtual_lab.on("control", "dpkg-query", "--show", "--showformat=${Package}\n").split()
    wanted = set(images.package_names()) - set(bare)
    assert len(wanted) > 3
    for host in HOSTS:
        listed = virtual_lab.on(host, "grep", "^Package: ", f"{layout.GUEST_APT}/Packages")
        assert wanted <= {line.split()[1] for line in listed.splitlines()}


def test_hosts_reach_each_other_and_nothing_else(virtual_lab: VirtualLab) -> None:
    script = "import socket, sys; socket.create_connection((sys.argv[1], 22), 2).close()"
    virtual_lab.on("load-1", "python3", "-c", script, "server")
    outside = virtual_lab.run("exec", "load-1", "--", "python3", "-c", script, "192.0.2.1")
    assert outside.returncode == 1
    assert "Network is unreachable" in outside.stderr
    assert "unreachable 198.18.0.0/24 metric 4278198272" in subprocess.check_output(["ip", "route"], text=True)


def test_units_of_one_host_are_not_those_of_another(virtual_lab: VirtualLab) -> None:
    """Hosts in a common cgroup stop each other's units, and wait for each other's to end."""
    virtual_lab.on("load-1", "systemd-run", "--unit=own", "sleep", "600")
    virtual_lab.on("load-2", "systemd-run", "--unit=own", "sleep", "600")
    virtual_lab.on("load-1", "systemctl", "stop", "own")
    assert virtual_lab.on("load-2", "systemctl", "is-active", "own") == "active\n"
    virtual_lab.on("load-2", "systemctl", "stop", "own")


def test_a_host_of_either_kind_keeps_its_tuning_to_itself(virtual_lab: VirtualLab) -> None:
    before = virtual_lab.on("load-2", "cat", "/proc/sys/net/core/somaxconn")
    virtual_lab.on("load-1", "sh", "-c", "echo 1234 >/proc/sys/net/core/somaxconn")
    assert virtual_lab.on("load-1", "cat", "/proc/sys/net/core/somaxconn") == "1234\n"
    assert virtual_lab.on("load-2", "cat", "/proc/sys/net/core/somaxconn") == before != "1234\n"


def test_exec_passes_arguments_and_exit_code_on_and_names_the_hosts_there_are(virtual_lab: VirtualLab) -> None:
    assert virtual_lab.on("server", "printf", "%s|", "a b", "--", "$x") == "a b|--|$x|"
    assert virtual_lab.run("exec", "server", "--", "sh", "-c", "exit 7").returncode == 7
    unknown = virtual_lab.run("exec", "srever", "--", "true")
    assert unknown.returncode == 2
    assert unknown.stderr == "wslab: the lab has no host 'srever'\n  fix: one of control, server, load-1, load-2\n"


def test_exec_works_without_sshd(virtual_lab: VirtualLab) -> None:
    virtual_lab.on("load-2", "systemctl", "stop", "ssh")
    assert virtual_lab.on("load-2", "hostname") == "load-2\n"
    now = json.loads(virtual_lab.run("status", "--json").stdout)
    assert (now["healthy"], now["hosts"][3]["state"]) == (False, "unresponsive")
    virtual_lab.on("load-2", "systemctl", "start", "ssh")


def test_ssh_knows_every_hosts_key_and_no_other(virtual_lab: VirtualLab) -> None:
    assert virtual_lab.run("ssh", "server", "--", "hostname").stdout == "server\n"
    keys = record.keys(virtual_lab.state)
    whole = keys.known_hosts.read_text()
    try:
        keys.known_hosts.write_text(whole.replace("server,198.18.0.20 ", "another,198.18.0.99 "))
        refused = virtual_lab.run("ssh", "server", "--", "hostname")
    finally:
        keys.known_hosts.write_text(whole)
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_ansible_reaches_every_host_by_the_inventory(virtual_lab: VirtualLab, tmp_path: Path) -> None:
    """The state folder's path has a blank in it."""
    play = tmp_path / "play.yml"
    play.write_text(
        "- hosts: servers:load_generators:control\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.command: hostname\n      register: said\n      changed_when: false\n"
        "    - ansible.builtin.assert: {that: said.stdout == inventory_hostname}\n"
    )
    done = virtual_lab.play(str(play))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok=2 ") == 4


def test_the_launcher_forwards_to_the_control_hosts_own_loopback(virtual_lab: VirtualLab) -> None:
    """Each direction ends by itself: the request's end is seen there, and the answer still comes."""
    found = record.read(virtual_lab.state)
    assert found is not None
    forward = found.forwards["portal"]
    script = (
        "import socket; server = socket.create_server(('127.0.0.1', int(__import__('sys').argv[1])));"
        "print('listening', flush=True); peer, _ = server.accept(); said = b''\n"
        "while chunk := peer.recv(65536): said += chunk\n"
        "peer.sendall(said[::-1]); peer.close()"
    )
    # Nothing listens on the bare control host, which may be known before the connect returns.
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection((forward["address"], forward["port"]), 5) as sock,
    ):
        sock.recv(1)
    answering = virtual_lab.start("exec", "control", "--", "python3", "-c", script, str(forward["to"]))
    assert answering.stdout is not None
    assert answering.stdout.readline() == "listening\n"
    sent = os.urandom(3_000_000)
    with socket.create_connection((forward["address"], forward["port"]), 5) as client:
        client.settimeout(20)

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        got = b""
        while chunk := client.recv(65536):
            got += chunk
        sending.join()
    assert got == sent[::-1]
    assert answering.wait(10) == 0
    answering.stdout.close()


def test_a_taken_port_is_replaced_and_said(virtual_lab: VirtualLab) -> None:
    found = record.read(virtual_lab.state)
    assert found is not None
    for name, forward in found.forwards.items():
        said = f"port {forward['to']} is taken: the lab's {name} is at 127.0.0.1:{forward['port']}"
        assert (said in found.data["notes"]) == (forward["port"] != forward["to"])
        assert f"http://127.0.0.1:{forward['port']}" in virtual_lab.run("status").stdout


def test_a_guest_that_reboots_is_started_again_with_what_it_wrote(virtual_lab: VirtualLab) -> None:
    before = row(virtual_lab, "server")
    boot = virtual_lab.on("server", "sh", "-c", "touch /etc/written; cat /proc/sys/net/ipv4/ip_local_port_range")
    virtual_lab.on("server", "systemctl", "reboot")
    until(lambda: (now := row(virtual_lab, "server"))["reboots"] == 1 and now["state"] == "running")
    now = row(virtual_lab, "server")
    assert pid(now) != pid(before)
    assert now["restarts"] == before["restarts"]
    assert virtual_lab.on("server", "sh", "-c", "rm /etc/written; cat /proc/sys/net/ipv4/ip_local_port_range") == boot


def test_a_guest_that_powers_off_is_down_until_the_next_up(virtual_lab: VirtualLab) -> None:
    virtual_lab.on("load-1", "systemctl", "poweroff")
    until(lambda: row(virtual_lab, "load-1")["state"] == "stopped")
    assert virtual_lab.run("status").returncode == 1
    refused = virtual_lab.run("exec", "load-1", "--", "true")
    assert refused.stderr == "wslab: load-1 is stopped: powered off from within\n  fix: ./wslab lab up\n"
    assert "the lab is up already; started again: load-1" in virtual_lab.up()
    assert virtual_lab.on("load-1", "hostname") == "load-1\n"


def test_a_killed_host_is_started_again(virtual_lab: VirtualLab) -> None:
    """kill -9 of systemd-nspawn, which may leave its guest."""
    before = row(virtual_lab, "load-2")
    guest = kernel.leader(pid(before))
    assert guest is not None
    procfs.send(pid(before), signal.SIGKILL)
    until(lambda: (now := row(virtual_lab, "load-2"))["state"] == "running" and pid(now) != pid(before))
    assert not procfs.alive(guest)
    assert row(virtual_lab, "load-2")["restarts"] == int(str(before["restarts"])) + 1
    assert virtual_lab.on("load-2", "hostname") == "load-2\n"


def test_a_second_up_says_so_and_other_hosts_are_refused(virtual_lab: VirtualLab) -> None:
    assert "the lab is up already\n" in virtual_lab.up()
    assert "the lab is up already\n" in virtual_lab.up("--servers", "1", "--load-generators", "2")
    other = virtual_lab.run("up", "--keep-inventory", "--servers", "2")
    assert other.returncode == 2
    assert other.stderr.startswith("wslab: the lab is up with other hosts: control (trixie), server (trixie), ")
    assert "./wslab lab down, then up" in other.stderr


def test_another_clones_lab_is_named_and_left_alone(virtual_lab: VirtualLab, tmp_path: Path) -> None:
    other = VirtualLab(tmp_path / "state")
    for words in (("up", "--keep-inventory"), ("down",), ("exec", "server", "--", "true")):
        refused = other.run(*words)
        assert refused.returncode == 2
        assert f"the virtual lab of {virtual_lab.state} is up on this machine" in refused.stderr
    assert other.run("status").returncode == 3
    assert virtual_lab.run("status").returncode == 0


def test_a_cgroup_goes_as_soon_as_the_last_killed_process_in_it_is_reaped(virtual_lab: VirtualLab) -> None:
    path = kernel.cgroup_roots()[0] / "wslab-test"
    path.mkdir()
    child = subprocess.Popen(["sleep", "600"])
    (path / "cgroup.procs").write_text(f"{child.pid}\n")
    child.kill()
    reaping = threading.Timer(0.3, child.wait)
    reaping.start()
    kernel.remove_cgroup(path)
    reaping.join()
    assert not path.exists()


# The lab is down, or half up


def test_nothing_is_left_after_down_and_a_second_down_finds_nothing(no_lab: VirtualLab) -> None:
    assert_nothing_left(no_lab)
    assert no_lab.down() == "the lab was not up\n"
    assert no_lab.run("status").stdout == "the virtual lab is down\n"
    assert (
        no_lab.run("exec", "server", "--", "true").stderr
        == "wslab: the virtual lab is down\n  fix: sudo ./wslab lab up\n"
    )


def test_a_lab_of_both_releases_is_up_in_time_and_what_a_killed_supervisor_leaves_goes(no_lab: VirtualLab) -> None:
    no_lab.up("--servers", "2", "--load-generators", "1", "--release", "bookworm,trixie")
    releases = {name: no_lab.on(name, "sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip() for name in
                ("control", "server", "server-2", "load-1")}  # fmt: skip
    assert releases == {"control": "trixie", "server": "bookworm", "server-2": "trixie", "load-1": "bookworm"}
    procfs.send(supervisor(no_lab), signal.SIGKILL)
    until(lambda: not record.locked())
    shown = no_lab.run("status")
    assert shown.returncode == 3
    assert "left of a lab that was not taken down: " in shown.stdout
    assert "namespace wslab-server-2" in shown.stdout
    assert no_lab.down().startswith("cleaned up after a lab that was not taken down: ")
    assert_nothing_left(no_lab)


def test_up_cleans_first_after_a_supervisor_and_all_nspawns_were_killed_at_once(no_lab: VirtualLab) -> None:
    no_lab.up(*SMALL)
    no_lab.on("server", "touch", "/etc/written")
    victims = [supervisor(no_lab), *(pid(row(no_lab, name)) for name in HOSTS[:3])]
    for victim in victims:
        procfs.send(victim, signal.SIGKILL)
    until(lambda: not record.locked())
    begun = time.monotonic()
    assert "cleaned up after a lab that was not taken down: " in no_lab.up(*SMALL)
    print(f"up after a kill -9: {time.monotonic() - begun:.1f} s")
    assert no_lab.run("exec", "server", "--", "test", "-e", "/etc/written").returncode == 1
    no_lab.down()
    assert_nothing_left(no_lab)


def children(parent: int) -> list[int]:
    return [int(name) for name in os.listdir("/proc")
            if name.isdigit() and (seen := procfs.stat(int(name))) and seen.parent == parent]  # fmt: skip


def ansible_of(lab: VirtualLab) -> procfs.Pid | None:
    """The supervisor's ansible-playbook, as soon as it runs."""
    with contextlib.suppress(OSError, AssertionError):
        for child in children(supervisor(lab).pid):
            if b"playbook" in Path(f"/proc/{child}/cmdline").read_bytes():
                return procfs.identify(child)
    return None


def test_a_killed_up_leaves_a_lab_that_goes_on(no_lab: VirtualLab) -> None:
    starting = no_lab.start("up", "--keep-inventory", *SMALL)
    until(lambda: ansible_of(no_lab))
    starting.kill()
    starting.communicate()
    assert "the lab is up already\n" in no_lab.up(*SMALL)
    assert no_lab.down() == "the lab is down\n"
    assert_nothing_left(no_lab)


def test_a_killed_playbook_fails_the_up_and_leaves_nothing(no_lab: VirtualLab) -> None:
    starting = no_lab.start("up", "--keep-inventory", *SMALL)
    procfs.send(until(lambda: ansible_of(no_lab)), signal.SIGKILL)
    said, _ = starting.communicate(timeout=60)
    assert starting.returncode == 2
    assert "this machine could not be prepared" in said
    assert_nothing_left(no_lab)


def test_a_supervisor_killed_while_it_prepares_leaves_nothing_that_down_misses(no_lab: VirtualLab) -> None:
    starting = no_lab.start("up", "--keep-inventory", *SMALL)
    playbook = until(lambda: ansible_of(no_lab))
    until(kernel.links)  # in the middle of making the network
    procfs.send(supervisor(no_lab), signal.SIGKILL)
    said, _ = starting.communicate(timeout=60)
    assert starting.returncode == 2
    assert "the lab's supervisor ended while starting" in said
    no_lab.down()
    assert not procfs.alive(playbook)
    assert_nothing_left(no_lab)


@pytest.mark.parametrize("moment", ["preparing", "hosts booting"])
def test_ctrl_c_in_up_takes_all_of_it_away(no_lab: VirtualLab, moment: str) -> None:
    starting = no_lab.start("up", "--keep-inventory", *SMALL)
    until(lambda: ansible_of(no_lab) if moment == "preparing" else kernel.cgroups())
    starting.send_signal(signal.SIGINT)
    said, _ = starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert "interrupted" in said
    assert_nothing_left(no_lab)


def test_the_main_job_takes_the_hosts_away_that_it_has_brought_up(no_lab: VirtualLab) -> None:
    """Interrupted as soon as it provisions them; to its end it is tests/lab.py's."""
    demo = no_lab.demo("--exit")
    assert demo.stdout is not None
    said = ""
    while "4 hosts are up after " not in said:
        said += (line := demo.stdout.readline())
        assert line, said
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=60)
    assert demo.returncode == 2, said + rest
    assert "the hosts are gone" in rest
    assert_nothing_left(no_lab)


def test_an_image_that_is_being_made_is_no_image_and_its_maker_leaves_no_mount(
    no_lab: VirtualLab, tmp_path: Path
) -> None:
    """mmdebstrap mounts things below the folder that it fills; killed in the middle, nothing of that may stay."""
    target = tmp_path / "wslab" / "images" / "trixie-x"
    script = ROOT / "roles/virtual_host/files/image.sh"
    making = subprocess.Popen(
        [script, "trixie", target, "systemd", "copy:///nowhere"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    _, said = making.communicate(timeout=60)
    assert making.returncode != 0, said
    assert not target.exists()
    assert str(target) not in Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(target.parent)

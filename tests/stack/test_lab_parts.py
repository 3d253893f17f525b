"""What the virtual lab's modules say and write, without root."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from stack import procfs
from stack.errors import StackError
from stack.lab import cli, images, kernel, keys, layout, lifecycle, machine, record, status, supervisor
from stack.paths import ROOT


def test_the_roles_packages_are_collected_from_their_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role, defaults in {
        "a": {"a_packages": ["redis-server", "nginx"], "a_port": 1},
        "b": {"b_packages": ["nginx", "{{ other }}"], "b_extra_packages": "{{ x }}"},
        "virtual_host": {"virtual_host_image_packages": ["systemd"]},
    }.items():
        (tmp_path / "roles" / role / "defaults").mkdir(parents=True)
        (tmp_path / "roles" / role / "defaults" / "main.yml").write_text(yaml.safe_dump(defaults))
    (tmp_path / "roles" / "without-defaults").mkdir()
    monkeypatch.setattr(images, "ROOT", tmp_path)
    monkeypatch.setattr(images, "ROLE", tmp_path / "roles" / "virtual_host")
    assert images.package_names() == ["nginx", "redis-server"]


def test_an_image_is_another_when_what_goes_into_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before, names = images.source("trixie"), images.package_names()
    assert images.source("trixie") == before
    assert images.source("bookworm").image.name.startswith("bookworm-")
    monkeypatch.setattr(images, "package_names", lambda: [*names, "another"])
    assert images.source("trixie").image == before.image
    assert images.source("trixie").repository != before.repository
    monkeypatch.setattr(images, "architecture", lambda: "arm64")
    assert images.source("trixie").image != before.image


def test_the_playbook_is_told_what_its_role_asks_for() -> None:
    hosts = layout.plan()
    told = images.variables(hosts, images.sources(hosts))
    specs = yaml.safe_load((images.ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    assert {name for name, option in specs.items() if option.get("required")} <= set(told) <= set(specs)
    for name in ("virtual_host_images", "virtual_host_hosts"):
        assert set(told[name][0]) == set(specs[name]["options"])


def test_older_images_go_when_a_new_one_is_there(tmp_path: Path) -> None:
    for name in ("trixie-old", "trixie-old.building", "trixie-new", "bookworm-other"):
        (tmp_path / "images" / name).mkdir(parents=True)
    images.prune({"trixie": images.Source(tmp_path / "images" / "trixie-new", tmp_path / "repositories" / "none")})
    assert sorted(os.listdir(tmp_path / "images")) == ["bookworm-other", "trixie-new"]


def test_keys_are_made_once_and_every_host_is_known_by_name_and_address(tmp_path: Path) -> None:
    made = keys.Keys(tmp_path / "a %folder" / "ssh")
    hosts = layout.plan(1, 1)
    keys.make(made, hosts, (os.getuid(), os.getgid()))
    known = made.known_hosts.read_text()
    keys.make(made, layout.plan(1, 2), (os.getuid(), os.getgid()))
    assert made.known_hosts.read_text().startswith(known)
    lines = [line.split() for line in known.splitlines()]
    assert [line[0] for line in lines] == ["control,198.18.0.10", "server,198.18.0.20", "load-1,198.18.0.40"]
    assert len({line[2] for line in lines}) == 3
    assert made.private.stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(
        ["ssh", "-G", "-F", made.config, "load-1"], capture_output=True, text=True, check=True
    ).stdout
    said = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
    assert (said["hostname"], said["user"]) == ("198.18.0.40", "root")
    assert said["stricthostkeychecking"] in ("yes", "true")
    assert said["identityfile"].replace("%%", "%") == str(made.private)


def test_the_path_of_a_repository_is_no_syntax(tmp_path: Path) -> None:
    host = layout.plan()[0]
    assert f"--bind-ro={tmp_path}/a\\:b:{layout.GUEST_APT}" in machine.nspawn(host, tmp_path / "a:b")
    assert not [word for word in machine.nspawn(host, None) if word.startswith("--bind")]


def test_a_user_who_is_not_root_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(StackError, match=r"needs root$") as caught:
        lifecycle.check_machine()
    assert caught.value.show().count("\n") == 1


def test_missing_tools_are_named_with_the_packages_that_bring_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        lifecycle.shutil, "which", lambda tool: None if tool in ("mmdebstrap", "ssh", "ssh-keygen") else tool
    )
    with pytest.raises(StackError, match="the virtual lab needs mmdebstrap, ssh, ssh-keygen") as caught:
        lifecycle.check_machine()
    assert caught.value.fix == "apt install mmdebstrap openssh-client"


@pytest.mark.parametrize(
    ("argv", "kept", "command"),
    [
        (["lab", "exec", "server", "--", "ls", "--", "-l"], ["lab", "exec", "server"], ["ls", "--", "-l"]),
        (["lab", "ssh", "server"], ["lab", "ssh", "server"], []),
        (["run", "smoke", "--", "x"], ["run", "smoke", "--", "x"], []),
    ],
)
def test_what_follows_the_dashes_is_the_hosts(argv: list[str], kept: list[str], command: list[str]) -> None:
    assert cli.split(argv) == (kept, command)


def test_a_process_is_the_hosts_by_its_cgroup_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path

    def path(text: str) -> Path:
        return tmp_path / "cgroup" if text == "/proc/7/cgroup" else real(text)

    monkeypatch.setattr(kernel, "Path", path)
    for text, names, expected in (
        ("1:name=systemd:/wslab-load-1/payload/init.scope\n", {"wslab-load-1"}, True),
        ("1:name=systemd:/wslab-load-1/payload/init.scope\n", {"wslab-load-10", "wslab-load"}, False),
        ("0::/system.slice/wslab-load-1.scope\n", {"wslab-load-1"}, True),
        ("0::/wslab-load-1\n", None, True),
        ("0::/user.slice/wslabber\n", None, False),
    ):
        (tmp_path / "cgroup").write_text(text)
        assert kernel._in_cgroup(7, names) is expected


def test_status_of_the_embedded_stack_mentions_a_virtual_lab_that_is_up(tmp_path: Path) -> None:
    from tests.stack.test_lab_inventory import me, write_record

    assert status.mention(tmp_path) is None
    write_record(tmp_path / "state", me(), procfs.boot_id())
    assert status.mention(tmp_path / "state") == "the virtual lab is running (4 hosts): ./wslab lab status"


def test_a_damaged_record_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    record.path(tmp_path).write_text("{")
    with pytest.raises(StackError, match=r"record\.json is damaged") as caught:
        record.read(tmp_path)
    assert "./wslab lab down" in caught.value.fix


def test_the_image_holds_nothing_that_a_role_installs() -> None:
    inside = yaml.safe_load((images.ROLE / "defaults" / "main.yml").read_text())["virtual_host_image_packages"]
    assert sorted(inside) == ["dbus", "iproute2", "openssh-server", "python3", "systemd", "systemd-sysv"]
    assert not set(inside) & set(images.package_names())
    assert (ROOT / "roles" / "virtual_host" / "files" / "image.sh").stat().st_mode & 0o111


def test_of_a_failed_playbook_the_commands_own_words_are_shown() -> None:
    noise = [
        "TASK [virtual_host : Make the image] ***",
        "[ERROR]: Task failed",
        "PLAY RECAP ***",
        "localhost : ok=3 failed=1",
    ]
    said = 'failed: [localhost] (item=trixie) => {"msg": "non-zero return code.", "stderr": "I: a\\nE: no archive\\n"}'
    assert supervisor.complaint([*noise[:2], said, *noise[2:]]) == ["I: a", "E: no archive"]
    told = 'fatal: [localhost]: FAILED! => {"msg": "this machine lacks ip", "changed": false}'
    assert supervisor.complaint([*noise[:2], told, *noise[2:]]) == ["this machine lacks ip"]
    assert supervisor.complaint(["Killed"]) == ["Killed"]


def test_a_command_that_stops_itself_with_a_child_that_is_gone_does_not_hold_exec_for_ever() -> None:
    """As nsenter does where a host goes down under it."""
    assert cli._watched(["sh", "-c", "kill -STOP $$; exit 7"]) == 7
    assert cli._watched(["sh", "-c", "kill -KILL $$"]) == 128 + 9
    assert cli._watched(["true"]) == 0

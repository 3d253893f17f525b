"""Host keys: nothing is trusted that nobody confirmed, and nothing that changed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stack import host_keys
from stack.host_keys import HostKey
from tests.ansible.roles import ROOT
from tests.portal.sshd import Sshd, needs_sshd

ED, ED_OTHER, RSA = (HostKey("h", kind, key) for kind, key in (("ed", "AAAA"), ("ed", "BBBB"), ("rsa", "CCCC")))


@pytest.mark.parametrize(
    ("shown", "trusted", "state", "wanted"),
    [
        ([ED, RSA], [], "new", []),
        ([ED, RSA], [ED], "known", []),  # what came with a key that is trusted is no reason to ask, and is not added
        ([ED], [ED, RSA], "known", [RSA]),
        ([ED_OTHER], [ED], "changed", [ED]),
        ([ED_OTHER, RSA], [ED, RSA], "changed", [ED]),
        ([RSA], [ED], "changed", [ED]),  # none of the trusted kinds: who cannot show it may not be it
    ],
)
def test_keys_are_compared_by_kind(
    shown: list[HostKey], trusted: list[HostKey], state: str, wanted: list[HostKey]
) -> None:
    assert host_keys.judge(shown, trusted) == (state, wanted)


def test_a_known_hosts_file_is_read_without_comments_markers_and_broken_lines() -> None:
    text = "# h ed AAAA\n\n@revoked h ed AAAA\nh ed\nh ed not*base64\n[h]:2222 ed AAAA a comment\n"
    assert host_keys.parse(text) == [HostKey("[h]:2222", "ed", "AAAA")]


class Lab:
    """An inventory with one host: the sshd of this test."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.folder, self.sshd = folder, sshd
        self.known_hosts = folder / "known_hosts"
        key = HostKey("", *sshd.host_key.split()[:2])
        self.fingerprint = key.fingerprint
        self.line = f"[127.0.0.1]:{sshd.port} {key.kind} {key.key}"
        host = {"ansible_host": "127.0.0.1", "ansible_port": sshd.port}
        groups = {"servers": {"hosts": {"server-1": host}}, "load_generators": {}, "control": {}}
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))

    def enroll(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the playbook, with nobody to ask."""
        program = str(Path(sys.executable).parent / "ansible-playbook")
        return subprocess.run(
            [program, "-i", str(self.folder / "hosts.yml"), str(ROOT / "playbooks" / "enroll.yml"), *options],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    sshd = Sshd(tmp_path / "sshd", 'restrict,command="false"')
    try:
        yield Lab(tmp_path, sshd)
    finally:
        sshd.end()


@needs_sshd
def test_without_a_yes_nothing_is_written_and_with_one_it_is_once(lab: Lab) -> None:
    asked = lab.enroll()
    assert asked.returncode != 0
    assert "Not confirmed, nothing is written" in asked.stdout + asked.stderr
    assert f"ssh-ed25519 {lab.fingerprint}" in asked.stdout
    assert not lab.known_hosts.exists()

    assert lab.enroll("-e", "enroll_yes=true").returncode == 0
    assert lab.known_hosts.read_text() == lab.line + "\n"

    again = lab.enroll()
    assert again.returncode == 0
    assert "known and unchanged" in again.stdout
    assert lab.known_hosts.read_text() == lab.line + "\n"


@needs_sshd
def test_fingerprints_are_taken_as_given_and_no_others(lab: Lab) -> None:
    wrong = lab.enroll("-e", "enroll_fingerprints=SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
    assert wrong.returncode != 0
    assert "server-1: it shows none of the fingerprints in enroll_fingerprints" in wrong.stdout
    assert not lab.known_hosts.exists()
    right = lab.enroll("-e", f"enroll_fingerprints=SHA256:AAAA,{lab.fingerprint}")
    assert right.returncode == 0
    assert lab.known_hosts.read_text() == lab.line + "\n"


@needs_sshd
def test_a_changed_key_is_refused_with_the_wanted_and_the_found_one_even_with_a_yes(lab: Lab) -> None:
    other = "AAAAC3NzaC1lZDI1NTE5AAAAIEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEE"
    before = f"[127.0.0.1]:{lab.sshd.port} ssh-ed25519 {other}\n"
    lab.known_hosts.write_text(before)
    done = lab.enroll("-e", "enroll_yes=true")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f"found ssh-ed25519 {lab.fingerprint}; wanted ssh-ed25519 {HostKey('', '', other).fingerprint}" in said
    assert lab.known_hosts.read_text() == before

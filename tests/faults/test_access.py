"""What the conductor's key opens, whom the conductor believes, and that words stay words on every host."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from stack.client import PortalError
from tests.faults.site import GENERATORS, LOAD, Site

KEY = "/var/lib/wslab-portal/ssh/id_ed25519"
CANARY = "/tmp/smuggled"
EVERYWHERE = ("control", "server", *GENERATORS)
TOUCH = f"touch {CANARY}"
EVIL = (
    f"; {TOUCH} #",
    f"$({TOUCH})",
    f"`{TOUCH}`",
    f"' && {TOUCH} && '",
    f'" | {TOUCH} | "',
    f"{{{{ lookup('pipe', '{TOUCH}') }}}}",
    f"{{% load x %}}{{{{ {TOUCH} }}}}",
    f"-oProxyCommand={TOUCH}",
    "%(x)s ${IFS} \\ é",
)
"""Each would be run by a shell, by Ansible or by ssh that takes a word for more than one."""


def canaries(site: Site, host: str) -> list[str]:
    """Every file of a host that has the canary's name, in private folders of services too."""
    return site.on(host, "find", "/", "-path", "/proc", "-prune", "-o", "-name", "smuggled*", "-print").splitlines()


@pytest.fixture(scope="module", autouse=True)
def nothing_was_run(site: Site) -> Iterator[None]:
    """After all tests here no host has the canary's file."""
    for host in EVERYWHERE:
        site.on(host, "touch", f"{CANARY}.seen")
        assert canaries(site, host) == [f"{CANARY}.seen"]
        site.on(host, "rm", f"{CANARY}.seen")
    yield
    for host in EVERYWHERE:
        assert canaries(site, host) == []


OPTIONS = (
    *("-F", "none", "-i", KEY),
    *(
        f"-o{option}"
        for option in (
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ExitOnForwardFailure=yes",
        )
    ),
)


def ssh(site: Site, options: tuple[str, ...], *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`ssh` to a load generator with the conductor's key, on the conductor's host."""
    words = ("timeout", "10", "ssh", *OPTIONS, *options, "wslab@load-1", *command)
    return site.run("control", *words, stdin=stdin)


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ((), ("id",)),
        ((), (TOUCH,)),
        ((), ("wsnode agent connect;", TOUCH)),
        (("-o", "SetEnv=LD_PRELOAD=/tmp/x BASH_ENV=/tmp/x ENV=/tmp/x SSH_ORIGINAL_COMMAND=id LANG=id"), ()),
        (("-A", "-X"), ("id",)),
        (("-s",), ("sftp",)),
    ],
)
def test_whatever_is_asked_for_with_the_conductors_key_the_agent_answers(
    site: Site, options: tuple[str, ...], command: tuple[str, ...]
) -> None:
    done = ssh(site, options, *command, stdin='{"type":"list","id":7}\n')
    hello, answer = map(json.loads, done.stdout.splitlines())
    assert (hello["type"], hello["name"]) == ("hello", "load-1")
    assert (answer["type"], answer["id"]) == ("answer", 7)


@pytest.mark.parametrize("way", [("-W", "127.0.0.1:22"), ("-N", "-R", "19998:127.0.0.1:22"), ("-N", "-w", "0:0")])
def test_the_conductors_key_forwards_nothing(site: Site, way: tuple[str, ...]) -> None:
    done = ssh(site, way)
    assert done.returncode == 255
    assert done.stdout == ""


def test_a_local_forwarding_with_the_conductors_key_carries_nothing(site: Site) -> None:
    """It is set up on this side and refused on the other, when something is to go through."""
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:19997/metrics', timeout=5).read())"
    script = 'timeout 10 ssh -f "$@" -L 19997:127.0.0.1:9092 wslab@load-1 </dev/null >/dev/null 2>&1; python3 -c "$0"'
    done = site.run("control", "sh", "-c", script, read, *OPTIONS)
    assert done.stdout == ""
    assert "refused" in done.stderr or "reset" in done.stderr or "closed" in done.stderr


def test_the_conductors_key_gets_no_terminal_and_copies_no_file(site: Site) -> None:
    assert "PTY allocation request failed" in ssh(site, ("-tt",)).stderr
    for old in ((), ("-O",)):
        words = ("timeout", "10", "scp", *old, *OPTIONS, "/etc/hostname", f"wslab@load-1:{CANARY}")
        assert site.run("control", *words).returncode != 0


def test_a_forged_host_key_is_refused_with_both_fingerprints_and_no_load_begins_anywhere(site: Site) -> None:
    key = "/etc/ssh/ssh_host_ed25519_key"
    keep = f"cp -p {key} /run/kept && cp -p {key}.pub /run/kept.pub"
    forge = f"{keep} && rm {key} && ssh-keygen -q -t ed25519 -N '' -f {key}"
    wanted = site.on("load-2", "ssh-keygen", "-l", "-f", f"{key}.pub").split()[1]
    site.on("load-2", "sh", "-c", f"{forge} && systemctl restart ssh")
    try:
        found = site.on("load-2", "ssh-keygen", "-l", "-f", f"{key}.pub").split()[1]
        begin = time.time()
        run_id = site.queue(duration_s=60)
        run = site.over(run_id)
        assert run["state"] == "failed"
        assert run["state_reason"].startswith("load-2: ")
        assert "is not who lab.json says" in run["state_reason"]
        assert f"wanted ssh-ed25519 {wanted}, found ssh-ed25519 {found}" in run["state_reason"]
        assert wanted != found
        for host in GENERATORS:
            said = site.on(host, "journalctl", "-q", "-u", "wsnode-agent", f"--since=@{begin:.6f}")
            assert run_id not in said
        assert site.quiet(*GENERATORS, "server")
    finally:
        site.on("load-2", "sh", "-c", f"mv /run/kept {key} && mv /run/kept.pub {key}.pub && systemctl restart ssh")


def test_commands_in_the_texts_of_a_run_are_kept_as_they_are_and_run_nowhere(site: Site) -> None:
    for bad in EVIL:
        with pytest.raises(PortalError, match="name"):
            site.api.queue({**LOAD, "name": bad}, {}, None, accept_partial=False)
    text = " ".join(EVIL)
    short = f"$({TOUCH});`{TOUCH}`"
    tag = f"$({TOUCH});`x`".replace(" ", "${ifs}")  # tags are kept in lower case
    fields = {
        **{"clients": "20", "ramp_up_s": "1", "rate_per_s": "50", "duration_s": "3", "thresholds": ""},
        **{"description": text, "subject_name": short, "subject_version": f"1{short}", "reason": text, "tags": tag},
        **{"series": "repeat", "times": "2", "title": short},
    }
    led = site.browser().post("/runs/new?scenario=smoke", "/runs/new", **fields)
    assert led.startswith("/runs/groups/"), led
    second, first = (row["run_id"] for row in site.api.runs(limit=2))
    site.api.cancel(second)
    run = site.over(first)
    assert run["state"] == "finished", run["state_reason"]
    assert site.over(second)["state"] == "cancelled"
    kept = site.kept(first)
    assert kept.texts == [text, short, f"1{short}", text, short]
    assert kept.tags == [tag]
    assert site.result(first).subject.name == short


def test_a_lab_json_with_commands_in_it_runs_none(site: Site) -> None:
    for field, value in (("name", f"load-2; {TOUCH}"), ("socket", f"$({TOUCH})"), ("proxy_jump", f"`{TOUCH}`")):
        with (
            site.lab_json(lambda lab, field=field, value=value: lab["hosts"][-1].update({field: value})),
            pytest.raises(PortalError, match=r"lab: .*lab\.json: hosts\."),
        ):
            site.queue(duration_s=4)

    def smuggle(lab: dict[str, Any]) -> None:
        lab["hosts"][-1].update(
            address=f"-oProxyCommand={TOUCH}", user=f"-oProxyCommand={TOUCH}", socket=f"/run/x; {TOUCH}"
        )

    with site.lab_json(smuggle):
        run = site.over(site.queue(duration_s=4))
    assert run["state"] == "failed"
    assert f"load-2 cannot be reached: -oProxyCommand={TOUCH}@-oProxyCommand={TOUCH}:22" in run["state_reason"]

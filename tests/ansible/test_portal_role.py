"""What role portal writes and sends, without a host: settings, units, nginx's site, the archive of a release."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.paths import ROOT

ROLE = ROOT / "roles" / "portal"
PACK = ROLE / "files" / "pack.py"
NASTY = "sk-0123456789abcdef0123456789 $x`id`\"'\\#%n;"

Written = dict[str, str]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Written]:
    """What the role would write with these variables: {path: text}."""

    def written(**variables: Any) -> Written:
        folder = tmp_path_factory.mktemp("role")
        (folder / "templates").symlink_to(ROLE / "templates")
        told = {
            "settings": "{{ lookup('ansible.builtin.template', 'portal.env.j2') }}",
            "manage": "{{ lookup('ansible.builtin.template', 'manage.j2') }}",
            "files": "{{ __portal_files }}",
        }
        play = {
            "name": "Write",
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"__portal_seen": {"certificate": "c0ffee"}},
            "vars_files": [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")],
            "tasks": [
                {
                    "name": "Tell",
                    "ansible.builtin.copy": {"dest": str(folder / "told.json"), "content": told, "mode": "0600"},
                }
            ],
        }
        (folder / "play.yml").write_text(yaml.safe_dump([play]))
        done = subprocess.run(
            [
                sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "play.yml",
                "-e", json.dumps({"ansible_python_interpreter": sys.executable, **variables}),
            ],
            cwd=folder, env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "0"}, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        said = json.loads((folder / "told.json").read_text())
        return {"portal.env": said["settings"], "manage": said["manage"], **said["files"]}

    return written


@pytest.fixture(scope="module")
def usual(write: Callable[..., Written]) -> Written:
    return write()


@pytest.fixture(scope="module")
def secured(write: Callable[..., Written]) -> Written:
    return write(
        portal_tls_certificate="/etc/ssl/lab/chain.pem",
        portal_tls_key="/etc/ssl/lab/key.pem",
        portal_server_name="lab.example.org",
        portal_allowed_hosts=["lab"],
        portal_https_port=8443,
        portal_secret_key=NASTY,
        portal_database_url="postgres://wslab:p%40ss@db/wslab",
        portal_broker_url="redis://:hush@10.0.0.1:6379/0",
    )


def settings(written: Written) -> dict[str, str]:
    """As systemd reads them (systemd.exec, EnvironmentFile): in double quotes a backslash hides one of four."""
    lines = [line for line in written["portal.env"].splitlines() if line and not line.startswith("#")]
    pairs = (re.fullmatch(r'([A-Z_]+)="((?:[^"\\]|\\.)*)"', line) for line in lines)
    return {pair[1]: re.sub(r'\\(["\\`$])', r"\1", pair[2]) for pair in pairs if pair}


def test_settings_without_a_certificate_are_for_this_host_alone(usual: Written) -> None:
    assert settings(usual) == {
        "WSLAB_STATE": "/var/lib/wslab-portal",
        "WSLAB_LAB": "/etc/wslab/lab.json",
        "WSLAB_SECRETS": "/etc/wslab/secrets",
        "WSLAB_PORTAL_URL": "http://127.0.0.1:8000",
        "WSLAB_BROKER_URL": "redis+socket:///run/redis/redis.sock",
    }
    assert not [path for path in usual if "nginx" in path]


def test_any_secret_comes_through_systemds_quoting(secured: Written) -> None:
    found = settings(secured)
    assert found["WSLAB_SECRET_KEY"] == NASTY
    assert found["DATABASE_URL"] == "postgres://wslab:p%40ss@db/wslab"
    assert len(found) == secured["portal.env"].count("\n") - 2


def test_with_a_certificate_the_portal_knows_its_name_and_its_proxy(secured: Written) -> None:
    found = settings(secured)
    assert found["WSLAB_PORTAL_URL"] == "https://lab.example.org:8443"
    assert (found["WSLAB_BEHIND_PROXY"], found["WSLAB_ALLOWED_HOSTS"]) == ("1", "lab")


def test_every_setting_is_one_that_the_portal_reads(secured: Written) -> None:
    text = "".join((ROOT / "portal" / "config" / name).read_text() for name in ("settings.py", "environ.py"))
    assert [name for name in settings(secured) if f'"{name}"' not in text] == []


def test_nginx_overwrites_what_the_portal_believes(secured: Written) -> None:
    site = secured["/etc/nginx/conf.d/wslab-portal.conf"]
    for header in ("Host $http_host", "X-Real-IP $remote_addr", "X-Forwarded-Proto $scheme", 'X-Forwarded-For ""'):
        assert f"proxy_set_header {header};" in site
    assert "listen 8443 ssl;" in site
    assert "server_name lab.example.org lab;" in site
    assert "return 301 https://lab.example.org:8443$request_uri;" in site
    assert "ssl_certificate_key /etc/ssl/lab/key.pem;" in site
    assert "c0ffee" in site


def test_no_secret_is_anywhere_but_in_the_settings(secured: Written) -> None:
    for path, text in secured.items():
        if path != "portal.env":
            assert not [secret for secret in (NASTY, "p%40ss", "hush") if secret in text], path


UNITS = ["wslab-portal.service", "wslab-conduct.service", "wslab-tick.service"]


def unit(written: Written, name: str) -> dict[str, list[str]]:
    """{directive: values}."""
    text = written[f"/etc/systemd/system/{name}"].replace("\\\n", "")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            directive, _, value = line.partition("=")
            found.setdefault(directive, []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_the_current_release_as_the_portals_user(usual: Written, name: str) -> None:
    found = unit(usual, name)
    assert found["User"] == ["wslab-portal"]
    assert found["WorkingDirectory"] == ["/opt/wslab/portal/current"]
    assert found["ExecStart"][0].startswith("/opt/wslab/portal/current/venv/bin/python -m ")
    assert found["EnvironmentFile"] == ["/etc/wslab/portal.env"]
    assert {"redis-server.service", "postgresql.service"} <= set(found["After"][0].split())
    assert (found["Wants"], found["SupplementaryGroups"]) == (["redis-server.service"], ["redis"])
    assert found["Restart"] == ["on-failure"]
    assert found["WantedBy"] == ["multi-user.target"]
    assert "#" not in "".join(found["SystemCallErrorNumber"])


def test_the_portal_listens_on_the_loopback_address_only(secured: Written) -> None:
    assert "--bind 127.0.0.1:8000 " in unit(secured, UNITS[0])["ExecStart"][0]


def test_only_a_conductor_may_write_beside_the_state_folder(usual: Written) -> None:
    assert unit(usual, "wslab-conduct.service")["ReadWritePaths"] == ["/run/lock"]
    assert not [name for name in UNITS[::2] if "ReadWritePaths" in unit(usual, name)]


def test_a_broker_elsewhere_needs_no_redis_here(secured: Written) -> None:
    for name in UNITS:
        assert not {"Wants", "SupplementaryGroups"} & unit(secured, name).keys()
    assert "SupplementaryGroups" not in secured["manage"]


def test_the_commands_run_as_the_services_do(usual: Written) -> None:
    assert subprocess.run(["sh", "-n"], input=usual["manage"], text=True, check=False).returncode == 0
    for words in ("User=wslab-portal", "UMask=0077", "SupplementaryGroups=redis", "/etc/wslab/portal.env"):
        assert words in usual["manage"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_hardened(usual: Written, tmp_path: Path, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    file = tmp_path / name
    file.write_text(usual[f"/etc/systemd/system/{name}"])
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Overall exposure level for \S+: [01]\.\d", done.stdout)


# --- what is sent -------------------------------------------------------------------------------
def wheelhouse(folder: Path, lock: str | None = None) -> Path:
    """A folder of one wheel that says it is for Python 3.13."""
    house = folder / "house" / "portal-3.13-x86_64"
    house.mkdir(parents=True)
    (house / "pip-26.3-py3-none-any.whl").write_bytes(b"no wheel")
    (house / "requirements.txt").write_text(lock or (ROOT / "requirements" / "portal.txt").read_text())
    return house.parent


def pack(cache: Path, house: Path, root: Path = ROOT, python: str = "3.13") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / PACK.relative_to(ROOT)), "--python", python, "--machine", "x86_64",
         "--wheelhouse", str(house)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_release_has_what_runs_and_nothing_else(tmp_path: Path) -> None:
    done = pack(tmp_path / "cache", wheelhouse(tmp_path))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    with tarfile.open(answer["code"]) as tar:
        entries = {entry.name: entry for entry in tar}
    assert {"portal/manage.py", "portal/templates/labs/lab.html", "portal/runs/migrations/0001_initial.py",
            "portal/static/vendor/htmx/htmx.min.js", "portal/static/vendor/htmx/LICENSE",
            "wsnode/core/scenario.py", "scenarios/smoke.yaml"} <= entries.keys()  # fmt: skip
    assert {name.partition("/")[0] for name in entries} == {"portal", "wsnode", "scenarios"}
    assert not [name for name in entries if re.search(r"__pycache__|\.pyc$|/\.|\.md$|(^|/)tests?/", name)]
    assert {(entry.uid, entry.mode, entry.mtime, entry.isreg()) for entry in entries.values()} == {(0, 0o644, 0, True)}
    with tarfile.open(answer["wheels"]) as tar:
        assert tar.getnames() == ["pip-26.3-py3-none-any.whl", "requirements.txt"]


def test_the_same_clone_gives_the_same_bytes_and_another_one_another_name(tmp_path: Path) -> None:
    house = wheelhouse(tmp_path)
    clone = tmp_path / "clone"
    for part in ("portal", "wsnode", "scenarios", "stack", "requirements", "roles/portal"):
        shutil.copytree(ROOT / part, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
    here = json.loads(pack(tmp_path / "a", house).stdout)
    there = json.loads(pack(tmp_path / "b", house, clone).stdout)
    assert {name: there[name] for name in ("release", "environment")} == {
        name: here[name] for name in ("release", "environment")
    }
    assert [Path(here[name]).read_bytes() == Path(there[name]).read_bytes() for name in ("code", "wheels")] == [
        True
    ] * 2
    with (clone / "portal" / "manage.py").open("a") as file:
        file.write("# another\n")
    other = json.loads(pack(tmp_path / "b", house, clone).stdout)
    assert other["release"] != here["release"]
    assert other["environment"] == here["environment"]


@pytest.mark.parametrize(
    ("python", "lock", "complaint"),
    [
        ("3.12", None, "portal-3.12-x86_64: No such file or directory"),
        ("3.13", "django==1.0\n", "was made from another lock than this clone's requirements/portal.txt"),
    ],
)
def test_a_wheelhouse_that_does_not_fit_says_how_to_make_one(
    tmp_path: Path, python: str, lock: str | None, complaint: str
) -> None:
    done = pack(tmp_path / "cache", wheelhouse(tmp_path, lock), python=python)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert f"python -m stack.supplies wheels --lock portal --python {python} --machine x86_64 --out" in done.stderr
    assert done.stdout == ""

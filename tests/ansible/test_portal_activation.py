"""How role portal makes a release the one that runs: the order of an upgrade, and the way back from one that fails."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.test_portal_modules import load

activation = load("portal_activate")

MANAGE = """import json, os, sys
from pathlib import Path
here = Path(__file__).parent
world = json.loads((here / "world.json").read_text())
words, told = sys.argv[1:], sys.stdin.readline().strip()
with (here / "calls").open("a") as calls:
    settings = Path(os.environ["WSLAB_SETTINGS"])
    print(json.dumps([words, told, os.environ["WSLAB_RELEASE"], settings.read_text()]), file=calls)
if words[0] == "--python":
    source, target = words[-2:]
    Path(target).write_bytes(Path(source).read_bytes())
elif words[0] == "migrate":
    Path(world["database"]).write_text("half-migrated")
    if world["migration_fails"]:
        sys.exit("Traceback (most recent call last):\\n  File x\\nOperationalError: no such column")
    world["wanted"] = world["then"]
elif "--check" in words:
    print(json.dumps({{"wanted": world["wanted"], "database": {{"vendor": "sqlite", "file": world["database"]}}}}))
else:
    world["wanted"] = []
(here / "world.json").write_text(json.dumps(world))
"""


class Host:
    """A control host in a folder, whose `manage` writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state, self.etc = folder / "portal", folder / "state", folder / "etc"
        self.database, self.password_file = self.state / "portal.sqlite3", self.etc / "admin_password"
        self.settings = self.etc / "portal.env"
        for path in (self.root / "releases", self.root / "venvs", self.state):
            path.mkdir(parents=True)
        (self.root / "manage.py").write_text(MANAGE.format())
        # Not `#!` and the interpreter: there may be a blank in its path.
        script = [sys.executable, str(self.root / "manage.py")]
        (self.root / "manage").write_text(f'#!/bin/sh\nexec {shlex.join(script)} "$@"\n')
        (self.root / "manage").chmod(0o755)
        self.database.write_text("data")
        self.is_to_do([])

    def is_to_do(self, wanted: list[str], then: list[str] | None = None, migration_fails: bool = False) -> None:
        """What `manage bootstrap --check` says, and what it says after a migration."""
        world = {
            "wanted": wanted, "then": then or [], "database": str(self.database), "migration_fails": migration_fails,
        }  # fmt: skip
        (self.root / "world.json").write_text(json.dumps(world))
        (self.root / "calls").write_text("")

    def release(self, name: str, **asked: Any) -> Any:
        """A release that is in place, to be activated."""
        environment = self.root / "venvs" / f"of-{name}"
        (self.root / "releases" / name).mkdir(exist_ok=True)
        environment.mkdir(exist_ok=True)
        link = self.root / "releases" / name / "venv"
        if not link.is_symlink():
            link.symlink_to(environment)
        usual = {
            "root": str(self.root), "release": name, "state_folder": str(self.state), "units": ["a.service"],
            "settings": "A=1\n", "settings_file": str(self.settings), "settings_group": "any", "username": "admin",
            "password": "", "password_file": str(self.password_file), "backups": 3,
        }  # fmt: skip
        return activation.Portal({**usual, **asked})

    @property
    def calls(self) -> list[str]:
        """First words of each, in order."""
        return [" ".join(words[0][:2]) for words in self.whole_calls]

    @property
    def whole_calls(self) -> list[Any]:
        return [json.loads(line) for line in (self.root / "calls").read_text().splitlines()]


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemctl was asked for; all units run."""
    asked: list[str] = []

    def systemctl(*arguments: str) -> int:
        asked.append(" ".join(arguments))
        return 0

    monkeypatch.setattr(activation, "systemctl", systemctl)
    monkeypatch.setattr(activation, "group_id", lambda _: os.getgid())
    return asked


@pytest.fixture
def host(tmp_path: Path, units: list[str]) -> Host:
    return Host(tmp_path)


def test_the_first_activation_migrates_makes_a_password_and_switches(host: Host) -> None:
    host.database.unlink()
    host.is_to_do(["migration runs.0001_initial"], ["scenario smoke", "administrator", "token"])
    done, made = activation.activate(host.release("r1"), really=True)
    assert made
    assert done == [
        "migration runs.0001_initial", "scenario smoke", "administrator", "token", "release r1",
        f"settings {host.settings}",
    ]  # fmt: skip
    assert host.calls == ["bootstrap --check", "migrate --no-input", "bootstrap --check", "bootstrap --json"]
    password = host.password_file.read_text().strip()
    assert len(password) >= 20
    assert stat.S_IMODE(host.password_file.stat().st_mode) == 0o600
    assert [told for words, told, *_ in host.whole_calls if words[0] == "bootstrap"] == [password] * 3
    assert not [words for words, *_ in host.whole_calls if password in " ".join(words)]
    assert host.settings.read_text() == "A=1\n"
    assert stat.S_IMODE(host.settings.stat().st_mode) == 0o640
    assert os.readlink(host.root / "current") == "releases/r1"
    assert activation.activate(host.release("r1"), really=True) == ([], False)


def test_a_check_touches_nothing(host: Host, units: list[str]) -> None:
    host.is_to_do(["migration runs.0001_initial"])
    done, made = activation.activate(host.release("r1"), really=False)
    assert (done, made) == (["release r1", f"settings {host.settings}"], False)
    assert host.calls == units == []
    assert not (host.root / "current").exists()
    assert not host.etc.exists()


def test_an_upgrade_stops_copies_migrates_and_then_switches(host: Host, units: list[str]) -> None:
    activation.activate(host.release("r1"), really=True)
    host.is_to_do(["migration runs.0002_more"])
    done, _ = activation.activate(host.release("r2"), really=True)
    (copy,) = (host.state / "backups").iterdir()
    assert copy.name.endswith("Z-r1.sqlite3")
    assert copy.read_text() == "data"
    assert done == ["migration runs.0002_more", f"backup {copy}", "release r2"]
    assert host.calls == ["bootstrap --check", "--python -I", "migrate --no-input", "bootstrap --check"]
    assert {release for _, _, release, _ in host.whole_calls} == {str(host.root / "releases" / "r2")}
    assert units == ["--quiet is-active a.service", "stop a.service"]
    assert os.readlink(host.root / "current") == "releases/r2"


def test_a_migration_that_fails_leaves_release_settings_and_data_as_they_were(host: Host, units: list[str]) -> None:
    activation.activate(host.release("r1"), really=True)
    host.is_to_do(["migration runs.0002_more"], migration_fails=True)
    with pytest.raises(activation.Failed) as error:
        activation.activate(host.release("r2", settings="A=2\n"), really=True)
    assert "`manage migrate --no-input` failed: OperationalError: no such column" in str(error.value)
    assert "the database is as it was" in str(error.value)
    assert host.database.read_text() == "data"
    assert os.readlink(host.root / "current") == "releases/r1"
    assert host.settings.read_text() == "A=1\n"
    assert [path.name for path in host.etc.iterdir()] == ["portal.env"]
    assert units[-2:] == ["stop a.service", "start a.service"]


def test_new_settings_are_tried_before_they_count(host: Host) -> None:
    activation.activate(host.release("r1"), really=True)
    host.is_to_do([])
    done, _ = activation.activate(host.release("r1", settings="A=2\n"), really=True)
    assert done == [f"settings {host.settings}"]
    assert [settings for *_, settings in host.whole_calls] == ["A=2\n"]
    assert host.settings.read_text() == "A=2\n"
    host.settings.chmod(0o644)
    assert activation.activate(host.release("r1", settings="A=2\n"), really=True)[0] == [f"settings {host.settings}"]
    assert stat.S_IMODE(host.settings.stat().st_mode) == 0o640


def test_three_copies_and_two_releases_are_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    activation.activate(host.release("r1"), really=True)
    for n in range(2, 7):
        monkeypatch.setattr(activation.time, "strftime", lambda *_, n=n: f"2026112{n}T000000Z")
        host.is_to_do([f"migration runs.000{n}"])
        activation.activate(host.release(f"r{n}"), really=True)
    copies = sorted(path.name for path in (host.state / "backups").iterdir())
    assert copies == [f"portal-2026112{n}T000000Z-r{n - 1}.sqlite3" for n in (4, 5, 6)]
    assert sorted(path.name for path in (host.root / "releases").iterdir()) == ["r5", "r6"]
    assert sorted(path.name for path in (host.root / "venvs").iterdir()) == ["of-r5", "of-r6"]


def test_a_release_that_failed_is_no_way_back(host: Host) -> None:
    activation.activate(host.release("r1"), really=True)
    host.is_to_do(["migration runs.0002_bad"], migration_fails=True)
    with pytest.raises(activation.Failed):
        activation.activate(host.release("bad"), really=True)
    host.is_to_do([])
    activation.activate(host.release("r2"), really=True)
    assert sorted(path.name for path in (host.root / "releases").iterdir()) == ["r1", "r2"]


def test_a_vaulted_password_is_told_and_set_and_takes_the_place_of_a_made_one(host: Host) -> None:
    host.is_to_do(["administrator"])
    assert activation.activate(host.release("r1"), really=True)[1]
    host.is_to_do(["password of admin"])
    done, made = activation.activate(host.release("r1", password="from the vault"), really=True)
    assert (done[0], made, host.password_file.exists()) == ("password of admin", False, False)
    words, told, *_ = host.whole_calls[-1]
    assert (told, "--set-password" in words, "from the vault" in words) == ("from the vault", True, False)

"""`manage bootstrap` as a deployment uses it: look first, then do, with a password that is told and not thought up."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from portal.accounts.models import ApiToken, User
from portal.runs.models import NamedScenario
from portal.runs.seed import seed_scenarios
from tests.portal.factories import make_user

ROOT = Path(__file__).parents[2]
TOLD = "a vaulted pass phrase"


def wanted(monkeypatch: pytest.MonkeyPatch, *arguments: str, password: str = "") -> list[str]:
    """What `--check` says is to be done."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    call_command("bootstrap", "--check", *arguments, stdout=out)
    found: list[str] = json.loads(out.getvalue())["wanted"]
    return found


def bootstrap(monkeypatch: pytest.MonkeyPatch, *arguments: str, password: str) -> dict[str, Any]:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    call_command("bootstrap", "--json", "--password-stdin", *arguments, stdout=out, verbosity=0)
    said: dict[str, Any] = json.loads(out.getvalue())
    return said


def test_a_new_database_wants_its_migrations_and_then_nothing(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WSLAB_", "DATABASE_"))}
    environment = {**kept, "WSLAB_STATE": str(tmp_path / "state")}

    def manage(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "portal.manage", "bootstrap", "--skip-checks", *arguments],
            env=environment, cwd=ROOT, input=TOLD + "\n", capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    options = ("--password-stdin", "--token-file", str(tmp_path / "token"))
    before = manage("--check", *options)
    assert "migration runs.0001_initial" in before["wanted"]
    assert before["database"] == {"vendor": "sqlite", "file": str(tmp_path / "state" / "portal.sqlite3")}
    assert manage("--json", *options)["password"] is None
    assert manage("--check", *options)["wanted"] == []


@pytest.mark.django_db
def test_a_check_names_what_is_missing_and_does_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = str(tmp_path / "token")
    found = wanted(monkeypatch, "--token-file", token)
    assert found[-2:] == ["administrator", "token"]
    assert "scenario smoke" in found
    assert (User.objects.count(), NamedScenario.objects.count(), ApiToken.objects.count()) == (0, 0, 0)
    bootstrap(monkeypatch, "--token-file", token, password=TOLD)
    assert wanted(monkeypatch, "--token-file", token) == []
    NamedScenario.objects.filter(name="smoke").update(content={"name": "smoke"})
    ApiToken.objects.all().delete()
    assert wanted(monkeypatch, "--token-file", token) == ["scenario smoke", "token"]


@pytest.mark.django_db
def test_a_told_password_is_the_new_administrators_and_is_not_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    said = bootstrap(monkeypatch, "--username", "root", password=TOLD)
    assert (said["username"], said["password"]) == ("root", None)
    assert TOLD not in json.dumps(said)
    assert User.objects.get(username="root").check_password(TOLD)


@pytest.mark.django_db
def test_an_administrators_password_is_left_alone_unless_it_is_to_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    seed_scenarios(django_settings.SCENARIOS)
    ada = make_user("ada", is_superuser=True)
    assert wanted(monkeypatch, "--password-stdin", password=TOLD) == []
    bootstrap(monkeypatch, password=TOLD)
    ada.refresh_from_db()
    assert not ada.check_password(TOLD)
    assert wanted(monkeypatch, "--password-stdin", "--set-password", password=TOLD) == ["password of ada"]
    bootstrap(monkeypatch, "--set-password", password=TOLD)
    ada.refresh_from_db()
    assert ada.check_password(TOLD)
    assert wanted(monkeypatch, "--password-stdin", "--set-password", password=TOLD) == []
    assert User.objects.count() == 1


@pytest.mark.django_db
def test_a_weak_password_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="the password of admin: This password is too short") as error:
        bootstrap(monkeypatch, password="hush12")
    assert "hush12" not in str(error.value)
    assert not User.objects.exists()


@pytest.mark.django_db
def test_a_database_of_a_newer_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = MigrationRecorder(connection)
    recorder.record_applied("runs", "0999_later")
    with pytest.raises(CommandError, match=r"newer release's: runs\.0999_later is unknown here; wanted that release"):
        wanted(monkeypatch)
    recorder.record_unapplied("runs", "0999_later")
    recorder.record_applied("an_app_that_is_gone", "0001_initial")
    assert "administrator" in wanted(monkeypatch)

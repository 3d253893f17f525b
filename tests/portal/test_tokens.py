"""API tokens: only a digest is kept, and only a living token of an active user opens anything."""

from __future__ import annotations

import hashlib
import io
import json
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from portal.accounts.admission import keep_token
from portal.accounts.models import ApiToken, User
from tests.portal.factories import make_user

pytestmark = pytest.mark.django_db


def test_only_the_sha256_of_a_token_is_stored() -> None:
    token, text = ApiToken.objects.issue(make_user(), "ci")
    assert token.digest == hashlib.sha256(text.encode()).hexdigest()
    assert text.startswith(f"wslab_{token.prefix}_")
    stored = ApiToken.objects.values().get()
    assert all(text not in str(value) and text[15:] not in str(value) for value in stored.values())


def test_a_token_is_found_by_its_text_alone() -> None:
    token, text = ApiToken.objects.issue(make_user(), "ci")
    assert ApiToken.objects.authenticate(text) == token
    for wrong in ("", text[:-1], text + "x", text.upper(), f"wslab_{token.prefix}_", text.replace("wslab", "other")):
        assert ApiToken.objects.authenticate(wrong) is None


def test_a_right_prefix_with_a_wrong_secret_opens_nothing() -> None:
    token, _ = ApiToken.objects.issue(make_user(), "ci")
    assert ApiToken.objects.authenticate(f"wslab_{token.prefix}_{'A' * 43}") is None


def test_an_expired_token_and_one_of_an_inactive_user_open_nothing() -> None:
    user = make_user()
    token, text = ApiToken.objects.issue(user, "ci", timedelta(hours=1))
    assert ApiToken.objects.authenticate(text) == token
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert ApiToken.objects.authenticate(text) is None
    ApiToken.objects.update(expires_at=None)
    User.objects.update(is_active=False)
    assert ApiToken.objects.authenticate(text) is None


def test_the_last_use_is_noted_to_the_minute() -> None:
    token, text = ApiToken.objects.issue(make_user(), "ci")
    ApiToken.objects.authenticate(text)
    token.refresh_from_db()
    first = token.last_used_at
    assert first is not None
    ApiToken.objects.authenticate(text)
    token.refresh_from_db()
    assert token.last_used_at == first
    ApiToken.objects.update(last_used_at=first - timedelta(minutes=2))
    ApiToken.objects.authenticate(text)
    token.refresh_from_db()
    assert token.last_used_at is not None
    assert token.last_used_at >= first


def test_the_first_admin_is_made_once_with_a_password_that_works() -> None:
    first = _said("ensure_admin", "--json")
    assert first["username"] == "admin"
    assert User.objects.get(username="admin").check_password(first["password"])
    assert len(first["password"]) >= 20
    assert _said("ensure_admin", "--username", "other", "--json") == {"username": "admin", "password": None}
    assert User.objects.count() == 1


def test_issue_token_prints_a_token_that_works() -> None:
    make_user("ada")
    out = io.StringIO()
    call_command("issue_token", "--username", "ada", "--name", "ci", "--hours", "2", stdout=out)
    token = ApiToken.objects.authenticate(out.getvalue().strip())
    assert token is not None
    assert token.name == "ci"
    assert token.expires_at is not None
    assert timedelta(hours=1.9) < token.expires_at - timezone.now() <= timedelta(hours=2)


def test_issue_token_names_what_is_wrong() -> None:
    with pytest.raises(CommandError, match=r"no active user 'nobody'.*ensure_admin"):
        call_command("issue_token", "--username", "nobody", "--name", "ci")
    make_user("ada")
    with pytest.raises(CommandError, match="--hours -1: wanted more than 0"):
        call_command("issue_token", "--username", "ada", "--name", "ci", "--hours", "-1")


@pytest.mark.parametrize(
    ("options", "scope"), [((), "run"), (("--scope", "read"), "read"), (("--scope", "admin"), "admin")]
)
def test_issue_token_gives_the_scope_that_is_asked_for(options: tuple[str, ...], scope: str) -> None:
    make_user("ada")
    call_command("issue_token", "--username", "ada", "--name", "ci", *options, stdout=io.StringIO())
    assert ApiToken.objects.get().scope == scope


def test_a_kept_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    make_user("ada")
    file = tmp_path / "token"
    text = keep_token(file, "ada", "stack")
    assert file.read_text() == text + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert keep_token(file, "ada", "stack") == text
    ApiToken.objects.all().delete()
    assert keep_token(file, "ada", "stack") != text
    assert ApiToken.objects.count() == 1


def test_bootstrap_does_everything_and_can_be_repeated(tmp_path: Path) -> None:
    file = tmp_path / "token"
    first = _said("bootstrap", "--json", "--token-file", str(file), verbosity=0)
    assert first["username"] == "admin"
    assert first["password"]
    assert {"basic", "idle", "smoke", "stress", "stress_reachable"} <= set(first["scenarios"])
    assert first["token_file"] == str(file)
    token = ApiToken.objects.authenticate(file.read_text().strip())
    assert token is not None
    assert token.user.username == "admin"
    again = _said("bootstrap", "--json", "--token-file", str(file), verbosity=0)
    assert again["password"] is None
    assert ApiToken.objects.count() == 1


def test_a_token_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"--token-file .*missing/token: No such file"):
        call_command("bootstrap", "--token-file", str(tmp_path / "missing" / "token"), verbosity=0)


def _said(command: str, *arguments: str, **options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command(command, *arguments, stdout=out, **options)
    said: dict[str, Any] = json.loads(out.getvalue())
    return said

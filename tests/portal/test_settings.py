"""Settings: what is in force, and that a bad variable is named with its value and what was wanted."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).parents[2]
SHOW = """
import json, sys
from portal.config import settings
print(json.dumps({name: str(getattr(settings, name)) for name in sys.argv[1:]}))
"""


def load(folder: Path, *names: str, **variables: str) -> tuple[dict[str, str], str]:
    """Settings of a fresh process, or the last line of its complaint."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("WSLAB_", "DATABASE_", "GRAFANA_"))
    }
    environment |= {"WSLAB_STATE": str(folder / "state"), **variables}
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *names],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        return {}, done.stderr.strip().splitlines()[-1]
    shown: dict[str, str] = json.loads(done.stdout)
    return shown, ""


@pytest.mark.django_db
def test_sqlite_is_in_wal_with_full_sync_and_immediate_transactions() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("not SQLite")
    with connection.cursor() as cursor:
        values = [cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        assert values == ["wal", 2]
        assert cursor.execute("PRAGMA busy_timeout").fetchone()[0] == 20_000
    assert connection.transaction_mode == "IMMEDIATE"


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("WSLAB_DEBUG", "maybe", "WSLAB_DEBUG='maybe': wanted 1 or 0"),
        ("WSLAB_PORTAL_URL", "lab.example.org", "wanted a URL that begins with http:// or https://"),
        ("WSLAB_PORTAL_URL", "http://lab:99999", "Port out of range"),
        ("GRAFANA_URL", "ftp://lab", "GRAFANA_URL='ftp://lab': wanted a URL that begins with http:// or https://"),
        ("WSLAB_BROKER_URL", "amqp://lab", "wanted a URL that begins with redis:// or rediss:// or redis+socket://"),
        ("WSLAB_BROKER_URL", "amqp://u:secret@lab", "WSLAB_BROKER_URL='amqp://…@lab': wanted a URL that begins"),
        ("WSLAB_BROKER_URL", "redis://u:secret@lab:x", "WSLAB_BROKER_URL='redis://…@lab:x': wanted a URL (Port could"),
        ("DATABASE_URL", "mysql://u:secret@lab/x", "DATABASE_URL='lab/x': wanted postgres://USER:PASSWORD@HOST/NAME"),
        ("WSLAB_STATE", "relative/folder", "WSLAB_STATE='relative/folder': wanted an absolute path"),
        ("WSLAB_STATE", "/proc/nowhere", "wanted a folder that this user can make and write to"),
        ("WSLAB_ALLOWED_HOSTS", "a, http://b", "wanted host names separated by commas"),
        ("WSLAB_SECRET_KEY", "short", "WSLAB_SECRET_KEY='sh… (5 characters)': wanted at least 32 random characters"),
    ],
)
def test_a_bad_variable_is_named_with_its_value_and_what_was_wanted(
    tmp_path: Path, variable: str, value: str, wanted: str
) -> None:
    _, complaint = load(tmp_path, "DEBUG", **{variable: value})
    assert complaint.startswith("django.core.exceptions.ImproperlyConfigured: ")
    assert variable in complaint
    assert wanted in complaint
    assert "secret" not in complaint


def test_the_secret_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    first, _ = load(tmp_path, "SECRET_KEY", "DEBUG")
    file = tmp_path / "state" / "secret_key"
    assert file.read_text() == first["SECRET_KEY"]
    assert len(first["SECRET_KEY"]) >= 50
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in file.parent.iterdir()] == ["secret_key"]
    assert load(tmp_path, "SECRET_KEY")[0]["SECRET_KEY"] == first["SECRET_KEY"]
    assert first["DEBUG"] == "False"


def test_a_portal_on_https_sends_its_cookies_nowhere_else(tmp_path: Path) -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "CSRF_TRUSTED_ORIGINS", "ALLOWED_HOSTS", "PORTAL_URL")
    shown, _ = load(tmp_path, *names, WSLAB_PORTAL_URL="https://lab.example.org/")
    assert shown["SESSION_COOKIE_SECURE"] == shown["CSRF_COOKIE_SECURE"] == "True"
    assert shown["CSRF_TRUSTED_ORIGINS"] == "['https://lab.example.org']"
    assert "lab.example.org" in shown["ALLOWED_HOSTS"]
    assert shown["PORTAL_URL"] == "https://lab.example.org"
    plain, _ = load(tmp_path, *names, WSLAB_PORTAL_URL="http://127.0.0.1:8000")
    assert plain["SESSION_COOKIE_SECURE"] == "False"


def test_a_proxys_headers_are_believed_only_where_there_is_one(tmp_path: Path) -> None:
    names = ("SECURE_PROXY_SSL_HEADER", "MIDDLEWARE")
    plain, _ = load(tmp_path, *names)
    assert plain["SECURE_PROXY_SSL_HEADER"] == "None"
    assert "proxy" not in plain["MIDDLEWARE"]
    shown, _ = load(tmp_path, *names, WSLAB_BEHIND_PROXY="1")
    assert shown["SECURE_PROXY_SSL_HEADER"] == "('HTTP_X_FORWARDED_PROTO', 'https')"
    assert shown["MIDDLEWARE"].startswith("['portal.config.proxy.client_address', ")
    assert load(tmp_path, *names, WSLAB_BEHIND_PROXY="yes?")[1].endswith("WSLAB_BEHIND_PROXY='yes?': wanted 1 or 0")


def test_allowed_hosts_are_added_to_those_of_this_machine(tmp_path: Path) -> None:
    shown, _ = load(tmp_path, "ALLOWED_HOSTS", WSLAB_ALLOWED_HOSTS="lab.example.org, lab")
    assert shown["ALLOWED_HOSTS"] == str(["127.0.0.1", "localhost", "[::1]", "127.0.0.1", "lab.example.org", "lab"])


def test_two_portals_on_one_machine_do_not_share_their_cookies(tmp_path: Path) -> None:
    names = ("SESSION_COOKIE_NAME", "CSRF_COOKIE_NAME")
    shown, _ = load(tmp_path, *names, WSLAB_PORTAL_URL="http://127.0.0.1:8001")
    assert shown == {"SESSION_COOKIE_NAME": "wslab_session_8001", "CSRF_COOKIE_NAME": "wslab_csrf_8001"}
    shown, _ = load(tmp_path, *names, WSLAB_PORTAL_URL="https://lab.example.org")
    assert shown == {"SESSION_COOKIE_NAME": "wslab_session", "CSRF_COOKIE_NAME": "wslab_csrf"}


def test_postgresql_is_chosen_by_url_and_a_path_with_spaces_serves_sqlite(tmp_path: Path) -> None:
    shown, _ = load(tmp_path, "DATABASES", DATABASE_URL="postgres://wslab:pw@db:5433/lab")
    assert "django.db.backends.postgresql" in shown["DATABASES"]
    assert "'PORT': 5433" in shown["DATABASES"]
    assert "IMMEDIATE" not in shown["DATABASES"]
    spaced, _ = load(tmp_path / "a folder with % and spaces", "DATABASES")
    assert f"'NAME': '{tmp_path}/a folder with % and spaces/state/portal.sqlite3'" in spaced["DATABASES"]


def test_log_records_are_one_line_each() -> None:
    code = (
        "import django; django.setup(); import logging; log = logging.getLogger('x');"
        "log.warning('one\\ntwo\\x1b]0;x\\u2028'); \ntry: 1 / 0\nexcept ZeroDivisionError: log.exception('three')"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "portal.config.settings"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    first, second = done.stdout.splitlines()
    assert first.endswith("Z WARNING x: one\\ntwo\\x1b]0;x\\u2028")
    assert "ERROR x: three\\nTraceback" in second
    assert done.stderr == ""

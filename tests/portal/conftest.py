"""A real SQLite file instead of Django's in-memory one, so that WAL, locks and several connections behave as in use;
a broker that keeps its messages in this process; a lab of this test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection, connections
from kombu.transport.memory import Channel

from portal.config.celery import app

LAB: dict[str, Any] = {
    "schema_version": 3,
    "lab": "local",
    "machine": "this-machine",
    "hosts": [
        {
            "name": "server",
            "role": "server",
            "transport": "local",
            "address": "127.0.0.1",
            "port": None,
            "user": None,
            "host_keys": [],
            "proxy_jump": None,
            "socket": "/nowhere/agent-server.sock",
            "metrics_ports": {"wsnode-server": 19091, "wsnode-agent": 19094, "node": 19100},
            "ws_url": "ws://127.0.0.1:13000",
        },
        *(
            {
                "name": f"load-{n}",
                "role": "load_generator",
                "transport": "local",
                "address": "127.0.0.1",
                "port": None,
                "user": None,
                "host_keys": [],
                "proxy_jump": None,
                "socket": f"/nowhere/agent-load-{n}.sock",
                "metrics_ports": {"wsnode-agent": 19091 + n},
                "ws_url": None,
            }
            for n in (1, 2)
        ),
    ],
    "targets": [],
    "prometheus_url": None,
    "grafana_url": None,
}


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    for one in connections.all():
        if one.vendor == "sqlite":
            one.settings_dict["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Without the trigger that keeps the audit log from being emptied: between tests the tables are."""
    on = "" if connection.vendor == "sqlite" else " ON accounts_auditentry"
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER IF EXISTS accounts_auditentry_no_delete{on}")


@pytest.fixture(scope="session", autouse=True)
def _own_broker() -> None:
    """Set once and for all: nothing in a test process may reach somebody's Redis."""
    app.conf.update(broker_url="memory://", broker_write_url="memory://", broker_read_url="memory://")


@pytest.fixture(autouse=True)
def _empty_places(settings: Any) -> None:
    """No message, no count of requests left over from the test before; passwords hashed fast."""
    Channel.queues.clear()
    cache.clear()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def lab_file(tmp_path: Path, settings: Any) -> Path:
    """The lab of this test: a server and two load generators that are not there."""
    file = tmp_path / "lab.json"
    file.write_text(json.dumps(LAB))
    settings.LAB_FILE = file
    settings.LOCK_FOLDER = tmp_path
    settings.GRAFANA_URL = None
    settings.PORTAL_URL = "http://127.0.0.1:8000"
    return file

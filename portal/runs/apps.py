"""The app of runs."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class RunsConfig(AppConfig):
    name = "portal.runs"
    label = "runs"

    def ready(self) -> None:
        post_migrate.connect(_know_the_tables, sender=self)


def _know_the_tables(*, using: str, **_: Any) -> None:
    """SQLite chooses an index by what it once found in the tables, and looks only when it is told to; at each start of
    a stack is often enough. PostgreSQL looks by itself."""
    connection = connections[using]
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA analysis_limit=1000")
            cursor.execute("ANALYZE")

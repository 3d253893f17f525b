"""`/healthz`: whether the portal can do its work."""

from __future__ import annotations

import logging

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from portal.accounts.roles import anyone
from portal.config.celery import app

log = logging.getLogger("portal.health")


@anyone
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 `ok` when database and broker answer, else 503 with the one that does not.

    Anybody may ask, so that addresses and user names in the reason are for the log.
    """
    faults = [fault for fault in (_database(), _broker()) if fault]
    return HttpResponse("\n".join(faults or ["ok"]) + "\n", "text/plain", 503 if faults else 200)


def _database() -> str | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        log.warning("the database does not answer: %s", error)
        return "database: does not answer"
    return None


def _broker() -> str | None:
    with app.connection_for_write(connect_timeout=2) as broker:
        try:
            # Opening a channel to Redis pings it.
            broker.channel()
        except (*broker.connection_errors, *broker.channel_errors, OSError) as error:
            log.warning("the broker does not answer: %s", error)
            return "broker: does not answer"
    return None

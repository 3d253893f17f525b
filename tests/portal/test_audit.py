"""The audit log: what is in it stays as it is."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction
from django.test import Client

from portal.accounts.audit import AppendOnly, record
from portal.accounts.models import ApiToken, AuditEntry
from portal.runs.models import Run
from tests.portal.factories import make_run, make_scenario, make_user

pytestmark = pytest.mark.django_db
triggers = importlib.import_module("portal.accounts.migrations.0004_append_only")


def test_an_entry_tells_who_did_what_to_what() -> None:
    ada = make_user("ada")
    run = make_run(ada, pk="r-one")
    entry = record(ada, "starred", run, "for the release")
    assert (entry.user, entry.verb, entry.kind, entry.key) == (ada, "starred", "run", "r-one")
    assert (entry.label, entry.detail, entry.token) == ("r-one (smoke, queued)", "for the release", "")
    assert record(None, "deleted", run).user is None


def test_an_entry_keeps_the_name_of_what_is_gone() -> None:
    run = make_run(make_user(), pk="r-gone")
    record(None, "deleted", run)
    run.delete()
    assert AuditEntry.objects.get().label == "r-gone (smoke, queued)"


def test_the_model_refuses_to_change_and_to_delete() -> None:
    entry = record(None, "deleted", make_run(make_user()))
    entry.verb = "blessed"
    with pytest.raises(AppendOnly, match="never changed"):
        entry.save()
    with pytest.raises(AppendOnly, match="never deleted"):
        entry.delete()
    with pytest.raises(AppendOnly, match="never changed"):
        AuditEntry.objects.filter(pk=entry.pk).update(verb="blessed")
    with pytest.raises(AppendOnly, match="never deleted"):
        AuditEntry.objects.all().delete()
    assert AuditEntry.objects.get().verb == "deleted"


@pytest.mark.parametrize("statement", ["UPDATE accounts_auditentry SET verb = 'x'", "DELETE FROM accounts_auditentry"])
def test_the_database_refuses_too(statement: str) -> None:
    # As the migration leaves them; for the other tests one is taken off.
    editor = connection.schema_editor()
    triggers.unguard(apps, editor)
    triggers.guard(apps, editor)
    record(None, "deleted", make_run(make_user()))
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEntry.objects.get().verb == "deleted"


def test_a_run_that_is_queued_and_cancelled_leaves_two_entries_with_the_token(client: Client) -> None:
    ada = make_user("ada")
    make_scenario()
    token, text = ApiToken.objects.issue(ada, "ci")
    headers = {"authorization": f"Bearer {text}"}
    client.post("/api/v1/runs", {"scenario": "smoke"}, content_type="application/json", headers=headers)
    run = Run.objects.get()
    client.force_login(ada)
    client.post(f"/runs/{run.pk}/cancel")
    client.post(f"/runs/{run.pk}/cancel")  # it is over: nothing happens, nothing is noted
    rows: list[Any] = list(AuditEntry.objects.order_by("id").values_list("verb", "key", "user__username", "token"))
    assert rows == [("queued", run.pk, "ada", str(token)), ("cancelled", run.pk, "ada", "")]

"""Which database the tests run on, and what it has to have."""

from __future__ import annotations

import os

import pytest
from django.db import connection

from portal.runs.models import Run
from tests.portal.factories import make_finished, make_user

VENDOR = "WSLAB_TEST_DATABASE"
pytestmark = pytest.mark.django_db


def test_the_database_is_the_one_that_was_asked_for() -> None:
    assert connection.vendor == os.environ.get(VENDOR, "sqlite")


def test_the_tables_have_every_index_that_the_models_name() -> None:
    with connection.cursor() as cursor:
        for model in (
            Run,
            Run._meta.get_field("summary").related_model,
            Run._meta.get_field("environments").related_model,
        ):
            there = connection.introspection.get_constraints(cursor, model._meta.db_table)
            assert {index.name for index in model._meta.indexes} <= there.keys()


def test_a_result_comes_back_as_it_was_kept() -> None:
    run = make_finished(make_user("ada"), load={"lose_every": 50})
    kept = Run.objects.get(pk=run.pk)
    assert kept.summary.content == run.summary.content
    assert kept.summary.figures["response_time.p99"] is None
    assert kept.archive.data["run_id"] == run.pk

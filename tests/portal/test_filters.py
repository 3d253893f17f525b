"""Choosing runs by an address."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from portal.accounts.models import User
from portal.runs.filters import FILTERS, ORDERS, Chosen, choices, distinct, versions_of
from portal.runs.models import Environment, Note, Run, RunGroup, Tag
from portal.runs.states import State
from tests.portal.factories import SMOKE, make_finished, make_run, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    return make_user("ada")


def found(**parameters: str) -> set[str]:
    return set(Chosen.of(parameters).runs().values_list("pk", flat=True))


@pytest.fixture
def two(ada: User) -> tuple[Run, Run]:
    """Two runs that differ in everything that one can choose by."""
    one = make_finished(
        ada,
        subject_name="echo",
        subject_version="1.4.2",
        engine="lean",
        starred=True,
        created_at=datetime(2026, 11, 3, 23, 59, tzinfo=UTC),
    )
    one.tags.add(Tag.objects.create(name="release"))
    RunGroup.objects.create(id="g-one", title="ten times", kind="repeat", created_by=ada)
    Run.objects.filter(pk=one.pk).update(group="g-one")
    other = make_run(
        make_user("grace"),
        State.FAILED,
        SMOKE.model_copy(update={"name": "basic"}),
        subject_name="gateway",
        subject_version="2.0",
        created_at=datetime(2026, 11, 4, tzinfo=UTC),
    )
    Environment.objects.create(run=other, host="elsewhere", role="server")
    return one, other


@pytest.mark.parametrize(
    "parameters",
    [
        {"scenario": "smoke"},
        {"subject": "echo"},
        {"version": "1.4.2"},
        {"state": "finished"},
        {"verdict": "passed"},
        {"validity": "valid"},
        {"tag": "release"},
        {"author": "ada"},
        {"host": "load-1"},
        {"engine": "lean"},
        {"from": "2026-11-03", "to": "2026-11-03"},
        {"to": "2026-11-03"},
        {"group": "g-one"},
        {"starred": "yes"},
    ],
    ids=" ".join,
)
def test_each_filter_finds_what_it_names_and_nothing_else(two: tuple[Run, Run], parameters: Mapping[str, str]) -> None:
    assert found(**parameters) == {two[0].pk}


@pytest.mark.parametrize(
    ("parameters", "which"),
    [
        ({"from": "2026-11-04"}, {1}),
        ({"starred": "no"}, {1}),
        ({"host": "elsewhere"}, {1}),
        ({"state": "active"}, set()),
        ({"scenario": "smoke", "author": "grace"}, set()),
        ({"from": "yesterday"}, set()),
        ({"scenario": "  smoke "}, {0}),
        ({"scenario": "", "unknown": "x"}, {0, 1}),
    ],
    ids=str,
)
def test_filters_add_up_and_words_that_mean_nothing_find_nothing(
    two: tuple[Run, Run], parameters: Mapping[str, str], which: set[int]
) -> None:
    assert found(**parameters) == {two[n].pk for n in which}


@pytest.mark.parametrize(
    ("words", "hit"),
    [
        ("FIX", True),
        ("fix smoke", True),
        ("fix basic", False),
        ("café", True),
        ("noisy", True),
        ("1.4", True),
        ("%", False),
        ("_", False),
    ],
)
def test_each_word_is_looked_for_in_names_reason_and_notes(ada: User, words: str, hit: bool) -> None:
    run = make_run(ada, State.FAILED, subject_name="echo", subject_version="1.4.2", reason="is the Fix for café there?")
    make_run(ada, State.FAILED, SMOKE.model_copy(update={"name": "basic"}))
    Note.objects.create(run=run, author=ada, text="A *noisy* neighbour")
    assert found(q=words) == ({run.pk} if hit else set())
    assert found(q=run.pk.upper()) == {run.pk}


def test_a_note_that_mentions_a_word_twice_does_not_show_its_run_twice(ada: User) -> None:
    run = make_run(ada, State.FAILED)
    for text in ("slow", "slow again"):
        Note.objects.create(run=run, author=ada, text=text)
    assert list(Chosen.of({"q": "slow"}).runs().values_list("pk", flat=True)) == [run.pk]


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_names_each_run_once_either_way(ada: User, name: str) -> None:
    runs = {make_finished(ada).pk, make_run(ada, State.FAILED).pk, make_run(ada).pk}
    for sort in (name, f"-{name}"):
        keys = list(Chosen.of({"sort": sort}).runs().values_list("pk", flat=True))
        assert (set(keys), len(keys)) == (runs, 3)


@given(st.dictionaries(st.sampled_from([*(f.name for f in FILTERS), "q", "sort", "x"]), st.text(max_size=30)))
def test_a_permalink_asks_for_what_it_was_made_of(parameters: dict[str, str]) -> None:
    from django.http import QueryDict

    chosen = Chosen.of(parameters)
    again = Chosen.of(QueryDict(chosen.query()))
    assert (again.values, again.search, again.sort) == (dict(chosen.values), chosen.search, chosen.sort)


def test_what_is_offered_is_what_the_runs_have(two: tuple[Run, Run]) -> None:
    offered = {choice.name: choice.values for choice in choices(Chosen.of({}))}
    assert offered["scenario"] == ["basic", "smoke"]
    assert offered["subject"] == ["echo", "gateway"]
    assert offered["tag"] == ["release"]
    assert offered["author"] == ["ada", "grace"]
    assert offered["host"] == ["elsewhere", "load-1", "load-2", "server"]
    assert offered["engine"] == ["lean"]


def test_what_was_asked_for_stays_offered_though_no_run_has_it(ada: User) -> None:
    offered = {choice.name: choice for choice in choices(Chosen.of({"engine": "gone"}))}
    assert (offered["engine"].values, offered["engine"].chosen) == (["gone"], "gone")


def test_distinct_values_take_one_query_and_leave_the_empty_one_out(ada: User) -> None:
    for name in ("b", "a", "b", ""):
        make_run(ada, State.FAILED, subject_name=name)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert distinct(Run, "subject_name") == ["a", "b"]
    assert len(asked) == 1


def test_versions_come_with_the_last_run_first(ada: User) -> None:
    for day, version in ((1, "1.0"), (2, "1.1"), (3, "1.0"), (4, "")):
        at = datetime(2026, 11, day, tzinfo=UTC)
        make_run(ada, State.FAILED, subject_name="echo", subject_version=version, created_at=at)
    assert versions_of("echo") == ["1.0", "1.1"]
    assert versions_of("other") == []

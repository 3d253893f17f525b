"""What a tick makes of a schedule whose date has come."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from portal.accounts.models import AuditEntry, User
from portal.runs.models import DeclaredSubject, NamedScenario, Run
from portal.runs.states import State
from portal.runs.tasks import tick
from portal.schedules.dates import MOST_COUNTED
from portal.schedules.firing import fire, fire_due
from portal.schedules.models import Firing, Schedule, new_group
from tests.portal.factories import make_run, make_scenario, make_user

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 24, 12, 0, 3, tzinfo=UTC)
DUE = NOW.replace(second=0)
HOUR = timedelta(hours=1)


def make_schedule(owner: User, next_at: datetime | None = DUE, **fields: Any) -> Schedule:
    fields.setdefault("title", "nightly")
    fields.setdefault("scenario_name", "smoke")
    if "once_at" not in fields:
        fields.setdefault("cron", "0 * * * *")
    group = new_group(title=fields["title"], created_by=owner)
    group.save()
    return Schedule.objects.create(owner=owner, group=group, next_at=next_at, **fields)


@pytest.fixture
def ada() -> User:
    make_scenario()
    return make_user("ada")


def test_a_date_that_has_come_queues_one_run_in_the_schedules_group(ada: User) -> None:
    schedule = make_schedule(ada, reason="watch the night build", tags="nightly main")
    (firing,) = fire_due(NOW)
    run = Run.objects.get()
    assert (firing.outcome, firing.due_at, firing.run) == ("queued", DUE, run)
    assert (run.origin, run.group, run.group_place, run.created_by) == ("schedule", schedule.group, 1, ada)
    assert (run.reason, [tag.name for tag in run.tags.all()]) == ("watch the night build", ["main", "nightly"])
    assert (run.subject_name, run.subject_source) == ("wsnode", "own")
    schedule.refresh_from_db()
    assert schedule.next_at == DUE + HOUR
    assert AuditEntry.objects.get().verb == "queued"


def test_a_place_in_the_group_is_given_once_though_runs_expire(ada: User) -> None:
    schedule = make_schedule(ada)
    for place in (1, 2, 3):
        make_run(ada, State.FINISHED, group=schedule.group, group_place=place)
    Run.objects.filter(group_place__lt=3).delete()
    (firing,) = fire_due(NOW)
    assert firing.run is not None
    assert firing.run.group_place == 4


def test_before_its_date_nothing_is_queued_and_after_it_nothing_twice(ada: User) -> None:
    make_schedule(ada)
    assert fire_due(DUE - timedelta(seconds=1)) == []
    assert len(fire_due(NOW)) == 1
    assert fire_due(NOW) == []
    assert Run.objects.count() == 1


def test_a_paused_schedule_and_one_that_is_over_queue_nothing(ada: User) -> None:
    make_schedule(ada, None, paused=True)
    make_schedule(ada, None, once_at=DUE)
    assert fire_due(NOW) == []


def test_a_single_date_is_the_only_one(ada: User) -> None:
    schedule = make_schedule(ada, once_at=DUE)
    assert [firing.outcome for firing in fire_due(NOW)] == ["queued"]
    schedule.refresh_from_db()
    assert (schedule.next_at, schedule.is_done) == (None, True)


def test_the_subject_is_given_or_declared(ada: User) -> None:
    DeclaredSubject.objects.create(name="shop", url="http://127.0.0.1:1/version")
    make_schedule(ada, subject_name="shop")
    make_schedule(ada, subject_name="cart", subject_version="2.1")
    fire_due(NOW)
    told = set(Run.objects.values_list("subject_name", "subject_version", "subject_source"))
    assert told == {("shop", "", "probed"), ("cart", "2.1", "given")}


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_while_the_run_before_goes_on_a_date_is_skipped(ada: User, state: State) -> None:
    schedule = make_schedule(ada)
    before = make_run(ada, state, group=schedule.group, group_place=1)
    (firing,) = fire_due(NOW)
    assert (firing.outcome, firing.run) == ("overlap", None)
    assert firing.text == f"run {before.pk} was not over: it was {state.value}"
    schedule.refresh_from_db()
    assert schedule.next_at == DUE + HOUR


def test_what_others_run_is_no_overlap(ada: User) -> None:
    make_schedule(ada)
    make_run(ada, State.RUNNING)
    assert [firing.outcome for firing in fire_due(NOW)] == ["queued"]


@pytest.mark.parametrize(
    ("rule", "outcome", "runs", "text"),
    [
        ("skip", "missed", 0, "the portal was down: 3 dates were skipped"),
        ("run_once", "late", 1, "1800 s late: the portal was down; 2 dates were skipped before it"),
    ],
)
def test_missed_dates_are_skipped_or_made_up_for_by_one_run(
    ada: User, rule: str, outcome: str, runs: int, text: str
) -> None:
    schedule = make_schedule(ada, DUE - 2 * HOUR, missed=rule)
    (firing,) = fire_due(DUE + HOUR / 2)
    assert (firing.outcome, firing.text, Run.objects.count()) == (outcome, text, runs)
    schedule.refresh_from_db()
    assert schedule.next_at == DUE + HOUR


def test_very_many_missed_dates_are_said_to_be_many(ada: User) -> None:
    make_schedule(ada, DUE - timedelta(days=60), missed="skip")
    (firing,) = fire_due(DUE + HOUR / 2)
    assert firing.text == f"the portal was down: {MOST_COUNTED} or more dates were skipped"


def test_a_scenario_that_is_gone_is_a_failure_and_the_next_date_comes(ada: User) -> None:
    schedule = make_schedule(ada)
    NamedScenario.objects.all().delete()
    (firing,) = fire_due(NOW)
    assert firing.outcome == "failed"
    assert firing.text.startswith("scenario: 'smoke' is not known")
    make_scenario()
    assert [one.outcome for one in fire_due(NOW + HOUR)] == ["queued"]
    assert schedule.firings.count() == 2


def test_a_lab_that_is_missing_is_a_failure(ada: User, lab_file: Path) -> None:
    make_schedule(ada)
    lab_file.unlink()
    (firing,) = fire_due(NOW)
    assert firing.outcome == "failed"
    assert firing.text.startswith(f"lab: {lab_file}")


@pytest.mark.parametrize(
    ("fields", "why"), [({"is_active": False}, "was deactivated"), ({"role": "viewer"}, "is a viewer now")]
)
def test_who_may_start_no_runs_has_none_started(ada: User, fields: dict[str, Any], why: str) -> None:
    make_schedule(ada)
    User.objects.update(**fields)
    (firing,) = fire_due(NOW)
    assert (firing.outcome, Run.objects.count()) == ("failed", 0)
    assert firing.text == f"ada, in whose name it runs, {why}: save it anew to take it over"


def test_one_that_breaks_down_keeps_the_others_not_from_their_dates(
    ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make_schedule(ada, zone="Mars/Olympus")
    make_schedule(ada)
    assert len(fire_due(NOW)) == 1
    assert f"schedule {broken.pk} broke down" in caplog.text


def test_the_tick_fires_schedules(ada: User) -> None:
    make_schedule(ada, timezone.now() - timedelta(seconds=1))
    tick()
    assert Firing.objects.get().outcome == "queued"


def test_who_comes_second_leaves(ada: User) -> None:
    schedule = make_schedule(ada)
    other = Schedule.objects.get()
    assert fire(schedule, NOW) is not None
    assert fire(other, NOW) is None
    assert Run.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_ticks_at_the_same_moment_queue_one_run() -> None:
    make_scenario()
    make_schedule(make_user("ada"))
    together = threading.Barrier(4)
    fired: list[Firing] = []

    def one_tick() -> None:
        seen = Schedule.objects.select_related("owner", "group").get()
        together.wait()
        found = fire(seen, NOW)
        if found is not None:
            fired.append(found)
        connections.close_all()

    threads = [threading.Thread(target=one_tick) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(fired), Run.objects.count(), Firing.objects.count()) == (1, 1, 1)
    assert connection.in_atomic_block is False

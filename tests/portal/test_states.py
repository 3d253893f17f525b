"""The state machine of a run: a table of steps, each one conditional UPDATE."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from portal.accounts.models import User
from portal.runs.models import Run
from portal.runs.states import ACTIVE, OVER, STEPS, State, way
from tests.portal.factories import NOW, make_run, make_user

pytestmark = pytest.mark.django_db
LEASE = timedelta(seconds=20)

LEGAL = {
    ("queued", "preflight"), ("queued", "cancelled"), ("queued", "failed"),
    ("preflight", "preparing"), ("preparing", "running"), ("running", "collecting"), ("collecting", "judging"),
    ("judging", "finished"),
    *itertools.product(("preflight", "preparing", "running", "collecting", "judging"), ("failed", "cancelled", "lost")),
}  # fmt: skip


@pytest.fixture
def user() -> User:
    return make_user()


@pytest.mark.parametrize(("begin", "end"), list(itertools.product(State, State)))
def test_exactly_the_steps_of_the_design_can_be_made(user: User, begin: State, end: State) -> None:
    run = make_run(user, begin)
    before = Run.objects.values().get()
    if (begin.value, end.value) not in LEGAL:
        with pytest.raises(ValueError, match=f"no step from {begin.value} to {end.value}"):
            run.step(end)
        assert Run.objects.values().get() == before
        return
    assert run.step(end, "because")
    stored = Run.objects.get()
    assert (stored.state, stored.state_reason) == (run.state, run.state_reason) == (end.value, "because")
    stamp = "finished_at" if end in OVER else f"{end.value}_at"
    assert getattr(stored, stamp) is not None
    assert stored.is_over == (end in OVER)
    assert (stored.lease_until is None) or end not in OVER


def test_a_run_that_is_over_has_no_steps() -> None:
    assert all(STEPS[state] == frozenset() for state in OVER)
    assert set(STEPS) == set(State)


@pytest.mark.parametrize(
    ("begin", "end", "steps"),
    [
        (State.PREPARING, State.COLLECTING, (State.RUNNING, State.COLLECTING)),
        (State.RUNNING, State.COLLECTING, (State.COLLECTING,)),
        (State.RUNNING, State.RUNNING, ()),
        (State.JUDGING, State.COLLECTING, ()),
        (State.QUEUED, State.RUNNING, ()),
        (State.RUNNING, State.FINISHED, ()),
    ],
)
def test_the_way_between_active_states_goes_forward_only(begin: State, end: State, steps: tuple[State, ...]) -> None:
    assert way(begin, end) == steps


@pytest.mark.parametrize("other", [{"epoch": 7}, {"state": State.FAILED}])
def test_who_comes_second_changes_nothing(user: User, other: dict[str, object]) -> None:
    run = make_run(user, State.PREPARING)
    Run.objects.update(**other)
    before = Run.objects.values().get()
    assert not run.step(State.RUNNING)
    assert not run.renew(LEASE, last_second=3)
    assert run.state == State.PREPARING
    assert Run.objects.values().get() == before


def test_a_claim_raises_the_epoch_and_begins_the_lease(user: User) -> None:
    run = make_run(user)
    assert run.claim("here:1", LEASE)
    stored = Run.objects.get()
    assert (stored.state, stored.epoch, stored.conductor) == (State.PREFLIGHT, 1, "here:1")
    assert stored.preflight_at is not None
    assert stored.lease_until is not None
    assert timedelta(0) < stored.lease_until - timezone.now() <= LEASE


def test_of_two_claims_one_succeeds(user: User) -> None:
    make_run(user)
    first, second = Run.objects.get(), Run.objects.get()
    assert first.claim("a:1", LEASE)
    assert not second.claim("b:2", LEASE)
    assert Run.objects.get().conductor == "a:1"
    assert Run.objects.get().epoch == 1


def test_the_line_is_first_come_first_served(user: User) -> None:
    late = make_run(user, created_at=NOW + timedelta(seconds=2))
    early = make_run(user, created_at=NOW)
    elsewhere = make_run(user, created_at=NOW + timedelta(seconds=9), machine="other")
    assert set(Run.objects.next_in_line()) == {early, elsewhere}
    assert not late.claim("a:1", LEASE)
    assert early.claim("a:1", LEASE)
    assert not late.claim("a:1", LEASE)
    assert elsewhere.claim("b:1", LEASE)
    assert Run.objects.active().count() == 2
    for state in (State.PREPARING, State.RUNNING, State.COLLECTING, State.JUDGING, State.FINISHED):
        assert early.step(state)
    assert late.claim("a:1", LEASE)


def test_two_runs_of_the_same_moment_are_ordered_by_id(user: User) -> None:
    for name in ("r-b", "r-a", "r-c"):
        make_run(user, id=name)
    assert [run.pk for run in Run.objects.next_in_line()] == ["r-a"]


def test_the_database_itself_refuses_a_second_active_run_on_a_machine(user: User) -> None:
    make_run(user, State.RUNNING)
    with pytest.raises(IntegrityError), transaction.atomic():
        make_run(user, State.PREFLIGHT)
    make_run(user, State.PREFLIGHT, machine="other")


def test_only_a_lapsed_lease_lets_another_conductor_in(user: User) -> None:
    run = make_run(user, State.RUNNING, lease_until=timezone.now() + LEASE, epoch=3)
    assert not run.claim("b:2", LEASE)
    Run.objects.update(lease_until=timezone.now() - timedelta(milliseconds=1))
    assert list(Run.objects.abandoned(timezone.now())) == [run]
    stale = Run.objects.get()
    assert run.claim("b:2", LEASE)
    assert (run.epoch, run.state, run.takeovers) == (4, State.RUNNING, 1)
    assert not stale.claim("c:3", LEASE)
    assert not stale.step(State.COLLECTING)
    assert not stale.renew(LEASE)
    assert list(Run.objects.abandoned(timezone.now())) == []


@pytest.mark.parametrize("state", OVER)
def test_what_is_over_is_never_claimed_nor_renewed(user: User, state: State) -> None:
    run = make_run(user, state)
    assert not run.claim("a:1", LEASE)
    assert not run.renew(LEASE)
    assert not run.request_cancel(user)
    assert Run.objects.get().state == state


def test_cancelling_a_queued_run_is_at_once(user: User) -> None:
    run = make_run(user)
    assert run.request_cancel(user)
    stored = Run.objects.get()
    assert (stored.state, stored.state_reason) == (State.CANCELLED, "cancelled before it began")
    assert stored.cancel_requested_by == user
    assert stored.finished_at is not None
    assert not Run.objects.get().claim("a:1", LEASE)


@pytest.mark.parametrize("state", ACTIVE)
def test_cancelling_an_active_run_is_a_request(user: User, state: State) -> None:
    run = make_run(user, state, epoch=2)
    other = make_user("eve")
    stale = Run.objects.get()
    Run.objects.update(epoch=5)
    assert stale.request_cancel(user)
    first = Run.objects.get()
    assert (first.state, first.epoch, first.cancel_requested_by) == (state, 5, user)
    assert run.request_cancel(other)
    assert Run.objects.get().cancel_requested_by == user
    assert Run.objects.get().cancel_requested_at == first.cancel_requested_at


def test_run_ids_are_short_random_and_fit_the_protocol() -> None:
    ids = {Run().pk for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(i) == 12 and i.startswith("r-") and i[2:].isalnum() and i == i.lower() for i in ids)

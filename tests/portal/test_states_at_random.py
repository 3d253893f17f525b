"""Conductors, users and the clock in any order: whatever happens, the rules of the state machine hold."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from portal.accounts.models import User
from portal.runs.models import Run
from portal.runs.states import OVER, STEPS, State
from tests.portal.factories import make_run, make_user

LEASE = timedelta(seconds=20)
PATHS = {state: set(STEPS[state]) for state in State}
while any(PATHS[after] - ends for ends in PATHS.values() for after in ends):
    for ends in PATHS.values():
        ends |= {later for after in ends for later in PATHS[after]}


class Lab(RuleBasedStateMachine):
    """Up to some runs on two machines; each conductor holds an instance that may be long out of date."""

    user: User

    @initialize()
    def begin(self) -> None:
        Run.objects.all().delete()
        self.held: list[Run] = []
        self.known: dict[str, tuple[str, int]] = {}
        self.made = 0

    @rule(machine=st.sampled_from(["a", "b"]))
    def queue(self, machine: str) -> None:
        self.made += 1
        run = make_run(self.user, machine=machine, created_at=timezone.now())
        self.held.append(run)

    @precondition(lambda self: self.made)
    @rule(pick=st.integers(0, 99))
    def look(self, pick: int) -> None:
        runs = list(Run.objects.order_by("created_at", "pk"))
        self.held.append(runs[pick % len(runs)])

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99))
    def claim(self, pick: int) -> None:
        run = self.held[pick % len(self.held)]
        row = Run.objects.get(pk=run.pk)
        try:
            with transaction.atomic():
                claimed = run.claim("somebody", LEASE)
        except IntegrityError:
            claimed = False
        if claimed:
            assert run.epoch == row.epoch + 1
            assert row.state == State.QUEUED or row.lease_until is None or row.lease_until < timezone.now()

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99), to=st.sampled_from(list(State)))
    def step(self, pick: int, to: State) -> None:
        run = self.held[pick % len(self.held)]
        row = Run.objects.get(pk=run.pk)
        if to == State.PREFLIGHT:
            return  # the only way there is a claim
        believed = (run.state, run.epoch)
        try:
            made = run.step(to)
        except ValueError:
            assert to not in STEPS[State(run.state)]
            return
        assert made == ((row.state, row.epoch) == believed)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99))
    def renew(self, pick: int) -> None:
        run = self.held[pick % len(self.held)]
        row = Run.objects.get(pk=run.pk)
        assert run.renew(LEASE) == (row.is_active and row.epoch == run.epoch)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        run = self.held[pick % len(self.held)]
        over = Run.objects.get(pk=run.pk).is_over
        assert run.request_cancel(self.user) == (not over)

    @rule()
    def time_passes(self) -> None:
        Run.objects.active().update(lease_until=timezone.now() - timedelta(seconds=1))

    @invariant()
    def the_rules_hold(self) -> None:
        rows = list(Run.objects.all())
        active = [run.machine for run in rows if run.is_active]
        assert len(active) == len(set(active))
        for run in rows:
            state, epoch = self.known.get(run.pk, (State.QUEUED.value, 0))
            assert run.state == state or State(run.state) in PATHS[State(state)]
            assert run.epoch >= epoch
            assert state not in OVER or run.epoch == epoch
            assert run.is_over == (run.finished_at is not None)
            assert not run.is_active or run.epoch >= 1
            self.known[run.pk] = (run.state, run.epoch)


@pytest.mark.django_db
def test_no_order_of_events_breaks_the_state_machine() -> None:
    Lab.user = make_user()
    run_state_machine_as_test(
        Lab,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

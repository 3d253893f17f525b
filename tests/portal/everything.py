"""A portal with something of every kind in it, for tests that go through all pages."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from portal.accounts.audit import record
from portal.accounts.models import ApiToken, User
from portal.runs.demo.keep import keep
from portal.runs.models import DeclaredSubject, NamedScenario, Note, Run, RunGroup
from portal.runs.states import State
from portal.schedules.models import Schedule
from tests.portal.factories import SMOKE, add_seconds, host_runs, make_run, make_user, merged_lines, say


def make_everything() -> dict[str, User]:
    """Runs in every state with groups, notes and tags, scenarios, a schedule, a subject, tokens. Returns a person of
    each role."""
    keep(24, timezone.now() - timedelta(minutes=5), seed=3)
    people = {role: make_user(f"{role}-person", role=role) for role in ("viewer", "operator", "admin")}
    ada = people["operator"]
    NamedScenario.write(SMOKE.model_copy(update={"clients": 50}), ada, "fewer will do")
    running = make_run(
        ada,
        State.RUNNING,
        created_at=timezone.now(),
        start_at_ns=round(timezone.now().timestamp() * 1e9) - 3_000_000_000,
        subject_name="echo",
        subject_version="1.0",
    )
    add_seconds(running, merged_lines(host_runs())[:3])
    say(running, "load-1: prepared, workers: 2")
    waiting = make_run(ada, created_at=timezone.now(), reason="is it the <kernel>?")
    for state in (State.FAILED, State.CANCELLED, State.LOST):
        make_run(ada, state, state_reason=f"{state.value} for a reason", created_at=timezone.now() - timedelta(hours=1))
    group = RunGroup.objects.create(title="nightly smoke", kind="schedule", created_by=ada)
    Schedule.objects.create(
        title="nightly smoke",
        scenario_name="smoke",
        cron="0 2 * * *",
        zone="Europe/Berlin",
        next_at=timezone.now() + timedelta(hours=8),
        group=group,
        owner=ada,
    )
    finished = Run.objects.finished().order_by("-created_at")[0]
    Note.objects.create(run=finished, author=ada, text="Looks *fine*, see `kernel`.")
    DeclaredSubject.objects.create(name="gateway", url="http://127.0.0.1:9/version")
    ApiToken.objects.issue(ada, "ci")
    record(ada, "queued", waiting)
    return people

"""Making a run: the one way for form, API and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db import transaction

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.labs.lab import Lab, LabError, load_lab
from portal.runs.draft import GivenSubject, Refused, compose
from portal.runs.models import Run
from portal.runs.tasks import wake
from wsnode.core.scenario import Scenario


def lab_or_refuse() -> Lab:
    """The lab of this portal.

    Raises:
        Refused: there is no usable `lab.json`.
    """
    try:
        return load_lab(settings.LAB_FILE)
    except LabError as error:
        raise Refused([f"lab: {error}"]) from error


def create_run(
    user: User,
    base: str | Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    accept_partial: bool = False,
    subject: GivenSubject | None = None,
) -> Run:
    """Check everything, queue a run and wake a conductor after the commit.

    Raises:
        Refused: see `compose`; also where the subject or the lab cannot be used.
    """
    scenario = compose(base, changes or {}, accept_partial=accept_partial)
    return queue_run(user, scenario, accept_partial=accept_partial, subject=subject)


def queue_run(user: User, scenario: Scenario, *, accept_partial: bool, subject: GivenSubject | None) -> Run:
    """Queue a scenario that was checked. Without a given subject our own server is measured, whose version its host
    tells later.

    Raises:
        Refused: the subject or the lab cannot be used.
    """
    lab = lab_or_refuse()
    given = subject.checked() if subject is not None else None
    with transaction.atomic():
        run = Run.objects.create(
            machine=lab.machine,
            scenario_name=scenario.name,
            scenario=scenario.model_dump(mode="json"),
            accept_partial=accept_partial,
            subject_name=given.name if given else "wsnode",
            subject_version=given.version if given else "",
            subject_source="given" if given else "own",
            created_by=user,
        )
        record(user, "queued", run)
        wake(run.pk)
    return run

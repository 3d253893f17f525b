"""Taking a run of another portal: whole or not at all, and never in the place of one that is here."""

from __future__ import annotations

from typing import NoReturn

from django.db import IntegrityError, transaction
from django.utils import timezone

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.runs.bundle import BadBundle, Bundle, read
from portal.runs.create import version_of
from portal.runs.models import Archive, Environment, EvidenceRow, Note, OtherWindow, Run, RunEvent, Summary, Tag
from portal.runs.purpose import read_tags


def import_run(user: User, content: bytes) -> Run:
    """Keep what is in a file of `portal.runs.bundle`, marked as imported, in the name of `user`.

    Raises:
        BadBundle: see `read`; also where a run of that id is here already.
    """
    bundle = read(content)
    if Run.objects.filter(pk=bundle.run.id).exists():
        _known(bundle)
    try:
        with transaction.atomic():
            run = _keep(user, bundle)
            record(user, "imported", run, f"made by {bundle.made_by} at {bundle.portal}")
    except IntegrityError:
        _known(bundle)
    return run


def _known(bundle: Bundle) -> NoReturn:
    raise BadBundle([f"run.id: {bundle.run.id} is here already: nothing was changed"]) from None


def _keep(user: User, bundle: Bundle) -> Run:
    facts = bundle.run.model_dump(exclude={"scenario"})
    scenario = bundle.run.scenario
    run = Run(
        **facts,
        scenario=scenario.model_dump(mode="json"),
        scenario_name=scenario.name,
        scenario_version=version_of(scenario),
        baseline=Run.objects.filter(pk=bundle.baseline).first() if bundle.baseline else None,
        origin="import",
        created_by=user,
    )
    run.save(force_insert=True)
    run.tags.set([Tag.objects.get_or_create(name=name)[0] for name in read_tags(bundle.tags)])
    if bundle.result is not None:
        Summary.of(run, bundle.result).save(force_insert=True)
    EvidenceRow.objects.bulk_create(EvidenceRow(run=run, **row.model_dump()) for row in bundle.evidence)
    Environment.objects.bulk_create(Environment(run=run, **row.model_dump()) for row in bundle.environments)
    OtherWindow.objects.bulk_create(
        OtherWindow(run=run, created_by=user, **window.model_dump(mode="python", exclude={"result"}),
                    result=window.result.model_dump(mode="json"))
        for window in bundle.windows
    )  # fmt: skip
    # People of another portal are no users here: their names go into the text.
    Note.objects.bulk_create(
        Note(run=run, author=user, text=f"*{note.author}* wrote:\n\n{note.text}"[:20_000], created_at=note.created_at)
        for note in bundle.notes
    )
    if (archive := bundle.archive_bytes) is not None:
        Archive.objects.create(run=run, content=archive)
    RunEvent.objects.bulk_create(RunEvent(run=run, **event.model_dump()) for event in bundle.events)
    told = f"imported by {user.username}; made by {bundle.made_by} at {bundle.portal}"
    RunEvent.objects.create(run=run, at=timezone.now(), level="info", text=told)
    return run

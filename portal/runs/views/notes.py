"""Writing notes on a run."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.accounts.roles import operator
from portal.runs.models import Note, Run
from portal.runs.notes import NOTE_CHARS


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _mine(request: HttpRequest, run_id: str, note_id: int) -> Note:
    """A note that this user may change: their own, or as an admin anybody's."""
    note = get_object_or_404(Note.objects.select_related("run", "author"), pk=note_id, run_id=run_id)
    if note.author_id != _user(request).pk and not _user(request).is_admin:
        raise PermissionDenied(f"this note is {note.author.username}'s: only they and admins change it")
    return note


def _read(request: HttpRequest) -> tuple[str, str]:
    """(text, why it is refused)."""
    text = request.POST.get("text", "").replace("\r\n", "\n").strip()
    if not text:
        return text, "text: nothing is refused: wanted some words"
    if len(text) > NOTE_CHARS:
        return text, f"text: {len(text):,} characters are refused: wanted at most {NOTE_CHARS:,}"
    if "\x00" in text:
        return text, "text: a NUL character is refused"
    return text, ""


def _form(request: HttpRequest, run: Run, note: Note | None, text: str, error: str) -> HttpResponse:
    context = {"section": "runs", "run": run, "note": note, "text": text, "error": error}
    return render(request, "runs/note_form.html", context, status=422 if error else 200)


@operator
@require_POST
def add(request: HttpRequest, run_id: str) -> HttpResponse:
    """A new note."""
    run = get_object_or_404(Run, pk=run_id)
    text, error = _read(request)
    if error:
        return _form(request, run, None, text, error)
    with transaction.atomic():
        note = Note.objects.create(run=run, author=_user(request), text=text)
        record(_user(request), "wrote", note)
    return redirect(f"{run.get_absolute_url()}#note-{note.pk}")


@operator
@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, run_id: str, note_id: int) -> HttpResponse:
    """The form of a note, and its receipt."""
    note = _mine(request, run_id, note_id)
    if request.method == "GET":
        return _form(request, note.run, note, note.text, "")
    text, error = _read(request)
    if error:
        return _form(request, note.run, note, text, error)
    if text != note.text:
        with transaction.atomic():
            before, note.text, note.edited_at = note.text, text, timezone.now()
            note.save(update_fields=["text", "edited_at"])
            record(_user(request), "edited", note, f"before: {before}")
    return redirect(f"{note.run.get_absolute_url()}#note-{note.pk}")


@operator
@require_POST
def delete(request: HttpRequest, run_id: str, note_id: int) -> HttpResponse:
    """Take a note away; the audit log keeps what it said."""
    note = _mine(request, run_id, note_id)
    with transaction.atomic():
        record(_user(request), "deleted", note, f"it said: {note.text}")
        note.delete()
    return redirect(f"{note.run.get_absolute_url()}#notes")

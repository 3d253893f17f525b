"""Notes in pages: `{% include "runs/notes.html" %}` wherever there is a `run`."""

from __future__ import annotations

from django import template
from django.utils.safestring import SafeString

from portal.runs import notes
from portal.runs.models import Note, Run

register = template.Library()


@register.simple_tag
def notes_of(run: Run) -> list[Note]:
    """A run's notes with their authors, oldest first."""
    return list(run.notes.select_related("author"))


@register.filter
def markdown(text: str) -> SafeString:
    """A note's text as sanitised HTML."""
    return notes.rendered(text)

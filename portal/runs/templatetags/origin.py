"""Where a run's scenario comes from, for its page."""

from __future__ import annotations

from django import template

from portal.runs.models import Run
from portal.runs.origin import Origin, origin_of

register = template.Library()


@register.simple_tag
def origin(run: Run) -> Origin | None:
    """See `portal.runs.origin`."""
    return origin_of(run)

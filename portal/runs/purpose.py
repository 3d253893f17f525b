"""What a run is for, in the words of whoever asks for it: reason, tags, and what it is to be held against."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from portal.runs.draft import Refused, shortened
from portal.runs.models import NamedScenario, Run, Tag

REASON_CHARS = 500
TAG_CHARS = 50
MOST_TAGS = 20
USUAL, NO_BASELINE = "", "none"
"""Instead of a run's id: the scenario's own baseline, whatever it is; none at all."""

_TAG = re.compile(r"[^\s,]+")


class Purpose(NamedTuple):
    """Reason, tags and baseline, checked."""

    reason: str = ""
    tags: tuple[str, ...] = ()
    baseline: Run | None = None

    @classmethod
    def of(cls, scenario: str, *, reason: str = "", tags: Iterable[str] = (), baseline: str = USUAL) -> Purpose:
        """Check what was given; `baseline` is a run's id, or `USUAL` or `NO_BASELINE`.

        Raises:
            Refused: each line begins with `reason`, `tags` or `baseline`.
        """
        lines: list[str] = []
        reason = reason.strip()
        if len(reason) > REASON_CHARS or not reason.isprintable():
            lines.append(
                f"reason: {shortened(reason)} is refused: wanted one line of at most {REASON_CHARS} characters"
            )
        kept = read_tags(tags)
        lines += [
            f"tags: {shortened(tag)} is refused: wanted at most {TAG_CHARS} visible characters"
            for tag in kept
            if len(tag) > TAG_CHARS or not tag.isprintable()
        ]
        if len(kept) > MOST_TAGS:
            lines.append(f"tags: {len(kept)} are refused: wanted at most {MOST_TAGS}")
        run = None
        try:
            run = find_baseline(scenario, baseline.strip())
        except Refused as refused:
            lines += refused.lines
        if lines:
            raise Refused(lines)
        return cls(reason, kept, run)

    def tag_rows(self) -> list[Tag]:
        """The tags' rows, made where they are missing."""
        return [Tag.objects.get_or_create(name=name)[0] for name in self.tags]


def read_tags(texts: Iterable[str]) -> tuple[str, ...]:
    """Words out of texts, parted by blanks or commas; in small letters, each once, in their order."""
    return tuple(dict.fromkeys(word.casefold() for text in texts for word in _TAG.findall(text)))


def find_baseline(scenario: str, given: str) -> Run | None:
    """The run that a name stands for, see `Purpose.of`.

    Raises:
        Refused: there is no such run, or it has no result to be held against.
    """
    if given == NO_BASELINE:
        return None
    if given == USUAL:
        row = NamedScenario.objects.filter(name=scenario).select_related("baseline").first()
        return row.baseline if row is not None else None
    run = Run.objects.filter(pk=given).first() if given.isprintable() else None
    if run is None:
        raise Refused([f"baseline: no run {shortened(given)}; wanted a finished run's id, or `{NO_BASELINE}`"])
    if not Run.objects.finished().filter(pk=run.pk).exists():
        raise Refused([f"baseline: run {run.pk} is {run.state}: wanted a finished one"])
    return run

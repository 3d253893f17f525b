"""How comparisons and history show what they found."""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from portal.runs import telling
from portal.runs.contrast import Contrast, Word
from portal.runs.templatetags.shown import icon

register = template.Library()

TONES = {"better": "good", "worse": "bad", "higher": "calm", "lower": "calm"}
"""What is inside the noise has no colour."""
SHAPES = {"too few runs": "question", "noise unknown": "question", "no value": "dash", "not comparable": "slash"}


def _shape(word: Word, up: bool | None) -> str:
    if word in TONES:
        return "up" if up else "down"
    return SHAPES.get(word, "equal")


@register.simple_tag
def word(one: Contrast) -> SafeString:
    """What a contender's figure is: an arrow for where it went, the word for what that means, a colour only where it is
    more than noise. What is not judged has no word."""
    if one.word == "not judged":
        return SafeString()
    tone = TONES.get(one.word, "")
    return format_html(
        '<span class="direction {}">{}{}</span>',
        f"found text-{tone}" if tone else "",
        icon(_shape(one.word, one.found.up if one.found else None)),
        one.word,
    )


@register.simple_tag
def verdict_word(one: Contrast) -> SafeString:
    """The primary metric's word as a badge."""
    tone = TONES.get(one.word, "plain")
    return format_html(
        '<span class="badge {} big">{}{}</span>',
        tone,
        icon(_shape(one.word, one.found.up if one.found else None)),
        one.word,
    )


@register.filter
def evidence(one: Contrast) -> str:
    """p and interval; empty where there are none."""
    return telling.evidence(one)


@register.filter
def changed(one: Contrast) -> str:
    """The difference as a share of the base; empty where that is 0, or of ratios."""
    if one.change is None or one.measure.unit == "ratio":
        return ""
    return telling.shown_share(one.change)

"""How the pages show what they are given: numbers with units, states with a shape, terms with their meaning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from django import template
from django.template.context import Context
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from portal.runs import figures
from portal.runs.icons import ICONS
from portal.runs.models import OtherWindow, Run
from portal.runs.plan import Stretch
from portal.runs.report import Report

register = template.Library()

THEMES = ("system", "light", "dark")
STATES = {
    "queued": ("clock", "", "queued"),
    "preflight": ("dot", "calm", "preflight"),
    "preparing": ("dot", "calm", "preparing"),
    "running": ("dot", "calm", "running"),
    "collecting": ("dot", "calm", "collecting"),
    "judging": ("dot", "calm", "judging"),
    "finished": ("check", "plain", "finished"),
    "failed": ("cross", "bad", "failed"),
    "cancelled": ("slash", "", "cancelled"),
    "lost": ("question", "bad", "lost"),
}
"""Icon, tone and word of each state."""
VERDICTS = {
    "passed": ("check", "good", "passed"),
    "failed": ("cross", "bad", "failed"),
    "none": ("dash", "", "no verdict"),
}
VALIDITIES = {
    "valid": ("shield-check", "good", "valid"),
    "suspect": ("alert", "warn", "suspect"),
    "invalid": ("shield-cross", "bad", "invalid"),
}
LEVELS = {"info": ("info", ""), "warning": ("alert", "warn"), "error": ("cross", "bad")}


@register.simple_tag
@cache
def icon(name: str, extra: str = "") -> SafeString:
    """A decorative icon; the word stands beside it."""
    return format_html(
        '<svg class="icon {}" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" '
        'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="{}"/></svg>',
        extra,
        ICONS[name],
    )


@cache
def _badge(shape: str, tone: str, text: str, size: str) -> SafeString:
    """Drawn once each: a list of runs shows the same few some hundred times."""
    pulse = "pulse" if shape == "dot" else ""
    return format_html('<span class="badge {} {}">{}{}</span>', tone, size, icon(shape, pulse), text)


def _judged(known: dict[str, tuple[str, str, str]], word: str | None, size: str) -> SafeString:
    if not word:
        return mark_safe(f'<span class="muted">{figures.NONE}</span>')  # noqa: S308  # a constant
    return _badge(*known[word], size)


@register.simple_tag
def state_badge(state: str, size: str = "") -> SafeString:
    """Where a run stands; what is under way pulses."""
    return _badge(*STATES[state], size)


@register.simple_tag
def verdict_badge(verdict: str | None, size: str = "") -> SafeString:
    """Whether a run met its thresholds; a dash where nobody has judged."""
    return _judged(VERDICTS, verdict, size)


@register.simple_tag
def validity_badge(validity: str | None, size: str = "") -> SafeString:
    """Whether a run can be believed; a dash where nobody has judged."""
    return _judged(VALIDITIES, validity, size)


@register.simple_tag
def level_icon(level: str) -> SafeString:
    """The icon of a log line's level, with its word for those who do not see it."""
    shape, tone = LEVELS[level]
    return format_html('{}<span class="sr">{}</span>', icon(shape, f"text-{tone}" if tone else "muted"), level)


@register.simple_tag
def direction(word: str, delta: float | None) -> SafeString:
    """What a value is against the base: an arrow for where it went, and the word for what that means."""
    shape = "equal" if word == "same" else "dash" if not delta else "up" if delta > 0 else "down"
    return format_html('<span class="direction">{}{}</span>', icon(shape), word)


def _html(shown: figures.Figure) -> SafeString:
    if not shown.unit:
        return format_html("{}", shown.text)
    gap = "" if shown.unit.startswith("/") else figures.NBSP
    return format_html('{}<span class="unit">{}{}</span>', shown.text, gap, shown.unit)


def _known(value: Any) -> Any:
    """Templates hand over '' for what hangs on something that is not there: a run without a summary."""
    return None if value == "" else value


@register.filter
def figure(value: float | None, unit: str) -> SafeString:
    """A value in a unit of the result: `{{ seconds|figure:"s" }}`."""
    return _html(figures.figure(_known(value), unit))


@register.simple_tag(takes_context=True)
def value(context: Context, number: float | None, unit: str, why: str | None = None) -> SafeString:
    """A value, or a dash that opens the reason for its absence."""
    if number is not None:
        return figure(number, unit)
    if not why:
        return format_html('<span class="muted">{}</span>', figures.NONE)
    return _explained(context, "null", format_html('{}<span class="sr"> no value</span>', figures.NONE), why)


@register.simple_tag(takes_context=True)
def term(context: Context, name: str, meaning: str) -> SafeString:
    """A name that opens its definition."""
    return _explained(context, "term", name, meaning)


def _explained(context: Context, kind: str, shown: str, text: str) -> SafeString:
    assert context.render_context is not None
    # A partial that is fetched again counts under a name of its own (`tips`), lest its ids meet the page's.
    prefix = context.get("tips", "tip")
    root: dict[str, Any] = context.render_context.dicts[0]  # type: ignore[assignment]
    tip = f"{prefix}-{next(root.setdefault(f'explained {prefix}', itertools.count(1)))}"
    return format_html(
        '<button type="button" class="{}" popovertarget="{}" title="{}">{}</button>'
        '<span class="tip" id="{}" popover>{}</span>',
        kind,
        tip,
        text,
        shown,
        tip,
        text,
    )


@register.filter
def count(number: float | None) -> str:
    """Whole, thousands separated."""
    return figures.count(_known(number))


@register.filter
def number(value: float | None) -> str:
    """Three significant digits."""
    return figures.number(value)


@register.filter
def span(seconds: float | None) -> str:
    """A length of time in words."""
    return figures.span(seconds)


@register.filter
def percentile(statistic: str) -> str:
    """`p999` as p99.9."""
    return figures.percentile(statistic)


@register.simple_tag
def signed(value: float | None, unit: str) -> SafeString:
    """A difference, with its sign."""
    if value is None:
        return format_html('<span class="muted">{}</span>', figures.NONE)
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return format_html("{}{}", sign, _html(figures.figure(abs(value), unit)))


@register.simple_tag
def moment(at: datetime | None, form: str = "%d %b %H:%M") -> SafeString:
    """A clock time (UTC), machine-readable and in full on hover."""
    if at is None:
        return format_html('<span class="muted">{}</span>', figures.NONE)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}", f"{at:{form}}"
    )


@register.simple_tag(takes_context=True)
def theme(context: Context) -> str:
    """The theme that this browser asked for by cookie: system, light or dark."""
    request = context.get("request")
    chosen = request.COOKIES.get("theme", "") if request is not None else ""
    return chosen if chosen in THEMES else "system"


@register.filter
def verdict_word(verdict: str | None) -> str:
    """A verdict in words."""
    return VERDICTS[verdict][2] if verdict else "not judged"


@register.filter
def human(name: str) -> str:
    """`load_generator` as words."""
    return name.replace("_", " ")


@register.filter
def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th …"""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


@register.filter
def nanoseconds(value: int | None) -> SafeString:
    """A time in ns, in the unit that shows it best."""
    return _html(figures.latency(None if _known(value) is None else value / 1e9))  # type: ignore[operator]


@register.filter
def seconds(value: float | None) -> str:
    """Like `span`, in whole seconds: for what is shown anew each second."""
    return figures.span(None if value is None else float(round(value)))


@register.filter
def plain(value: float | None) -> str:
    """A number as an input's attribute."""
    return "" if value is None else f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"


@register.filter
def took(run: Run, now: datetime | None = None) -> str:
    """How long a run has taken, from its preflight to its end, or to now."""
    end = run.finished_at or now
    return figures.length(end - run.preflight_at) if run.preflight_at and end else figures.NONE


@register.filter
def share(part: float, whole: float) -> str:
    """Of 1000, for a drawing of that width."""
    return f"{1000 * part / whole:.2f}"


@register.filter
def width(stretch: Stretch, whole: float) -> str:
    """A stretch's length of 1000."""
    return share(stretch.to_s - stretch.from_s, whole)


@register.filter
def of(mapping: Mapping[str, Any], key: str) -> Any:
    """The value of a key; None where there is none."""
    return mapping.get(key)


@register.filter
def over(report: Report, window: OtherWindow) -> Report:
    """What a report tells of a further judgement."""
    return Report(report.run, window.content)

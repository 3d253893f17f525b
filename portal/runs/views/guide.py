"""`docs/tuning.md` as a page, so that what a run page says can lead to it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

from portal.accounts.roles import viewer


@viewer
@require_safe
def tuning(request: HttpRequest) -> HttpResponse:
    """The guide of what a limit looks like and what to set."""
    file = settings.ROOT / "docs" / "tuning.md"
    if not file.is_file():
        raise Http404("docs/tuning.md did not come with this portal")
    html = mark_safe(guide(file, file.stat().st_mtime_ns))  # noqa: S308  # our own file, HTML in it escaped
    return render(request, "runs/guide.html", {"section": "", "guide": html})


@cache
def guide(file: Path, _changed_ns: int) -> str:
    """The file as HTML, each heading with the anchor that GitHub gives it; links to other files are text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(file.read_text(encoding="utf-8"))
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(tokens[place + 1].content))
        elif token.type == "table_open":
            token.attrSet("class", "table")
        elif token.type == "inline":
            _only_within(token)
    rendered: str = parser.renderer.render(tokens, parser.options, {})
    return rendered


def anchor(heading: str) -> str:
    """`Kinds of connection errors` as `kinds-of-connection-errors`."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def _only_within(inline: Token) -> None:
    kept: list[Token] = []
    dropped = 0
    for token in inline.children or []:
        if token.type == "link_open" and not str(token.attrGet("href") or "").startswith(("#", "https://")):
            dropped += 1
        elif token.type == "link_close" and dropped:
            dropped -= 1
        else:
            kept.append(token)
    inline.children = kept

"""Notes on runs: what Markdown becomes, and who may write, change and delete them."""

from __future__ import annotations

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from portal.accounts.models import AuditEntry, User
from portal.runs.models import Note, Run
from portal.runs.notes import rendered
from portal.runs.states import State
from tests.portal.factories import make_run, make_user
from tests.portal.pages import page


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*slow* since **Monday**", "<p><em>slow</em> since <strong>Monday</strong></p>"),
        ("`somaxconn` ~~128~~ 4096", "<p><code>somaxconn</code> <s>128</s> 4096</p>"),
        ("# Why\n\n###### deep", "<h4>Why</h4>\n<h6>deep</h6>"),
        ("2. two\n3. three", '<ol start="2">\n<li>two</li>\n<li>three</li>\n</ol>'),
        ("| a |\n| - |\n| 1 |", "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"),
        ("[r](/runs/r-x/)", '<p><a href="/runs/r-x/" rel="noopener noreferrer nofollow">r</a></p>'),
        ("[m](mailto:a@b.c)", '<p><a href="mailto:a@b.c" rel="noopener noreferrer nofollow">m</a></p>'),
        ("<b>bold</b>", "<p>&lt;b&gt;bold&lt;/b&gt;</p>"),
        ("a < b & c", "<p>a &lt; b &amp; c</p>"),
    ],
)
def test_markdown_becomes_html(text: str, html: str) -> None:
    assert "".join(rendered(text).split("\n")) == "".join(html.split("\n"))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:x)",
        "<javascript:alert(1)>",
        "![x](https://evil.example/x.png)",
        '<img src=x onerror="alert(1)">',
        '[x](https://e.example "onmouseover=alert(1)")',
        "<svg/onload=alert(1)>",
        '<a href="https://e.example" onclick="x">x</a>',
        "[a]: javascript:alert(1)\n\n[a]",
        "```html\n<script>alert(1)</script>\n```",
        "<div style='position:fixed'>",
    ],
)
def test_nothing_that_acts_gets_through(text: str) -> None:
    allowed = {"p", "a", "em", "code", "pre", "strong"}
    for tag, attributes in _elements(rendered(text)):
        assert tag in allowed
        assert set(attributes) <= {"href", "rel"}
        assert attributes.get("href", "https://").startswith(("https://", "http://", "mailto:", "/"))


def _elements(html: str) -> list[tuple[str, dict[str, str]]]:
    from html.parser import HTMLParser

    found: list[tuple[str, dict[str, str]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, {name: value or "" for name, value in attrs}))

    Reader().feed(html)
    return found


@given(st.text(st.sampled_from("<>\"'&=/:()[]!`*_#- \nabjs"), max_size=60))
def test_whatever_is_typed_has_only_known_elements_and_links(text: str) -> None:
    words = "p br hr em strong s code pre blockquote ul ol li a h4 h5 h6 table thead tbody tr th td"
    known = set(words.split())
    for tag, attributes in _elements(rendered(text)):
        assert tag in known
        assert set(attributes) <= {"href", "rel", "start"}


# --- pages ----------------------------------------------------------------------------------------
@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def run(ada: User) -> Run:
    return make_run(ada, State.FAILED)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_a_note_is_written_changed_and_deleted(ada: User, run: Run) -> None:
    browser = signed_in(ada)
    response = browser.post(f"/runs/{run.pk}/notes", {"text": " slow\r\ndisk "})
    note = Note.objects.get()
    assert (note.text, note.author, note.edited_at) == ("slow\ndisk", ada, None)
    assert response["Location"] == f"/runs/{run.pk}/#note-{note.pk}"
    assert page(browser.get(f"/runs/{run.pk}/notes/{note.pk}/edit")).one("#f-text").text == "slow disk"
    browser.post(f"/runs/{run.pk}/notes/{note.pk}/edit", {"text": "slow fan"})
    note.refresh_from_db()
    assert note.text == "slow fan"
    assert note.edited_at is not None
    browser.post(f"/runs/{run.pk}/notes/{note.pk}/delete")
    assert not Note.objects.exists()
    told = list(AuditEntry.objects.order_by("id").values_list("verb", "detail"))
    assert told == [("wrote", ""), ("edited", "before: slow\ndisk"), ("deleted", "it said: slow fan")]


@pytest.mark.parametrize(
    ("text", "line"),
    [("  ", "text: nothing is refused"), ("x" * 20_001, "20,001 characters are refused"), ("a\x00", "a NUL character")],
)
def test_what_is_no_note_is_refused_with_what_was_typed(ada: User, run: Run, text: str, line: str) -> None:
    response = signed_in(ada).post(f"/runs/{run.pk}/notes", {"text": text})
    assert response.status_code == 422
    assert line in page(response).one("#e-text").text
    assert not Note.objects.exists()


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 403), ("admin", 302)])
def test_anothers_note_is_changed_by_admins_only(ada: User, run: Run, role: str, status: int) -> None:
    note = Note.objects.create(run=run, author=ada, text="mine")
    other = signed_in(make_user("other", role=role))
    assert other.post(f"/runs/{run.pk}/notes/{note.pk}/edit", {"text": "yours"}).status_code == status
    assert other.post(f"/runs/{run.pk}/notes/{note.pk}/delete").status_code == status
    assert Note.objects.exists() == (status == 403)


def test_a_note_is_found_under_its_own_run_only(ada: User, run: Run) -> None:
    note = Note.objects.create(run=run, author=ada, text="mine")
    other = make_run(ada, State.FAILED, machine="two")
    assert signed_in(ada).post(f"/runs/{other.pk}/notes/{note.pk}/delete").status_code == 404

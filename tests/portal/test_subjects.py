"""Subjects that tell their version themselves: declared by admins, read when a run begins and when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from portal.accounts.audit import AuditEntry
from portal.runs import line, probe
from portal.runs.models import DeclaredSubject, Run
from portal.runs.probe import ProbeError, read_version
from tests.portal.factories import make_run, make_user
from tests.portal.pages import page
from tests.portal.standin import StandIn, conductor

__all__ = ["conductor"]


class Answers(HTTPServer):
    """A subject on a port of its own; says these one after the other, the last again and again."""

    said: list[tuple[int, dict[str, str], bytes]]
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        status, headers, body = self.server.said[min(self.server.asked, len(self.server.said) - 1)]
        self.server.asked += 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(
    *bodies: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Iterator[tuple[Answers, str]]:
    server = Answers(("127.0.0.1", 0), _Handler)
    server.said = [(status, headers or {}, body) for body in bodies]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/version"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("body", "field", "version"),
    [
        (b" 1.4.2-rc1\n", "", "1.4.2-rc1"),
        (b'{"build": {"commit": "9c1f2e0", "n": 12}}', "build.commit", "9c1f2e0"),
        (b'{"build": {"commit": "9c1f2e0", "n": 12}}', "build.n", "12"),
    ],
)
def test_a_version_is_the_answer_or_a_field_of_it(body: bytes, field: str, version: str) -> None:
    with answering(body) as (_, url):
        assert read_version(url, field) == version


@pytest.mark.parametrize(
    ("body", "field", "why"),
    [
        (b"", "", "answers '': wanted a version of 1 to 200 visible characters"),
        (b"a\nb", "", "wanted a version of 1 to 200 visible characters"),
        (b"x" * 201, "", "wanted a version of 1 to 200 visible characters"),
        (b"x" * (64 * 1024 + 1), "", "answers with more than 65,536 bytes"),
        (b"\xff\xfe", "", "answers what is no UTF-8 text"),
        (b"1.2", "commit", "has no commit in its JSON answer"),
        (b"<html>", "commit", "answers what is no JSON: wanted one with commit"),
        (b'{"commit": ["a"]}', "commit", "commit is list, wanted text or a number"),
        (b'{"commit": true}', "commit", "commit is bool, wanted text or a number"),
        (b"[" * 30_000, "commit", "answers what is no JSON"),
    ],
)
def test_what_is_no_version_is_refused_in_words(body: bytes, field: str, why: str) -> None:
    with answering(body) as (_, url), pytest.raises(ProbeError) as refused:
        read_version(url, field)
    assert str(refused.value).startswith(url)
    assert why in str(refused.value)


def test_a_redirect_is_not_followed() -> None:
    with answering(b"inside") as (inner, secret):
        with (
            answering(b"", status=302, headers={"Location": secret}) as (_, url),
            pytest.raises(ProbeError, match=r"answers 302 to 'http://127.*': wanted 200; redirects are not followed"),
        ):
            read_version(url)
        assert inner.asked == 0


def test_an_answer_that_trickles_ends_with_the_time_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.3)
    stop = threading.Event()

    class Trickle(_Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not stop.wait(0.02):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return

    server = HTTPServer(("127.0.0.1", 0), Trickle)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    before = time.monotonic()
    try:
        with pytest.raises(ProbeError, match=r"gave no whole answer in 0\.3 s"):
            read_version(f"http://127.0.0.1:{server.server_port}/")
    finally:
        stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert time.monotonic() - before < 5


def test_nobody_there_is_said_so() -> None:
    with answering(b"") as (_, url):
        pass
    with pytest.raises(ProbeError, match="does not answer"):
        read_version(url)


@pytest.mark.django_db(transaction=True)
class TestRuns:
    def declared(self, url: str, field: str = "") -> Run:
        DeclaredSubject.objects.create(name="chat", url=url, field=field)
        return make_run(make_user(), subject_name="chat", subject_source="probed")

    def test_a_run_measures_the_version_that_the_subject_says(self, conductor: StandIn) -> None:
        with answering(b'{"v": "2.0"}') as (server, url):
            run = self.declared(url, "v")
            assert line.conduct_run(run.pk)
        run.refresh_from_db()
        assert (run.state, run.validity, run.subject_version) == ("finished", "valid", "2.0")
        assert run.summary.content.subject.model_dump() == {"name": "chat", "version": "2.0", "source": "probed"}
        assert server.asked == 2
        assert f"{url} says that chat is 2.0" in run.events.values_list("text", flat=True)

    def test_another_version_at_the_end_makes_it_invalid(self, conductor: StandIn) -> None:
        with answering(b"2.0", b"2.1") as (_, url):
            run = self.declared(url)
            line.conduct_run(run.pk)
        run.refresh_from_db()
        assert (run.validity, run.subject_version) == ("invalid", "2.0")
        assert run.summary.content.reasons == [
            "invalid: the server changed during the run: it said version 2.0 before and 2.1 after"
        ]

    def test_one_that_tells_no_version_ends_the_run_before_a_host_is_touched(self, conductor: StandIn) -> None:
        with answering(b"", status=500) as (_, url):
            run = self.declared(url)
            line.conduct_run(run.pk)
        run.refresh_from_db()
        assert run.state == "failed"
        assert run.state_reason == f"{url} answers 500: wanted 200; redirects are not followed"
        assert conductor.jobs == []

    def test_one_that_is_no_longer_declared_ends_it_too(self, conductor: StandIn) -> None:
        run = make_run(make_user(), subject_name="chat", subject_source="probed")
        line.conduct_run(run.pk)
        run.refresh_from_db()
        assert run.state_reason == "the subject chat is no longer declared, so its version cannot be read"


@pytest.mark.django_db
class TestPages:
    subjects, declare = reverse("scenarios:subjects"), reverse("scenarios:declare")

    def test_an_admin_declares_tries_and_takes_away(self, client: Client) -> None:
        client.force_login(make_user("root", role="admin"))
        with answering(b'{"v": "2.0"}') as (_, url):
            client.post(self.declare, {"name": "chat", "url": url, "field": "v"})
            row = DeclaredSubject.objects.get()
            assert (row.name, row.url, row.field) == ("chat", url, "v")
            said = page(client.post(reverse("scenarios:read", args=[row.pk]), follow=True))
            assert said.one(".notices").text.endswith("chat says 2.0.")
        said = page(client.post(reverse("scenarios:read", args=[row.pk]), follow=True))
        assert "does not answer" in said.one(".notices").text
        client.post(reverse("scenarios:forget", args=[row.pk]))
        assert not DeclaredSubject.objects.exists()
        assert [entry.verb for entry in AuditEntry.objects.order_by("id")] == ["declared", "took away"]

    @pytest.mark.parametrize(
        "url", ["file:///etc/passwd", "gopher://x/", "http://", "http://a b/", "http://u:p@h/", "http://h:99999/"]
    )
    def test_what_is_no_plain_http_address_is_refused_beside_it(self, client: Client, url: str) -> None:
        client.force_login(make_user("root", role="admin"))
        response = client.post(self.declare, {"name": "chat", "url": url})
        assert response.status_code == 422
        assert "refused" in page(response).one("#e-url").text
        assert not DeclaredSubject.objects.exists()

    def test_others_look_only(self, client: Client) -> None:
        DeclaredSubject.objects.create(name="chat", url="http://127.0.0.1/")
        client.force_login(make_user("ada", role="operator"))
        assert not page(client.get(self.subjects)).all("main form")
        assert client.post(self.declare, {"name": "x", "url": "http://127.0.0.1/"}).status_code == 403
        assert client.post(reverse("scenarios:read", args=[1])).status_code == 403

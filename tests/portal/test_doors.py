"""Every address needs a login, but for the few that are named here."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from portal.accounts import login
from portal.config.celery import app
from portal.config.proxy import client_address
from portal.runs.states import State
from tests.portal.factories import make_run, make_user

pytestmark = pytest.mark.django_db
OPEN = {"accounts/login/", "healthz"}
"""No login at all. The API has its tokens."""


def addresses(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[str]:
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, prefix + str(pattern.pattern))
        else:
            assert isinstance(pattern, URLPattern)
            yield prefix + str(pattern.pattern)


def test_there_are_addresses_to_look_at() -> None:
    found = set(addresses())
    assert {"", "runs/", "accounts/login/", "healthz", "api/v1/runs"} <= found


@pytest.mark.parametrize("address", sorted(set(addresses())))
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_stranger_gets_no_further_than_the_login(address: str, method: str) -> None:
    run = make_run(make_user(), State.FINISHED)
    path = "/" + address.replace("<str:run_id>", run.pk).replace("<run_id>", run.pk).replace("<path:path>", "x")
    response = getattr(Client(), method)(path)
    if address in OPEN:
        assert response.status_code in (200, 503)
    elif address.startswith("api/v1/") and address != "api/v1/":
        assert response.status_code in (401, 405)
    else:
        assert response.status_code == 302
        assert response["Location"].startswith("/accounts/login/")
    assert run.pk not in response.content.decode()


def test_every_answer_carries_the_strict_headers() -> None:
    response = Client().get("/accounts/login/")
    policy = dict(part.split(" ", 1) for part in response["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in response["Content-Security-Policy"]
    assert response["X-Frame-Options"] == "DENY"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Referrer-Policy"] == "same-origin"


def test_cookies_are_kept_from_scripts_and_other_sites() -> None:
    make_user("ada")
    client = Client()
    client.post("/accounts/login/", {"username": "ada", "password": "a long pass phrase"})
    cookie = client.cookies[django_settings.SESSION_COOKIE_NAME]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert django_settings.CSRF_COOKIE_HTTPONLY


def test_healthz_is_well_when_database_and_broker_answer() -> None:
    # The broker of the tests has no ping of its own: what counts is that the check reaches it.
    assert app.conf.broker_url == "memory://"
    response = Client().get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok\n")


def test_healthz_names_a_broker_that_does_not_answer_and_no_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"redis+socket://{tmp_path}/no.sock"
    monkeypatch.setitem(app.conf, "broker_url", address)
    monkeypatch.setitem(app.conf, "broker_write_url", address)
    response = Client().get("/healthz")
    assert response.status_code == 503
    assert response.content == b"broker: does not answer\n"
    assert str(tmp_path) in caplog.text


def test_a_broker_that_never_answers_does_not_hold_a_request_for_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    address = tmp_path / "hung.sock"
    monkeypatch.setitem(app.conf.broker_transport_options, "socket_timeout", 0.2)
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(address))
        hung.listen()
        monkeypatch.setitem(app.conf, "broker_url", f"redis+socket://{address}")
        monkeypatch.setitem(app.conf, "broker_write_url", f"redis+socket://{address}")
        assert Client().get("/healthz").content == b"broker: does not answer\n"


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"])
def test_the_login_leads_nowhere_else(to: str) -> None:
    make_user("ada")
    response = Client().post("/accounts/login/", {"username": "ada", "password": "a long pass phrase", "next": to})
    assert response["Location"] == "/runs/"


def test_passwords_cannot_be_tried_as_fast_as_one_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "PER_NAME", 3)
    make_user("ada")
    make_user("bob")

    def sign_in(username: str, password: str, address: str = "192.0.2.1") -> Any:
        form = {"username": username, "password": password}
        return Client(REMOTE_ADDR=address).post("/accounts/login/", form)

    for name in ("ada", "Ada", "ada"):
        assert b"enter a correct" in sign_in(name, "wrong").content
    refused = sign_in("ada", "a long pass phrase")
    assert (refused.status_code, b"Too many failed attempts" in refused.content) == (200, True)
    assert sign_in("bob", "a long pass phrase").status_code == 302
    assert sign_in("ada", "a long pass phrase", "192.0.2.2").status_code == 302
    cache.clear()  # the minute is over
    assert sign_in("ada", "a long pass phrase").status_code == 302


def test_one_address_cannot_try_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "PER_ADDRESS", 3)
    for n in range(3):
        assert b"enter a correct" in Client().post("/accounts/login/", {"username": n, "password": "x"}).content
    assert b"Too many failed" in Client().post("/accounts/login/", {"username": "new", "password": "x"}).content


# --- behind a proxy -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("peer", "told", "taken_for"),
    [
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9, 10.0.0.1", "127.0.0.1"),
        ("198.18.0.3", "203.0.113.9", "198.18.0.3"),
    ],
)
def test_a_near_proxy_says_who_asks_and_nobody_else_does(peer: str, told: str, taken_for: str) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR=peer, headers={"X-Real-IP": told} if told else {})
    client_address(lambda _: HttpResponse())(request)
    assert request.META["REMOTE_ADDR"] == taken_for


def test_the_proxys_word_on_https_makes_a_request_secure(settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SECURE_HSTS_SECONDS = 60
    secure = Client().get("/accounts/login/", headers={"X-Forwarded-Proto": "https"})
    plain = Client().get("/accounts/login/", headers={"X-Forwarded-Proto": "http"})
    assert (secure.wsgi_request.is_secure(), plain.wsgi_request.is_secure()) == (True, False)
    assert secure["Strict-Transport-Security"] == "max-age=60"
    assert "Strict-Transport-Security" not in plain

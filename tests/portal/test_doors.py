"""Every address lets through whom its rule lets through, and nobody else."""

from __future__ import annotations

import itertools
import re
import socket
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import resolve

from portal.accounts import login
from portal.accounts.doors import PAGE, Door, doors, page
from portal.accounts.models import ApiToken, AuditEntry, Scope, User
from portal.accounts.roles import Role
from portal.config.celery import app
from portal.config.proxy import client_address
from portal.labs.views import lab
from portal.runs.models import Run
from portal.runs.states import State
from tests.portal.factories import make_run, make_user

pytestmark = pytest.mark.django_db


# --- every address with every role ----------------------------------------------------------------
ROLES = (None, *Role)


@pytest.fixture
def cast() -> dict[Role, User]:
    """One of each role."""
    return {role: make_user(role.value, role=role) for role in Role}


def path_of(address: str, run: Run) -> str:
    """An address with its parameters filled in; what is not there (404) tells the rule as well as what is."""
    path = address.replace("<str:run_id>", run.pk).replace("<run_id>", run.pk)
    return "/" + re.sub(r"<(?:(\w+):)?\w+>", lambda found: "1" if found[1] == "int" else "x", path)


def sender(door: Door, user: User | None) -> Client:
    """A client as somebody uses this door: with a token at the API, else with a session."""
    if user is None:
        return Client()
    if door.is_api:
        return Client(headers={"authorization": f"Bearer {ApiToken.objects.issue(user, 'door', scope=Scope.ADMIN)[1]}"})
    client = Client()
    client.force_login(user)
    return client


def is_shut(door: Door, response: Any, role: Role | None) -> bool:
    """Whether it is the answer to somebody who may not; told by who they are and which door it is."""
    if role is not None:
        return bool(response.status_code == 403)
    if door.is_api:
        return bool(response.status_code == 401)
    return bool(response.status_code == 302 and response["Location"].startswith("/accounts/login/?next="))


def test_there_are_doors_of_every_kind_to_look_at() -> None:
    found = {door.address: door for door in doors()}
    assert {"", "runs/", "accounts/login/", "healthz", "api/v1/runs", "runs/<str:run_id>/cancel"} <= set(found)
    assert found["api/v1/runs"].takes(Role.VIEWER) == ["GET"]
    assert found["api/v1/runs"].takes(Role.OPERATOR) == ["GET", "POST"]
    assert {door.address for door in doors() if door.takes(None)} == {"accounts/login/", "healthz"}


@pytest.mark.parametrize("door", doors(), ids=lambda door: door.address or "home")
def test_a_door_lets_through_whom_its_rule_lets_through(door: Door, cast: dict[Role, User]) -> None:
    assert None not in door.rules.values(), f"{door.address} has no rule: put one of portal.accounts.roles on its view"
    for role, method in itertools.product(ROLES, door.rules):
        user = cast[role] if role else None
        run = make_run(cast[Role.ADMIN], State.FINISHED)
        response = sender(door, user).generic(method, path_of(door.address, run))
        assert is_shut(door, response, role) == (method not in door.takes(role)), (role, method, response.status_code)
        if is_shut(door, response, role):
            assert run.pk not in response.content.decode()
            assert not AuditEntry.objects.exists()
        assert response.status_code != 405, f"{method} is no method of {door.address}: say so by its decorator"


@pytest.mark.parametrize("role", ROLES)
def test_a_view_without_a_rule_is_closed_to_everybody(
    role: Role | None, cast: dict[Role, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(lab, "rule")
    client = Client()
    if role:
        client.force_login(cast[role])
    assert client.get("/lab/").status_code == (403 if role else 302)


def test_an_operation_without_a_rule_is_closed_to_everybody(
    cast: dict[Role, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(resolve("/api/v1/scenarios").func.rules, "GET", None)
    client = sender(Door("api/v1/scenarios", {}), cast[Role.ADMIN])
    response = client.get("/api/v1/scenarios")
    assert (response.status_code, response.json()["detail"]) == (403, ["nobody may do this: the address has no rule"])


@pytest.mark.parametrize(("scope", "status"), [(Scope.READ, 403), (Scope.RUN, 422), (Scope.ADMIN, 422)])
def test_a_token_opens_no_more_than_its_scope(cast: dict[Role, User], scope: Scope, status: int) -> None:
    _, text = ApiToken.objects.issue(cast[Role.OPERATOR], "ci", scope=scope)
    client = Client(headers={"authorization": f"Bearer {text}"})
    assert client.get("/api/v1/runs").status_code == 200
    response = client.post("/api/v1/runs", {}, content_type="application/json")
    assert response.status_code == status
    if status == 403:
        why = "this takes the role operator; yours is viewer"
        told = f"{why} (the token's scope is read, the role of operator is operator)"
        assert response.json()["detail"] == [told]


def test_a_token_opens_no_more_than_its_users_role(cast: dict[Role, User]) -> None:
    _, text = ApiToken.objects.issue(cast[Role.VIEWER], "ci", scope=Scope.ADMIN)
    client = Client(headers={"authorization": f"Bearer {text}"})
    assert client.post("/api/v1/runs", {}, content_type="application/json").status_code == 403
    assert client.get("/api/v1/runs").status_code == 200


def test_who_may_not_is_told_which_role_it_takes(cast: dict[Role, User]) -> None:
    client = Client()
    client.force_login(cast[Role.VIEWER])
    response = client.get("/runs/new")
    assert response.status_code == 403
    assert "this takes the role operator; yours is viewer" in response.content.decode()


def test_the_table_in_the_documents_is_the_one_that_holds() -> None:
    text = PAGE.read_text()
    assert text == page(text), "run `python -m portal.accounts.doors` and commit what changes"


# --- headers, cookies ------------------------------------------------------------------------------
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
    assert response["Location"] == "/"


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

"""Users, one's own account, and the audit log, as pages."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.accounts.audit import record
from portal.accounts.models import ApiToken, AuditEntry, Scope, User
from tests.portal.factories import make_run, make_user
from tests.portal.pages import page

pytestmark = pytest.mark.django_db
OLD = "a long pass phrase"
NEW = "another long pass phrase"


@pytest.fixture
def root() -> User:
    return make_user("root", role="admin", is_superuser=True)


@pytest.fixture
def browser(client: Client, root: User) -> Client:
    client.force_login(root)
    return client


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def audited() -> list[tuple[str, str]]:
    return list(AuditEntry.objects.order_by("id").values_list("verb", "detail"))


def test_who_was_there_before_roles_may_what_they_could(root: User) -> None:
    rights = importlib.import_module("portal.accounts.migrations.0003_rights")
    bo = make_user("bo", role="viewer")
    User.objects.filter(pk=root.pk).update(role="viewer")
    ApiToken.objects.issue(bo, "ci", scope=Scope.READ)
    rights.give(apps, None)
    assert dict(User.objects.values_list("username", "role")) == {"root": "admin", "bo": "operator"}
    assert ApiToken.objects.get().scope == "run"


# --- users ----------------------------------------------------------------------------------------
def test_who_is_invited_gets_a_password_that_is_shown_once(browser: Client) -> None:
    response = browser.post("/team/invite", {"username": "bo", "role": "operator"})
    assert (response.status_code, response["Location"]) == (302, "/team/")
    password = page(browser.get("/team/")).one("#shown code").text
    assert password not in browser.get("/team/").content.decode()
    user = User.objects.get(username="bo")
    assert (user.role, user.is_superuser, user.must_change_password) == ("operator", False, True)
    assert user.check_password(password)
    assert audited() == [("invited", "as operator")]
    assert password not in str(AuditEntry.objects.values().get())


def test_the_first_sign_in_leads_to_a_password_of_ones_own(browser: Client) -> None:
    browser.post("/team/invite", {"username": "bo", "role": "viewer"})
    password = page(browser.get("/team/")).one("#shown code").text
    bo = Client()
    bo.post("/accounts/login/", {"username": "bo", "password": password})
    response = bo.get("/runs/")
    assert (response.status_code, response["Location"]) == (302, "/account/")
    assert "Choose a password of your own." in page(bo.get("/account/")).text
    change = {"old_password": password, "new_password1": NEW, "new_password2": NEW}
    assert bo.post("/account/password", change)["Location"] == "/account/"
    assert bo.get("/runs/").status_code == 200
    assert not User.objects.get(username="bo").must_change_password


@pytest.mark.parametrize(
    ("sent", "field", "line"),
    [
        ({"username": "Root", "role": "viewer"}, "username", "username: 'Root' is taken"),
        ({"username": "a b", "role": "viewer"}, "username", "username: 'a b' is refused: wanted 1 to 150 letters"),
        ({"username": "", "role": "viewer"}, "username", "username: '' is refused"),
        ({"username": "x" * 151, "role": "viewer"}, "username", "username: 151 characters are refused"),
        ({"username": "bo", "role": "boss"}, "role", "role: 'boss' is refused: wanted one of viewer, operator, admin"),
    ],
)
def test_a_wrong_invitation_is_refused_beside_its_field(
    browser: Client, sent: dict[str, str], field: str, line: str
) -> None:
    response = browser.post("/team/invite", sent)
    assert response.status_code == 422
    assert line in page(response).one(f"#e-{field}").text
    assert User.objects.count() == 1
    assert audited() == []


def test_a_role_holds_from_the_next_request_on(browser: Client) -> None:
    bo = make_user("bo", role="viewer")
    theirs = signed_in(bo)
    assert theirs.get("/runs/new").status_code == 403
    browser.post(f"/team/{bo.pk}/role", {"role": "operator"})
    assert theirs.get("/runs/new").status_code == 200
    browser.post(f"/team/{bo.pk}/role", {"role": "admin"})
    bo.refresh_from_db()
    assert (bo.role, bo.is_superuser) == ("admin", True)
    browser.post(f"/team/{bo.pk}/role", {"role": "viewer"})
    bo.refresh_from_db()
    assert (bo.role, bo.is_superuser) == ("viewer", False)
    assert [detail for _, detail in audited()] == ["viewer → operator", "operator → admin", "admin → viewer"]


def test_who_is_deactivated_is_out_at_once(browser: Client) -> None:
    bo = make_user("bo")
    theirs, (_, text) = signed_in(bo), ApiToken.objects.issue(bo, "ci")
    bearer = Client(headers={"authorization": f"Bearer {text}"})
    assert bearer.get("/api/v1/runs").status_code == theirs.get("/runs/").status_code == 200
    browser.post(f"/team/{bo.pk}/deactivate")
    assert bearer.get("/api/v1/runs").status_code == 401
    assert theirs.get("/runs/")["Location"].startswith("/accounts/login/")
    browser.post(f"/team/{bo.pk}/activate")
    assert bearer.get("/api/v1/runs").status_code == 200
    assert [verb for verb, _ in audited()] == ["deactivated", "activated"]


@pytest.mark.parametrize(("what", "sent"), [("role", {"role": "viewer"}), ("deactivate", {})])
def test_the_last_active_admin_stays(browser: Client, root: User, what: str, sent: dict[str, str]) -> None:
    other = make_user("other", role="admin", is_superuser=True, is_active=False)
    browser.post(f"/team/{root.pk}/{what}", sent)
    root.refresh_from_db()
    assert (root.role, root.is_active) == ("admin", True)
    assert "root is the last active admin: make another one first" in page(browser.get("/team/")).text
    assert audited() == []
    User.objects.filter(pk=other.pk).update(is_active=True)
    browser.post(f"/team/{root.pk}/{what}", sent)
    root.refresh_from_db()
    assert (root.role == "admin") + root.is_active == 1


def test_a_new_password_ends_sessions_and_must_be_changed(browser: Client) -> None:
    bo = make_user("bo")
    theirs = signed_in(bo)
    browser.post(f"/team/{bo.pk}/reset")
    password = page(browser.get("/team/")).one("#shown code").text
    assert theirs.get("/runs/").status_code == 302
    bo.refresh_from_db()
    assert bo.check_password(password)
    assert bo.must_change_password
    assert audited() == [("reset the password of", "")]


def test_ones_own_password_is_not_reset_here(browser: Client, root: User) -> None:
    browser.post(f"/team/{root.pk}/reset")
    assert "your own password is changed on the page of your account" in page(browser.get("/team/")).text
    root.refresh_from_db()
    assert root.check_password(OLD)
    assert audited() == []


def test_the_team_page_costs_the_same_however_many_there_are(browser: Client) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert browser.get("/team/").status_code == 200
        return len(queries)

    def add(name: str) -> None:
        ApiToken.objects.issue(make_user(name), "ci")

    add("u0")
    browser.get("/team/")
    before = cost()
    for n in range(1, 6):
        add(f"u{n}")
    assert cost() == before


def test_only_an_admin_sees_the_way_to_the_team(browser: Client) -> None:
    assert page(browser.get("/runs/")).one("nav a[href=/team/]").text == "Team"
    assert not page(signed_in(make_user("bo")).get("/runs/")).all("nav a[href=/team/]")


# --- one's own account ----------------------------------------------------------------------------
def test_a_changed_password_ends_other_sessions_but_not_this_one() -> None:
    ada = make_user("ada")
    here, elsewhere = signed_in(ada), signed_in(ada)
    here.post("/account/password", {"old_password": OLD, "new_password1": NEW, "new_password2": NEW})
    assert here.get("/runs/").status_code == 200
    assert elsewhere.get("/runs/").status_code == 302
    ada.refresh_from_db()
    assert ada.check_password(NEW)
    assert audited() == [("changed the password of", "")]


@pytest.mark.parametrize(
    ("sent", "field", "line"),
    [
        ({"old_password": "wrong"}, "old_password", "Your old password was entered incorrectly"),
        ({"new_password2": "other"}, "new_password2", "didn’t match"),
        ({"new_password1": "12345678", "new_password2": "12345678"}, "new_password2", "too common"),
    ],
)
def test_a_password_that_will_not_do_is_refused(sent: dict[str, str], field: str, line: str) -> None:
    ada = make_user("ada")
    form = {"old_password": OLD, "new_password1": NEW, "new_password2": NEW} | sent
    response = signed_in(ada).post("/account/password", form)
    assert response.status_code == 422
    assert line in page(response).one(f"#e-{field}").text
    ada.refresh_from_db()
    assert ada.check_password(OLD)


def test_a_token_is_shown_once_works_and_is_revoked() -> None:
    ada = make_user("ada")
    browser = signed_in(ada)
    browser.post("/account/tokens", {"name": "nightly", "scope": "run", "lifetime": "30"})
    text = page(browser.get("/account/")).one("#shown code").text
    assert text not in browser.get("/account/").content.decode()
    token = ApiToken.objects.get()
    assert (token.scope, token.name) == ("run", "nightly")
    assert token.expires_at is not None
    assert timedelta(days=29) < token.expires_at - timezone.now() <= timedelta(days=30)
    bearer = Client(headers={"authorization": f"Bearer {text}"})
    assert bearer.get("/api/v1/runs").status_code == 200
    browser.post(f"/account/tokens/{token.pk}/revoke")
    assert bearer.get("/api/v1/runs").status_code == 401
    assert audited() == [("issued", "scope run, expires: 30 days"), ("revoked", "of ada, scope run")]
    assert all(text not in str(row) for row in AuditEntry.objects.values())


@pytest.mark.parametrize(
    ("role", "sent", "field", "line"),
    [
        ("viewer", {"scope": "run"}, "scope", "scope: 'run' is refused: your role allows read"),
        ("operator", {"scope": "admin"}, "scope", "scope: 'admin' is refused: your role allows read, run"),
        ("admin", {"scope": "all"}, "scope", "your role allows read, run, admin"),
        ("viewer", {"name": ""}, "name", "name: '' is refused"),
        ("viewer", {"lifetime": "1000000"}, "lifetime", "lifetime: '1000000' is refused"),
    ],
)
def test_a_token_cannot_be_more_than_its_user(role: str, sent: dict[str, str], field: str, line: str) -> None:
    form = {"name": "ci", "scope": "read", "lifetime": "never"} | sent
    response = signed_in(make_user("ada", role=role)).post("/account/tokens", form)
    assert response.status_code == 422
    assert line in page(response).one(f"#e-{field}").text
    assert not ApiToken.objects.exists()


def test_others_tokens_are_revoked_by_admins_only(browser: Client) -> None:
    token, _ = ApiToken.objects.issue(make_user("bo"), "ci")
    assert signed_in(make_user("eve")).post(f"/account/tokens/{token.pk}/revoke").status_code == 404
    assert ApiToken.objects.exists()
    assert browser.post(f"/account/tokens/{token.pk}/revoke")["Location"] == "/team/"
    assert not ApiToken.objects.exists()


# --- the audit log --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "verbs"),
    [
        ("", ["started", "deleted", "queued"]),
        ("?user=bo", ["deleted"]),
        ("?user=-", ["started"]),
        ("?verb=queued", ["queued"]),
        ("?kind=user", ["started"]),
        ("?q=EXPIRED", ["deleted"]),
        ("?q=r-one", ["deleted", "queued"]),
        ("?user=bo&verb=queued", []),
        ("?q=%00", ["started", "deleted", "queued"]),
    ],
)
def test_the_log_is_filtered_by_its_address(browser: Client, root: User, query: str, verbs: list[str]) -> None:
    run = make_run(root, pk="r-one")
    record(root, "queued", run)
    record(make_user("bo"), "deleted", run, "it had expired")
    record(None, "started", root)
    rows = page(browser.get(f"/team/audit{query}")).all("tbody tr")
    assert [row.one("[data-label=Act]").text for row in rows] == verbs


def test_a_long_log_is_paged_with_its_filter(browser: Client, root: User) -> None:
    for _ in range(105):
        record(root, "queued", root)
    record(root, "deleted", root)
    found = page(browser.get("/team/audit?verb=queued&page=2"))
    assert len(found.all("tbody tr")) == 5
    assert "101 to 105 of 105" in found.one(".pager").text
    assert found.one(".pager a[rel=prev]").attributes["href"] == "?verb=queued&page=1"


def test_a_page_of_the_log_costs_the_same_however_long_it_is(browser: Client, root: User) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert browser.get("/team/audit").status_code == 200
        return len(queries)

    record(root, "queued", root)
    browser.get("/team/audit")
    before: Any = cost()
    for n in range(20):
        record(make_user(f"u{n}"), "queued", root)
    assert cost() == before

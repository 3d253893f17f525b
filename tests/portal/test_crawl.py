"""Everybody follows every link from the first page: nothing is dead, nothing breaks, nothing leads past a role."""

from __future__ import annotations

import pytest
from django.test import Client

from portal.accounts.models import User
from tests.portal.crawl import Visit, crawl
from tests.portal.everything import make_everything

pytestmark = pytest.mark.django_db
FOR_ALL = {
    "home",
    "runs:list",
    "runs:run",
    "runs:compare",
    "runs:group",
    "runs:export",
    "scenarios:list",
    "scenarios:scenario",
    "schedules:list",
    "schedules:schedule",
    "lab",
    "runs:api",
    "account:home",
    "static",
}
"""Routes that everybody who is signed in finds by links alone."""


@pytest.fixture
def people() -> dict[str, User]:
    return make_everything()


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_no_link_is_dead_for_anybody_and_each_role_finds_what_is_its_own(people: dict[str, User]) -> None:
    found: dict[str, list[Visit]] = {role: crawl(signed_in(user)) for role, user in people.items()}
    for role, visits in found.items():
        bad = [visit for visit in visits if visit.status >= 400 or not visit.route]
        assert bad == [], role
        assert {visit.route for visit in visits} >= FOR_ALL, role
    routes = {role: {visit.route for visit in visits if visit.status == 200} for role, visits in found.items()}
    assert "runs:new" in routes["operator"] - routes["viewer"]
    assert {"team:people", "team:audit"} <= routes["admin"] - routes["operator"]

    # Nobody is led anywhere but to the sign-in page, from whatever address.
    nobody = Client()
    for visit in found["admin"]:
        answer = nobody.get(visit.path)
        if answer.status_code == 302:
            assert answer["Location"].startswith("/accounts/login/?next="), visit
        else:
            assert visit.route in ("static", "login", "healthz", "api:openapi"), visit
            answer.close()
    assert [visit for visit in crawl(nobody) if visit.status >= 400 or not visit.route] == []

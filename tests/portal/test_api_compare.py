"""A comparison for scripts."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from portal.accounts.models import ApiToken, User
from portal.runs.models import RunGroup
from tests.portal.factories import make_run, make_user
from tests.portal.repeated import quick_group, quick_run

pytestmark = pytest.mark.django_db
FAST, SLOW = (10.0, 10.4, 9.8, 10.2, 9.9), (12.1, 12.6, 11.9, 12.3, None)


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def groups(ada: User) -> tuple[RunGroup, RunGroup]:
    return quick_group(ada, "old", FAST), quick_group(ada, "new", SLOW, version="1.1")


def call(client: Client, user: User, **query: Any) -> Any:
    _, token = ApiToken.objects.issue(user, "script")
    return client.get("/api/v1/compare", query, headers={"authorization": f"Bearer {token}"})


def test_a_script_learns_what_the_page_says(client: Client, ada: User, groups: tuple[RunGroup, RunGroup]) -> None:
    old, new = groups
    found = call(client, ada, base=old.pk, contender=new.pk).json()
    assert (found["exit_code"], found["level"], found["primary_metric"]) == (1, 0.01, "response_time.p99")
    assert found["url"].endswith(f"/runs/compare?base={old.pk}&contender={new.pk}")
    assert (found["base"]["kind"], found["base"]["title"], found["base"]["counted"]) == ("group", "old", 5)
    [one] = found["contenders"]
    assert one["verdict"] == "worse"
    assert one["sentence"].replace("\u00a0", " ").startswith("Response time p99: 10 ms → 12.3 ms (+23 %). p = 0.794 %")
    assert one["differences"] == [
        {"part": "subject", "what": "version", "base": "1.0", "contender": "1.1", "hosts": []}
    ]
    primary = one["figures"][0]
    assert {key: primary[key] for key in ("metric", "kind", "unit", "better", "word", "method", "relative")} == {
        "metric": "response_time.p99", "kind": "primary", "unit": "s", "better": "lower", "word": "worse",
        "method": "ranks", "relative": True,
    }  # fmt: skip
    assert primary["base"]["values"] == pytest.approx([0.01, 0.0104, 0.0098, 0.0102, 0.0099])
    # Above every time, which JSON has no number for.
    assert primary["contender"] == {
        "value": 0.0123, "values": [0.0121, 0.0126, 0.0119, 0.0123, None], "missing": 0,
        "why": "more than 1 % unanswered",
    }  # fmt: skip
    assert primary["p"] == pytest.approx(2 / 252)
    assert primary["delta"] == pytest.approx(0.0023)
    assert primary["interval"] is None
    assert primary["detectable"] is None


def test_where_nothing_can_be_said_a_script_is_told_so(client: Client, ada: User) -> None:
    found = call(
        client, ada, base=quick_run(ada, 10).pk, contender=[quick_run(ada, 20).pk, quick_run(ada, 30).pk]
    ).json()
    assert found["exit_code"] == 3
    assert [one["verdict"] for one in found["contenders"]] == ["noise unknown"] * 2
    assert found["contenders"][0]["figures"][0]["p"] is None


def test_what_is_no_comparison_is_refused_with_its_reason(client: Client, ada: User) -> None:
    run, failed = quick_run(ada, 10), make_run(ada, "failed")
    for query, status, line in (
        ({"base": run.pk, "contender": run.pk}, 422, "1 different sides: wanted base and 1 to 4 contenders"),
        ({"base": run.pk, "contender": [f"r-{n}" for n in range(5)]}, 422, "6 different sides: wanted base and 1 to 4"),
        ({"base": run.pk, "contender": failed.pk}, 404, f"no run or group with a result: '{failed.pk}'"),
        ({"base": "\0", "contender": run.pk}, 404, "no run or group with a result"),
        ({"base": run.pk}, 422, "contender"),
    ):
        answer = call(client, ada, **query)
        assert (answer.status_code, len(answer.json()["detail"])) == (status, 1)
        assert line in answer.json()["detail"][0]

"""`/api/v1/` before a run: plans, groups, scenarios and their versions."""

from __future__ import annotations

import pytest

from portal.accounts.audit import AuditEntry
from portal.accounts.models import User
from portal.runs.models import DeclaredSubject, NamedScenario, Run, RunGroup
from tests.portal.factories import SMOKE, make_finished, make_user
from tests.portal.test_api import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    NamedScenario.write(SMOKE, None)
    return make_user("ada", role="operator")


@pytest.fixture
def caller(user: User) -> Caller:
    return Caller(user)


def test_a_run_says_why_it_is_made_and_what_it_is_held_against(caller: Caller, user: User) -> None:
    base = make_finished(user)
    body = {"scenario": "smoke", "reason": "why", "tags": ["Nightly", "b"], "baseline": base.pk}
    made = caller.post("/runs", body)
    assert (made["reason"], made["tags"], made["baseline"]) == ("why", ["b", "nightly"], base.pk)
    assert (made["scenario_version"], made["group"], made["origin"]) == (1, None, "api")
    assert caller.post("/runs", {"scenario": "smoke", "set": {"clients": 9}})["scenario_version"] is None
    lines = caller.post("/runs", {"scenario": "smoke", "baseline": "r-x", "reason": "a\nb"}, 422)["detail"]
    assert [line.partition(":")[0] for line in lines] == ["reason", "baseline"]


def test_a_declared_subject_is_read_when_the_run_begins(caller: Caller) -> None:
    DeclaredSubject.objects.create(name="chat", url="http://127.0.0.1/version")
    made = caller.post("/runs", {"scenario": "smoke", "subject_declared": "chat"})
    assert made["subject"] == {"name": "chat", "version": "", "source": "probed"}
    both = {"scenario": "smoke", "subject_declared": "chat", "subject": {"name": "a", "version": "1"}}
    assert caller.post("/runs", both, 422)["detail"] == ["subject: wanted either subject or subject_declared"]
    lines = caller.post("/runs", {"scenario": "smoke", "subject_declared": "nope"}, 422)["detail"]
    assert lines == ["subject.declared: 'nope' is not declared; known: chat"]


def test_a_plan_is_told_and_nothing_is_queued(caller: Caller) -> None:
    plan = caller.post("/plan", {"scenario": "smoke", "set": {"clients": 150}, "times": 5, "alternate": {}}, 200)
    assert [(part["generator"], part["connections"]) for part in plan["parts"]] == [("load-1", 75), ("load-2", 75)]
    assert (plan["runs"], plan["total_s"], plan["ahead"], plan["begins_s"]) == (10, 220, 0, 0)
    assert any("p99.9" in line for line in plan["warnings"])
    assert Run.objects.count() == 0
    assert caller.post("/plan", {"scenario": "smoke", "set": {"duration_s": 1}}, 422)["detail"][0].startswith("no meas")
    assert caller.post("/plan", {"scenario": "smoke", "times": 0}, 422)["detail"] == [
        "times: 0 is refused (allowed: 1 to 50)"
    ]


def test_a_group_is_queued_seen_and_cancelled(caller: Caller) -> None:
    body = {"scenario": "smoke", "times": 2, "title": "sizes", "alternate": {"set": {"size_bytes": 1024}}}
    made = caller.post("/groups", body)
    assert (made["title"], made["kind"], made["over"]) == ("sizes: A: size_bytes=64 (smoke)", "alternate", 0)
    assert [run["group_place"] for run in made["runs"]] == [1, 2]
    other = caller.get(f"/groups/{made['partner']}")
    assert other["title"] == "sizes: B: size_bytes=1024 (smoke)"
    assert other["url"] == f"http://127.0.0.1:8000/runs/groups/{other['group_id']}/"
    done = caller.post(f"/groups/{made['group_id']}/cancel", status=202)
    assert [run["state"] for run in done["runs"]] == ["cancelled", "cancelled"]
    assert set(Run.objects.values_list("state", flat=True)) == {"cancelled"}
    assert caller.post(f"/groups/{made['group_id']}/cancel", status=409)["detail"][0].endswith("are over")
    assert caller.get("/groups/g-none", 404)["detail"] == ["no group 'g-none'"]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"times": 1}, "times: 1 is refused (allowed: 2 to 50)"),
        ({"times": 3, "alternate": {"set": {"clients": 0}}}, "clients: 0 is refused"),
        ({"times": 3, "alternate": {"scenario": "nope"}}, "scenario: 'nope' is not known"),
        ({"times": 3, "alternate": {"subject": {"version": "2"}}}, "subject.name: '' is refused"),
        ({"times": 3, "colour": "red"}, "colour: "),
    ],
)
def test_a_group_that_cannot_be_is_refused_in_words(caller: Caller, wrong: dict[str, object], line: str) -> None:
    assert caller.post("/groups", {"scenario": "smoke", **wrong}, 422)["detail"][0].lower().startswith(line)
    assert RunGroup.objects.count() == 0


def test_a_scenario_is_written_read_and_put_away(caller: Caller, user: User) -> None:
    made = caller.put("/scenarios/mine", {"fields": {"clients": 12}, "message": "a small one", "made_from": 0})
    assert (made["version"], made["scenario"]["clients"], made["archived"]) == (1, 12, False)
    assert caller.put("/scenarios/mine", {"fields": {"clients": 13}})["version"] == 2
    assert caller.put("/scenarios/mine", {"fields": {"clients": 13}})["version"] == 2
    versions = caller.get("/scenarios/mine/versions")
    assert [(one["version"], one["author"], one["message"]) for one in versions] == [
        (2, "ada", ""),
        (1, "ada", "a small one"),
    ]
    assert caller.get("/scenarios/smoke/versions")[0]["author"] is None
    run = make_finished(user)
    assert caller.put("/scenarios/mine/baseline", {"baseline": run.pk})["baseline"] == run.pk
    assert caller.put("/scenarios/mine/baseline", {"baseline": "none"})["baseline"] is None
    assert caller.put("/scenarios/mine/baseline", {"baseline": ""}, 422)["detail"][0].startswith("baseline: ")
    assert caller.post("/scenarios/mine/archive", status=200)["archived"] is True
    assert [one["name"] for one in caller.get("/scenarios")] == ["smoke"]
    assert caller.post("/runs", {"scenario": "mine"}, 422)["detail"][0].startswith("scenario: mine is archived")
    assert caller.post("/scenarios/mine/restore", status=200)["archived"] is False
    verbs = list(AuditEntry.objects.order_by("id").values_list("verb", flat=True))
    assert verbs == ["wrote"] * 3 + ["set the baseline of"] * 2 + ["archived", "brought back"]


def test_a_scenario_that_cannot_be_is_refused_in_words(caller: Caller) -> None:
    assert caller.put("/scenarios/mine", {"fields": {"clients": 0}}, 422)["detail"][0].startswith("clients: 0 is")
    assert caller.put("/scenarios/mine", {"fields": {"name": "x"}}, 422)["detail"] == [
        "name: 'x' is refused: the address says 'mine'"
    ]
    assert caller.put("/scenarios/Mine!", {"fields": {}}, 422)["detail"][0].startswith("name: 'Mine!' is refused")
    stale = caller.put("/scenarios/smoke", {"fields": {}, "made_from": 0}, 409)
    assert stale["detail"] == ["made_from: 0 is not the newest version of smoke, 1 is"]
    assert caller.get("/scenarios/nope", 404)["detail"] == ["no scenario 'nope'"]


def test_a_viewers_token_reads_and_writes_nothing(user: User) -> None:
    caller = Caller(make_user("vi", role="viewer"))
    assert caller.get("/scenarios/smoke")["version"] == 1
    for path in ("/plan", "/groups", "/scenarios/smoke/archive"):
        assert caller.post(path, {"scenario": "smoke", "times": 2}, 403)["detail"][0].startswith("this takes the role")
    assert caller.put("/scenarios/smoke", {"fields": {}}, 403)

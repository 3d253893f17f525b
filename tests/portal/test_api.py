"""`/api/v1/` as a client sees it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from portal.accounts.models import ApiToken, User
from portal.runs import api as api_module
from portal.runs.models import Run
from portal.runs.seed import seed_scenarios
from portal.runs.states import State
from tests.portal.factories import make_finished, make_run, make_scenario, make_user
from wsnode.core.result import Result
from wsnode.core.scenario import Scenario

pytestmark = pytest.mark.django_db
SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.fixture
def user() -> User:
    return make_user()


class Caller:
    """A client with a token."""

    def __init__(self, user: User) -> None:
        self.token, text = ApiToken.objects.issue(user, "ci")
        # With CSRF checks, as in use: a token needs none.
        self.client = Client(enforce_csrf_checks=True, headers={"authorization": f"Bearer {text}"})

    def get(self, path: str, status: int = 200) -> Any:
        return self._read(self.client.get(f"/api/v1{path}"), status)

    def post(self, path: str, body: object = None, status: int = 201) -> Any:
        return self._read(self.client.post(f"/api/v1{path}", body, content_type="application/json"), status)

    def put(self, path: str, body: object = None, status: int = 200) -> Any:
        return self._read(self.client.put(f"/api/v1{path}", body, content_type="application/json"), status)

    @staticmethod
    def _read(response: Any, status: int) -> Any:
        assert response.status_code == status, response.content
        return response.json()


@pytest.fixture
def caller(user: User) -> Caller:
    return Caller(user)


def test_a_named_scenario_is_queued(caller: Caller, user: User) -> None:
    make_scenario()
    made = caller.post("/runs", {"scenario": "smoke"})
    run = Run.objects.get()
    assert made["run_id"] == run.pk
    assert made["state"] == "queued"
    assert made["url"] == f"http://127.0.0.1:8000/runs/{run.pk}/"
    assert made["subject"] == {"name": "wsnode", "version": "", "source": "own"}
    assert made["created_by"] == "ada"
    assert (run.created_by, run.machine, run.scenario_model.clients) == (user, "this-machine", 100)


def test_fields_are_set_and_the_subject_is_kept(caller: Caller) -> None:
    make_scenario()
    body = {
        "scenario": "smoke",
        "set": {"clients": 50, "rate_per_s": "200", "thresholds": "error_ratio < 1%"},
        "subject": {"name": "shop", "version": "2.1"},
    }
    made = caller.post("/runs", body)
    scenario = Run.objects.get().scenario_model
    assert (scenario.clients, scenario.rate_per_s, scenario.thresholds) == (50, 200, ("error_ratio < 1%",))
    assert made["subject"] == {"name": "shop", "version": "2.1", "source": "given"}


def test_a_scenario_may_be_sent_whole(caller: Caller) -> None:
    caller.post("/runs", {"scenario": {"name": "mine", "clients": 10, "ramp_up_s": 1, "duration_s": 5}})
    assert Run.objects.get().scenario_name == "mine"


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ({"scenario": "nope"}, ["scenario: 'nope' is not known; known: smoke"]),
        (
            {"scenario": "smoke", "set": {"clients": 0}},
            ["clients: 0 is refused: Input should be greater than or equal to 1 (allowed: 1 to 1,000,000 connections)"],
        ),
        (
            {"scenario": "smoke", "set": {"cleints": 1, "clients": 0}},
            [f"cleints: no such field; known: {', '.join(Scenario.model_fields)}"],
        ),
        (
            {"scenario": {"clients": 5, "colour": "red"}},
            [f"colour: no such field; known: {', '.join(Scenario.model_fields)}"],
        ),
        (
            {"scenario": "smoke", "subject": {"name": "", "version": "1"}},
            ["subject.name: '' is refused: wanted 1 to 200 visible characters (NAME@VERSION)"],
        ),
        ({"scenario": "smoke", "colour": "red"}, ["colour: Extra inputs are not permitted"]),
        ({}, ["scenario: Field required"]),
    ],
)
def test_what_is_wrong_is_said_line_by_line(caller: Caller, body: dict[str, Any], lines: list[str]) -> None:
    make_scenario()
    assert caller.post("/runs", body, 422) == {"detail": lines}
    assert not Run.objects.exists()


def test_a_run_without_a_window_is_refused_with_each_repair_unless_accepted(caller: Caller) -> None:
    seed_scenarios(SCENARIOS)
    (line,) = caller.post("/runs", {"scenario": "stress"}, 422)["detail"]
    stress = Scenario(clients=100_000, interval_ms=10, ramp_up_s=60, duration_s=300, rate_per_s=100)
    with pytest.raises(ValueError) as refusal:
        stress.check_window()
    assert line == str(refusal.value)
    assert "30,000 would connect by then. Repairs: duration_s >= 1001, or rate_per_s >= 335" in line
    assert caller.post("/runs", {"scenario": "stress", "accept_partial": True})["state"] == "queued"
    assert Run.objects.get().accept_partial


def test_without_a_lab_a_run_is_refused_by_name(caller: Caller, lab_file: Path) -> None:
    make_scenario()
    lab_file.unlink()
    (line,) = caller.post("/runs", {"scenario": "smoke"}, 422)["detail"]
    assert line.startswith(f"lab: {lab_file}: No such file or directory; start the stack (./wslab up)")


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer nonsense", "Basic YTpi", "Bearer wslab_00000000_x"])
def test_without_a_living_token_nothing_is_told(user: User, header: str | None) -> None:
    run = make_run(user)
    client = Client(headers={"authorization": header} if header else {})
    client.force_login(user)
    of_run = (("GET", ""), ("POST", "/cancel"), ("GET", "/result"))
    paths = [("GET", "/runs"), ("POST", "/runs"), ("GET", "/scenarios"), ("GET", "/runs/r-nope")]
    for method, path in (*paths, *((method, f"/runs/{run.pk}{end}") for method, end in of_run)):
        response = client.generic(method, f"/api/v1{path}")
        assert response.status_code == 401
        assert response["Content-Type"].startswith("application/json")
        assert response["WWW-Authenticate"] == "Bearer"
        assert "issue_token" in response.json()["detail"][0]


def test_an_expired_token_opens_nothing(caller: Caller) -> None:
    caller.get("/runs")
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    caller.get("/runs", 401)


def test_runs_are_listed_newest_first_up_to_the_limit(caller: Caller, user: User) -> None:
    made = [make_run(user, created_at=timezone.now() - timedelta(minutes=n)) for n in range(5)]
    failed = make_run(user, State.FAILED, created_at=timezone.now() - timedelta(days=1))
    assert [run["run_id"] for run in caller.get("/runs")] == [run.pk for run in [*made, failed]]
    assert [run["run_id"] for run in caller.get("/runs?limit=2")] == [made[0].pk, made[1].pk]
    assert [run["run_id"] for run in caller.get("/runs?state=failed")] == [failed.pk]
    detail = caller.get("/runs?limit=0&state=done", 422)["detail"]
    assert detail[0] == "limit: 0 is refused (allowed: 1 to 500)"
    assert detail[1].startswith("state: 'done' is refused: wanted one of queued, preflight")


def test_the_list_costs_the_same_however_long_it_is(
    caller: Caller, user: User, django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        make_run(user)
    caller.get("/runs")
    with django_assert_max_num_queries(3):
        assert len(caller.get("/runs")) == 20


def test_a_running_run_shows_its_progress(caller: Caller, user: User) -> None:
    run = make_run(user, State.RUNNING, live={"second": 3, "received": 70}, start_at_ns=17)
    seen = caller.get(f"/runs/{run.pk}")
    assert (seen["state"], seen["progress"], seen["result"]) == ("running", {"second": 3, "received": 70}, None)
    assert seen["start_at_ns"] == 17
    assert caller.get(f"/runs/{run.pk}/result", 409)["detail"] == [f"run {run.pk} has no result yet: it is running"]


def test_a_finished_run_has_its_result_in_the_one_schema(caller: Caller, user: User) -> None:
    run = make_finished(user)
    seen = caller.get(f"/runs/{run.pk}")
    response = caller.client.get(f"/api/v1/runs/{run.pk}/result")
    assert json.loads(response.content) == seen["result"] == run.summary.result
    result = Result.model_validate_json(response.content)
    assert result.run_id == run.pk
    assert result.verdict == seen["verdict"] == "passed"
    assert result.validity == seen["validity"] == "valid"


def test_a_run_that_failed_says_why_it_has_no_result(caller: Caller, user: User) -> None:
    run = make_run(user, State.FAILED, state_reason="load-1 is unfit")
    assert caller.get(f"/runs/{run.pk}")["state_reason"] == "load-1 is unfit"
    detail = caller.get(f"/runs/{run.pk}/result", 404)["detail"]
    assert detail == [f"run {run.pk} has no result: it is failed: load-1 is unfit"]


def test_a_cancel_is_taken_once_there_is_something_to_cancel(caller: Caller, user: User) -> None:
    queued, active = make_run(user), make_run(user, State.RUNNING, machine="two")
    assert caller.post(f"/runs/{queued.pk}/cancel", status=202)["state"] == "cancelled"
    asked = caller.post(f"/runs/{active.pk}/cancel", status=202)
    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    detail = caller.post(f"/runs/{queued.pk}/cancel", status=409)["detail"]
    assert detail == [f"run {queued.pk} is over: it is cancelled"]
    assert caller.post("/runs/r-nope/cancel", status=404)["detail"] == ["no run 'r-nope'"]


def test_a_wild_client_is_slowed(caller: Caller, monkeypatch: pytest.MonkeyPatch, user: User) -> None:
    monkeypatch.setattr(api_module, "PER_MINUTE", 3)
    monkeypatch.setattr(api_module.time, "time", lambda: 1_800_000_000.0)
    for _ in range(3):
        caller.get("/runs")
    assert caller.get("/runs", 429)["detail"] == ["Too many requests."]
    Caller(user).get("/runs")


def test_a_fault_of_the_portal_is_json_too(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api_module, "create_run", lambda *_, **__: 1 / 0)
    said = caller.post("/runs", {"scenario": "smoke"}, 500)
    assert said == {"detail": ["the portal broke down over this; its log says where"]}
    assert "ZeroDivisionError" in caplog.text


def test_the_description_names_every_path_and_the_scenarios_limits(caller: Caller, user: User) -> None:
    schema = caller.get("/openapi.json")
    assert set(schema["paths"]) == {
        "/api/v1/compare",
        "/api/v1/groups",
        "/api/v1/groups/{group_id}",
        "/api/v1/groups/{group_id}/cancel",
        "/api/v1/plan",
        "/api/v1/runs",
        "/api/v1/runs/{run_id}",
        "/api/v1/runs/{run_id}/cancel",
        "/api/v1/runs/{run_id}/result",
        "/api/v1/scenarios",
        "/api/v1/scenarios/{name}",
        "/api/v1/scenarios/{name}/archive",
        "/api/v1/scenarios/{name}/baseline",
        "/api/v1/scenarios/{name}/restore",
        "/api/v1/scenarios/{name}/versions",
        "/api/v1/schedules",
        "/api/v1/schedules/{schedule_id}",
        "/api/v1/schedules/{schedule_id}/pause",
        "/api/v1/schedules/{schedule_id}/resume",
    }
    assert schema["components"]["schemas"]["Scenario"]["properties"]["clients"]["maximum"] == 1_000_000
    client = Client()
    assert client.get("/api/v1/openapi.json").status_code == 401
    client.force_login(user)
    assert client.get("/api/v1/openapi.json").status_code == 200


def test_scenarios_are_listed_with_all_their_fields(caller: Caller) -> None:
    make_scenario()
    (scenario,) = caller.get("/scenarios")
    assert Scenario.model_validate(scenario).clients == 100


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b'{"scenario": "' + b"a" * 3_000_000 + b'"}', 413, "the request is refused: more than 2,621,440 bytes"),
        (b"[" * 200_000, 400, "Cannot parse request body"),
        (b'{"scenario": "smoke", "set": {"thresholds": "' + b"[" * 100_000 + b'"}}', 422, "thresholds: threshold '[[["),
        (b'{"scenario": "\\ud800"}', 422, "scenario: '\\ud800' is not known"),
        (b'{"scenario": "smoke", "subject": {"name": "\\ud800", "version": "1"}}', 422, "subject.name: '\\ud800'"),
        (
            b'{"scenario": "smoke", "subject": {"name": "a\\u0000\\n", "version": "1"}}',
            422,
            "subject.name: 'a\\x00\\n'",
        ),
    ],
)
def test_what_no_client_sends_by_mistake_is_refused_in_words(
    caller: Caller, body: bytes, status: int, line: str
) -> None:
    make_scenario()
    response = caller.client.post("/api/v1/runs", body, content_type="application/json")
    assert response.status_code == status
    assert response.json()["detail"][0].startswith(line)
    assert Run.objects.count() == 0


def test_of_very_many_faults_the_first_are_told_and_the_rest_counted(caller: Caller) -> None:
    make_scenario()
    lines = caller.post("/runs", {"scenario": "smoke", "set": {f"k{n}": 1 for n in range(1000)}}, 422)["detail"]
    assert len(lines) == 51
    assert lines[-1] == "and 950 more"


def test_an_address_or_method_that_there_is_not_is_refused_in_the_one_form(caller: Caller) -> None:
    assert caller.get("/nope", 404)["detail"] == ["there is nothing at '/api/v1/nope': see /api/v1/openapi.json"]
    assert caller.get("/runs/%00", 404)["detail"] == ["no run '\\x00'"]
    response = caller.client.put("/api/v1/runs")
    assert (response.status_code, set(response["Allow"].split(", "))) == (405, {"GET", "POST"})
    assert response.json()["detail"][0].startswith("PUT is not for this address: only ")

"""Scenarios as they are named, typed and sent; scenario files; subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from portal.runs.draft import GivenSubject, Refused, compose, form_fields
from portal.runs.models import NamedScenario
from portal.runs.seed import read_scenario, seed_scenarios
from tests.portal.factories import make_scenario
from wsnode.core.scenario import Scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios"
WHOLE = {"clients": 10, "ramp_up_s": 1, "duration_s": 10}


@pytest.mark.parametrize(
    ("field", "typed", "value"),
    [
        ("clients", "50", 50),
        ("ramp_up_s", " 2.5 ", 2.5),
        ("max_in_flight", "", None),
        ("max_in_flight", "none", None),
        ("max_in_flight", "7", 7),
        ("reconnect", "false", False),
        ("message_type", "binary", "binary"),
        ("description", "  as typed ", "  as typed "),
        ("thresholds", "", ()),
        ("thresholds", "error_ratio < 1%, response_time.p99 < 5ms", ("error_ratio < 1%", "response_time.p99 < 5ms")),
        ("thresholds", "error_ratio < 1%\r\n\r\n", ("error_ratio < 1%",)),
        ("thresholds", '["error_ratio < 1%"]', ("error_ratio < 1%",)),
        ("thresholds", ["error_ratio < 1%"], ("error_ratio < 1%",)),
    ],
)
def test_text_is_read_as_the_fields_kind(field: str, typed: object, value: object) -> None:
    assert getattr(compose(WHOLE, {field: typed}, accept_partial=False), field) == value


@pytest.mark.parametrize(
    ("field", "typed", "line"),
    [
        ("clients", "many", "clients: 'many' is refused: Input should be a valid integer, unable to parse string as an "
                            "integer (allowed: 1 to 1,000,000 connections)"),
        ("clients", "", "clients: '' is refused: Input should be a valid integer, unable to parse string as an integer "
                        "(allowed: 1 to 1,000,000 connections)"),
        ("thresholds", "p99 < 5", "thresholds: "),
        ("thresholds", '["', "thresholds: "),
        ("drain_s", "1", "drain_s is 1 s but reply_timeout_s is 5 s: the drain must be at least as long, so that every "
                         "reply can still be awaited"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_in_cores_words(field: str, typed: object, line: str) -> None:
    with pytest.raises(Refused) as refused:
        compose(WHOLE, {field: typed}, accept_partial=False)
    (said,) = refused.value.lines
    assert said.startswith(line)


def test_form_fields_are_the_scenarios_with_their_limits() -> None:
    fields = {field.name: field for field in form_fields()}
    assert list(fields) == list(Scenario.model_fields)
    clients = fields["clients"]
    assert (clients.kind, clients.minimum, clients.maximum, clients.unit, clients.default) == (
        "integer", 1, 1_000_000, "connections", 1000,
    )  # fmt: skip
    assert fields["seed"].maximum == (1 << 32) - 1
    assert fields["message_type"].choices == ("text", "binary")
    assert (fields["match"].kind, fields["first_messages"].kind, fields["payload"].optional) == ("text", "lines", True)
    assert (fields["max_in_flight"].optional, fields["clients"].optional) == (True, False)
    assert {field.kind for field in fields.values()} == {"integer", "number", "text", "choice", "flag", "lines"}
    assert all(field.title and field.help for field in fields.values())


@pytest.mark.parametrize("text", ["", "shop", "@1", "shop@", f"shop@{'x' * 201}"])
def test_half_a_subject_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="NAME@VERSION"):
        GivenSubject.parse(text)


def test_a_subjects_name_may_hold_an_at_sign() -> None:
    assert GivenSubject.parse("team@shop@2.1") == GivenSubject("team@shop", "2.1")


@pytest.mark.django_db
def test_the_projects_own_scenarios_are_loaded_and_again_without_harm() -> None:
    names, kept = seed_scenarios(SCENARIOS)
    assert names == sorted(file.stem for file in SCENARIOS.glob("*.yaml"))
    NamedScenario.objects.filter(name="smoke").update(content={})
    assert seed_scenarios(SCENARIOS).names == names == NamedScenario.objects.names()
    assert kept == []
    smoke = NamedScenario.objects.get(name="smoke").scenario_model
    assert smoke == read_scenario(SCENARIOS / "smoke.yaml")


@pytest.mark.django_db
def test_one_wrong_file_stops_all_and_every_fault_is_told(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("name: good\n")
    (tmp_path / "bad.yaml").write_text("name: bad\nclients: 0\ncolour: red\n")
    (tmp_path / "odd.yaml").write_text("- a list\n")
    (tmp_path / "torn.yaml").write_text("name: [\n")
    (tmp_path / "other.yaml").write_text("name: something\n")
    with pytest.raises(Refused) as refused:
        seed_scenarios(tmp_path)
    lines: list[Any] = refused.value.lines
    assert [line.partition(": ")[0] for line in lines] == [
        "bad.yaml", "bad.yaml", "odd.yaml", "other.yaml", "torn.yaml",
    ]  # fmt: skip
    assert "clients: 0 is refused" in lines[0]
    assert lines[2] == "odd.yaml: wanted fields with values, got list"
    assert lines[3] == "other.yaml: its name is 'something', wanted 'other'"
    assert not NamedScenario.objects.exists()
    with pytest.raises(Refused, match=r"no \*\.yaml there"):
        seed_scenarios(tmp_path / "empty")


@pytest.mark.django_db
def test_a_named_scenario_is_the_base_of_what_is_set() -> None:
    make_scenario()
    scenario = compose("smoke", {"clients": "120"}, accept_partial=False)
    assert (scenario.name, scenario.clients, scenario.interval_ms) == ("smoke", 120, 200)

"""Scenarios: what is refused and in which words, what the five numbers come to, and the files that ship."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from wsnode.core.scenario import NoWindow, Plan, Scenario, allowed_range, error_lines

FILES = sorted((Path(__file__).parents[3] / "scenarios").glob("*.yaml"))
REPAIR = re.compile(r"(\w+) (>=|<=) (\d+)")


def load(file: Path) -> Scenario:
    return Scenario.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def kinds(annotation: Any) -> set[Any]:
    """int | None is {int, None}."""
    return set(get_args(annotation)) if isinstance(annotation, UnionType) else {annotation}


def bounds(field: str) -> dict[str, float]:
    return {
        name: getattr(rule, name)
        for rule in Scenario.model_fields[field].metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(rule, name)
    }


def refusals() -> Iterator[tuple[str, Any, str]]:
    """(field, bad value, what the line must say is allowed), for every field by its own metadata."""
    for field, info in Scenario.model_fields.items():
        kind = kinds(info.annotation)
        if kind & {int, float}:
            limits, allowed = bounds(field), allowed_range(field)
            low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
            assert low is not None, f"{field} has no lower limit"
            assert high is not None, f"{field} has no upper limit"
            yield field, low - 1 if "ge" in limits else low, allowed
            yield field, high + 1 if "le" in limits else high, allowed
            yield from ((field, bad, allowed) for bad in (True, False, "many", [], float("nan"), float("inf")))
            if float not in kind:
                yield field, low + 0.5, allowed
            if type(None) not in kind:
                yield field, None, allowed
        elif get_origin(info.annotation) is Literal:
            choices = get_args(info.annotation)
            yield from ((field, bad, f"'{choices[0]}'") for bad in ("other", 1, None, True))
        elif kind == {bool}:
            yield from ((field, bad, "a valid boolean") for bad in ("perhaps", 7, None))
        elif kind == {str}:
            yield from ((field, bad, "string") for bad in (5, None, []))
        elif kind == {str, type(None)}:
            yield from ((field, bad, "string") for bad in (5, []))
        elif field == "stages":
            yield field, ["step to 1", *["hold 1s"] * 100], "at most 100 items"
        else:
            assert get_origin(info.annotation) is tuple
            [most] = [m.max_length for m in info.metadata if hasattr(m, "max_length")]
            yield field, "response_time.p99 < 50ms", "a valid tuple"
            item = "> login" if field == "first_messages" else "error_ratio < 1%"
            yield field, [item] * (most + 1), f"at most {most} items"
    yield "thresholds", ["p99 < 50"], "known: response_time.p99"
    yield "abort_on", ["p99 < 50"], "known: response_time.p99"
    yield "first_messages", ["login"], "expected '> TEXT'"
    for name in ("", "Upper", "two words", "-x", "a/b", "x" * 64, "smoke\n"):
        yield "name", name, "allowed: Lower-case letters, digits"
    yield "description", "x" * 501, "at most 500 characters"
    for name in ("", "Echo", "a-b", "x" * 33, "os.system", "echo\n"):
        yield "behaviour", name, "allowed: What clients do"
    for match in ("json", "json:id", "json:/a b", "regex", "order\n"):
        yield "match", match, "'json:/POINTER': by the value there"
    yield "payload", "", "at least 1 character"


@pytest.mark.parametrize(("field", "value", "allowed"), list(refusals()))
def test_a_bad_value_is_refused_with_field_value_and_what_is_allowed(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario.model_validate({field: value})
    [line] = error_lines(caught.value)
    assert line.startswith(f"{field}: ")
    assert allowed
    assert allowed in line
    if value in (["p99 < 50"], ["login"]):
        assert repr(value[0]) in line
    else:
        assert repr(value)[:100] in line
    assert len(line) < 600


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("clients", " (allowed: 1 to 1,000,000 connections)"),
        ("rate_per_s", " (allowed: above 0 to 100,000 1/s)"),
        ("reply_timeout_s", " (allowed: 0.1 to 600 s)"),
        ("max_in_flight", " (allowed: 1 to 1,000,000 messages)"),
        ("seed", " (allowed: 0 to below 4,294,967,296)"),
        ("name", ""),
        ("nothing", ""),
    ],
)
def test_the_allowed_range_is_read_from_the_field(field: str, text: str) -> None:
    assert allowed_range(field) == text


def test_values_on_the_limits_are_taken() -> None:
    for field in Scenario.model_fields:
        limits = bounds(field)
        for limit in (limits.get("ge"), limits.get("le")):
            if limit is not None:
                given_with = {"reply_timeout_s": 0.1} if field == "drain_s" else {}
                given_with |= {"drain_s": 600} if field == "reply_timeout_s" else {}
                given_with |= {"pace": "closed"} if field == "in_flight" else {}
                scenario = Scenario.model_validate({field: limit} | given_with)
                assert getattr(scenario, field) == limit


def test_every_refused_value_has_its_own_line() -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario.model_validate({"clients": 0, "interval_ms": -1, "thresholds": ["error_ratio < 1ms"], "client": 5})
    lines = error_lines(caught.value)
    assert [line.split(":")[0] for line in lines] == ["clients", "interval_ms", "thresholds", "client"]
    assert lines[0] == (
        "clients: 0 is refused: Input should be greater than or equal to 1 (allowed: 1 to 1,000,000 connections)"
    )
    assert lines[2] == "thresholds: threshold 'error_ratio < 1ms': unit 'ms'; error_ratio takes '%' or none"
    assert lines[3].startswith("client: no such field; known: name, description, behaviour, clients,")


@pytest.mark.parametrize("data", ["smoke", 5, None, ["clients"]])
def test_what_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario.model_validate(data)
    assert error_lines(caught.value) == ["Input should be a valid dictionary or instance of Scenario"]


def test_the_drain_is_never_below_the_reply_timeout() -> None:
    assert Scenario(reply_timeout_s=5, drain_s=5).drain_s == 5
    with pytest.raises(ValidationError) as caught:
        Scenario(reply_timeout_s=9.5)
    [line] = error_lines(caught.value)
    assert line.startswith("drain_s is 5 s but reply_timeout_s is 9.5 s")
    assert "(drain_s >= 10, or reply_timeout_s <= 5)" in line
    assert Scenario(reply_timeout_s=9.5, drain_s=10)
    assert Scenario(reply_timeout_s=5)


def test_text_from_forms_and_options_is_read_as_numbers() -> None:
    scenario = Scenario.model_validate({"clients": "500", "rate_per_s": "12.5", "reconnect": "false", "seed": 7.0})
    assert (scenario.clients, scenario.rate_per_s, scenario.reconnect, scenario.seed) == (500, 12.5, False, 7)


def test_the_rate_is_a_ceiling() -> None:
    assert Scenario(clients=1000, ramp_up_s=20, rate_per_s=50).planned_ramp_s == 20
    assert Scenario(clients=1000, ramp_up_s=20, rate_per_s=49).planned_ramp_s == pytest.approx(1000 / 49)
    assert Scenario(clients=1000, ramp_up_s=20, rate_per_s=100_000).planned_ramp_s == 20
    assert Scenario(clients=1000, ramp_up_s=0, rate_per_s=100).planned_ramp_s == 10


@given(st.integers(1, 5000), st.floats(0, 100), st.floats(0.5, 5000))
def test_no_second_begins_more_connects_than_the_rate(clients: int, ramp_up_s: float, rate_per_s: float) -> None:
    scenario = Scenario(clients=clients, ramp_up_s=ramp_up_s, rate_per_s=rate_per_s)
    assert scenario.planned_ramp_s >= ramp_up_s
    assert clients / scenario.planned_ramp_s <= rate_per_s * (1 + 1e-9)
    connects = [scenario.pacing().connect_due(client) for client in range(clients)]
    first = 0
    for last, due in enumerate(connects):
        while connects[first] <= due - 1_000_000_000:
            first += 1
        assert last - first + 1 <= rate_per_s + 1


@pytest.mark.parametrize(
    ("fields", "opens", "length"),
    [
        ({}, 20, 60),
        ({"warm_up_s": 5}, 25, 55),
        ({"clients": 1001}, 21, 59),
        ({"ramp_up_s": 19.5, "rate_per_s": 1000}, 20, 60),
        ({"ramp_up_s": 20.000_000_4, "rate_per_s": 1000}, 20, 60),
        ({"ramp_up_s": 20.001, "rate_per_s": 1000}, 21, 59),
        ({"clients": 3, "ramp_up_s": 0, "rate_per_s": 0.3}, 10, 70),
        ({"clients": 1, "ramp_up_s": 0, "rate_per_s": 100_000}, 1, 79),
        ({"duration_s": 21}, 20, 1),
        ({"duration_s": 20}, 20, 0),
        ({"duration_s": 5}, 20, -15),
    ],
)
def test_the_window_opens_at_the_first_whole_second_after_ramp_up_and_warm_up(
    fields: dict[str, Any], opens: int, length: int
) -> None:
    scenario = Scenario(**fields)
    assert (scenario.window_open_s, scenario.window_s) == (opens, length)
    assert scenario.pacing().connect_due(scenario.clients - 1) < opens * 1_000_000_000
    if length >= 1:
        scenario.check_window()
    else:
        with pytest.raises(NoWindow):
            scenario.check_window()


scenarios = st.builds(
    Scenario,
    clients=st.integers(1, 1_000_000),
    ramp_up_s=st.one_of(st.integers(0, 100), st.floats(0, 86_400)),
    duration_s=st.one_of(st.integers(1, 100), st.integers(1, 604_800)),
    rate_per_s=st.one_of(st.floats(0.001, 100), st.floats(1, 100_000), st.sampled_from((0.1, 0.3, 0.7, 1.1))),
    warm_up_s=st.one_of(st.just(0), st.integers(0, 100), st.integers(0, 86_400)),
)


@given(scenarios)
@example(Scenario(clients=1_000_000, rate_per_s=0.01, duration_s=5))
@example(Scenario(clients=1_000_000, rate_per_s=0.5, duration_s=6))
@example(Scenario(clients=1_000_000, rate_per_s=1, duration_s=1))
@example(Scenario(clients=7, ramp_up_s=0, rate_per_s=0.7, duration_s=10))
@example(Scenario(ramp_up_s=70, warm_up_s=70))
@example(Scenario(ramp_up_s=86_400, warm_up_s=86_400, duration_s=1, rate_per_s=0.001))
def test_each_repair_that_a_refusal_names_gives_a_window_and_is_within_the_limits(scenario: Scenario) -> None:
    assume(scenario.window_s < 1)
    with pytest.raises(NoWindow) as caught:
        scenario.check_window()
    text = str(caught.value)
    repairs = text.partition("Repairs: ")[2].partition("; or accept")[0].split(", or ")
    assert repairs
    assert len(set(repairs)) == len(repairs)
    for repair in repairs:
        settings = {field: (bound, int(value)) for field, bound, value in REPAIR.findall(repair)}
        assert " with ".join(f"{field} {bound} {value}" for field, (bound, value) in settings.items()) == repair
        for field, (bound, value) in settings.items():
            assert value > getattr(scenario, field) if bound == ">=" else value < getattr(scenario, field)
        repaired = Scenario.model_validate(
            scenario.model_dump() | {field: value for field, (_, value) in settings.items()}
        )
        assert repaired.window_s >= 1
        repaired.check_window()
    assert f"{scenario.clients:,} clients" in text
    assert f"{scenario.connected_by_end:,} would connect by then" in text
    assert "--accept-partial" in text


def test_repairs_are_the_smallest_changes_that_do() -> None:
    scenario = Scenario(clients=1000, ramp_up_s=20, rate_per_s=50, duration_s=15)
    with pytest.raises(NoWindow, match=r"duration_s >= 21, or ramp_up_s <= 14 with rate_per_s >= 72, or ") as caught:
        scenario.check_window()
    assert "ramp_up_s <= 14 with clients <= 700;" in str(caught.value)
    for less in ({"duration_s": 20}, {"ramp_up_s": 14, "rate_per_s": 71}, {"ramp_up_s": 14, "clients": 701}):
        assert scenario.model_copy(update=less).window_s < 1


@given(scenarios)
def test_connected_by_the_end_are_those_whose_connect_is_due_before_it(scenario: Scenario) -> None:
    pacing, connected = scenario.pacing(), scenario.connected_by_end
    assert 1 <= connected <= scenario.clients
    assert pacing.connect_due(connected - 1) < pacing.end_ns
    if connected < scenario.clients:
        assert pacing.connect_due(connected) >= pacing.end_ns


def test_what_is_offered_is_known_beforehand() -> None:
    assert Scenario(clients=1000, interval_ms=200).offered_per_s == 5000
    assert Scenario(interval_ms=0).offered_per_s == 0


@pytest.mark.parametrize(
    ("fields", "match", "notes"),
    [
        ({"size_bytes": 24}, "prefix", 0),
        ({"size_bytes": 23}, "order", 1),
        ({"match": "order"}, "order", 1),
        ({"match": "order", "size_bytes": 1}, "order", 1),
        ({"match": "none", "size_bytes": 1}, "none", 0),
    ],
)
def test_matching_by_order_is_noted(fields: dict[str, Any], match: str, notes: int) -> None:
    scenario = Scenario(**fields)
    assert scenario.effective_match == match
    assert len(scenario.notes()) == notes
    assert all("a loss cannot be placed" in note for note in scenario.notes())


def test_a_scenario_round_trips_through_json_and_cannot_be_changed() -> None:
    scenario = Scenario(name="x", thresholds=("response_time.p99<50ms",), max_in_flight=3)
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario
    assert scenario.thresholds == ("response_time.p99 < 50ms",)
    with pytest.raises(ValidationError):
        scenario.clients = 5


def test_every_field_has_a_title_and_help() -> None:
    for field, info in Scenario.model_fields.items():
        assert info.title, field
        assert info.description, field
        assert info.description.endswith("."), field


def test_every_shipped_file_loads_under_its_own_name() -> None:
    assert {file.stem for file in FILES} >= {"smoke", "basic", "stress", "stress_reachable", "idle"}
    for file in FILES:
        scenario = load(file)
        assert scenario.name == file.stem
        assert scenario.description
        if file.stem != "stress":
            scenario.check_window()


def test_smoke_and_basic_are_what_they_are_said_to_be() -> None:
    smoke, basic = (load(file) for name in ("smoke", "basic") for file in FILES if file.stem == name)
    assert (smoke.clients, smoke.interval_ms, smoke.ramp_up_s, smoke.duration_s, smoke.rate_per_s) == (
        100,
        200,
        2,
        12,
        100,
    )
    assert smoke.thresholds == ("response_time.p99 < 250ms", "error_ratio < 0.1%")
    assert (basic.clients, basic.interval_ms, basic.ramp_up_s, basic.duration_s, basic.rate_per_s) == (
        1000,
        1000,
        20,
        80,
        50,
    )


def test_stress_is_refused_with_its_numbers() -> None:
    [stress] = [load(file) for file in FILES if file.stem == "stress"]
    assert (stress.clients, stress.interval_ms, stress.ramp_up_s, stress.duration_s, stress.rate_per_s) == (
        100_000,
        10,
        60,
        300,
        100,
    )
    with pytest.raises(NoWindow) as caught:
        stress.check_window()
    assert str(caught.value) == (
        "no measured window: 100,000 clients (ramp-up 60 s, at most 100/s) are connected after 1,000 s, but the "
        "duration is 300 s; 30,000 would connect by then. Repairs: duration_s >= 1001, or rate_per_s >= 335, or "
        "clients <= 29900; or accept a run that is ramp-up only (--accept-partial), which gets no verdict"
    )
    assert math.isclose(stress.offered_per_s, 10_000_000)


@pytest.mark.parametrize("url", ["http://127.0.0.1/echo", "127.0.0.1:3000", "", "ws:/x", "ws://" + "x" * 2000])
def test_a_plan_goes_to_a_websocket_url(url: str) -> None:
    with pytest.raises(ValidationError):
        Plan(scenario=Scenario(), url=url, end=1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"payload": "hello"}, "match: a payload of one's own has no prefix: match is 'json:/POINTER'"),
        ({"match": "json:/id"}, "match: json:/id needs a payload that is JSON, such as '{\"id\": ${seq}}'"),
        (
            {"match": "json:/id", "payload": "hi ${seq}"},
            "match: json:/id does not fit the payload: its messages",
        ),
        (
            {"match": "json:/id", "payload": '{"id": 1}'},
            "match: json:/id does not fit the payload: its messages",
        ),
        (
            {"payload": "${sequence}", "match": "none"},
            "'${sequence}' in '${sequence}': no such variable; known:",
        ),
        ({"behaviour": "shop", "payload": "x", "match": "none"}, "payload: behaviour shop makes its messages itself"),
        ({"behaviour": "shop", "match": "json:/id"}, "match: behaviour shop knows its replies itself"),
        ({"first_messages": ["> a"], "sizes": "uniform 30..90"}, "sizes do not go with first_messages"),
    ],
)
def test_what_cannot_be_matched_is_refused_before_anything_runs(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Scenario.model_validate(fields)
    [line] = error_lines(caught.value)
    assert said in line


def test_a_scenario_names_its_secrets_and_what_it_is_matched_by() -> None:
    scenario = Scenario(
        first_messages=("> ${secret:B} ${secret:A}", "< text ${secret:C}"), payload='{"i": "${seq}${secret:A}"}',
        match="json:/i",
    )  # fmt: skip
    assert scenario.secrets == ("A", "B", "C")
    assert scenario.effective_match == "json:/i"
    assert Scenario().secrets == ()
    assert Scenario(behaviour="shop", size_bytes=5).effective_match == "prefix"

"""Scenarios in plain words."""

from __future__ import annotations

import yaml
from django.conf import settings

from portal.runs.plan import PlainPlan, Stretch, plain_plan
from portal.runs.split import Capacity, Limit
from tests.portal.factories import SMOKE
from wsnode.core.scenario import Scenario

LOADS = ("load-1", "load-2")


def words(scenario: Scenario, generators: tuple[str, ...] = LOADS, *, accept: bool = False) -> PlainPlan:
    """The plan with breakable spaces."""
    plan = plain_plan(scenario, generators, accept_partial=accept)
    return plan._replace(
        parts=[part._replace(text=part.text.replace("\u00a0", " ")) for part in plan.parts],
        offered=plan.offered.replace("\u00a0", " "),
        moments=[(when.replace("\u00a0", " "), what.replace("\u00a0", " ")) for when, what in plan.moments],
        total=plan.total.replace("\u00a0", " "),
        warnings=[warning.replace("\u00a0", " ") for warning in plan.warnings],
    )


def test_smoke_reads_as_what_it_does() -> None:
    plan = words(SMOKE)

    assert [(part.generator, part.connections, part.messages_per_s) for part in plan.parts] == [
        ("load-1", 50, 250.0),
        ("load-2", 50, 250.0),
    ]
    assert plan.parts[0].text == (
        "opens 50 connections, 25/s, in 2 s. Each sends 64 bytes of text every 200 ms: 250 messages/s in the end. "
        "A reply that takes longer than 5 s is lost."
    )
    assert plan.offered == (
        "500 messages/s over 100 connections, 31.2 KiB/s of payload each way; about 5,000 messages fall into the "
        "measured window."
    )
    assert plan.moments == [
        ("0 s", "the first client connects"),
        ("2 s", "all 100 clients are connected; the measured window opens, for 10 s"),
        ("12 s", "the window closes, sending ends"),
        ("17 s", "at the latest: every reply is in or lost, all are closed"),
    ]
    assert plan.stretches == [
        Stretch("Ramp-up", "ramp", 0, 2),
        Stretch("Measured window", "window", 2, 12),
        Stretch("Drain", "drain", 12, 17),
    ]
    assert plan.end_s == 17
    assert plan.total.startswith("12 s of load, then at most 5 s of drain")
    assert plan.warnings == [
        "p99.9 will have no value: about 5,000 messages are due in the window, p99.9 takes 10,000."
    ]
    assert plan.no_window is None


def test_a_load_without_a_window_names_each_repair_as_settings() -> None:
    stress = Scenario(clients=100_000, interval_ms=10, ramp_up_s=60, duration_s=300, rate_per_s=100)
    plan = words(stress)

    assert plan.no_window is not None
    assert "30,000 would connect by then" in plan.no_window
    assert [repair.settings for repair in plan.repairs] == [
        {"duration_s": "1001"},
        {"rate_per_s": "335"},
        {"clients": "29900"},
    ]
    assert plan.repairs[0].assignments == "duration_s=1001"
    assert plan.parts[0].text.startswith("opens 15,000 of its 50,000 connections, 50/s, in the 5 min there are.")
    assert plan.moments[-2] == ("5 min", "sending ends; 30,000 of 100,000 clients are connected")
    assert [stretch.kind for stretch in plan.stretches] == ["ramp", "drain"]
    assert "The ramp-up takes 16 min 40 s instead of 1 min: 100,000 clients at 100/s need that long." in plan.warnings


def test_each_repair_gives_a_window() -> None:
    for load in (
        {"clients": 100_000, "ramp_up_s": 60, "duration_s": 300, "rate_per_s": 100},
        {"clients": 100, "ramp_up_s": 30, "duration_s": 10, "rate_per_s": 2},
        {"clients": 100, "ramp_up_s": 5, "duration_s": 10, "rate_per_s": 100, "warm_up_s": 20},
    ):
        plan = words(Scenario(**load))
        assert plan.repairs
        for repair in plan.repairs:
            changed = Scenario(**{**load, **{name: int(value) for name, value in repair.settings.items()}})
            assert changed.window_s >= 1, repair


def test_an_accepted_partial_run_says_that_nothing_will_be_judged() -> None:
    plan = words(Scenario(clients=100, ramp_up_s=30, duration_s=10), accept=True)
    assert plan.warnings[0] == "Ramp-up only, as accepted: nothing is measured in a window, and there is no verdict."


def test_idle_connections_are_offered_no_message() -> None:
    idle = Scenario(clients=5000, interval_ms=0, ramp_up_s=25, duration_s=55, rate_per_s=200)
    plan = words(idle)

    assert plan.offered == "5,000 connections and no messages: what idle connections cost."
    assert plan.parts[0].text == "opens 2,500 connections, 100/s, in 25 s, and keeps them idle."
    assert plan.warnings == []


def test_warm_up_lies_between_ramp_up_and_window() -> None:
    plan = words(SMOKE.model_copy(update={"warm_up_s": 3, "duration_s": 30}))
    assert [(s.kind, s.from_s, s.to_s) for s in plan.stretches] == [
        ("ramp", 0, 2),
        ("warm", 2, 5),
        ("window", 5, 30),
        ("drain", 30, 35),
    ]


def test_what_is_odd_about_a_plan_is_said() -> None:
    assert words(SMOKE, ()).warnings[0] == "The lab has no load generator: the run would fail its preflight."
    assert words(SMOKE.model_copy(update={"clients": 1})).parts[1].text == (
        "has no client: there are fewer clients than load generators."
    )
    many = Scenario(clients=60_000, ramp_up_s=60, duration_s=100, rate_per_s=1000)
    assert words(many).warnings[0].startswith("load-1 opens 30,000 connections: more than the 28,232 source ports")
    short = words(SMOKE.model_copy(update={"duration_s": 5, "phase": "aligned", "size_bytes": 8}))
    assert "The measured window is 3 s only: a single hiccup weighs much." in short.warnings
    assert "Phase is aligned: all 100 clients send at the same moment, every 200 ms." in short.warnings
    assert any(warning.startswith("replies are matched by order: 8 bytes are too few") for warning in short.warnings)


def test_a_threshold_that_cannot_be_judged_is_named_beforehand() -> None:
    plan = words(SMOKE.model_copy(update={"thresholds": ("response_time.p999 < 1s", "handshake.p999 < 1s")}))
    assert plan.warnings[1:] == ["The threshold 'response_time.p999 < 1s' can't be judged: too few messages for p99.9."]


def test_every_shipped_scenario_has_a_plan() -> None:
    for file in sorted(settings.SCENARIOS.glob("*.yaml")):
        scenario = Scenario.model_validate(yaml.safe_load(file.read_text()))
        plan = words(scenario)
        assert sum(part.connections for part in plan.parts) == scenario.connected_by_end
        assert (plan.no_window is None) == (scenario.window_s >= 1)


def test_clients_dealt_by_what_hosts_carry_say_so_and_who_has_what() -> None:
    able = [
        Capacity("load-1", 6.0, "6 cores, 16 GB", (Limit(28_232, "source ports"), Limit(90, "caps", of_agent=True))),
        Capacity("load-2", 2.0, ""),
    ]
    plan = plain_plan(SMOKE, ["load-1", "load-2"], [75, 25], capacities=able)
    assert [part.connections for part in plan.parts] == [75, 25]
    assert plan.parts[0].text.startswith("75 clients (6 cores, 16 GB; room for 90): opens 75 connections, ")
    assert plan.parts[1].text.startswith("opens 25 connections, ")
    assert plan.dealt == "The clients are dealt by what each can carry. With split 'even' each has as many."
    assert plain_plan(SMOKE, ["load-1", "load-2"], [2, 2]).dealt == ""
    beyond = plain_plan(SMOKE, ["load-1", "load-2"], [95, 5], capacities=able)
    assert beyond.warnings[0] == "load-1 would have 95 clients, and room for 90: caps."

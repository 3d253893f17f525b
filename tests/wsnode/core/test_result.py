"""The assembled result: complete, readable again, every null with its reason; and the committed golden one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.wsnode.core.runs import MS, SCENARIO, Load, steady
from wsnode.core.judge import Clock, Surroundings, judge
from wsnode.core.result import (
    DEFINITIONS,
    SCHEMA_VERSION,
    Broadcast,
    Evidence,
    Host,
    Result,
    Subject,
    UnknownSchema,
    Window,
    read_result,
)
from wsnode.core.summary import HostRun, run_counters, summarise

CONTRACT = Path(__file__).parents[2] / "contract"
GOLDEN = CONTRACT / f"result_v{SCHEMA_VERSION}.json"
FLOOR = {
    "p50": 0.00012,
    "p90": 0.0002,
    "p95": 0.0003,
    "p99": 0.015,
    "rate_per_s": 1000,
    "connections": 64,
    "size_bytes": 16,
    "samples": 1000,
    "measured_at": "2026-11-24T09:00:00Z",
}
STARTED = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def nulls_in(value: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of every null in an object."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from nulls_in(inner, f"{path}.{key}" if path else key)


def unexplained(result: Result) -> set[str]:
    """Null figures without a reason, and reasons without a null."""
    data = result.model_dump(mode="json")
    figures = {
        name: data[name] for name in ("counters", "rates", "error_ratio", "connect_error_ratio", "latency_s", "window")
    }
    # A delay between two clocks exists with the broadcast behaviour only, as `broadcast` itself.
    return (set(nulls_in(figures)) - {"latency_s.one_way"}) ^ {
        key for key in result.nulls if not key.startswith("hosts.")
    }


def result_of(*runs: HostRun, started: datetime | None = STARTED, **changes: Any) -> Result:
    summary = summarise(SCENARIO.model_copy(update=changes), runs)
    assert summary is not None
    return judge("r-1", summary, runs, started=started)


def complete() -> Result:
    """A result in which everything that can be said is said: what the golden file holds."""
    one = Load("load-1").tick(connects=25, due=125, cpu_s=(0.3, 0.2)).tick(connects=25, due=375, cpu_s=(0.3, 0.2))
    one.tick(
        seconds=10,
        due=500,
        lost=1,
        unsent={"connection_down": 2},
        closed=1,
        connects=1,
        reconnects=1,
        errors={"closed_by_server": 1},
        response_ns=[(1 + number % 40) * MS for number in range(497)],
        cpu_s=(0.3, 0.2),
    )
    other = Load("load-2").tick(connects=25, due=125).tick(connects=25, due=375, late=2)
    other.tick(seconds=10, due=500, response_ns=8 * MS, messages_unexpected=1)
    runs = [one.run(), other.run("stopped", reason="no follower for 60 s")]
    scenario = SCENARIO.model_copy(
        update={
            "description": "Every field of a result, worked out by hand.",
            "size_bytes": 16,
            "thresholds": (
                "response_time.p99 < 50ms",
                "error_ratio < 0.1%",
                "received_per_s >= 990/s",
                "handshake.p999 < 1s",
            ),
        }
    )
    summary = summarise(scenario, runs)
    assert summary is not None
    hosts = [
        Host(name="server", role="server", clock_offset_s=-0.0002, clock_bound_s=0.0001, environment={"kernel": "6.1"})
    ]
    for run in runs:
        assert run.total is not None
        peak = max(line.counters.connections_open for line in run.series)
        hosts.append(
            Host(
                name=run.name,
                role="load_generator",
                start_skew_s=0.0013,
                clock_offset_s=0.25,
                clock_bound_s=0.0301,
                counters=run_counters(run.total, peak),
                environment={
                    "kernel": "6.1",
                    "cpu_count": 2,
                    "net.core.somaxconn": None,
                    "floor": FLOOR if run.name == "load-1" else {"missing": "it could not be measured: no room"},
                },
            )
        )
    shared = {"window_s": 10.0, "step_s": 1.0}
    return judge(
        "r-golden0001",
        summary,
        runs,
        subject=Subject(name="echo", version="1.4.2", source="given"),
        started=STARTED,
        host_rows=hosts,
        evidence=[
            Evidence(name="Server CPU", value=0.42, unit="cores", promql="sum(up)", samples=10, **shared),
            Evidence(
                name="Host memory",
                value=None,
                unit="bytes",
                no_data="no data: 2 samples in 10 s",
                promql="node_memory",
                samples=2,
                grafana_url="http://127.0.0.1:3001/d/system/system?viewPanel=panel-2",
                **shared,
            ),
        ],
        surroundings=Surroundings(clocks=[Clock("load-1", 0.0301)]),
        notes=["server and load-1 share a kernel and its 2 cores: what a load generator takes, the server has not"],
        url="http://127.0.0.1:8000/runs/r-golden0001/",
    )


def test_the_golden_result_reads_as_the_model_that_wrote_it() -> None:
    data = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert read_result(data) == complete()


def test_writing_gives_the_golden_result() -> None:
    assert complete().model_dump(mode="json") == json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert json.dumps(complete().model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n" == GOLDEN.read_text(
        encoding="utf-8"
    )


def test_a_result_of_version_1_reads_with_what_it_had() -> None:
    old = json.loads((CONTRACT / "result_v1.json").read_text(encoding="utf-8"))
    result = read_result(old)
    assert result.schema_version == SCHEMA_VERSION
    assert result.aborted is None
    assert list(changed(old, result.model_dump(mode="json"))) == ["schema_version"]


def changed(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of what is in the old and not the same in the new; what is only in the new is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            yield from changed(old[key], new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, pair in enumerate(zip(old, new, strict=True)):
            yield from changed(*pair, f"{path}.{place}")
    elif old != new:
        yield path


def test_the_golden_result_has_the_figures_that_were_worked_out() -> None:
    result = read_result(json.loads(GOLDEN.read_text(encoding="utf-8")))
    assert result.window == Window(
        start=STARTED + timedelta(seconds=2), end=STARTED + timedelta(seconds=12), from_s=2, to_s=12
    )
    assert result.rates.received_per_s == 997
    assert result.error_ratio == 30 / 10_000
    assert result.counters.messages_due == 11_000
    assert result.counters.unsent == {"connection_down": 20}
    assert result.counters.connections_peak == 100
    assert result.latency_s.response_time.max == 0.04
    # 40 ms is the slowest 40th of half of the messages: beyond 98.8 % of all.
    assert result.latency_s.response_time.p99 == pytest.approx(0.04, rel=1 / 256)
    assert [(row.expr, row.passed) for row in result.thresholds] == [
        ("response_time.p99 < 50ms", True),
        ("error_ratio < 0.1%", False),
        ("received_per_s >= 990/s", True),
        ("handshake.p999 < 1s", None),
    ]
    assert (result.verdict, result.validity) == ("failed", "suspect")
    assert result.reasons == [
        "suspect: 2 of 110 connects began more than 50 ms late or never, above 1%",
        "suspect: load-1: clock known within 30.1 ms only, above 25 ms",
    ]
    assert result.notes == [
        "server and load-1 share a kernel and its 2 cores: what a load generator takes, the server has not",
        "replies are matched by order: 16 bytes are too few for a prefix of 24 bytes, so a loss cannot be placed",
        "the load of load-2 was stopped after 12 of 12 s: no follower for 60 s",
        "threshold handshake.p999 < 1s: not judged, too few samples",
        "below 3 times what the load generator itself takes, given in brackets, and so no measure of the server alone: "
        "response time p99 (15 ms), service time p99 (15 ms)",
    ]
    assert [host.floor is not None for host in result.hosts] == [False, True, False]
    assert result.nulls["hosts.load-2.floor"] == "it could not be measured: no room"
    assert unexplained(result) == set()


def test_a_result_round_trips_through_json() -> None:
    result = complete()
    assert read_result(json.loads(result.model_dump_json())) == result


def test_every_key_of_the_design_is_there() -> None:
    data = complete().model_dump(mode="json")
    assert data["schema_version"] == SCHEMA_VERSION == 2
    assert data.keys() >= {
        *("schema_version", "run_id", "state", "verdict", "validity", "reasons", "notes", "subject", "scenario"),
        *("window", "counters", "broadcast", "rates", "latency_s", "thresholds", "hosts", "evidence", "nulls", "url"),
    }
    assert data["counters"].keys() >= {
        *(f"connections_{name}" for name in ("attempted", "opened", "failed", "pending", "closed", "open", "peak")),
        *(f"messages_{name}" for name in ("due", "sent", "unsent", "received", "lost", "in_flight", "no_reply")),
        *("messages_unexpected", "bytes_sent", "bytes_received", "reconnects", "errors", "unsent"),
    }
    assert data["rates"].keys() == {"connect_per_s", "offered_per_s", "sent_per_s", "received_per_s"}
    assert data["latency_s"].keys() == {
        *("response_time", "service_time", "scheduler_lag", "write_wait", "handshake", "one_way")
    }
    for name, figures in data["latency_s"].items():
        if name != "one_way":
            assert [*figures] == ["due", "count", "min", "mean", "p50", "p90", "p95", "p99", "p999", "max"]
    assert data["hosts"][0].keys() >= {
        *("name", "role", "start_skew_s", "clock_offset_s", "clock_bound_s", "counters", "environment")
    }
    assert data["evidence"][0].keys() == {
        *("name", "value", "unit", "no_data", "promql", "window_s", "step_s", "samples", "grafana_url")
    }


def test_every_definition_names_a_figure_of_the_result() -> None:
    data = complete().model_dump(mode="json")
    data["broadcast"] = dict.fromkeys(Broadcast.model_fields)  # this one is an echo's
    for name, definition in DEFINITIONS.items():
        value: Any = data
        for key in name.split("."):
            assert key in value
            value = value[key]
        assert definition.better in ("lower", "higher", None)
        assert definition.text.endswith(".")


@pytest.mark.parametrize(
    "version", [0, 3, 99, None, "1", "x", True, 1.0], ids=lambda version: f"{type(version).__name__} {version}"
)
def test_an_unknown_schema_is_refused(version: Any) -> None:
    data = json.loads(GOLDEN.read_text(encoding="utf-8")) | {"schema_version": version}
    with pytest.raises(UnknownSchema, match="this wsnode reads 1 to 2"):
        read_result(data)


@pytest.mark.parametrize("data", [None, [], "x", {}])
def test_what_names_no_schema_is_refused(data: Any) -> None:
    with pytest.raises(UnknownSchema, match="schema_version None"):
        read_result(data)


def test_a_result_with_unknown_or_missing_keys_is_refused() -> None:
    data = json.loads(GOLDEN.read_text(encoding="utf-8"))
    with pytest.raises(ValidationError):
        read_result(data | {"more": 1})
    del data["verdict"]
    with pytest.raises(ValidationError):
        read_result(data)


def test_the_window_is_in_utc_and_a_time_without_zone_is_refused() -> None:
    summer = STARTED.astimezone(timezone(timedelta(hours=2)))
    result = result_of(steady().run(), started=summer)
    assert result.model_dump(mode="json")["window"] == {
        "start": "2026-11-24T09:30:02Z",
        "end": "2026-11-24T09:30:12Z",
        "from_s": 2,
        "to_s": 12,
    }
    with pytest.raises(ValidationError):
        result_of(steady().run(), started=STARTED.replace(tzinfo=None))


def test_evidence_has_a_value_or_the_reason_for_none() -> None:
    fields: dict[str, Any] = {"name": "x", "unit": "", "promql": "up", "window_s": 1, "step_s": 1, "samples": 0}
    assert Evidence(value=0, **fields).no_data is None
    assert Evidence(value=None, no_data="no data: 0 samples in 1 s", **fields).value is None
    for bad in ({"value": None}, {"value": 1, "no_data": "why"}):
        with pytest.raises(ValidationError, match="expected a value, or no value and the reason"):
            Evidence(**fields | bad)


def test_a_run_without_a_known_begin_says_why_it_has_no_window() -> None:
    result = result_of(steady().run(), started=None)
    assert result.window is None
    assert result.nulls["window"] == "the time of its begin is not known"


def test_a_ramp_up_only_run_says_so_first() -> None:
    result = result_of(Load().tick(connects=10, seconds=2, due=50).run("stopped"))
    assert result.notes[0] == "ramp-up only: no measured window, figures are of the whole run"
    assert result.window is None
    assert result.verdict == "none"
    assert result.nulls["rates.received_per_s"] == result.nulls["window"] == "no measured window"
    assert unexplained(result) == set()


@settings(max_examples=40)
@given(st.data())
def test_every_null_figure_of_any_run_has_its_reason(data: st.DataObject) -> None:
    runs = []
    for name in data.draw(st.sampled_from((["load-1"], ["load-1", "load-2"]))):
        load = Load(name)
        for _ in range(data.draw(st.integers(0, 6), label="seconds")):
            due = data.draw(st.sampled_from((0, 1, 9, 40, 400)), label="due")
            lost = data.draw(st.integers(0, due), label="lost")
            unsent = data.draw(st.integers(0, due - lost), label="unsent")
            connects = data.draw(st.integers(0, 30), label="connects")
            why = data.draw(st.sampled_from(("not_open", "generator_late")))
            load.tick(connects=connects, failed=connects // 3, due=due, lost=lost, unsent={why: unsent})
        runs.append(load.run(data.draw(st.sampled_from(("finished", "stopped", "interrupted")))))
    changes = data.draw(
        st.sampled_from(({}, {"interval_ms": 0}, {"ramp_up_s": 0.5, "rate_per_s": 5000.0}, {"duration_s": 3}))
    )
    if any(run.total is not None for run in runs):
        result = result_of(*runs, **changes)
        assert unexplained(result) == set()
        assert read_result(json.loads(result.model_dump_json())) == result

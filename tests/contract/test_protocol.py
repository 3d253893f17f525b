"""The channel's lines against golden files: every kind, both ways; and the schema that a version number stands for.

A change that makes these fail is another protocol: raise `PROTOCOL`, and write the new files beside the old version's
with `python -m tests.contract.test_protocol`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from wsnode.core import protocol
from wsnode.core.histogram import Histogram
from wsnode.core.protocol import PROTOCOL, ProtocolError, decode_reply, decode_request, encode
from wsnode.core.result import SCHEMA_VERSION, Result
from wsnode.core.scenario import Plan, Scenario

HERE = Path(__file__).parent
LINES = HERE / f"protocol_v{PROTOCOL}.jsonl"
SCHEMA = HERE / f"protocol_v{PROTOCOL}.schema.json"
RESULT_SCHEMA = HERE / f"result_v{SCHEMA_VERSION}.schema.json"

OF = {"run_id": "r-2f7kq0d1ba", "epoch": 3}
PLAN = Plan(
    scenario=Scenario(name="smoke", clients=100, interval_ms=200, ramp_up_s=2, duration_s=12, rate_per_s=100),
    url="ws://198.18.0.11:3000/echo",
    begin=50,
    end=100,
)
AIMED = PLAN.model_copy(
    update={"url": "wss://shop.example.org:8443/live", "address": "2001:db8::7", "consent": "wslab-0123456789abcdef"}
)
SECOND = protocol.Second(
    second=7,
    counters=protocol.Counters(
        connections_attempted=51,
        connections_opened=50,
        connections_failed=1,
        connections_open=49,
        connections_closed=1,
        connects_late=1,
        messages_due=1500,
        messages_sent=1490,
        messages_unsent=10,
        messages_received=1488,
        messages_lost=2,
        messages_unexpected=1,
        deliveries=12,
        bytes_sent=95_360,
        bytes_received=95_232,
        reconnects=1,
    ),
    errors={"connect_refused": 1, "reset": 1},
    unsent={"not_open": 8, "connection_down": 2},
    histograms={"response_time": Histogram.of([250, 1000, 1000, 2_000_000, 1 << 42]), "handshake": Histogram.of([5])},
    host=protocol.HostSecond(worker_cpu_s=(0.5, 0.25), steal_s=0.01, throttled_s=0.125, core_s=14.0),
)
LIVE = protocol.Live(
    second=7,
    connections_open=49,
    sent=1490,
    received=1488,
    outstanding=2,
    errors=2,
    recent={"p50_ns": 310_000, "p95_ns": 910_000, "p99_ns": None},
)

REQUESTS: list[BaseModel] = [
    protocol.Clock(id=1),
    protocol.Preflight(id=2),
    protocol.Preflight(id=3, plan=PLAN),
    protocol.Prepare(id=4, **OF, plan=PLAN),
    protocol.Go(id=5, **OF, start_at=1_795_492_522_123_840_772),
    protocol.Follow(id=6, **OF, from_second=4),
    protocol.Stop(id=7, **OF, reason="cancelled by request", drain=False),
    protocol.GetResult(id=8, **OF),
    protocol.Ack(id=9, **OF),
    protocol.ListLoads(id=10),
    protocol.Preflight(id=11, port=3000),
    protocol.Prepare(id=12, **OF, plan=AIMED),
    protocol.Hook(id=13, **OF, name="restart_server"),
    protocol.Prepare(id=14, **OF, plan=PLAN, secrets={"TOKEN": "hush"}),
]
REPLIES: list[BaseModel] = [
    protocol.Hello(
        wsnode="0.1.0",
        name="load-1",
        boot_id="f988c38c-23b0-49cb-8093-5f21868e0a57",
        agent_start_id="6e315000c8a4ade8",
        capabilities=("observe", "load"),
    ),
    protocol.Answer(id=1, data={"received_ns": 1_795_492_520_762_532_603, "sent_ns": 1_795_492_520_762_585_211}),
    protocol.Refusal(id=4, code="busy", message="load-1 is busy with run r-0000000000; one load at a time"),
    protocol.Refusal(id=None, code="bad_request", message="line: Invalid JSON"),
    SECOND,
    LIVE,
    protocol.Ended(run_id="r-2f7kq0d1ba", state="finished", seconds=12),
    protocol.Ended(run_id="r-2f7kq0d1ba", state="interrupted", reason="the agent restarted", seconds=7),
]


def _kinds(union: Any) -> set[type]:
    return set(get_args(get_args(union)[0]))


class _Schema(GenerateJsonSchema):
    """Histograms have a reader of their own; that they are one is the contract, the golden line shows the form."""

    def is_instance_schema(self, schema: Any) -> dict[str, Any]:
        return {"type": "object", "$comment": schema["cls"].__name__}


def _protocol_schema() -> str:
    kinds = {
        "request": protocol.Request,
        "reply": protocol.Reply,
        "result": protocol.HostResult,
        "remains": protocol.Remains,
        "hook done": protocol.HookDone,
    }
    return _text({name: TypeAdapter(kind).json_schema(schema_generator=_Schema) for name, kind in kinds.items()})


def _result_schema() -> str:
    schema = Result.model_json_schema()
    # A scenario field more, with its default, is read from old results too: no other schema. (In the protocol it is
    # another one: an agent refuses the plan with a field that it does not know.)
    schema["$defs"].pop("Scenario")
    return _text(schema)


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(_bare(schema), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _bare(schema: Any) -> Any:
    """Without words for readers: they may get better in any version."""
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # A name within `properties` is a field's, whatever it is called.
    return {
        key: {name: _bare(field) for name, field in part.items()} if key in ("properties", "$defs") else _bare(part)
        for key, part in schema.items()
        if not (key in ("title", "description") and isinstance(part, str))
    }


def _golden() -> list[bytes]:
    return LINES.read_bytes().splitlines(keepends=True)


def test_every_kind_of_line_is_in_the_golden_file() -> None:
    assert {type(line) for line in REQUESTS} == _kinds(protocol.Request)
    assert {type(line) for line in REPLIES} == _kinds(protocol.Reply)
    assert len(_golden()) == len(REQUESTS) + len(REPLIES)


@pytest.mark.parametrize("place", range(len(REQUESTS) + len(REPLIES)))
def test_each_golden_line_is_written_and_read_without_loss(place: int) -> None:
    line, golden = [*REQUESTS, *REPLIES][place], _golden()[place]
    assert encode(line) == golden
    decode = decode_request if place < len(REQUESTS) else decode_reply
    assert decode(golden) == line
    assert encode(decode(golden)) == golden


@pytest.mark.parametrize("place", range(len(REQUESTS) + len(REPLIES)))
def test_a_line_with_a_field_more_is_refused(place: int) -> None:
    value = json.loads(_golden()[place]) | {"surprise": 1}
    decode = decode_request if place < len(REQUESTS) else decode_reply
    with pytest.raises(ProtocolError, match="surprise"):
        decode(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("place", "change", "complaint"),
    [
        (3, {"run_id": "../x"}, "run_id"),
        (3, {"epoch": "one"}, "epoch"),
        (3, {"plan": {**PLAN.model_dump(mode="json"), "end": -1}}, "plan.end"),
        (4, {"start_at": 1.5}, "start_at"),
        (5, {"from_second": 0}, "from_second"),
        (6, {"reason": "x" * 201}, "reason"),
        (10, {"port": 0}, "port"),
        (11, {"plan": {**AIMED.model_dump(mode="json"), "address": "shop.example.org"}}, "plan.address"),
        (11, {"plan": {**AIMED.model_dump(mode="json"), "consent": "a b c d e f g h i j"}}, "plan.consent"),
        (12, {"name": "restart_server; reboot"}, "name"),
        (12, {"name": "../restart_server"}, "name"),
        (12, {"name": "restart_server\n"}, "name"),
        (12, {"name": "Restart"}, "name"),
    ],
)
def test_a_request_with_a_wrong_value_is_refused_by_the_fields_name(
    place: int, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        decode_request(json.dumps(json.loads(_golden()[place]) | change).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"histograms": {"response": {}}},
        {"histograms": {"handshake": {"count": 1, "sum": 5, "min": 5, "max": 5, "overflow": 0, "buckets": []}}},
        {"errors": {"oops": 1}},
        {"unsent": {"lazy": 1}},
        {"counters": {"messages_due": -0.5}},
        {"second": None},
    ],
)
def test_a_second_with_a_wrong_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode_reply(json.dumps(json.loads(encode(SECOND)) | change).encode())


@pytest.mark.parametrize("number", ["1.0", "1.5", "true", '"1"', "null", "[1]", "-1", "0"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_bucket_of_anything_but_a_whole_number_above_0_is_refused_however_a_line_is_written(
    number: str, place: int
) -> None:
    buckets = "[5,{},{},{}]".format(*[number if at == place else "1" for at in range(3)])
    histogram = f'{{"count":2,"sum":11,"min":5,"max":6,"overflow":0,"buckets":{buckets}}}'
    for line in ('{"type":"second","second":1,%s}', '{"second":1,%s, "type": "second"}'):
        text = line % f'"counters":{{}},"histograms":{{"handshake":{histogram}}}'
        with pytest.raises(ProtocolError):
            decode_reply(text.encode())
        right = text.replace(buckets, "[5,1,1,1]")
        assert isinstance(decode_reply(right.encode()), protocol.Second)


def test_a_line_is_at_most_a_mebibyte_both_ways() -> None:
    fits = protocol.Answer(id=1, data={"x": "y" * ((1 << 20) - 50)})
    spare = (1 << 20) - len(encode(fits))
    exact = protocol.Answer(id=1, data={"x": "y" * ((1 << 20) - 50 + spare)})
    assert len(encode(exact)) == 1 << 20
    assert decode_reply(encode(exact)) == exact
    with pytest.raises(ProtocolError, match="1,048,576"):
        encode(protocol.Answer(id=1, data={"x": "y" * ((1 << 20) - 49 + spare)}))
    with pytest.raises(ProtocolError, match="1,048,576"):
        decode_reply(encode(exact)[:-1] + b" \n")


def test_the_protocols_schema_is_that_of_its_version() -> None:
    assert _protocol_schema() == SCHEMA.read_text()


def test_the_results_schema_is_that_of_its_version() -> None:
    assert _result_schema() == RESULT_SCHEMA.read_text()


def main() -> None:
    """Write the golden files of the versions in force."""
    LINES.write_bytes(b"".join(map(encode, [*REQUESTS, *REPLIES])))
    SCHEMA.write_text(_protocol_schema())
    RESULT_SCHEMA.write_text(_result_schema())


if __name__ == "__main__":
    main()

"""First messages, payloads of one's own and replies matched by a value in them, against a server that keeps books."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wsnode.clerk import clerk
from tests.wsnode.loads import carry_out
from tests.wsnode.peers import peer
from tests.wsnode.wild_peer import wild_peer
from wsnode.core.merge import broken_identities
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.template import Template
from wsnode.load.load import LoadError

TALK: dict[str, Any] = {
    "clients": 20,
    "interval_ms": 50,
    "ramp_up_s": 0.5,
    "duration_s": 3,
    "rate_per_s": 100,
    "first_messages": ['> {"type": "login", "client": "${client}"}', '< json:/type == "welcome"'],
    "payload": '{"answer": {"to": ${seq}}, "id": ${seq}, "who": ${client}}',
    "match": "json:/answer/to",
    "reconnect": False,
}


def offered(fields: dict[str, Any]) -> int:
    scenario = Scenario(**fields)
    return scenario.pacing().offered(Plan.whole(scenario, "ws://x").share, 3 * 10**9)


@pytest.mark.parametrize("mode", ["plain", "swap"])
def test_replies_are_matched_by_their_value_in_whatever_order_they_come(mode: str) -> None:
    with clerk(mode) as server:
        done = carry_out(server.url, workers=2, **TALK)
    counters, seen = done.result.counters, server.seen
    assert counters.messages_due == offered(TALK)
    assert counters.messages_sent == seen["requests"] > 1000
    # Of an odd number of requests of a client the clerk that answers in pairs still has the last.
    assert seen["requests"] - counters.messages_received == counters.messages_lost + counters.messages_in_flight
    assert counters.messages_lost + counters.messages_in_flight <= (0 if mode == "plain" else 20)
    assert counters.messages_unexpected == 0
    assert set(counters.unsent) <= {"not_open"}
    assert seen["logins"] == seen["welcomed"] == counters.connections_opened == 20
    # What is said first counts as bytes, and as no message.
    assert counters.bytes_sent == seen["request_bytes"] + seen["login_bytes"]
    assert counters.errors == {}
    assert broken_identities(done.summary.total.counters) == []
    # A reply that came after the next one's would be ever later, were they matched by order.
    assert done.result.validity != "invalid"


def test_lost_and_unexpected_replies_are_counted_exactly() -> None:
    with clerk("faulty") as server:
        done = carry_out(server.url, **TALK, reply_timeout_s=1, drain_s=2)
    counters = done.result.counters
    sent = counters.messages_sent
    assert sent == server.seen["requests"] > 1000
    assert counters.messages_lost == sent // 10
    assert counters.messages_received == sent - sent // 10
    assert counters.messages_unexpected == sent // 25 + sent // 40
    assert counters.messages_in_flight == 0
    assert broken_identities(done.summary.total.counters) == []


@pytest.mark.parametrize("mode", ["deaf", "strict", "other"])
def test_a_login_that_is_not_answered_as_awaited_is_a_failed_connection(mode: str) -> None:
    with clerk(mode) as server:
        done = carry_out(server.url, **TALK, reply_timeout_s=0.5)
    counters = done.result.counters
    assert counters.errors == {"login_failed": 10}
    assert (counters.connections_attempted, counters.connections_opened, counters.connections_failed) == (20, 10, 10)
    assert counters.messages_due == offered(TALK)
    assert counters.messages_sent == counters.messages_received == server.seen["requests"]
    assert counters.unsent["not_open"] == counters.messages_unsent > 500
    assert done.end.final is not None
    assert done.end.final.histogram("handshake").count == 10
    assert broken_identities(done.summary.total.counters) == []


def test_a_client_whose_login_failed_comes_back_and_says_it_all_again() -> None:
    fields = TALK | {"reconnect": True, "reconnect_delay_s": 0.25, "clients": 2}
    with clerk("other") as server:
        done = carry_out(server.url, **fields)
    counters = done.result.counters
    assert counters.connections_opened == 1
    assert counters.errors["login_failed"] == counters.reconnects + 1 >= 8
    assert server.seen["logins"] == counters.connections_attempted == counters.reconnects + 2


def test_a_secret_opens_the_door_and_is_nowhere_in_the_result() -> None:
    fields = TALK | {
        "first_messages": [
            '> {"type": "login", "client": "${client}", "token": "${secret:TOKEN}"}',
            '< json:/type == "welcome"',
        ]
    }
    with clerk("plain", "open-sesame") as server:
        done = carry_out(server.url, secrets={"TOKEN": "open-sesame"}, **fields)
        with pytest.raises(LoadError, match="the secret TOKEN is not given"):
            carry_out(server.url, **fields)
    assert done.result.counters.connections_opened == 20
    assert done.result.counters.errors == {}
    assert "open-sesame" not in done.result.model_dump_json()
    assert "refused" not in server.seen


def test_first_messages_go_before_the_usual_ones_too() -> None:
    fields = {key: value for key, value in TALK.items() if key not in ("payload", "match")}
    fields["first_messages"] = ["> hello ${client}", "< text hello ${client}", "> again", "< any"]
    with peer("echo") as server:
        done = carry_out(server.url, **fields)
    counters = done.result.counters
    first = sum(len(f"hello {client}") for client in range(20)) + 20 * len("again")
    assert counters.bytes_sent == counters.bytes_received == 64 * counters.messages_sent + first
    assert counters.messages_received == counters.messages_sent > 1000
    assert counters.messages_unexpected == 0


@pytest.mark.parametrize("match", ["order", "none"])
@pytest.mark.parametrize("message_type", ["text", "binary"])
def test_a_payload_is_as_long_as_it_is_however_replies_are_matched(match: str, message_type: str) -> None:
    payload = "café ${client}/${seq} " + "x" * 200
    fields = TALK | {"first_messages": [], "payload": payload, "match": match, "message_type": message_type}
    with peer("echo") as server:
        done = carry_out(server.url, **fields, size_bytes=5)
    counters = done.result.counters
    assert counters.messages_sent > 1000
    build = Template.parse(payload).builder({})
    shortest, longest = len(build(0, 1)), len(build(19, 99))
    assert shortest * counters.messages_sent <= counters.bytes_sent <= longest * counters.messages_sent
    assert counters.bytes_received == counters.bytes_sent
    assert counters.messages_received == (counters.messages_sent if match == "order" else 0)
    assert counters.messages_no_reply == (counters.messages_sent if match == "none" else 0)
    assert "messages are as long as their payload makes them: size_bytes is not used" in done.result.notes


def test_the_accounts_hold_whatever_a_server_does_to_a_conversation() -> None:
    fields = TALK | {
        "first_messages": ["> hello", "< any", "> ${client}", "< text ${client}"],
        "payload": '{"id": "${client}-${seq}"}',
        "match": "json:/id",
        "reconnect": True,
        "reconnect_delay_s": 0.1,
        "clients": 40,
    }
    with wild_peer(7) as url:
        done = carry_out(url, workers=2, **fields, reply_timeout_s=1, drain_s=2)
    total = done.end.final
    assert total is not None
    assert [broken_identities(line.counters) for line in [*done.series, total]] == [[]] * 4
    assert total.counters.messages_due == offered(fields)
    assert total.counters.messages_unsent == sum(total.unsent.values())
    assert total.histogram("response_time").count == total.counters.messages_received > 0
    assert total.histogram("write_wait").count == total.counters.messages_sent
    assert total.histogram("handshake").count == total.counters.connections_opened
    assert total.errors["login_failed"] > 0

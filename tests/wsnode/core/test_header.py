"""Header lines of a scenario: what may be said, and what is the connection's own."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from wsnode.core.header import Header
from wsnode.core.scenario import Scenario


def test_a_header_is_a_name_and_a_template() -> None:
    header = Header.parse("  Authorization :  Bearer ${secret:TOKEN} ")
    assert (header.name, header.text) == ("Authorization", "Authorization: Bearer ${secret:TOKEN}")
    assert header.value.secrets == {"TOKEN"}
    assert header.template().fill({"TOKEN": "a%db"}) == "Authorization: Bearer a%db\r\n"
    assert Header.parse("X-Client: c${client}").template().fill({}, client=7) == "X-Client: c7\r\n"
    assert Header.parse("X-Empty:").template().fill({}) == "X-Empty: \r\n"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("headers", "Origin", "expected NAME: VALUE"),
        ("headers", "Bad name: x", "expected NAME: VALUE"),
        ("headers", ": x", "expected NAME: VALUE"),
        ("headers", "X-A: b\r\nX-C: d", "a line break or control character"),
        ("headers", "X-A: b\nc", "a line break or control character"),
        ("headers", "X-A: \x00", "a line break or control character"),
        ("headers", "Host: example.org", "Host is the connection's own to say"),
        ("headers", "connection: close", "connection is the connection's own to say"),
        ("headers", "Sec-WebSocket-Key: x", "the connection's own to say"),
        ("headers", "Sec-WebSocket-Protocol: chat", "see subprotocols"),
        ("headers", "Transfer-Encoding: chunked", "the connection's own to say"),
        ("headers", "X-A: ${seq}", "no such variable; known: ${client}"),
        ("subprotocols", "chat room", "is no subprotocol: expected letters"),
        ("subprotocols", "", "is no subprotocol: expected letters"),
    ],
)
def test_what_cannot_stand_in_a_handshake_is_refused(field: str, value: str, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Scenario.model_validate({field: [value]})
    assert says in str(refused.value)


def test_a_subprotocol_is_offered_once() -> None:
    with pytest.raises(ValidationError, match="chat is offered 2 times"):
        Scenario(subprotocols=("chat", "live", "chat"))


def test_a_scenario_names_the_secrets_of_its_headers_and_says_where_nothing_was_verified() -> None:
    scenario = Scenario(headers=("A: ${secret:ONE}", "B: ${secret:TWO}"), tls_verify=False)
    assert scenario.secrets == ("ONE", "TWO")
    assert scenario.notes() == ["the server's certificate was not verified"]

"""First messages: what their lines mean, and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsnode.core.script import Hear, Say, Step


def hears(line: str, message: bytes, client: int = 3) -> bool:
    step = Step.parse(line).ready({"TOKEN": 'to"ken'})
    assert isinstance(step, Hear)
    return step.fits(client, message)


def test_what_is_sent_is_a_template() -> None:
    step = Step.parse(' >  {"user": "u${client}", "token": "${secret:TOKEN}"} ')
    assert step.text == '> {"user": "u${client}", "token": "${secret:TOKEN}"}'
    assert step.secrets == {"TOKEN"}
    say = step.ready({"TOKEN": "hush"})
    assert isinstance(say, Say)
    assert say.build(12) == b'{"user": "u12", "token": "hush"}'


@pytest.mark.parametrize(
    ("line", "message", "fits"),
    [
        ("< any", b"", True),
        ("< text hello ${client}", b"hello 3", True),
        ("< text hello ${client}", b"hello 33", False),
        ("< text ${secret:TOKEN}", b'to"ken', True),
        ("< json:/type", b'{"type": null}', True),
        ("< json:/type", b'{"kind": 1}', False),
        ("< json:/type", b"type", False),
        ('< json:/type == "welcome"', b'{"type": "welcome"}', True),
        ('< json:/type == "welcome"', b'{"type": "goodbye"}', False),
        ("< json:/ok == true", b'{"ok": true}', True),
        ("< json:/ok == true", b'{"ok": 1}', False),
        ("< json:/ok == 1", b'{"ok": true}', False),
        ("< json:/you == ${client}", b'{"you": 3}', True),
        ("< json:/you == ${client}", b'{"you": "3"}', False),
        ('< json: == {"a": [1, 2], "b": 0}', b'{"b": 0, "a": [1, 2]}', True),
        ('< json:/t == "${secret:TOKEN}"', b'{"t": "x"}', False),  # its value breaks the JSON: nothing is equal to it
    ],
)
def test_an_answer_fits_or_does_not(line: str, message: bytes, fits: bool) -> None:
    assert hears(line, message) is fits


@given(st.binary())
def test_no_answer_breaks_a_client(message: bytes) -> None:
    for line in ("< text a", "< json:/a", "< json:/a == 1"):
        assert hears(line, message) in (True, False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("login", "first message 'login': expected '> TEXT', '< any', '< text TEXT', '< json:/POINTER' or"),
        (">", "expected '> TEXT'"),
        ("<", "expected '> TEXT'"),
        ("< welcome", "expected '> TEXT'"),
        ("< json:type", "JSON pointer 'type': expected '/' at its begin"),
        ("< json:/type == welcome", 'welcome is not a JSON value; a text is written "in quotes"'),
        ("> ${seq}", "no such variable; known: ${client}, ${secret:NAME}"),
        ("> ${secret:x}", "a secret's name is capital letters"),
    ],
)
def test_what_cannot_be_said_or_awaited_is_refused(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Step.parse(line)


def test_a_line_written_again_means_the_same() -> None:
    for line in ("> a  b", "< any", "<  text x", "< json:/a", "<   json:/a   ==   1"):
        text = Step.parse(line).text
        assert Step.parse(text) == Step.parse(line)


def test_a_secret_that_is_not_given_is_named() -> None:
    with pytest.raises(ValueError, match=r"^the secret TOKEN is not given$"):
        Step.parse("> ${secret:TOKEN}").ready({})

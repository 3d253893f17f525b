"""JSON pointers: RFC 6901's own examples, keys of replies, and the key of a message without reading the message."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsnode.core.pointer import MISSING, Pointer
from wsnode.core.template import Template

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
RFC = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", RFC), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3),
        ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8),
    ],
)  # fmt: skip
def test_the_examples_of_rfc_6901_section_5(text: str, value: Any) -> None:
    assert Pointer.parse(text).find(RFC) == value


@pytest.mark.parametrize("text", ["/foo/2", "/foo/-", "/foo/01", "/foo/-1", "/nothing", "/a~1b/0", "/foo/0/1", "/~01"])
def test_what_is_not_there_is_missing(text: str) -> None:
    assert Pointer.parse(text).find(RFC) is MISSING


@given(JSON)
def test_every_place_of_a_document_is_found_by_its_pointer(document: Any) -> None:
    places = [("", document)]
    for text, value in places:
        assert Pointer.parse(text).find(document) is value
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        places += [(f"{text}/{str(name).replace('~', '~0').replace('/', '~1')}", one) for name, one in inner]


@pytest.mark.parametrize(
    ("text", "said"), [("id", "expected '/' at its begin"), ("/a~2", "'~' at 3; it is written ~0"), ("/a~", "'~' at 3")]
)
def test_what_is_no_pointer_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Pointer.parse(text)


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        (b'{"id": 5}', 5), (b'{"id": "a"}', "a"), (b'{"id": true}', None), (b'{"id": 5.0}', None),
        (b'{"id": [5]}', None),
        (b'{"id": null}', None), (b"{}", None), (b"[5]", None), (b"5", None), (b"", None), (b"{", None),
        (b"\xff\xfe", None), (b"[" * 200_000, None), (b'{"id":' + b"9" * 5000 + b"}", None),
    ],
)  # fmt: skip
def test_a_reply_has_a_key_or_none_whatever_it_is(reply: bytes, key: int | str | None) -> None:
    found = Pointer.parse("/id").key(reply)
    assert (type(found), found) == (type(key), key)


@given(JSON)
def test_the_key_is_the_value_only_where_that_is_a_whole_number_or_a_text(document: Any) -> None:
    found = Pointer.parse("/k").key(json.dumps({"k": document}).encode())
    assert found == (document if type(document) in (int, str) else None)


PARTS = st.lists(st.sampled_from(["${seq}", "${client}", "-", "a", "$ ", "7", "9000", " ", "{", "}"]))


@given(PARTS, PARTS, st.integers(0, 10**7), st.integers(1, 10**12))
def test_a_messages_key_is_the_value_that_it_holds(before: list[str], after: list[str], client: int, seq: int) -> None:
    text = "".join([*before, "${seq}", *after])
    pointer = Pointer.parse("/a/1/id")
    for payload in (
        f'{{"a": ["${{client}}", {{"id": "{text}"}}]}}',
        f'{{"a": [0, {{"id": ${{seq}}}}], "b": "{text}"}}',
    ):
        template = Template.parse(payload)
        assert pointer.key_of(template, {})(client, seq) == pointer.key(template.fill({}, client, seq).encode())


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("hello ${seq}", "its messages are not JSON: Expecting value"),
        ('{"n": ${seq}}', "its messages have nothing at '/id'"),
        ('{"id": [${seq}]}', "its messages have a list at '/id', where a whole number or a text is wanted"),
        ('{"id": 0.${seq}}', "its messages have a fraction at '/id'"),
        ('{"id": ${client}, "n": ${seq}}', "its messages all have the same value at '/id': ${seq} must be in it"),
        ('{"id": "${secret:A}"}', "its messages all have the same value at '/id'"),
    ],
)
def test_a_payload_without_a_key_of_its_own_in_each_message_is_refused(payload: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Pointer.parse("/id").key_of(Template.parse(payload), {"A": "0"})

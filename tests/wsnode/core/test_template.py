"""Templates: what is filled in, what is refused, and that a builder writes what the text says."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsnode.core.template import Template

NUMBERS = st.integers(0, 10**12)
LITERALS = st.text(st.characters(codec="utf-8", exclude_characters="$"))
VARIABLES = st.sampled_from(["${seq}", "${client}", "${secret:TOKEN}"])


@given(st.lists(LITERALS | VARIABLES), NUMBERS, NUMBERS, LITERALS)
def test_a_template_is_its_text_with_every_variable_replaced(
    parts: list[str], client: int, seq: int, token: str
) -> None:
    values = {"${seq}": str(seq), "${client}": str(client), "${secret:TOKEN}": token}
    expected = "".join(values.get(part, part) for part in parts)
    template = Template.parse("".join(parts))
    assert template.builder({"TOKEN": token})(client, seq) == expected.encode()
    assert template.fill({"TOKEN": token}, client, seq) == expected
    assert template.variables == {v for v in ("seq", "client") if f"${{{v}}}" in parts}
    assert template.secrets == ({"TOKEN"} if "${secret:TOKEN}" in parts else set())


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_can_be_written_literally(text: str) -> None:
    assert Template.parse(text.replace("${", "$${")).fill({}) == text


def test_numbers_stand_in_json_as_they_are_written() -> None:
    build = Template.parse('{"id": ${seq}, "who": "client ${client}", "price": "5 $ or 10 %"}').builder({})
    assert json.loads(build(7, 41)) == {"id": 41, "who": "client 7", "price": "5 $ or 10 %"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a ${sequence} b",
            "'${sequence}' in 'a ${sequence} b': no such variable; known: ${seq}, ${client}, ${secret:",
        ),
        ("${", "has no end"),
        ("${seq", "'${seq' in '${seq' has no end: expected } behind it, or $${ for the characters ${"),
        ("${secret:token}", "a secret's name is capital letters, digits and '_', such as ${secret:TOKEN}"),
        ("${secret:../etc/passwd}", "a secret's name is capital letters"),
        ("ab\ud800", "character 3 of 'ab\\ud800' cannot be written as UTF-8"),
    ],
)
def test_what_cannot_be_filled_in_is_refused_with_what_can(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Template.parse(text)


def test_where_a_variable_has_no_meaning_it_is_unknown() -> None:
    with pytest.raises(ValueError, match=re.escape("no such variable; known: ${client}, ${secret:NAME}")):
        Template.parse("${seq}", ["client"])


def test_a_secret_that_is_not_given_is_named_and_a_given_one_is_not_shown() -> None:
    template = Template.parse("${secret:USER}:${secret:TOKEN}")
    with pytest.raises(ValueError, match=r"^the secret TOKEN is not given$") as refused:
        template.builder({"USER": "hush"})
    assert "hush" not in str(refused.value)
    assert "hush" not in repr(template)

"""Reading PromQL as much as the tests need: which metrics an expression names."""

from __future__ import annotations

import re

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*")
_WORDS = frozenset(
    {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "atan2"}
    | {"inf", "nan", "start", "end"}
)


def metrics(expression: str) -> set[str]:
    """Names of the series that an expression selects."""
    text = _STRING.sub('""', expression)
    text = re.sub(r"#.*", "", text)
    text = _LABELS.sub(" ", text)
    text = re.sub(r"\{[^}]*\}", " {} ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    return {
        found[0]
        for found in _NAME.finditer(text)
        if found[0].lower() not in _WORDS and not text[found.end() :].lstrip().startswith("(")
    }


def family(name: str) -> str:
    """The histogram of a `_bucket`, `_sum` or `_count`, else the name."""
    return re.sub(r"_(bucket|sum|count)$", "", name)

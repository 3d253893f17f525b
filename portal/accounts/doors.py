"""Every address of the portal with its rule, read from the URLconf: the table in docs/security.md, made anew by
`python -m portal.accounts.doors` and held against the file and against real requests by the tests."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from portal.accounts.roles import Role, Rule

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- doors: begin -->\n", "<!-- doors: end -->\n"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Door(NamedTuple):
    """An address: `runs/<str:run_id>/cancel`, with the rule (None: it has none) of each method that it takes."""

    address: str
    rules: dict[str, Rule | None]

    @property
    def is_api(self) -> bool:
        """Whether a token opens it."""
        return self.address.startswith("api/") and self.address != "api/v1/"

    def takes(self, role: Role | None) -> list[str]:
        """The methods that somebody of this role (None: not signed in) may use."""
        return [method for method, rule in self.rules.items() if rule is not None and _lets(rule, method, role)]


def _lets(rule: Rule, method: str, role: Role | None) -> bool:
    wanted = rule.wants(method)
    return wanted is None or (role is not None and role.covers(wanted))


def doors() -> list[Door]:
    """All of them, in the order of their addresses."""
    from django.urls import get_resolver

    found: dict[str, Door] = {}
    for address, view in _walk(get_resolver().url_patterns, ""):
        # The API has one pattern per operation; the first takes all methods of its path.
        found.setdefault(address, Door(address, _rules(view)))
    return [found[address] for address in sorted(found)]


def _walk(patterns: Iterable[Any], prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for pattern in patterns:
        address = prefix + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _walk(pattern.url_patterns, address)
        else:
            yield address, pattern.callback


def _rules(view: Callable[..., Any]) -> dict[str, Rule | None]:
    if hasattr(view, "rules"):
        return {method: view.rules[method] for method in METHODS if method in view.rules}
    return dict.fromkeys(_methods(view), getattr(view, "rule", None))


def _methods(view: Callable[..., Any]) -> list[str]:
    """What its decorator (`require_POST` and the like) or its class says; a view that says nothing has a form."""
    by_class = getattr(view, "view_class", None)
    if by_class is not None:
        known = [name.upper() for name in by_class.http_method_names if hasattr(by_class, name)]
        return [method for method in METHODS if method in known]
    inner: Any = getattr(view, "func", view)  # of a partial
    while inner is not None:
        allowed = inspect.getclosurevars(inner).nonlocals.get("request_method_list")
        if allowed is not None:
            return [method for method in METHODS if method in allowed]
        inner = getattr(inner, "__wrapped__", None)
    return ["GET", "POST"]


def table() -> str:
    """The doors as a Markdown table: what each role may send where."""
    head = ("address", "rule", "not signed in", *(role.value for role in Role))
    lines = [head, tuple("---" for _ in head)]
    for door in doors():
        words = dict.fromkeys(rule.word if rule else "none" for rule in door.rules.values())
        cells = (", ".join(door.takes(role)) or "–" for role in (None, *Role))
        plain = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", door.address)
        lines.append((f"`/{plain}`", ", ".join(words), *cells))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(text: str) -> str:
    """The page's text with its table made anew.

    Raises:
        ValueError: the two marks are not in it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE}: the marks {BEGIN.strip()} and {END.strip()} are missing")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    """Write the page."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.config.settings")
    django.setup()
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()

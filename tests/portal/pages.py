"""A response as a page: elements by CSS selector, and the text that a reader sees."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Protocol, Self

VOID = {
    "area",
    "base",
    "br",
    "col",
    "embed",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "source",
    "track",
    "wbr",
    "path",
    "rect",
}
HIDDEN = {"popover"}
"""Attributes of what is not seen until it is asked for."""

_PART = re.compile(r"(?P<tag>[a-zA-Z][\w-]*)?(?P<rest>(?:#[\w-]+|\.[\w-]+|\[[\w:-]+(?:=[^\]]+)?\])*)")
_TEST = re.compile(r"#([\w-]+)|\.([\w-]+)|\[([\w:-]+)(?:=([^\]]+))?\]")


class Response(Protocol):
    """What the test client gives."""

    @property
    def content(self) -> bytes: ...


class Element:
    """An element and what is in it."""

    def __init__(self, tag: str, attributes: dict[str, str], parent: Element | None) -> None:
        self.tag = tag
        self.attributes = attributes
        self.parent = parent
        self.inside: list[Element | str] = []

    @property
    def text(self) -> str:
        """All its text but that of popovers and of what is for screen readers only, blanks joined."""
        return " ".join(self._raw(hidden=False).split())

    @property
    def whole_text(self) -> str:
        """All its text, hidden or not."""
        return " ".join(self._raw(hidden=True).split())

    def _raw(self, *, hidden: bool) -> str:
        if not hidden and (HIDDEN & self.attributes.keys() or "sr" in self.classes):
            return ""
        gap = "" if self.tag in ("span", "b", "strong", "code", "svg", "path") else " "
        parts = [part if isinstance(part, str) else part._raw(hidden=hidden) for part in self.inside]
        return gap + "".join(parts) + gap

    @property
    def classes(self) -> set[str]:
        """Its classes."""
        return set(self.attributes.get("class", "").split())

    def ancestor(self, tag: str) -> Element:
        """The nearest element around it with this tag."""
        around = self.parent
        while around is not None and around.tag != tag:
            around = around.parent
        assert around is not None, f"no {tag} around {self.tag}"
        return around

    def all(self, selector: str) -> list[Element]:
        """Elements within, in document order: by tag, `#id`, `.class`, `[attribute=value]`, blank, `>` and comma."""
        wanted = [part.split() for part in selector.split(",")]
        return [element for element in self._walk() if any(element._is(steps, self) for steps in wanted)]

    def one(self, selector: str) -> Element:
        """The only, or first, such element."""
        found = self.all(selector)
        assert found, f"no {selector} in {self.tag}: {self.whole_text[:300]}"
        return found[0]

    def _walk(self) -> list[Element]:
        found = []
        for part in self.inside:
            if isinstance(part, Element):
                found += [part, *part._walk()]
        return found

    def _is(self, steps: list[str], root: Element) -> bool:
        if not self._matches(steps[-1]):
            return False
        rest = steps[:-1]
        if not rest:
            return True
        direct = rest[-1] == ">"
        rest = rest[:-1] if direct else rest
        around = self.parent
        while around is not None and around is not root.parent:
            if around._is(rest, root):
                return True
            if direct:
                return False
            around = around.parent
        return False

    def _matches(self, part: str) -> bool:
        found = _PART.fullmatch(part)
        assert found, f"selector {part!r}: not understood"
        if found["tag"] and found["tag"] != self.tag:
            return False
        for identity, name, attribute, value in _TEST.findall(found["rest"]):
            if identity and self.attributes.get("id") != identity:
                return False
            if name and name not in self.classes:
                return False
            if attribute and (
                attribute not in self.attributes or (value and self.attributes[attribute] != value.strip("\"'"))
            ):
                return False
        return True


class Page(Element):
    """A whole page, or a partial."""

    @classmethod
    def of(cls, html: str) -> Self:
        """Parse it."""
        root = cls("page", {}, None)
        _Builder(root).feed(html)
        return root


class _Builder(HTMLParser):
    def __init__(self, root: Element) -> None:
        super().__init__()
        self.here = root

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attributes}, self.here)
        self.here.inside.append(element)
        if tag not in VOID:
            self.here = element

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.here.inside.append(Element(tag, {name: value or "" for name, value in attributes}, self.here))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.here.tag == tag, f"</{tag}> closes <{self.here.tag}>"
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        self.here.inside.append(data)


def page(response: Response) -> Page:
    """The page of a response. Fails where tags do not close as they opened."""
    return Page.of(response.content.decode())

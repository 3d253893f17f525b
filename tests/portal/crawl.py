"""Following every link of the portal's pages, as somebody who is signed in or as nobody."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from django.test import Client
from django.urls import Resolver404, resolve

from tests.portal.pages import Page

MOST_OF_A_ROUTE = 6
"""Addresses of one route that are asked for; a list has a thousand of the same kind."""
PAGES = "text/html"


class Visit(NamedTuple):
    """An address that was asked for, and what came."""

    path: str
    route: str
    """Name of its view in the URLconf; '' where there is none."""
    status: int
    linked_from: str
    is_page: bool


def route_of(path: str) -> str:
    """The name under which the URLconf knows an address; a static file is `static`; '' where nothing answers."""
    plain = urlsplit(path).path
    if plain.startswith("/static/"):
        return "static"
    try:
        return resolve(plain).view_name
    except Resolver404:
        return ""


def links_of(found: Page, path: str) -> Iterable[str]:
    """Where a page leads to within the portal, without fragments: links, and what it loads by itself."""
    for element in found.all("a, link, script, img, form, [hx-get], [data-charts]"):
        for name in ("href", "src", "hx-get", "data-charts", "action"):
            target = element.attributes.get(name)
            if target is None or (name == "action" and element.attributes.get("method", "get").lower() != "get"):
                continue
            address = urlsplit(urljoin(f"http://portal{path}", target))
            if address.netloc == "portal":
                yield address.path + (f"?{address.query}" if address.query else "")


def crawl(client: Client, start: str = "/") -> list[Visit]:
    """Everything that can be reached from `start`, each address once, few of each route, breadth first."""
    seen, asked = {start}, Counter[str]()
    line = deque([(start, "")])
    visits = []
    while line:
        path, origin = line.popleft()
        route = route_of(path)
        if asked[route] >= MOST_OF_A_ROUTE:
            continue
        asked[route] += 1
        answer = client.get(path)
        is_page = answer.get("Content-Type", "").startswith(PAGES)
        content = answer.getvalue()
        visits.append(Visit(path, route, answer.status_code, origin, is_page))
        if 300 <= answer.status_code < 400:
            further: Iterable[str] = [urljoin(path, answer["Location"])]
        else:
            further = links_of(Page.of(content.decode()), path) if is_page else []
        for address in further:
            if address not in seen:
                seen.add(address)
                line.append((address, path))
    return visits

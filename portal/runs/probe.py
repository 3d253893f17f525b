"""Reading a subject's version from its declared address: a short answer, soon, and from nowhere else. No database."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

import httpx

TIMEOUT_S = 5.0
"""For all of it, name resolution included."""
MOST_BYTES = 64 << 10
VERSION_CHARS = 200


class ProbeError(Exception):
    """The version cannot be read. The message names the address and why."""


def read_version(url: str, field: str = "") -> str:
    """The version that `url` tells: the text of the answer, or of a JSON one the value at `field` (`build.commit`).

    Redirects are not followed and no proxy is asked, so that nothing but the declared address is ever reached.

    Raises:
        ProbeError: no answer in time, another status than 200, too long, or there is no version in it.
    """
    try:
        body = asyncio.run(_fetch(url))
    except TimeoutError as error:
        raise ProbeError(f"{url} gave no whole answer in {TIMEOUT_S:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise ProbeError(f"{url} does not answer: {error or type(error).__name__}") from error
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ProbeError(f"{url} answers what is no UTF-8 text") from error
    version = _at(url, text, field) if field else text.strip()
    if not (1 <= len(version) <= VERSION_CHARS and version.isprintable()):
        shown = repr(version[:60]) + ("…" if len(version) > 60 else "")
        raise ProbeError(f"{url} answers {shown}: wanted a version of 1 to {VERSION_CHARS} visible characters")
    return version


async def _fetch(url: str) -> bytes:
    body = bytearray()
    async with (
        asyncio.timeout(TIMEOUT_S),
        httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=TIMEOUT_S) as client,
        # Unpacked, a short answer could be a very long one.
        client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
    ):
        if answer.status_code != HTTPStatus.OK:
            to = f" to {answer.headers.get('Location', 'nowhere')!r}" if answer.is_redirect else ""
            raise ProbeError(f"{url} answers {answer.status_code}{to}: wanted 200; redirects are not followed")
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MOST_BYTES:
                raise ProbeError(f"{url} answers with more than {MOST_BYTES:,} bytes")
    return bytes(body)


def _at(url: str, text: str, field: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProbeError(f"{url} answers what is no JSON: wanted one with {field}") from error
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ProbeError(f"{url} has no {field} in its JSON answer")
        value = value[part]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ProbeError(f"{url}: {field} is {type(value).__name__}, wanted text or a number")
    return str(value).strip()

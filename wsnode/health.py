"""What a server says of itself at /healthz: `ok`, and then a line for each thing, `start_id 6e315000c8a4ade8`."""

from __future__ import annotations

import http.client
import re
from urllib.parse import urlsplit

TIMEOUT_S = 3.0
MOST_BYTES = 4096
_LINE = re.compile(r"^([a-z][a-z0-9_]{0,31}) ([!-~]{1,64})$", re.MULTILINE)


def said(url: str) -> dict[str, str] | None:
    """By name, what the server at `http://HOST:PORT/healthz` says; None: it does not answer, or is not well."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return dict(_LINE.findall(body)) if answer.status == 200 else None

"""Whether a server outside the lab wants to be loaded: its owner shows the lab's token at a well-known path.

`GET /.well-known/wslab-consent` on the very address and port that the load would aim at, by the same scheme
(ws: http, wss: https with the certificate checked), answers 200 and the token on a line of its own. Redirects are not
followed: what is elsewhere is no word of this server's.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from wsnode import __version__
from wsnode.preflight import target_of

PATH = "/.well-known/wslab-consent"
TIMEOUT_S = 5.0
MOST_BYTES = 8192


def withheld(url: str, address: str, token: str) -> str | None:
    """Why there is no consent; None: there is. Blocks for some seconds at most."""
    host, port = target_of(url)
    secure = urlsplit(url).scheme == "wss"
    shown = f"[{host}]" if ":" in host else host
    where = f"{'https' if secure else 'http'}://{shown}:{port}{PATH} at {address}"
    wanted = f"; wanted: 200 and the line {token}, put there by whoever owns the server"
    connection = _At(address, host, port, secure=secure)
    try:
        connection.request("GET", PATH, headers={"User-Agent": f"wsnode/{__version__}", "Accept": "text/plain"})
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return f"{where} does not answer ({_words(error)}){wanted}"
    finally:
        connection.close()
    if 300 <= answer.status < 400:
        return f"{where} answers {answer.status}, a redirect, which is not followed{wanted}"
    if answer.status != 200:
        return f"{where} answers {answer.status}{wanted}"
    if token not in (line.strip() for line in body.decode("utf-8", "replace").splitlines()):
        return f"{where} does not show this lab's token{wanted}"
    return None


class _At(http.client.HTTPConnection):
    """A connection to an address that asks for a host by name."""

    def __init__(self, address: str, host: str, port: int, *, secure: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self._address = address
        if secure:
            # The Host header leaves the scheme's own port out, as browsers do.
            self.default_port = http.client.HTTPS_PORT
        self._tls = ssl.create_default_context() if secure else None

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__

"""Where a worker's clients connect to, and from where."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from websockets.uri import WebSocketURI, parse_uri

from wsnode.core.pacing import Share
from wsnode.core.scenario import Scenario
from wsnode.load.opening import Request

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux's <linux/in.h>; Python names it from 3.12 on. Without it the kernel chooses a port at bind, when it does not
know the destination yet: one that no other connection has, and ever longer to find."""


class Address(NamedTuple):
    """One target, resolved once, and the source addresses that clients are dealt in turn."""

    uri: WebSocketURI
    family: int
    sockaddr: tuple[Any, ...]
    tls: ssl.SSLContext | None
    request: Request
    sources: tuple[str, ...] = ()
    """Of the target's family; none: the kernel chooses."""
    share: Share = Share(1, 0, 1)
    """Whose clients they are dealt to."""
    asks: tuple[Sequence[str], Sequence[str], Mapping[str, str] | None] = ((), (), None)
    """What the request was made of beside the URL: header lines, subprotocols, secrets."""

    @classmethod
    def at(
        cls,
        url: str,
        family: int,
        sockaddr: Sequence[Any],
        sources: Sequence[str],
        share: Share,
        *,
        scenario: Scenario | None = None,
        secrets: Mapping[str, str] | None = None,
        ca_file: str | None = None,
    ) -> Address:
        """A URL at an address that its host has, asked for as the scenario says; certificates of `ca_file` are believed
        instead of the system's.

        Raises:
            ValueError: it is no WebSocket URL, or a secret of a header is missing or has a line break.
            OSError: there is no such file, or no certificate in it.
        """
        uri = parse_uri(url)
        tls = None
        if uri.secure:
            tls = ssl.create_default_context(cafile=ca_file)
            if scenario is not None and not scenario.tls_verify:
                tls.check_hostname = False
                tls.verify_mode = ssl.CERT_NONE
        headers, subprotocols = (scenario.headers, scenario.subprotocols) if scenario is not None else ((), ())
        asks = headers, subprotocols, secrets
        return cls(uri, family, tuple(sockaddr), tls, Request(uri, *asks), tuple(sources), share, asks)

    def towards(self, url: str) -> Address:
        """Another URL of the same server, asked for in the same way."""
        uri = parse_uri(url)
        return self._replace(uri=uri, request=Request(uri, *self.asks))

    def dial(self, number: int, receive_buffer: int | None = None) -> socket.socket:
        """A socket that connects for that client, perhaps still on its way; with a receive buffer of so many bytes.

        Raises:
            OSError: no descriptor, port or route is left, or the target refuses at once.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if receive_buffer is not None:
                # Before the connect, since the window's scale is told in its first segment.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if self.sources:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                # By its place, so that a host's clients have each address as often as any other, to one.
                sock.bind((self.sources[self.share.place(number) % len(self.sources)], 0))
            error = sock.connect_ex(self.sockaddr)
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
        except OSError:
            sock.close()
            raise
        return sock

"""What went wrong with a connection, as one of `wsnode.core.protocol.ErrorKind`."""

from __future__ import annotations

import errno
import logging
import ssl
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from websockets.protocol import Protocol

    from wsnode.core.protocol import ErrorKind


log = logging.getLogger("wsnode.load")


@cache
def _tell(why: str) -> None:
    """Once: all clients would say the same."""
    log.error("the server's certificate is refused: %s", why)


def connect_error(error: OSError) -> ErrorKind:
    """Why TCP or TLS did not come to stand."""
    if isinstance(error, ConnectionRefusedError):
        return "connect_refused"
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        _tell(error.verify_message)
        return "certificate_refused"
    if isinstance(error, ssl.SSLError):
        return "handshake_failed"
    if isinstance(error, ConnectionError):
        return "reset"
    match error.errno:
        case errno.EADDRNOTAVAIL:
            return "source_ports_exhausted"
        case errno.EMFILE | errno.ENFILE:
            return "descriptors_exhausted"
    return "connect_failed"


def break_error(exc: Exception | None, protocol: Protocol | None) -> ErrorKind:
    """Why an open connection ended that its client did not close."""
    if protocol is not None and protocol.parser_exc is not None:
        return "protocol_error"
    return "reset" if isinstance(exc, OSError) else "closed_by_server"

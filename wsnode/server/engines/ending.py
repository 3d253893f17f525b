"""What every engine keeps to while connections open and close, and how it names their ends."""

from __future__ import annotations

from websockets.frames import CloseCode

from wsnode.lean import Ending

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
WRITE_LIMIT = 32 * 1024
"""Unsent bytes at which an echo waits for its client."""
SPARE_TRANSPORTS = 32
"""TCP connections above the worker's limit that are still answered, with 503; more are dropped unanswered, before
accept runs out of descriptors."""
KEEPALIVE_TIMEOUT = "keepalive ping timeout"
"""Reason of the close of a client that answers no ping: the library's."""

_OWN_CLOSES: dict[int, str] = {
    CloseCode.PROTOCOL_ERROR: "protocol",
    CloseCode.INVALID_DATA: "protocol",
    CloseCode.MESSAGE_TOO_BIG: "too_big",
    CloseCode.TRY_AGAIN_LATER: "slow_consumer",
}


def closing_error(ending: Ending) -> str | None:
    """The error kind of an opened connection's end; None where it ended as it should."""
    sent, received = ending.sent, ending.received
    if sent is None:
        return "abnormal" if received is None else None
    if ending.received_first:
        return None
    if sent.code == CloseCode.INTERNAL_ERROR:
        return "timeout" if sent.reason == KEEPALIVE_TIMEOUT else "internal"
    if sent.code in _OWN_CLOSES:
        return _OWN_CLOSES[sent.code]
    return "timeout" if received is None else None

"""The least that can answer a WebSocket client, to know a generator's own floor by: `python -m wsnode.trivial`.

One epoll loop over raw sockets, no library and no timer: a handshake is answered at once, a masked frame of less than
64 KiB goes back unmasked, everything else ends the connection. For loopback and this project's own generator only.
Prints its port, then serves until its standard input ends.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from base64 import b64encode
from hashlib import sha1

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LINES = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


def accepted(request: bytes) -> bytes:
    """The answer to an opening handshake (RFC 6455, section 4.2.2)."""
    key = request.lower().index(b"sec-websocket-key:") + len(b"sec-websocket-key:")
    nonce = request[key : request.index(b"\r", key)].strip()
    return _LINES + b64encode(sha1(nonce + _GUID, usedforsecurity=False).digest()) + b"\r\n\r\n"


def echoed(data: bytes) -> tuple[bytes, bytes]:
    """The answers to all whole frames, and the bytes that are left.

    Raises:
        ValueError: a frame that is not a whole masked message of less than 64 KiB.
    """
    answers = []
    place, end = 0, len(data)
    while end - place >= 6:
        size, head = data[place + 1] - 128, 2
        if not 0 <= size < 127 or data[place] not in (0x81, 0x82):
            raise ValueError("not a whole masked message of less than 64 KiB")
        if size == 126:
            size, head = int.from_bytes(data[place + 2 : place + 4]), 4
        body = place + head + 4
        if body + size > end:
            break
        mask = int.from_bytes(data[body - 4 : body] * (size // 4 + 1)) >> 8 * (4 - size % 4)
        payload = (int.from_bytes(data[body : body + size]) ^ mask).to_bytes(size)
        answers.append(data[place : place + 1] + bytes((data[place + 1] & 127,)) + data[place + 2 : body - 4] + payload)
        place = body + size
    return b"".join(answers), data[place:]


def serve(listener: socket.socket, stop_fd: int) -> None:
    """Answer until there is something to read, or an end, at `stop_fd`."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(stop_fd, select.EPOLLIN | select.EPOLLHUP)
    peers: dict[int, socket.socket] = {}
    rest: dict[int, bytes] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == stop_fd:
                return
            if fd == listener.fileno():
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
                continue
            try:
                data = peers[fd].recv(1 << 16)
                if not data:
                    raise ConnectionError
                if fd not in rest:
                    peers[fd].sendall(accepted(data))
                    rest[fd] = b""
                else:
                    answer, rest[fd] = echoed(rest[fd] + data)
                    peers[fd].sendall(answer)
            except (OSError, ValueError):
                poll.unregister(fd)
                peers.pop(fd).close()
                rest.pop(fd, None)


def main() -> None:
    """Serve on a free port of 127.0.0.1."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    os.write(sys.stdout.fileno(), b"%d\n" % listener.getsockname()[1])
    serve(listener, sys.stdin.fileno())


if __name__ == "__main__":
    main()

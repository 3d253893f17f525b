"""The port that a service holds and its workers share."""

from __future__ import annotations

import socket
from typing import Any


def hold_port(host: str, port: int) -> socket.socket:
    """Take a port for the workers of one service; 0 takes a free one. The socket is held, and never listens.

    It is bound alone, then opened to sockets of the same user: two services that both merely used SO_REUSEPORT would
    share a port, and its connections, unnoticed. Raises OSError where the address is taken or not this machine's.
    """
    holder, address = _open(host, port)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else the last run's TIME_WAIT is in the way
        holder.bind(address)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # nobody else may do as above from now on
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        holder.close()
        raise
    return holder


def join_port(host: str, port: int) -> socket.socket:
    """A worker's own socket on a held port, to listen on: the kernel spreads connections over them. Raises OSError."""
    listener, address = _open(host, port)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _open(host: str, port: int) -> tuple[socket.socket, Any]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.socket(family, socket.SOCK_STREAM), address

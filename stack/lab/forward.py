"""TCP from 127.0.0.1 of this machine to 127.0.0.1 of a host, connected to within the host's network namespace."""

import asyncio
import contextlib
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = "127.0.0.1"
_SPAN = 200  # how far to look upward for a free port
_CHUNK = 65536


class Namespace:
    """Makes sockets in a network namespace. A socket stays in the one where it was made: one thread lives there."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "wslab-netns", initializer=self._enter, initargs=(path,))

    @staticmethod
    def _enter(path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.setns(handle, os.CLONE_NEWNET)
        finally:
            os.close(handle)

    async def connect(self, address: str, port: int, timeout_s: float = 5.0) -> socket.socket:
        """A connected, non-blocking socket.

        Raises:
            OSError: nobody answers there.
        """
        loop = asyncio.get_running_loop()
        made = await loop.run_in_executor(self._thread, socket.socket)
        made.setblocking(False)
        try:
            await asyncio.wait_for(loop.sock_connect(made, (address, port)), timeout_s)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Let the namespace go."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def listen(wanted: int) -> socket.socket:
    """Listen on 127.0.0.1 at the wanted port, else at the next free one.

    Raises:
        OSError: none of the next ports is free.
    """
    for port in range(wanted, min(wanted + _SPAN, 65536)):
        with contextlib.suppress(OSError):
            return socket.create_server((HERE, port), backlog=128)
    raise OSError(f"no free port: {wanted} and the next {_SPAN} are taken")


class Forward:
    """Carries connections to `listener` on to 127.0.0.1:`port` in the namespace, each direction closed by itself."""

    def __init__(self, listener: socket.socket, namespace: Namespace, port: int) -> None:
        self.listener = listener
        self.port = port
        self._namespace = namespace
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Take connections from now on."""
        self._server = await asyncio.start_server(self._carry, sock=self.listener)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connected = await self._namespace.connect(HERE, self.port)
        except (OSError, TimeoutError):
            linger = struct.pack("ii", 1, 0)  # closing resets: "nobody listens", and not "it had nothing to say"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(sock=connected)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            back.transport.abort()
        finally:
            writer.close()
            back.close()

    def close(self) -> None:
        """Take no more; what is carried ends with the process, or with its peers."""
        if self._server is not None:
            self._server.close()
        self.listener.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK):
        sink.write(chunk)
        await sink.drain()
    sink.write_eof()

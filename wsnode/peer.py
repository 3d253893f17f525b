"""A WebSocket server that behaves in a known way, as a process of its own: `python -m wsnode.peer MODE`.

What a generator is tried against (`wsnode selftest`, and the project's tests). Written on `websockets`' sans-I/O
protocol, apart from wsnode's own server. Prints its port, then serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol


class Peer(asyncio.Protocol):
    """Echoes, with the fault that its mode names. Messages are counted over all connections."""

    messages = 0

    def __init__(self, mode: str, argument: float) -> None:
        self.mode, self.argument = mode, argument
        self.protocol = ServerProtocol()
        self.keeps_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.mode == "garbage":
            self.transport.write(b"HTTP/1.1 101 Nonsense\r\n\x00\xff\r\n\r\n")
            return
        if self.mode == "mute":
            return
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                if self.mode == "reject":
                    self.protocol.send_response(self.protocol.reject(403, "not today"))
                else:
                    self.protocol.send_response(self.protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self.message(event)
        self.flush()

    def message(self, frame: Frame) -> None:
        Peer.messages += 1
        n = Peer.messages
        if self.mode == "delay":
            asyncio.get_running_loop().call_later(self.argument, self.answer, frame)
        elif self.mode == "faulty" and n % 100 == 0:
            pass  # drop wins over double
        elif self.mode == "faulty" and n % 50 == 0:
            self.answer(frame)
            self.answer(frame)
        elif self.mode == "breaks" and n == self.argument:
            self.flush()
            whole = Frame(frame.opcode, frame.data).serialize(mask=False)
            self.transport.write(whole[: len(whole) // 2])
            self.transport.close()
        elif self.mode == "lies":
            self.protocol.send_text(b"0 0 something else entirely")
        elif self.mode == "fragments":
            data = bytes(frame.data)
            self.protocol.send_text(data[:7], fin=False)
            self.protocol.send_ping(b"between")
            self.protocol.send_continuation(data[7:], fin=True)
        elif self.mode == "badframe" and n == self.argument:
            self.flush()
            self.transport.write(b"\xf1\x01x")
        elif self.mode == "leaves" and n == self.argument:
            # The close frame alone: the TCP connection stays until the client has had enough.
            self.protocol.send_close(1001)
            self.keeps_open = True
        elif self.mode == "silent":
            pass
        elif self.mode == "halts":
            # Reads no more, for a while or, with 0, for good.
            if n == 1:
                self.transport.pause_reading()
                if self.argument:
                    asyncio.get_running_loop().call_later(self.argument, self.transport.resume_reading)
            self.answer(frame)
        else:
            self.answer(frame)

    def answer(self, frame: Frame) -> None:
        if self.transport.is_closing():
            return
        send = self.protocol.send_text if frame.opcode is Opcode.TEXT else self.protocol.send_binary
        send(frame.data)
        self.flush()

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif not self.keeps_open:
                self.transport.close()


async def main(mode: str, argument: float, identity: str) -> None:
    loop = asyncio.get_running_loop()
    tls = None
    if identity:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(identity)
    server = await loop.create_server(lambda: Peer(mode, argument), "127.0.0.1", 0, backlog=4096, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()


class Running:
    """A peer process as its user sees it."""

    def __init__(self, process: subprocess.Popen[str], port: int, scheme: str) -> None:
        self.process = process
        self.url = f"{scheme}://127.0.0.1:{port}/echo"

    def stop_for(self, seconds: float, after: float) -> threading.Timer:
        """SIGSTOP the process `after` seconds from now, for `seconds`."""

        def halt() -> None:
            self.halt()
            threading.Timer(seconds, self.go_on).start()

        timer = threading.Timer(after, halt)
        timer.start()
        return timer

    def halt(self) -> None:
        """SIGSTOP the process."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT the process."""
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def peer(mode: str, argument: float = 0, identity: Path | None = None) -> Iterator[Running]:
    """A running peer; gone afterwards. With `identity`, a PEM file of key and certificate, it speaks TLS."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wsnode.peer", mode, str(argument), str(identity or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield Running(process, int(process.stdout.readline()), "wss" if identity else "ws")
    finally:
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))

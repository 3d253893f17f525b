"""What the generator's own code costs per message, part by part, without a network.

    python -m tests.benchmarks.parts

The best of several thousand messages over 1,000 clients, in ns: what other processes do to the machine adds to all
others. The kernel's and the loop's share is the rest of what `./wslab bench generator` says.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic_ns, perf_counter_ns
from typing import Any

from wsnode.core.metrics import for_job
from wsnode.core.pacing import Share
from wsnode.lean import apply_mask, frame_head, masks
from wsnode.load.address import Address
from wsnode.load.client import OPEN, Client, Setting, message_head
from wsnode.load.recorder import NS, DueSecond, Recorder
from wsnode.load.usual import UsualClient
from wsnode.telemetry import Layout

CLIENTS, REPEATS, SIZE = 1000, 15, 64


class Nowhere:
    """A transport that takes everything and does nothing."""

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


def best(work: Callable[[], object], messages: int = CLIENTS) -> float:
    took = []
    for _ in range(REPEATS):
        began = perf_counter_ns()
        work()
        took.append(perf_counter_ns() - began)
    return min(took) / messages


def of_client(kind: type[Client]) -> dict[str, float]:
    recorder = Recorder(Layout(for_job("wsnode-agent")).counters(), SIZE)
    address = Address.at("ws://127.0.0.1:9/", socket.AF_INET, ("127.0.0.1", 9), (), Share(1, 0, 1))
    values: dict[str, Any] = dict.fromkeys(Setting._fields)
    values |= {"address": address, "recorder": recorder, "match": "prefix", "size": SIZE}
    values |= {"head": message_head(False, SIZE), "reply_timeout_ns": 5 * NS, "queue_while_down": False}
    clients = [kind(number, Setting(**values)) for number in range(CLIENTS)]
    for client in clients:
        client.begin(Nowhere())  # type: ignore[arg-type]
        client.state = OPEN
    second: DueSecond = recorder.second(1)
    took: dict[str, list[float]] = {"turn and send": [], "reply": [], "count": []}

    def timed(name: str, work: Callable[[], None]) -> None:
        began = perf_counter_ns()
        work()
        took[name].append((perf_counter_ns() - began) / CLIENTS)

    def send() -> None:
        for client in clients:
            second.lags.append(123_456)
            client.turn(second, monotonic_ns())

    def receive(frames: list[bytes]) -> None:
        for client, frame in zip(clients, frames, strict=True):
            client.data_received(frame)

    for _ in range(REPEATS):
        timed("turn and send", send)
        echoes = [
            frame_head(0x81, SIZE) + (b"%b%x " % (client._prefix, client._sequence)).ljust(SIZE, b"x")
            for client in clients
        ]
        timed("reply", lambda echoes=echoes: receive(echoes))  # type: ignore[misc]
        timed("count", recorder.fold)
    assert second.received == CLIENTS * REPEATS
    return {name: min(values) for name, values in took.items()}


def main() -> None:
    payload, mask, keys = b"m" * SIZE, b"abcd", masks()
    head = message_head(False, SIZE)
    rows = {
        "reading the clock": best(lambda: [monotonic_ns() for _ in range(CLIENTS)]),
        "a masking key": best(lambda: [next(keys) for _ in range(CLIENTS)]),
        "masking 64 bytes": best(lambda: [apply_mask(payload, mask) for _ in range(CLIENTS)]),
        "making a payload": best(lambda: [(b"%b%x " % (b"3e7 ", n)).ljust(SIZE, b"x") for n in range(CLIENTS)]),
        "joining a frame": best(lambda: [b"%b%b%b" % (head, mask, payload) for _ in range(CLIENTS)]),
    }
    print("| ns per message | |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name} | {value:.0f} |")
    for kind in (UsualClient, Client):
        for name, value in of_client(kind).items():
            print(f"| {kind.__name__}: {name} | {value:.0f} |")


if __name__ == "__main__":
    main()

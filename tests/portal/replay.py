"""Load generators that replay a recorded load: agents of one process behind one SSH server, told apart by their login.

To the conductor each is a host of its own: a connection, an agent, a load, a line a second in real time.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import asyncssh

from wsnode.core import protocol
from wsnode.core.histogram import LIMIT_NS, Histogram, bucket_bounds, bucket_index
from wsnode.core.protocol import Answer, Ended, Hello, HostResult, Live, Refusal, Remains, Second, encode
from wsnode.core.scenario import Plan, Scenario
from wsnode.environment import environment
from wsnode.load.load import Load, resolve

NS = 1_000_000_000
SETTLED_S = 0.3
"""After a second's end, when its line is written at the earliest."""
SPREAD_S = 0.1
"""Within which the hosts' lines of a second come."""
KINDS = 8
"""Different hosts: each is this recording with all its times longer by another factor."""


class Recording(NamedTuple):
    """What one load generator counted of a scenario."""

    scenario: Scenario
    lines: list[Second]
    final: Second

    def save(self, file: Path) -> None:
        """As JSON lines: the scenario, the seconds, the whole."""
        parts = [self.scenario, *self.lines, self.final]
        file.write_text("".join(part.model_dump_json() + "\n" for part in parts))

    @classmethod
    def load(cls, file: Path) -> Self:
        """What `save` wrote."""
        scenario, *lines = file.read_text().splitlines()
        *seconds, final = (Second.model_validate_json(line) for line in lines)
        return cls(Scenario.model_validate_json(scenario), seconds, final)

    def of(self, kind: int) -> Recording:
        """The same counts, every time longer by a few percent."""
        factor = 1 + 0.03 * kind
        return Recording(self.scenario, [_slower(s, factor) for s in self.lines], _slower(self.final, factor))

    def for_hosts(self, hosts: int) -> Scenario:
        """A scenario of which each host has as many clients, connects and messages as were recorded."""
        fields = {"name": "replayed", "clients": hosts * self.scenario.clients}
        return self.scenario.model_copy(update=fields | {"rate_per_s": hosts * self.scenario.rate_per_s})


async def record(scenario: Scenario, url: str) -> Recording:
    """Carry a load out on this machine, in one process, and keep what it counts."""
    lines: list[Second] = []
    family, address = await resolve(url)
    load = Load(
        Plan.whole(scenario, url), 1, on_second=lines.append, on_live=lambda live: None, address=(family, address)
    )
    await load.prepare()
    load.go(time.monotonic_ns() + NS // 2)
    end = await load.wait()
    assert end.interrupted is None, end.interrupted
    assert end.final is not None
    return Recording(scenario, lines, end.final)


def _slower(second: Second, factor: float) -> Second:
    return second.model_copy(update={"histograms": {name: _longer(h, factor) for name, h in second.histograms.items()}})


def _longer(histogram: Histogram, factor: float) -> Histogram:
    longer = Histogram()
    longer.count, longer.overflow = histogram.count, histogram.overflow
    for index, n in histogram.buckets.items():
        moved = bucket_index(min(LIMIT_NS - 1, round(bucket_bounds(index)[0] * factor)))
        longer.buckets[moved] = longer.buckets.get(moved, 0) + n
    if longer.buckets:
        longer.min_ns, longer.max_ns = (bucket_bounds(edge(longer.buckets))[0] for edge in (min, max))
        longer.sum_ns = sum(bucket_bounds(index)[0] * n for index, n in longer.buckets.items())
    return longer


@dataclass
class _Tape:
    """A recording as it goes over the wire."""

    lines: list[bytes]
    lives: list[bytes]
    final: Second

    @classmethod
    def of(cls, recording: Recording) -> Self:
        return cls([encode(line) for line in recording.lines], list(_lives(recording)), recording.final)


def _lives(recording: Recording) -> Iterator[bytes]:
    for line in recording.lines:
        counted = line.counters
        yield encode(
            Live(
                second=line.second,
                connections_open=counted.connections_open,
                sent=counted.messages_sent,
                received=counted.messages_received,
                outstanding=0,
                errors=0,
                recent={"p50_ns": 400_000, "p95_ns": 900_000, "p99_ns": 2_000_000},
            )
        )


@dataclass
class _Host:
    """One simulated load generator."""

    name: str
    recording: Recording
    tape: _Tape
    environment: dict[str, Any]
    run_id: str | None = None
    start_at_ns: int | None = None
    acknowledged: bool = False

    @property
    def jitter_s(self) -> float:
        return zlib.crc32(self.name.encode()) % 1000 / 1000 * SPREAD_S

    def due_s(self, second: int) -> float:
        """Until the line of a second is written."""
        assert self.start_at_ns is not None
        return self.start_at_ns / NS + second + SETTLED_S + self.jitter_s - time.time()

    def result(self) -> HostResult:
        assert self.run_id is not None
        assert self.start_at_ns is not None
        return HostResult(
            run_id=self.run_id,
            host=self.name,
            state="finished",
            seconds=len(self.tape.lines),
            final=self.tape.final,
            workers=1,
            start_at_ns=self.start_at_ns,
            first_connect_due_ns=0,
            first_connect_begun_ns=400_000,
            environment_begin=self.environment,
            environment_end=self.environment,
        )


class Replay:
    """All of them. `serve` answers until it is cancelled."""

    def __init__(self, recording: Recording, names: Iterable[str]) -> None:
        recordings = [recording.of(kind) for kind in range(KINDS)]
        tapes = [_Tape.of(one) for one in recordings]
        own = environment()
        self.hosts: dict[str, _Host] = {}
        for number, name in enumerate(names):
            stable = {**own["stable"], "hostname": name, "boot_id": f"boot-{number}", "agent_name": name}
            kind = number % KINDS
            self.hosts[name] = _Host(name, recordings[kind], tapes[kind], {**own, "stable": stable})
        self._processes: set[asyncssh.SSHServerProcess[bytes]] = set()
        self.logging_in = 0
        self.most_logging_in = 0

    def cut(self) -> int:
        """Break every way, as a network does. How many there were."""
        processes = list(self._processes)
        for process in processes:
            process.get_extra_info("connection").abort()
        return len(processes)

    async def listen(self, key: asyncssh.SSHKey, client: asyncssh.SSHKey) -> asyncssh.SSHAcceptor:
        """On a free port of 127.0.0.1, `key` being the host's; `client` is let in under each host's name."""
        authorized = asyncssh.import_authorized_keys(client.export_public_key().decode())
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[key],
            authorized_client_keys=authorized,
            server_factory=lambda: _Door(self),
            process_factory=self._serve,
            encoding=None,
            line_editor=False,
            backlog=1024,
        )

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        host = self.hosts[process.get_extra_info("username")]
        streaming: asyncio.Task[None] | None = None
        behaviours = ("echo", "broadcast")
        hello = Hello(
            wsnode="0", name=host.name, boot_id=f"{host.name}-boot", agent_start_id=f"{host.name}-start",
            capabilities=("observe", "load"), behaviours=behaviours,
        )  # fmt: skip
        process.stdout.write(encode(hello))
        self._processes.add(process)
        try:
            while line := await process.stdin.readline():
                request = protocol.decode_request(line)
                data = self._answer(host, request)
                if data is None:
                    refusal = Refusal(id=request.id, code="unknown_run", message="not known here")
                    process.stdout.write(encode(refusal))
                    continue
                process.stdout.write(encode(Answer(id=request.id, data=data)))
                if isinstance(request, protocol.Follow):
                    streaming = asyncio.create_task(self._stream(host, process, request.from_second))
        except (asyncssh.Error, OSError):
            pass
        finally:
            self._processes.discard(process)
            if streaming is not None:
                streaming.cancel()
            process.exit(0)

    def _answer(self, host: _Host, request: protocol.Request) -> dict[str, Any] | None:
        match request:
            case protocol.Clock():
                now = time.time_ns()
                return {"received_ns": now, "sent_ns": now}
            case protocol.Preflight():
                answer = {"fit": True, "findings": [], "environment": host.environment}
                if request.port is not None:
                    answer["remains"] = Remains(connections=0, time_wait=0, source_ports=28_232).model_dump()
                return answer
            case protocol.ListLoads():
                return {"loads": []}
            case protocol.Prepare():
                host.run_id = request.run_id
                return {"workers": 1, "environment": host.environment}
            case protocol.Go():
                host.start_at_ns = host.start_at_ns or request.start_at
                return {"start_at": host.start_at_ns}
            case protocol.Follow():
                return {"seconds": 0}
            case protocol.GetResult():
                return json.loads(host.result().model_dump_json())
            case protocol.Ack():
                host.acknowledged = True
                return {}
            case protocol.Stop() if host.run_id is not None:
                return {"state": "stopped"}
        return None

    async def _stream(self, host: _Host, process: asyncssh.SSHServerProcess[bytes], first: int) -> None:
        for second in range(first, len(host.tape.lines) + 1):
            await asyncio.sleep(host.due_s(second))
            process.stdout.write(host.tape.lives[second - 1] + host.tape.lines[second - 1])
            await process.stdout.drain()
        assert host.run_id is not None
        process.stdout.write(encode(Ended(run_id=host.run_id, state="finished", seconds=len(host.tape.lines))))


class _Door(asyncssh.SSHServer):
    """Counts who is on the way in."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._replay.logging_in += 1
        self._replay.most_logging_in = max(self._replay.most_logging_in, self._replay.logging_in)

    def auth_completed(self) -> None:
        self._replay.logging_in -= 1


def main() -> None:
    """Serve a recording: `python -m tests.portal.replay RECORDING HOSTS FOLDER`.

    FOLDER has the keys `host` and `client`. Prints the port, and serves until it is ended.
    """
    import sys

    recording, hosts, folder = Recording.load(Path(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3])

    async def serve() -> None:
        replay = Replay(recording, ["server", *(f"load-{number}" for number in range(1, hosts + 1))])
        key, client = (asyncssh.read_private_key(folder / name) for name in ("host", "client"))
        acceptor = await replay.listen(key, client)
        print(acceptor.get_port(), flush=True)
        await acceptor.wait_closed()

    asyncio.run(serve())


if __name__ == "__main__":
    main()

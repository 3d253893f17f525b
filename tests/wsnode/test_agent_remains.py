"""What earlier runs have left in this host's TCP tables, on real sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from wsnode import environment
from wsnode.agent.remains import of_clients, of_server
from wsnode.core.protocol import Remains


@contextlib.contextmanager
def connected(bound: str, dialled: str, *, both: bool = False) -> Iterator[tuple[int, socket.socket, socket.socket]]:
    """(port, client, server) of one connection. `both`: the server's socket is for IPv4, too."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.create_server((bound, 0), family=family, dualstack_ipv6=both) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((dialled, port)) as client, listener.accept()[0] as server:
            yield port, client, server


@pytest.mark.parametrize(
    ("bound", "dialled", "both"), [("127.0.0.1", "127.0.0.1", False), ("::1", "::1", False), ("::", "127.0.0.1", True)]
)
def test_each_side_counts_its_own_end_and_a_listener_is_none(bound: str, dialled: str, both: bool) -> None:
    with connected(bound, dialled, both=both) as (port, client, server):
        for seen in (of_server(port), of_clients([dialled], port)):
            assert (seen.connections, seen.time_wait) == (1, 0)
            assert seen.source_ports == environment.source_ports()
            assert not seen.settled
        # Another address, another port: nothing of theirs.
        assert of_clients(["127.0.0.2", "::2"], port) == Remains(
            connections=0, time_wait=0, source_ports=environment.source_ports()
        )
        own = client.getsockname()[1]
        assert (of_clients([dialled], own).connections, of_server(own).connections) == (1, 1)
        client.close()
        server.close()
        # The client closed first: its end waits, the server's is gone.
        assert (of_clients([dialled], port).time_wait, of_server(port).time_wait) == (1, 0)
        assert of_clients([dialled], port).settled
        assert of_server(port).connections == 0


def test_an_end_that_only_one_side_has_closed_is_left() -> None:
    with connected("127.0.0.1", "127.0.0.1") as (port, client, _server):
        client.close()
        assert of_server(port).connections == 1  # CLOSE-WAIT
        assert of_clients(["127.0.0.1"], port).connections == 1  # FIN-WAIT-2


@pytest.mark.parametrize(
    ("connections", "time_wait", "source_ports", "settled"),
    [
        (0, 0, 28_232, True),
        (1, 0, 28_232, False),
        (0, 1_411, 28_232, True),
        (0, 1_412, 28_232, False),
        (0, 1_000_000, None, True),
        (0, 5, 100, True),
        (0, 6, 100, False),
    ],
)
def test_a_twentieth_of_the_source_ports_may_wait(
    connections: int, time_wait: int, source_ports: int | None, settled: bool
) -> None:
    seen = Remains(connections=connections, time_wait=time_wait, source_ports=source_ports)
    assert seen.settled == settled

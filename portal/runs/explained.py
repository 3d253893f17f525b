"""What went wrong in a run, kind by kind: what it means and what to do about it."""

from __future__ import annotations

from typing import NamedTuple

from wsnode.core.result import RunCounters

KINDS_ANCHOR = "kinds-of-connection-errors"


class Explanation(NamedTuple):
    """Of one kind of error, or one reason."""

    title: str
    meaning: str
    remedy: str
    anchor: str
    """Of a heading in `docs/tuning.md`."""


class Counted(NamedTuple):
    """How often something went wrong, and what it is."""

    kind: str
    n: int
    of: Explanation


LOST = Explanation(
    "messages lost",
    "They were sent, and no reply came within the scenario's reply timeout.",
    "The server took them in and did not answer in time. Look whether a worker is at one core or its loop lags.",
    "find-the-limit",
)
ERRORS: dict[str, Explanation] = {
    "connect_refused": Explanation(
        "connect refused",
        "Nobody listens at that address and port.",
        "See that the server is up, on that port; a server that was restarted refuses for a moment.",
        KINDS_ANCHOR,
    ),
    "connect_timeout": Explanation(
        "connect timeout",
        "No answer, or no end of the handshake, within the scenario's connect timeout.",
        "Connect more slowly (rate, ramp-up), or give the server a longer accept queue.",
        "accept-queue",
    ),
    "connect_failed": Explanation(
        "connect failed",
        "The kernel could not connect for another reason.",
        "Check address and route; the generator's log names the reason.",
        KINDS_ANCHOR,
    ),
    "handshake_rejected": Explanation(
        "handshake rejected",
        "The server answered the upgrade with something else than 101.",
        "503 means that it was full or shutting down; 404 a path that it does not know.",
        KINDS_ANCHOR,
    ),
    "handshake_failed": Explanation(
        "handshake failed",
        "The answer was no valid handshake, or the connection ended within it.",
        "Is it a WebSocket server, and ws or wss as it should be?",
        KINDS_ANCHOR,
    ),
    "certificate_refused": Explanation(
        "certificate refused",
        "The server's certificate is not valid, not of a known authority, or not of the URL's host.",
        "Its journal says why. Give the load generators the authority (`ca_file` of agent.toml), or set "
        "tls_verify to false.",
        KINDS_ANCHOR,
    ),
    "closed_by_server": Explanation(
        "closed by server",
        "The server ended an open connection.",
        "Its close code and its log say why.",
        KINDS_ANCHOR,
    ),
    "reset": Explanation(
        "reset",
        "TCP was reset: the connection was cut without a goodbye.",
        "The server was killed or cut it off, or something between did.",
        KINDS_ANCHOR,
    ),
    "protocol_error": Explanation(
        "protocol error",
        "The server broke the WebSocket protocol (RFC 6455).",
        "A fault of the server, or of something between.",
        KINDS_ANCHOR,
    ),
    "source_ports_exhausted": Explanation(
        "source ports exhausted",
        "The load generator had no port left for the target: its own limit, so the run is suspect.",
        "More addresses or load generators, or a wider port range.",
        "source-ports",
    ),
    "descriptors_exhausted": Explanation(
        "descriptors exhausted",
        "The load generator had no file descriptor left: its own limit, so the run is suspect.",
        "Raise the limit of its service, or spread the clients over more hosts.",
        "descriptors",
    ),
    "login_failed": Explanation(
        "login failed",
        "A first message was not answered as the scenario awaits it, in time, or the connection ended meanwhile.",
        "Are the first messages and their secrets right? The server's log may say why it refused them.",
        KINDS_ANCHOR,
    ),
    "behaviour_failed": Explanation(
        "behaviour failed",
        "The installed behaviour raised an exception: the load generator's own fault, so the run is invalid.",
        "The agent's journal has the exception.",
        KINDS_ANCHOR,
    ),
}
UNSENT: dict[str, Explanation] = {
    "not_open": Explanation(
        "unsent, not open",
        "They were due before their connection's handshake had ended.",
        "A few during the ramp-up are usual. Many: the server takes connections in too slowly.",
        "accept-queue",
    ),
    "connection_down": Explanation(
        "unsent, connection down",
        "They were due while their connection was broken.",
        "Find out why connections broke; the kinds beside this one say it.",
        KINDS_ANCHOR,
    ),
    "max_in_flight": Explanation(
        "unsent, max in flight",
        "The connection already owed as many replies as the scenario allows.",
        "The server answers more slowly than it is asked: it is the limit.",
        "find-the-limit",
    ),
    "write_blocked": Explanation(
        "unsent, write blocked",
        "The server did not read, so that the kernel took no more.",
        "The server is the limit; its write wait shows since when.",
        "find-the-limit",
    ),
    "generator_late": Explanation(
        "unsent, generator late",
        "The load generator's schedule never reached them: its own fault, and above 1 % the run is invalid.",
        "Fewer clients for each host, more load generators, or less else on them.",
        "generatorlate",
    ),
    "behaviour_failed": Explanation(
        "unsent, behaviour failed",
        "The installed behaviour did not make them: the load generator's own fault.",
        "The agent's journal has the exception.",
        KINDS_ANCHOR,
    ),
    "client_kind": Explanation(
        "unsent, client kind",
        "Clients that the scenario asked to read slowly or not at all: their connections took no more. In no ratio.",
        "Nothing: what the server did with such clients is the result.",
        KINDS_ANCHOR,
    ),
}


def explained(counters: RunCounters) -> list[Counted]:
    """Lost messages, errors by kind, unsent messages by reason; of the latter two the most frequent first. A kind that
    this portal does not know yet keeps its name."""
    lost = [Counted("lost", counters.messages_lost, LOST)] if counters.messages_lost else []
    errors = [Counted(kind, n, ERRORS.get(kind) or _unknown(kind)) for kind, n in counters.errors.items() if n]
    unsent = [Counted(f"unsent:{why}", n, UNSENT.get(why) or _unknown(why)) for why, n in counters.unsent.items() if n]
    return lost + sorted(errors, key=lambda one: -one.n) + sorted(unsent, key=lambda one: -one.n)


def _unknown(kind: str) -> Explanation:
    return Explanation(kind.replace("_", " "), "A kind that this portal has no words for.", "", KINDS_ANCHOR)

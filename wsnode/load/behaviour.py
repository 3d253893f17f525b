"""What clients say, and how they know which reply is whose: by a scenario, or by an installed class.

A package offers a behaviour as an entry point of the group `wsnode.behaviours`; docs/behaviours.md is its guide. Only
code that an admin has installed on a host runs there: a scenario holds a behaviour's name, never code.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit

from wsnode.core.scenario import BUILT_IN, Scenario
from wsnode.core.template import Template

if TYPE_CHECKING:
    from wsnode.core.pointer import KeyBuilder

GROUP = "wsnode.behaviours"


class Behaviour(Protocol):
    """What a package implements. One object serves all clients of a worker process, in its event loop.

    Its methods are called at the moment when something is due, or has come: they compute and return. Whatever takes
    time in them is time in which no other client has its turn, and shows as scheduler lag; an exception is counted
    (`behaviour_failed`) and makes the run invalid.
    """

    path: str
    """Where on the server it speaks, such as `/chat`: for a URL without a path."""

    def __init__(self, scenario: Scenario) -> None: ...

    def first_messages(self, client: int) -> Sequence[str]:
        """What a client says and awaits after each handshake, as lines of a scenario's `first_messages`."""
        ...

    def message(self, client: int, seq: int) -> tuple[str | bytes, Hashable]:
        """A client's message number `seq`, from 1, and its key: a value that no other message of this client that is
        still unanswered has."""
        ...

    def key(self, reply: bytes) -> Hashable | None:
        """The key of the message that this one, from the server, answers; None: of none."""
        ...


class BehaviourError(ValueError):
    """A behaviour that cannot be had. The message names it and says why."""


class Written:
    """What a scenario's own payload and first messages say, in the form of a behaviour."""

    path = ""

    def __init__(self, scenario: Scenario, secrets: Mapping[str, str]) -> None:
        """Raises ValueError where a secret is not given, or its value does not fit into the payload's JSON."""
        payload = Template.parse("" if scenario.payload is None else scenario.payload)
        pointer = scenario.key_pointer
        self._build = payload.builder(secrets)
        self._pointer = pointer
        self._key: KeyBuilder = pointer.key_of(payload, secrets) if pointer else lambda client, seq: seq

    def first_messages(self, client: int) -> Sequence[str]:
        """None but the scenario's, which every behaviour's clients say first."""
        return ()

    def message(self, client: int, seq: int) -> tuple[bytes, Hashable]:
        """As `Behaviour` has it."""
        return self._build(client, seq), self._key(client, seq)

    def key(self, reply: bytes) -> Hashable | None:
        """As `Behaviour` has it, where replies are matched by a pointer."""
        return None if self._pointer is None else self._pointer.key(reply)


def installed() -> dict[str, EntryPoint]:
    """The behaviours that packages here offer, by name. One that is named as a built-in is not among them."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def names() -> tuple[str, ...]:
    """All behaviours that can be had here."""
    return (*BUILT_IN, *sorted(installed()))


def load(scenario: Scenario) -> Behaviour:
    """The scenario's installed behaviour, made.

    Raises:
        BehaviourError: it is not installed, or its code cannot be imported or made.
    """
    name = scenario.behaviour
    point = installed().get(name)
    if point is None:
        raise BehaviourError(f"the behaviour {name!r} is not installed here; installed: {', '.join(names())}")
    try:
        made: Behaviour = point.load()(scenario)
        missing = [part for part in ("path", "first_messages", "message", "key") if not hasattr(made, part)]
    except Exception as error:
        raise BehaviourError(f"the behaviour {name!r} ({point.value}) failed as it was made: {error!r}") from error
    if missing:
        raise BehaviourError(f"the behaviour {name!r} ({point.value}) has no {', '.join(missing)}")
    return made


def at_path(url: str, behaviour: Behaviour) -> str:
    """The URL, with the behaviour's path where it has none."""
    parts = urlsplit(url)
    return url if parts.path else urlunsplit(parts._replace(path=behaviour.path))

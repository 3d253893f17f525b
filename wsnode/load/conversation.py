"""Clients that say more than the usual: first messages, payloads of a scenario's or a behaviour's own."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Hashable, Mapping
from time import monotonic_ns

from wsnode.core.pacing import Share
from wsnode.core.scenario import BUILT_IN, Scenario
from wsnode.core.script import Hear, Say, Step
from wsnode.lean import BINARY, TEXT
from wsnode.load.behaviour import Written, at_path, load
from wsnode.load.client import CONNECTING, DOWN, Client, Setting
from wsnode.load.recorder import DueSecond

log = logging.getLogger("wsnode.load")


class Conversation:
    """What all clients of a worker say, and how they know replies."""

    def __init__(self, scenario: Scenario, secrets: Mapping[str, str]) -> None:
        """Raises ValueError where a secret or the behaviour cannot be had."""
        self.opcode = BINARY if scenario.message_type == "binary" else TEXT
        self.awaits = scenario.match != "none"
        self.in_order = scenario.effective_match == "order"
        self._name = scenario.behaviour
        self._secrets = secrets
        self._first = tuple(Step.parse(line).ready(secrets) for line in scenario.first_messages)
        built_in = scenario.behaviour in BUILT_IN
        self._behaviour = Written(scenario, secrets) if built_in else load(scenario)
        self.key = self._behaviour.key
        self.own_messages = not built_in or scenario.payload is not None
        self.greeting: set[Client] = set()
        """Whose handshake is done, and whose first messages are not: connects still under way."""
        self._told = False

    @classmethod
    def of(cls, scenario: Scenario, secrets: Mapping[str, str]) -> Conversation | None:
        """None: the clients say only what every client does. Raises ValueError."""
        usual = scenario.payload is None and not scenario.first_messages and scenario.behaviour in BUILT_IN
        return None if usual else cls(scenario, secrets)

    def url(self, url: str) -> str:
        """Where the clients connect to."""
        return at_path(url, self._behaviour)

    def clients(self, share: Share, setting: Setting) -> list[Client]:
        """Those that say it."""
        kind = TalkingClient if self.own_messages else GreetingClient
        return [kind(number, setting, self) for number in share.clients()]

    def first_steps(self, client: int) -> deque[Say | Hear]:
        """What a client says and awaits before it is ready. Raises what the behaviour raises."""
        steps = deque(self._first)
        steps.extend(Step.parse(line).ready(self._secrets) for line in self._behaviour.first_messages(client))
        return steps

    def message(self, client: int, seq: int) -> tuple[bytes, Hashable]:
        """A message's payload and key. Raises what the behaviour raises, or because of what it returned."""
        payload, key = self._behaviour.message(client, seq)
        if isinstance(payload, str):
            payload = payload.encode()
        elif self.opcode == TEXT and not payload.isascii():
            payload.decode()
        hash(key)
        return payload, key

    def failed(self, error: Exception) -> None:
        """The behaviour has raised an exception; the first is told in full."""
        if not self._told:
            self._told = True
            log.error("the behaviour %s has failed; further failures are only counted", self._name, exc_info=error)


class GreetingClient(Client):
    """It is ready for messages once its first ones are said and answered; until then it connects still."""

    __slots__ = ("_established_ns", "_steps", "_talk")

    def __init__(self, number: int, setting: Setting, talk: Conversation) -> None:
        super().__init__(number, setting)
        self._talk = talk
        self._steps: deque[Say | Hear] | None = None
        """What is left of the first messages, while they are under way."""
        self._established_ns = 0

    def _handshake_done(self) -> None:
        self._opening = None
        self._established_ns = monotonic_ns()
        self._setting.connecting.pop(self, None)
        self._talk.greeting.add(self)
        try:
            self._steps = self._talk.first_steps(self.number)
        except Exception as error:
            self._talk.failed(error)
            self._greeting_failed("behaviour_failed")
            return
        self._greet()

    def _greet(self) -> None:
        """Say what is to be said up to the next answer that is awaited; after the last be ready."""
        steps, recorder = self._steps, self._setting.recorder
        assert steps is not None
        while steps and isinstance(step := steps[0], Say):
            payload = step.build(self.number)
            self.write(self.frame(self._talk.opcode, payload))
            recorder.said(len(payload))
            steps.popleft()
        self._cancel_timer()
        if steps:
            patience_s = self._setting.reply_timeout_ns / 1e9
            self._timer = asyncio.get_running_loop().call_later(patience_s, self._greeting_failed, "login_failed")
        else:
            self._steps = None
            self._talk.greeting.discard(self)
            self._ready(self._established_ns)

    def _greeting_failed(self, kind: str) -> None:
        if self.state == CONNECTING:
            self._steps = None
            self._end_connecting(kind)
            self._abort()

    def _end_connecting(self, kind: str) -> None:
        if self._steps is not None:  # whatever ended the connection
            self._steps = None
            kind = "login_failed"
        self._talk.greeting.discard(self)
        super()._end_connecting(kind)

    def _message(self, payload: bytes, now: int) -> None:
        steps = self._steps
        if steps is None:
            if self.state != DOWN:
                self._reply(payload, now)
            return
        self._setting.recorder.arrived(len(payload))
        step = steps.popleft()
        assert isinstance(step, Hear)
        if step.fits(self.number, payload):
            self._greet()
        else:
            self._greeting_failed("login_failed")

    def _reply(self, payload: bytes, now: int) -> None:
        super()._message(payload, now)


class TalkingClient(GreetingClient):
    """Its messages are its conversation's."""

    __slots__ = ("_size",)

    def __init__(self, number: int, setting: Setting, talk: Conversation) -> None:
        super().__init__(number, setting, talk)
        self._size = 0
        """Of the message sent last, which is the only one that the kernel may not have."""

    def _send(self, second: DueSecond, turn_ns: int) -> int:
        talk, setting, transport = self._talk, self._setting, self.transport
        self._sequence = sequence = self._sequence + 1
        try:
            payload, key = talk.message(self.number, sequence)
            if talk.in_order or not talk.awaits:
                key = sequence
            elif key is None or key in self._outstanding:
                raise ValueError(f"message {sequence} of client {self.number} has no key of its own: {key!r}")
        except Exception as error:
            talk.failed(error)
            setting.recorder.error("behaviour_failed")
            setting.recorder.unsent(second, "behaviour_failed")
            return monotonic_ns()
        self._size = len(payload)
        transport.write(self.frame(talk.opcode, payload))
        return self._written(second, turn_ns, key)

    def _handed_over(self, second: DueSecond, turn_ns: int, key: Hashable, now: int) -> None:
        recorder = self._setting.recorder
        recorder.sent(second, now - turn_ns, self._size)
        if self._talk.awaits:
            self._outstanding[key] = (second, turn_ns, now)
        else:
            recorder.no_reply(second)

    def _reply(self, payload: bytes, now: int) -> None:
        talk = self._talk
        if talk.in_order or not talk.awaits:
            super()._reply(payload, now)
            return
        recorder = self._setting.recorder
        recorder.arrived(len(payload))
        try:
            key = talk.key(payload)
            awaited = None if key is None else self._outstanding.pop(key, None)
        except Exception as error:
            talk.failed(error)
            recorder.error("behaviour_failed")
            awaited = None
        self._settle(awaited, now)

"""One open channel to an agent: requests with their answers, and the lines of a followed load."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from portal.conductor.job import JobHost
from portal.conductor.transport import LineTooLong, Pipe, Transport, Untrusted
from wsnode.core import protocol
from wsnode.core.protocol import PROTOCOL, Answer, Hello, ProtocolError, Refusal, RefusalCode

HELLO_TIMEOUT_S = 10.0
PULSE_S = 2.0
"""After this long without any line from the agent a `clock` request asks whether the way is open."""
UNASKED_PULSES = 8
"""While lines come, only one pulse of so many asks: that keeps the agent's deadman away."""
SILENCE_PULSES = 4
"""So many pulses in a row without any line from the agent: the way is taken for cut."""

_STREAMED = (b'{"type":"second",', b'{"type":"live",', b'{"type":"ended",')


class Broken(Exception):
    """The channel is of no more use; a new one may be. The message says what happened to it."""


class NoAnswer(Broken):
    """The agent is there, and does not answer a request in time."""


class BadAgent(Exception):
    """The agent does not speak as it should: another channel would not help."""


class Refused(Exception):
    """The agent did not carry out a request. The message is the agent's."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Channel:
    """An open channel; `open` makes one. All its errors are Broken, BadAgent or Refused."""

    def __init__(self, pipe: Pipe, hello: Hello) -> None:
        self.hello = hello
        self.on_line: Callable[[bytes], None] = lambda line: None
        """Called with each streamed line as it came. An exception of it ends the channel."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with Broken or BadAgent once the channel has ended."""
        self.ended.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._pipe = pipe
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._heard = True
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._pulse())]

    @classmethod
    async def open(cls, transport: Transport, host: JobHost) -> Channel:
        """A new channel, its hello read.

        Raises:
            Unreachable, Broken: there is no way, or nobody at its end.
            BadAgent: whoever answers is not an agent that this conductor can speak with.
        """
        try:
            pipe = await transport.open(host)
        except Untrusted as error:
            raise BadAgent(str(error)) from error
        try:
            return cls(pipe, await _hello(pipe))
        except BaseException as error:
            words = await pipe.close()
            if isinstance(error, Broken) and words:
                raise Broken(words.removeprefix("wsnode agent connect: ")) from error
            raise

    async def ask(self, kind: type[protocol._Request], timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            Refused: the agent did not carry it out.
            NoAnswer: none came within the time.
            Broken: the channel ended.
        """
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._pipe.write(protocol.encode(kind(id=number, **fields)))
                if self.ended.done():
                    self.ended.result()
                return await answer
        except TimeoutError as error:
            raise NoAnswer(f"no answer to {kind.__name__.lower()} within {timeout_s:g} s") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: asyncio's, for a stream that is closing
            raise Broken(f"the other side went away ({error})") from error
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        """Leave. A load that is followed goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._end(Broken("closed"))
        await self._pipe.close()

    # --- within ---

    async def _read(self) -> None:
        try:
            while (line := await self._pipe.read_line()).endswith(b"\n"):
                self._heard = True
                self._take(line)
            self._end(Broken("the channel ended"))
        except (ProtocolError, LineTooLong) as error:
            self._end(BadAgent(f"it sent what is not of the protocol: {error}"))
        except OSError as error:
            self._end(Broken(f"the channel broke: {error}"))
        except Exception as error:
            self._end(error)

    def _take(self, line: bytes) -> None:
        if line.startswith(_STREAMED):
            self.on_line(line)
            return
        reply = protocol.decode_reply(line)
        if isinstance(reply, (Answer, Refusal)):
            waiting = None if reply.id is None else self._waiting.get(reply.id)
            if waiting is not None and not waiting.done():
                if isinstance(reply, Answer):
                    waiting.set_result(reply.data)
                else:
                    waiting.set_exception(Refused(reply.code, reply.message))
            elif isinstance(reply, Refusal) and reply.id is None:
                # Not for one request: the agent is about to close the channel.
                self._end(Refused(reply.code, reply.message))
        elif not isinstance(reply, Hello):
            self.on_line(line)

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(error)

    async def _pulse(self) -> None:
        silent = unasked = 0
        while not self.ended.done():
            heard, self._heard = self._heard, False
            unasked += 1
            if not heard or unasked >= UNASKED_PULSES:
                unasked = 0
                await self._ask_for_life()
            await asyncio.sleep(PULSE_S)
            # Counted by this loop's own pulses, not by the clock: after a halt of this process lines wait to be read.
            silent = 0 if self._heard else silent + 1
            if silent >= SILENCE_PULSES:
                self._end(Broken(f"nothing was heard for {silent * PULSE_S:g} s"))

    async def _ask_for_life(self) -> None:
        """Nobody waits for the answer: that it comes is all that is wanted."""
        try:
            async with asyncio.timeout(PULSE_S):
                await self._pipe.write(protocol.encode(protocol.Clock(id=next(self._numbers))))
        except TimeoutError:
            pass
        except (OSError, RuntimeError) as error:
            self._end(Broken(f"the other side went away ({error})"))


async def first(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _hello(pipe: Pipe) -> Hello:
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            line = await pipe.read_line()
    except TimeoutError as error:
        raise Broken(f"the agent did not speak within {HELLO_TIMEOUT_S:g} s") from error
    except LineTooLong as error:
        raise BadAgent(f"it is no agent: its first line is {error}") from error
    except OSError as error:
        raise Broken(f"the channel broke: {error}") from error
    if not line.endswith(b"\n"):
        raise Broken("the channel ended before the agent spoke")
    try:
        hello = protocol.decode_reply(line)
    except ProtocolError as error:
        if (other := _spoken(line)) is not None:
            raise BadAgent(_mismatch(*other)) from error
        raise BadAgent(f"it is no agent: its first line is {line[:80]!r}") from error
    if not isinstance(hello, Hello):
        raise BadAgent(f"it is no agent: its first line is a {hello.type}")
    if hello.protocol != PROTOCOL:
        raise BadAgent(_mismatch(hello.protocol, hello.wsnode))
    return hello


def _spoken(line: bytes) -> tuple[object, object] | None:
    """Protocol and wsnode of a hello that another version wrote, whatever else is in it."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.get("type") != "hello" or value.get("protocol") in (None, PROTOCOL):
        return None
    return value["protocol"], value.get("wsnode")


def _mismatch(spoken: object, wsnode: object) -> str:
    return (
        f"its agent speaks protocol {spoken} (wsnode {wsnode}), this portal protocol {PROTOCOL}: install the same "
        "version on both"
    )

"""One open channel: reads requests, answers them, and streams a load's lines."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from wsnode.agent.held import Held
from wsnode.agent.keeper import Keeper
from wsnode.agent.refused import Refused
from wsnode.core import protocol
from wsnode.core.protocol import MAX_LINE_BYTES, Answer, Hello, ProtocolError, Refusal, RefusalCode, Request

log = logging.getLogger("wsnode.agent")

AT_ONCE = 32
"""Requests of one channel that may be carried out at the same time; more are read later."""
LAST_WORDS_S = 2.0
"""How long after the end of the requests answers may still be written."""


class Channel:
    """What `serve` does from the hello to the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keeper: Keeper) -> None:
        self.run_id: str | None = None
        self.epoch = -1
        """Run and epoch of the last request about a load."""
        self._reader = reader
        self._writer = writer
        self._keeper = keeper
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._work: set[asyncio.Task[None]] = set()
        self._following: Held | None = None
        self._follower: asyncio.Task[None] | None = None

    async def serve(self, hello: Hello) -> None:
        """Speak first, then answer until the other side is done or gone."""
        try:
            await self._write(hello)
            while (line := await self._read_line()) is not None:
                received_ns = time.time_ns()
                if self._following is not None:
                    self._following.heard()
                await self._take(line, received_ns)
            if self._work:
                await asyncio.wait(self._work, timeout=LAST_WORDS_S)
        except ConnectionError:
            pass
        finally:
            self.close()

    def dismiss(self, message: str) -> None:
        """Tell that a newer conductor has the load, and close."""
        with suppress(ConnectionError):
            self._writer.write(protocol.encode(Refusal(id=None, code="old_epoch", message=message)))
        self.close()

    def close(self) -> None:
        """End the stream and the channel. What was begun for it goes on."""
        if self._follower is not None:
            self._follower.cancel()
        for task in self._work:
            task.cancel()
        self._writer.close()

    # --- reading ---

    async def _read_line(self) -> bytes | None:
        try:
            line = await self._reader.readline()
        except ValueError:
            await self._refuse(
                None, "bad_request", f"a line of more than {MAX_LINE_BYTES:,} bytes; the channel is closed"
            )
            return None
        return line if line.endswith(b"\n") else None

    async def _take(self, line: bytes, received_ns: int) -> None:
        try:
            request = protocol.decode_request(line)
        except ProtocolError as error:
            await self._refuse(protocol.request_id(line), "bad_request", str(error))
            return
        if isinstance(request, protocol.Clock):
            await self._answer(request, {"received_ns": received_ns, "sent_ns": time.time_ns()})
            return
        await self._slots.acquire()
        task = asyncio.create_task(self._carry_out(request))
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._slots.release()

    async def _carry_out(self, request: Request) -> None:
        try:
            if isinstance(request, protocol.Follow):
                held = self._keeper.of(request)
                self._bind(request)
                await self._answer(request, {"seconds": held.seconds})
                self._follow(held, request.from_second)
            else:
                data = await self._ask(request)
                await self._answer(request, data)
        except Refused as refused:
            with suppress(ConnectionError):
                await self._refuse(request.id, refused.code, str(refused))
        except ConnectionError:
            pass
        except Exception as error:
            log.exception("request %s", request.type)
            with suppress(ConnectionError):
                await self._refuse(request.id, "failed", f"the agent failed: {error!r}")

    async def _ask(self, request: Request) -> dict[str, Any]:
        keeper = self._keeper
        match request:
            case protocol.Preflight():
                return await keeper.examine(request)
            case protocol.Hook():
                return await keeper.see_through(keeper.hook(request))
            case protocol.ListLoads():
                return {"loads": keeper.rows()}
            case protocol.Prepare():
                self._bind(request)
                return await keeper.see_through(keeper.prepare(request))
            case protocol.Go():
                self._bind(request)
                return await keeper.see_through(keeper.go(request))
            case protocol.Stop():
                self._bind(request)
                return await keeper.see_through(keeper.stop(request))
            case protocol.GetResult():
                data = keeper.result(request)
                self._bind(request)
                return data
            case protocol.Ack():
                return keeper.ack(request)
        raise AssertionError(request)

    def _bind(
        self, request: protocol.Prepare | protocol.Go | protocol.Stop | protocol.GetResult | protocol.Follow
    ) -> None:
        self.run_id, self.epoch = request.run_id, request.epoch

    # --- writing ---

    async def _write(self, line: BaseModel) -> None:
        self._writer.write(protocol.encode(line))
        await self._writer.drain()

    async def _answer(self, request: Request, data: dict[str, Any]) -> None:
        await self._write(Answer(id=request.id, data=data))

    async def _refuse(self, request_id: int | None, code: RefusalCode, message: str) -> None:
        await self._write(Refusal(id=request_id, code=code, message=message[:4000]))

    # --- following ---

    def _follow(self, held: Held, first: int) -> None:
        """Stream from now on; an earlier stream of this channel ends."""
        if self._follower is not None:
            self._follower.cancel()
        self._following = held
        held.heard()
        self._follower = asyncio.create_task(self._stream(held, first))

    async def _stream(self, held: Held, first: int) -> None:
        news = held.watch()
        shown = held.lives
        try:
            while True:
                news.clear()
                while first <= held.seconds and held.record is not None:
                    data, first = held.record.lines(first)
                    self._writer.write(data)
                    await self._writer.drain()
                if held.lives > shown:
                    shown = held.lives
                    self._writer.write(held.live)
                    await self._writer.drain()
                elif (ended := held.ended()) is not None and first > held.seconds:
                    await self._write(ended)
                    self._following = None
                    return
                else:
                    await news.wait()
        except ConnectionError:
            pass
        except Exception:
            log.exception("run %s could not be followed", held.run_id)
            self.close()
        finally:
            held.unwatch(news)

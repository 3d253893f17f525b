"""Following every load generator at once: their seconds merged, their live lines added up, the first trouble told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

from portal.conductor.channel import BadAgent, Refused
from portal.conductor.host import Host, Lost
from portal.conductor.job import Counted, Event, Job, Said, Seen
from wsnode.core.merge import merge
from wsnode.core.protocol import Ended, Live, ProtocolError, Second
from wsnode.core.watch import BY_RULE, AbortWatch, told

log = logging.getLogger("portal.conductor")

SEEN_S = 1.2
"""The live page waits this long for a slow host's line."""
LOOK_S = 0.1


class CutShort(Exception):
    """A load that is not, or not known to be, what was asked for. The message names the hosts."""


class Following:
    """All load generators of a run."""

    def __init__(self, job: Job, hosts: Sequence[Host], emit: Callable[[Event], None], news: asyncio.Event) -> None:
        """`news` is set by the hosts whenever a line has come."""
        self._hosts = hosts
        self._emit = emit
        self._news = news
        self._from_second = job.from_second
        self._merged = 0
        """Seconds 1 … are merged, or were by a conductor before."""
        self._tasks: dict[asyncio.Task[Ended], Host] = {}
        self._work: list[asyncio.Task[None]] = []
        self.watch = AbortWatch(job.scenario.abort_on)
        self._forbidden = asyncio.Event()

    def begin(self, hosts: Sequence[Host]) -> None:
        """Follow these hosts too."""
        followed = set(self._tasks.values())
        for host in hosts:
            if host not in followed:
                task = asyncio.create_task(host.follow())
                task.add_done_callback(lambda task: task.cancelled() or task.exception())
                self._tasks[task] = host
        if not self._work:
            self._work = [asyncio.create_task(work()) for work in (self._merge, self._look, self._abort)]

    async def until_finished(self, longest_s: float) -> None:
        """Wait until every load has come to its planned end, all its lines merged.

        Raises:
            CutShort: one has not; the others may still be running.
            Superseded: a newer conductor has the run.
        """
        pending: set[asyncio.Task[Ended] | asyncio.Task[None]] = {*self._tasks, *self._work}
        deadline = asyncio.get_running_loop().time() + longest_s
        while not pending.isdisjoint(self._tasks):
            left_s = deadline - asyncio.get_running_loop().time()
            done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                late = ", ".join(self._tasks[task].name for task in self._tasks if task in pending)
                raise CutShort(f"{late}: the load went on long after its planned end")
            # A host's own word first: it may be what has upset the merging.
            if trouble := list(self._trouble(done)):
                raise CutShort("; ".join(trouble))
            for task in done.intersection(self._work):
                task.result()
        await self._merge_ready()
        reason = self.watch.aborted and told(self.watch.aborted)
        for host in self._hosts:
            if host.ended is not None and host.ended.state == "stopped" and host.ended.reason != reason:
                raise CutShort(f"the load on {host.name} was stopped after {host.ended.seconds} s: {host.ended.reason}")

    async def last_lines(self, timeout_s: float) -> None:
        """Let the loads that have just been stopped say their last lines, and merge those."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        try:
            await self._merge_ready()
        except CutShort:
            pass  # lines that can't be read are the trouble that has been told
        except Exception:
            log.exception("merging the last lines")

    async def end(self) -> None:
        """Follow no longer. The loads go on."""
        tasks = [*self._tasks, *self._work]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _trouble(self, done: set[asyncio.Task[Ended] | asyncio.Task[None]]) -> Iterator[str]:
        for task, host in self._tasks.items():
            if task not in done:
                continue
            try:
                ended = task.result()
            except Lost as error:
                host.lost = str(error)
                yield f"{host.name} was lost after second {len(host.lines)}"
            except (BadAgent, Refused) as error:
                yield f"{host.name}: {error}"
            else:
                if self.watch and ended.state == "stopped" and (ended.reason or "").startswith(BY_RULE):
                    # Maybe by a conductor before this one, at a second of which other hosts' lines are still to come.
                    continue
                if ended.state != "finished":
                    why = f": {ended.reason}" if ended.reason else ""
                    yield f"the load on {host.name} was {ended.state} after {ended.seconds} s{why}"

    async def _merge(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._merge_ready()

    async def _merge_ready(self) -> None:
        """Merge and emit what all hosts have. O(hosts × non-empty buckets) a second."""
        while (number := self._merged + 1) <= min((len(host.lines) for host in self._hosts), default=0):
            if number >= self._from_second or self.watch:
                second = merge(_decoded(host, number) for host in self._hosts)
                if number >= self._from_second:
                    self._emit(Counted(second))
                if (aborted := self.watch.look(second)) is not None:
                    self._emit(Said(told(aborted), "warning"))
                    self._forbidden.set()
            self._merged = number  # before anybody else's turn: several may be at this at once
            await asyncio.sleep(0)  # a long backlog must not keep the channels from being read

    async def _abort(self) -> None:
        """Once a rule has come true end the load everywhere, replies awaited. Raises CutShort naming who would not."""
        await self._forbidden.wait()
        assert self.watch.aborted is not None
        stops = [host.stop(told(self.watch.aborted), drain=True) for host in self._hosts]
        troubles = [
            f"{host.name} could not be told to stop: {error}"
            for host, error in zip(self._hosts, await asyncio.gather(*stops, return_exceptions=True), strict=True)
            if isinstance(error, (Lost, BadAgent, Refused))
        ]
        if troubles:
            raise CutShort("; ".join(troubles))

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        shown: list[Live] = []
        second, at = 0, loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            lives = [host.live for host in self._hosts if host.live is not None]
            all_new = len(lives) == len(self._hosts) and min(live.second for live in lives) > second
            # A host that is out of reach does not keep the others from being seen.
            if all_new or (lives != shown and loop.time() - at >= SEEN_S):
                shown, second, at = lives, min(live.second for live in lives), loop.time()
                self._emit(Seen(_added(lives)))


def _decoded(host: Host, number: int) -> Second:
    try:
        return host.lines[number - 1]
    except (ProtocolError, OSError) as error:
        raise CutShort(f"{host.name}: second {number} can't be read: {error}") from error


def _added(lives: Sequence[Live]) -> Live:
    """Counts added up, percentiles of the worst host."""
    recent: dict[str, int | None] = {}
    for live in lives:
        for name, value in live.recent.items():
            known = recent.get(name)
            recent[name] = known if value is None else value if known is None else max(known, value)
    return Live(
        second=max(live.second for live in lives),
        connections_open=sum(live.connections_open for live in lives),
        sent=sum(live.sent for live in lives),
        received=sum(live.received for live in lives),
        outstanding=sum(live.outstanding for live in lives),
        errors=sum(live.errors for live in lives),
        recent=recent,
    )

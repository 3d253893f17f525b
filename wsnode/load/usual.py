"""The usual client: text or binary of one size, matched by prefix, sent as soon as its turn comes, without TLS.

Most clients have one message in flight, so the newest is kept as the frame that its echo will be: a reply is known by
one comparison, and no dict, key or tuple is made for it. Everything else is `Client`'s. What is measured goes into the
lists of a `DueSecond`, which `Recorder.fold` counts many at a time. Together that is half of a message's cost.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING

from wsnode.lean import apply_mask, frame_head
from wsnode.load.client import OPEN, Client, Setting

if TYPE_CHECKING:
    from wsnode.load.recorder import DueSecond


def is_usual(setting: Setting) -> bool:
    """Whether clients of that setting may be `UsualClient`s."""
    return setting.match == "prefix" and setting.max_in_flight is None and setting.address.tls is None


class UsualClient(Client):
    """See the module. The newest message is in the `_newest…` fields while it is awaited, all older ones are in
    `_outstanding`."""

    __slots__ = ("_echo", "_newest", "_newest_kernel_ns", "_newest_second", "_newest_turn_ns")

    _newest_second: DueSecond

    def __init__(self, number: int, setting: Setting) -> None:
        super().__init__(number, setting)
        self._echo = frame_head(setting.head[0], setting.size) + self._prefix
        """How each echo begins."""
        self._newest: bytes | None = None
        """The frame of the newest message's echo, while that is awaited."""
        self._newest_turn_ns = self._newest_kernel_ns = 0

    @property
    def in_flight(self) -> int:
        return super().in_flight + (self._newest is not None)

    @property
    def unsettled(self) -> int:
        return super().unsettled + (self._newest is not None)

    def _put_aside(self) -> None:
        """Among the older ones, as `Client` keeps them."""
        if self._newest is not None:
            prefix = b"%b%x " % (self._prefix, self._sequence)
            self._outstanding[prefix] = self._newest_second, self._newest_turn_ns, self._newest_kernel_ns
            self._newest = None

    def turn(self, second: DueSecond, turn_ns: int) -> int:
        if self._newest is not None:
            self._put_aside()
        if self.state != OPEN or self._blocked is not None:
            return super().turn(second, turn_ns)
        setting, transport = self._setting, self.transport
        self._sequence = sequence = self._sequence + 1
        head = setting.head
        size = len(head) + setting.size
        echo = (b"%b%x " % (self._echo, sequence)).ljust(size, b"x")
        mask = next(self._masks)
        transport.write(b"%b%b%b" % (head, mask, apply_mask(echo[len(head) :], mask)))
        now = monotonic_ns()
        if transport.get_write_buffer_size():
            self._blocked = (second, turn_ns, b"%b%x " % (self._prefix, sequence))
        elif transport.is_closing():
            # The kernel has refused it: the connection is gone, which connection_lost is about to say.
            setting.recorder.unsent(second, "connection_down")
        else:
            second.waits.append(now - turn_ns)
            self._newest = echo
            self._newest_second = second
            self._newest_turn_ns = turn_ns
            self._newest_kernel_ns = now
        return now

    def data_received(self, data: bytes) -> None:
        if data == self._newest and self._special is None and not self._rest:
            now = monotonic_ns()
            response_ns = now - self._newest_turn_ns
            if response_ns <= self._setting.reply_timeout_ns:
                self._newest = None
                second = self._newest_second
                second.services.append(now - self._newest_kernel_ns)
                second.responses.append(response_ns)
                return
        self._put_aside()
        super().data_received(data)

    def expire(self, now: int) -> None:
        if self._newest is not None and self._newest_turn_ns <= now - self._setting.reply_timeout_ns:
            self._put_aside()
        super().expire(now)

    def connection_lost(self, exc: Exception | None) -> None:
        self._put_aside()
        super().connection_lost(exc)

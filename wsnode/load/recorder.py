"""What a load worker counts: per second in which messages were *due*, settled in order.

A message belongs to the second of its due time, whenever its reply comes. A second is settled once the schedule has
passed it and none of its messages is still awaited; then its figures never change again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from typing import Any

from wsnode.core.histogram import BUCKETS, LIMIT_NS, Histogram, bucket_bounds
from wsnode.telemetry import Buckets, Counters

NS = 1_000_000_000
_NONE = 1 << 63
"""Above every duration: the minimum of none."""
MESSAGE_COUNTERS = (
    "messages_due",
    "messages_sent",
    "messages_unsent",
    "messages_received",
    "messages_lost",
    "messages_no_reply",
)


class Tally:
    """A histogram for the hot path: a list of counts, exact moments. Values in ns, 0 or more."""

    __slots__ = ("counts", "high", "low", "overflow", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0
        self.low = _NONE
        self.high = -1
        self.overflow = 0

    def add(self, value: int) -> None:
        """Count a value. `histogram.bucket_index`, written in place for speed."""
        shift = value.bit_length() - 8
        if shift <= 0:
            self.counts[value] += 1
        elif shift <= 34:
            self.counts[(shift << 7) + (value >> shift)] += 1
        else:
            self.overflow += 1
        self.total += value
        if value < self.low:  # noqa: PLR1730  min() costs three times as much
            self.low = value
        if value > self.high:  # noqa: PLR1730
            self.high = value

    def add_all(self, values: list[int]) -> list[int]:
        """Count them, and say in which buckets; one that overflows is in the last. The same as `add` for each, at half
        the price from some ten on."""
        low, high = min(values), max(values)
        if low < 128 or high >= LIMIT_NS:
            for value in values:
                self.add(value)
            return [_index(value) for value in values]
        counts = self.counts
        places = [((shift := value.bit_length() - 8) << 7) + (value >> shift) for value in values]
        for place in places:
            counts[place] += 1
        self.total += sum(values)
        self.low = min(self.low, low)
        self.high = max(self.high, high)
        return places

    def take(self) -> Histogram:
        """The counts so far, and start over. Costs as many steps as there are buckets between minimum and maximum."""
        histogram = Histogram()
        if self.high < 0:
            return histogram
        histogram.sum_ns, histogram.overflow = self.total, self.overflow
        histogram.min_ns, histogram.max_ns = self.low, self.high
        counts, buckets = self.counts, histogram.buckets
        first, last = _index(self.low), _index(self.high)
        for index in range(first, last + 1):
            if n := counts[index]:
                buckets[index] = n
                counts[index] = 0
        histogram.count = self.overflow + sum(buckets.values())
        self.total = self.overflow = 0
        self.low, self.high = _NONE, -1
        return histogram


def _index(value: int) -> int:
    shift = value.bit_length() - 8
    return value if shift <= 0 else min(BUCKETS - 1, (shift << 7) + (value >> shift))


class DueSecond:
    """The messages due in one second."""

    __slots__ = (
        "awaited",
        "due",
        "lag",
        "lags",
        "lost",
        "no_reply",
        "number",
        "passed",
        "received",
        "response",
        "responses",
        "sent",
        "service",
        "services",
        "unsent",
        "unsent_by",
        "wait",
        "waits",
    )

    def __init__(self, number: int, tallies: tuple[Tally, Tally, Tally, Tally]) -> None:
        self.number = number
        """1: messages due in [0 s, 1 s)."""
        self.lag, self.wait, self.service, self.response = tallies
        self.lags: list[int] = []
        self.waits: list[int] = []
        self.services: list[int] = []
        self.responses: list[int] = []
        """Of turns, messages sent and replies (two values each) that `Recorder.fold` has yet to count."""
        self.due = self.sent = self.unsent = self.received = self.lost = self.no_reply = 0
        self.unsent_by: Counter[str] = Counter()
        self.awaited = 0
        """Messages of this second whose fate is open."""
        self.passed = False
        """Whether the schedule is beyond this second."""


class Recorder:
    """All counts of one worker, and the lines made of them.

    `live` counts by arrival for Prometheus; histograms there are filled when a second is settled.
    """

    def __init__(self, live: Counters, size: int = 0) -> None:
        """`size`: of the messages whose times are left in a second's lists, bytes."""
        self.live = live
        self._usual_size = size
        self.attempted = self.opened = self.failed = self.closed = 0
        self.connects_late = self.reconnects = self.unexpected = 0
        self.bytes_sent = self.bytes_received = self.deliveries = 0
        self.errors: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        """Of clients that are not normal, by `KIND.EVENT`."""
        self.handshake = Tally()
        self.one_way = Tally()
        self.delays: list[int] = []
        """One-way delays (ns) of a broadcast's deliveries, until they are folded into `one_way`."""
        self.recent = [0] * BUCKETS
        """Response times of the replies that came since the last live line, by bucket; what overflows is left out."""
        self._size = self._size_place = -1
        """Of the last message, and its bucket: mostly all have one size."""
        self._seconds: deque[DueSecond] = deque()
        self._spare: list[tuple[Tally, Tally, Tally, Tally]] = []
        self._snapshots: dict[int, dict[str, Any]] = {}
        self._settled = dict.fromkeys(MESSAGE_COUNTERS, 0)
        self._unsent: Counter[str] = Counter()

    # --- events of connections ---

    def error(self, kind: str) -> None:
        """A connect that failed or a connection that broke."""
        self.errors[kind] += 1
        self.live.errors[kind] += 1

    # --- events of messages ---

    def second(self, number: int) -> DueSecond:
        """The record of the second that the schedule enters; all earlier ones are passed."""
        if self._seconds:
            self._seconds[-1].passed = True
        tallies = self._spare.pop() if self._spare else (Tally(), Tally(), Tally(), Tally())
        entered = DueSecond(number, tallies)
        self._seconds.append(entered)
        return entered

    def fold(self) -> None:
        """Count what the hot path has left in the lists of seconds."""
        if self.delays:
            self.one_way.add_all(self.delays)
            self.delays.clear()
        live, size = self.live, self._usual_size
        for second in self._seconds:
            if lags := second.lags:
                n = len(lags)
                second.due += n
                second.awaited += n
                live.messages_due += n
                second.lag.add_all(lags)
                lags.clear()
            if waits := second.waits:
                n = len(waits)
                self._sent(second, n, size)
                second.wait.add_all(waits)
                waits.clear()
            if responses := second.responses:
                n = len(responses)
                second.received += n
                second.awaited -= n
                live.messages_received += n
                self.arrived(n * size)
                second.service.add_all(second.services)
                recent = self.recent
                for place in second.response.add_all(responses):
                    recent[place] += 1
                responses.clear()
                second.services.clear()

    def asked(self, second: DueSecond) -> None:
        """A message is due now, by no plan: of a closed pace."""
        second.due += 1
        second.awaited += 1
        self.live.messages_due += 1

    def recent_of(self, value_ns: int) -> None:
        """A time for the next live line."""
        self.recent[_index(value_ns)] += 1

    def never_reached(self, second: DueSecond, messages: int) -> None:
        """Due messages that the schedule did not come to."""
        second.due += messages
        second.awaited += messages
        self.live.messages_due += messages
        for _ in range(messages):
            self.unsent(second, "generator_late")

    def sent(self, second: DueSecond, wait_ns: int, size: int) -> None:
        """A message is with the kernel."""
        self._sent(second, 1, size)
        second.wait.add(wait_ns)

    def _sent(self, second: DueSecond, messages: int, size: int) -> None:
        second.sent += messages
        self.bytes_sent += messages * size
        live = self.live
        live.messages_sent += messages
        live.bytes_sent += messages * size
        if size != self._size:
            self._size, self._size_place = size, bisect_left(live.message_size.bounds, size)
        live.message_size.counts[self._size_place] += messages
        live.message_size.total += messages * size

    def unsent(self, second: DueSecond, reason: str) -> None:
        """A due message will not be sent."""
        second.unsent += 1
        second.awaited -= 1
        second.unsent_by[reason] += 1
        self.live.messages_unsent[reason] += 1

    def no_reply(self, second: DueSecond) -> None:
        """A sent message has no reply to await."""
        second.no_reply += 1
        second.awaited -= 1

    def reply(self, second: DueSecond, service_ns: int, response_ns: int) -> None:
        """A reply in time. Its bytes are counted by `arrived`."""
        second.received += 1
        second.awaited -= 1
        second.service.add(service_ns)
        response = second.response
        shift = response_ns.bit_length() - 8
        if 0 < shift <= 34:  # `Tally.add` in place, since the bucket is needed twice
            index = (shift << 7) + (response_ns >> shift)
            response.counts[index] += 1
            self.recent[index] += 1
            response.total += response_ns
            if response_ns < response.low:  # noqa: PLR1730
                response.low = response_ns
            if response_ns > response.high:  # noqa: PLR1730
                response.high = response_ns
        else:
            response.add(response_ns)
        self.live.messages_received += 1

    def said(self, size: int) -> None:
        """A first message is on its way: bytes, and no message that was due."""
        self.bytes_sent += size
        self.live.bytes_sent += size

    def arrived(self, size: int) -> None:
        """A whole message from the server, expected or not."""
        self.bytes_received += size
        self.live.bytes_received += size

    def lost(self, second: DueSecond) -> None:
        """A sent message will not be answered in time."""
        second.lost += 1
        second.awaited -= 1
        self.live.messages_lost += 1

    def take_recent(self) -> Histogram:
        """The response times of `recent`, and start over; its moments are within a bucket's width."""
        self.fold()
        recent, counts = Histogram(), self.recent
        for index in [index for index, n in enumerate(counts) if n]:
            low, high = bucket_bounds(index)
            n = recent.buckets[index] = counts[index]
            recent.count += n
            recent.sum_ns += n * ((low + high) // 2)
            recent.min_ns, recent.max_ns = (low if recent.min_ns is None else recent.min_ns), high
            counts[index] = 0
        return recent

    def stray(self) -> None:
        """A reply that matches nothing outstanding."""
        self.unexpected += 1
        self.live.messages_unexpected += 1

    @property
    def awaited(self) -> int:
        """Due messages whose fate is open."""
        self.fold()
        return sum(second.awaited for second in self._seconds)

    # --- lines ---

    def snapshot(self, second: int, pending: int, opened_now: int, cpu_s: float) -> None:
        """Keep what counts by the clock, at the end of a second, for its line."""
        self.fold()
        self._snapshots[second] = self._by_clock(pending, opened_now, cpu_s)

    def settled_lines(self) -> list[dict[str, Any]]:
        """Lines of the seconds that have settled since the last call, in order."""
        lines: list[dict[str, Any]] = []
        if not self._seconds or not self._seconds[0].passed:
            return lines
        self.fold()
        while self._seconds and (head := self._seconds[0]).passed and not head.awaited:
            if head.number not in self._snapshots:
                break
            lines.append(self._line(head, self._snapshots.pop(head.number)))
            self._seconds.popleft()
            # Taking the histograms left the tallies empty, ready for another second.
            self._spare.append((head.lag, head.wait, head.service, head.response))
        return lines

    def final_line(self, second: int, pending: int, opened_now: int, in_flight: int, cpu_s: float) -> dict[str, Any]:
        """The whole load, seconds that never settled included. Nothing may be recorded afterwards."""
        self.fold()
        snapshot = self._by_clock(pending, opened_now, cpu_s)
        line: dict[str, Any] | None = None
        histograms: dict[str, Histogram] = {}
        for kept in self._snapshots.values():  # of seconds that never settled: their lines will not tell
            for name in ("handshake", "one_way"):
                snapshot[name].add(kept[name])
        for rest in [*self._seconds, DueSecond(second, (Tally(), Tally(), Tally(), Tally()))]:
            line = self._line(rest, snapshot)
            for name, wire in line["histograms"].items():
                histograms.setdefault(name, Histogram()).add(Histogram.from_wire(wire))
        assert line is not None
        line["second"] = second
        line["counters"]["messages_in_flight"] = in_flight
        line["histograms"] = {name: histogram.to_wire() for name, histogram in histograms.items()}
        return line

    def _by_clock(self, pending: int, opened_now: int, cpu_s: float) -> dict[str, Any]:
        return {
            "counters": {
                "connections_attempted": self.attempted,
                "connections_opened": self.opened,
                "connections_failed": self.failed,
                "connections_pending": pending,
                "connections_closed": self.closed,
                "connections_open": opened_now,
                "connects_late": self.connects_late,
                "messages_unexpected": self.unexpected,
                "bytes_sent": self.bytes_sent,
                "bytes_received": self.bytes_received,
                "reconnects": self.reconnects,
                "deliveries": self.deliveries,
            },
            "errors": {kind: n for kind, n in self.errors.items() if n},
            "kinds": dict(self.kinds),
            "handshake": self.handshake.take(),
            "one_way": self.one_way.take(),
            "cpu_s": cpu_s,
        }

    def _line(self, second: DueSecond, snapshot: dict[str, Any]) -> dict[str, Any]:
        """Counters are cumulative, histograms are of this second alone: the parent adds them up."""
        for name in MESSAGE_COUNTERS:
            self._settled[name] += getattr(second, name.removeprefix("messages_"))
        self._unsent.update(second.unsent_by)
        histograms = {
            "scheduler_lag": second.lag.take(),
            "write_wait": second.wait.take(),
            "service_time": second.service.take(),
            "response_time": second.response.take(),
            "handshake": snapshot.pop("handshake", Histogram()),
            "one_way": snapshot.pop("one_way", Histogram()),
        }
        _pour(histograms["response_time"], self.live.message_latency)
        _pour(histograms["scheduler_lag"], self.live.scheduler_lag)
        _pour(histograms["handshake"], self.live.handshake)
        return {
            "second": second.number,
            "counters": snapshot["counters"] | self._settled,
            "errors": snapshot["errors"],
            "unsent": dict(self._unsent),
            "kinds": snapshot["kinds"],
            "histograms": {name: h.to_wire() for name, h in histograms.items() if h.count},
            "cpu_s": snapshot["cpu_s"],
        }


def _pour(histogram: Histogram, buckets: Buckets) -> None:
    """Into a Prometheus histogram: by each bucket's middle, the sum exact. Quantiles of it are approximate anyway."""
    bounds, counts = buckets.bounds, buckets.counts
    place = 0
    for index in sorted(histogram.buckets):
        low, high = bucket_bounds(index)
        middle = (low + high) // 2
        while place < len(bounds) and middle > bounds[place]:
            place += 1
        counts[place] += histogram.buckets[index]
    counts[-1] += histogram.overflow
    buckets.total += histogram.sum_ns

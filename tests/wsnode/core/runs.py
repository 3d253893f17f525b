"""Constructed loads with figures that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsnode.core.histogram import Histogram
from wsnode.core.merge import merge
from wsnode.core.protocol import Counters, HostResult, HostSecond, Second
from wsnode.core.scenario import Scenario
from wsnode.core.summary import HostRun

MS = 1_000_000


def second(
    number: int,
    *,
    errors: Mapping[Any, int] | None = None,
    unsent: Mapping[Any, int] | None = None,
    histograms: Mapping[str, Sequence[int]] | None = None,
    cpu_s: Sequence[float] = (),
    steal_s: float = 0,
    throttled_s: float = 0,
    core_s: float = 0,
    **counters: int,
) -> Second:
    """A cumulative line; `histograms` are the values (ns) recorded so far."""
    return Second(
        second=number,
        counters=Counters(**counters),
        errors=dict(errors or {}),
        unsent=dict(unsent or {}),
        histograms={name: Histogram.of(values) for name, values in (histograms or {}).items()},
        host=HostSecond(worker_cpu_s=tuple(cpu_s), steal_s=steal_s, throttled_s=throttled_s, core_s=core_s),
    )


class Load:
    """A load generator's part, told second by second.

    Every message that is not said to be otherwise is sent and answered: lag 0.1 ms, wait 0.1 ms, service 4.9 ms,
    response 5 ms. Every connect opens within 2 ms. One worker uses 0.5 CPU seconds per second of 2 cores.
    """

    def __init__(self, name: str = "load-1", cores: int = 2) -> None:
        self.name = name
        self.cores = cores
        self.lines: list[Second] = []
        self._second = second(0, cpu_s=(0.0,))

    def tick(
        self,
        *,
        connects: int = 0,
        failed: int = 0,
        late: int = 0,
        closed: int = 0,
        due: int = 0,
        lost: int = 0,
        no_reply: int = 0,
        unsent: Mapping[Any, int] | None = None,
        lag_ns: int | Sequence[int] = 100_000,
        response_ns: int | Sequence[int] = 5 * MS,
        errors: Mapping[Any, int] | None = None,
        cpu_s: Sequence[float] = (0.5,),
        steal_s: float = 0.0,
        throttled_s: float = 0.0,
        seconds: int = 1,
        **more: int,
    ) -> Load:
        """Add `seconds` equal seconds; the figures are of each. `more` are further counters, such as reconnects."""
        unsent = dict(unsent or {})
        never = sum(unsent.values())
        turns = due - unsent.get("generator_late", 0)
        received = due - never - lost - no_reply
        opened = connects - failed
        response = [response_ns] * received if isinstance(response_ns, int) else list(response_ns)
        gained = second(
            0,
            connections_attempted=connects,
            connections_opened=opened,
            connections_failed=failed,
            connections_closed=closed,
            connections_open=opened - closed,
            connects_late=late,
            messages_due=due,
            messages_sent=due - never,
            messages_unsent=never,
            messages_received=received,
            messages_lost=lost,
            messages_no_reply=no_reply,
            bytes_sent=64 * (due - never),
            bytes_received=64 * received,
            errors=errors,
            unsent=unsent,
            histograms={
                "scheduler_lag": [lag_ns] * turns if isinstance(lag_ns, int) else lag_ns,
                "write_wait": [100_000] * (due - never),
                "service_time": [max(0, value - 100_000) for value in response],
                "response_time": response,
                "handshake": [2 * MS] * opened,
            },
            steal_s=steal_s,
            throttled_s=throttled_s,
            core_s=self.cores,
        )
        gained = gained.model_copy(update={"counters": gained.counters.model_copy(update=more)})
        for _ in range(seconds):
            before = self._second
            merged = merge([before, gained.model_copy(update={"second": before.second})])
            had = before.host.worker_cpu_s + (0.0,) * (len(cpu_s) - len(before.host.worker_cpu_s))
            cpu = tuple(a + b for a, b in zip(had, cpu_s, strict=True))
            self._second = merged.model_copy(
                update={
                    "second": before.second + 1,
                    "host": merged.host.model_copy(update={"worker_cpu_s": cpu}),
                }
            )
            self.lines.append(self._second)
        return self

    def run(self, state: Any = "finished", *, reason: str | None = None, final: Second | None = None) -> HostRun:
        """The part as the conductor brings it back; an interrupted one without its final line."""
        return HostRun(
            self.name,
            list(self.lines),
            HostResult(
                run_id="r-1",
                host=self.name,
                state=state,
                reason=reason,
                seconds=len(self.lines),
                final=final or (None if state == "interrupted" else self._closed()),
                workers=1,
                start_at_ns=0,
                first_connect_due_ns=0,
                first_connect_begun_ns=0,
                environment_begin={},
                environment_end={},
            ),
        )

    def _closed(self) -> Second:
        """The end of a load: every connection closed."""
        counters = self._second.counters
        ended = counters.model_copy(update={"connections_closed": counters.connections_opened, "connections_open": 0})
        return self._second.model_copy(update={"counters": ended})


SCENARIO = Scenario(
    name="constructed", clients=100, interval_ms=100, ramp_up_s=2, rate_per_s=50, duration_s=12, thresholds=()
)
"""A window of 10 s, from second 2 to 12, with 1,000 messages due per second."""


def steady(name: str = "load-1", **window: Any) -> Load:
    """A load of `SCENARIO`; the keywords are of each second of its window."""
    load = Load(name).tick(connects=50, due=250).tick(connects=50, due=750)
    return load.tick(seconds=10, **({"due": 1000} | window))

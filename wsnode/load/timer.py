"""A timer of the kernel's that an event loop can watch: uvloop's own round to 1 ms and fire up to 1.4 ms early."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from time import monotonic_ns

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
NS = 1_000_000_000
NEVER = 1 << 62


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """Calls back in the running event loop at a moment of the monotonic clock, never before it."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        # os.timerfd_create is Python 3.13's, and hosts may have 3.11.
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._at = NEVER
        self._spec = _Itimerspec()
        self._spec_at = ctypes.byref(self._spec)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._fired)

    def set(self, at_ns: int) -> None:
        """Call back at `at_ns` (time.monotonic_ns), at once where that is past. Replaces an earlier moment."""
        self._at = at_ns
        value = self._spec.value
        value.seconds, value.nanoseconds = divmod(max(1, at_ns), NS)
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._spec_at, None)

    def _fired(self) -> None:
        if monotonic_ns() < self._at:  # set anew since the loop saw it fire
            return
        self._at = NEVER
        self._callback()
        if self._at == NEVER and self._fd >= 0:
            os.read(self._fd, 8)  # else it would go on firing; being set has the same effect

    def close(self) -> None:
        """Never call back again."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

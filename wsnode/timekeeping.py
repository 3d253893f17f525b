"""What the kernel says about its own wall clock (adjtimex, read only). Environment, never a measurement: the conductor
measures each host's offset itself."""

from __future__ import annotations

import ctypes

_STA_UNSYNC, _STA_NANO = 0x40, 0x2000
_TIME_ERROR = 5


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "sec", "usec", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def clock_state() -> dict[str, bool | float | None]:
    """Whether some time service keeps the clock, its offset from its reference and largest error (s), by the kernel's
    word; None where the kernel does not say, or nobody keeps the clock and the numbers mean nothing."""
    unknown: dict[str, bool | float | None] = {
        "clock_synchronised": None,
        "clock_offset_s": None,
        "clock_max_error_s": None,
    }
    now = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(now))
    except (AttributeError, OSError):
        return unknown
    if state < 0:  # a sandbox that forbids the call
        return unknown
    if state == _TIME_ERROR or now.status & _STA_UNSYNC:
        return {**unknown, "clock_synchronised": False}
    return {
        "clock_synchronised": True,
        "clock_offset_s": now.offset / (1e9 if now.status & _STA_NANO else 1e6),
        "clock_max_error_s": now.maxerror / 1e6,
    }

"""Numbers drawn without a state: a function of what they are for, so that any host and worker draws the same."""

from __future__ import annotations

GOLDEN_64 = 0x9E3779B97F4A7C15
"""The golden ratio's fractional part · 2^64."""
_MASK_64 = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """Steele, Lea and Flood's SplitMix64: a stateless, well-mixed hash of an integer."""
    z = (state + GOLDEN_64) & _MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return z ^ (z >> 31)


def stream(seed: int, purpose: int, client: int) -> int:
    """Where the numbers of one client for one purpose begin."""
    return splitmix64(splitmix64(seed * GOLDEN_64 + purpose) + client)


def share(begin: int, n: int) -> float:
    """The n-th number of a stream: 0 <= share < 1, of 53 bits."""
    return (splitmix64(begin + n * GOLDEN_64) >> 11) * 2.0**-53

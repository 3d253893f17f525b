"""Rules that end a load early, as text (`error_ratio > 50% for 10s after 20s`) and as values."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from wsnode.core.threshold import Threshold

LONGEST_S = 86_400
_RULE = re.compile(r"(?P<what>.*?\S)(?:\s+for\s+(?P<for>\d+)\s*s)?(?:\s+after\s+(?P<after>\d+)\s*s)?\s*", re.DOTALL)


class AbortRule(NamedTuple):
    """What must not go on: a threshold's condition, true of so many seconds in a row."""

    threshold: Threshold
    for_s: int
    """Whole seconds, each of which must be bad."""
    after_s: int
    """Grace: seconds up to this one of the load, counted from its begin, are not looked at."""
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `METRIC > NUMBER UNIT [for Ns] [after Ns]`; without them for 1 s, after 0 s.

        Raises:
            ValueError: says what is wrong and what may stand there.
        """
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError(f"rule {text!r}: expected a condition such as 'error_ratio > 50% for 10s after 20s'")
        try:
            threshold = Threshold.parse(match["what"])
        except ValueError as error:
            raise ValueError(
                f"rule {text!r}: {error}; after the condition may stand 'for 10s' (so many seconds in a row), then "
                "'after 20s' (not before that second)"
            ) from error
        if threshold.metric == "delivery_loss_ratio":
            raise ValueError(
                f"rule {text!r}: {threshold.metric} is known at the end of a load only; each second there is "
                "'deliveries_per_s'"
            )
        for_s, after_s = int(match["for"] or 1), int(match["after"] or 0)
        if not 1 <= for_s <= LONGEST_S or after_s > LONGEST_S:
            raise ValueError(
                f"rule {text!r}: 'for' takes 1 to {LONGEST_S:,} s, 'after' at most {LONGEST_S:,} s; "
                f"got {for_s:,} s and {after_s:,} s"
            )
        words = threshold.text + (f" for {for_s}s" if for_s > 1 else "") + (f" after {after_s}s" if after_s else "")
        return cls(threshold, for_s, after_s, words)

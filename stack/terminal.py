"""Progress on a terminal: one line rewritten in place; elsewhere: a plain line every few seconds."""

import shutil
import sys
import time
from typing import TextIO


class Progress:
    """One line of progress that is replaced, or on a pipe repeated at most every `every_s` seconds."""

    def __init__(self, stream: TextIO | None = None, every_s: float = 5.0) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.every_s = every_s
        self._last = -every_s
        self._open = False

    def update(self, text: str) -> None:
        """Show the text now (terminal), or when it is time again (pipe)."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r\x1b[2K" + (text if len(text) <= width else text[: width - 1] + "…"))
            self._open = True
        elif time.monotonic() - self._last >= self.every_s:
            self._last = time.monotonic()
            self.stream.write(text + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self.stream.write(text + "\n")
        self.stream.flush()

    def clear(self) -> None:
        """Take the rewritten line away."""
        if self._open:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()
            self._open = False


def duration(seconds: float) -> str:
    """3.2 -> '3.2 s', 75 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"

"""Log lines: one record, one line, tracebacks too, so that nothing a stranger sent can pass for a line of its own,
or speaks to the terminal that shows it."""

import logging
import time

_CONTROL = {n: ascii(chr(n))[1:-1] for n in (*range(32), *range(127, 160), 0x2028, 0x2029) if n != ord("\t")}


class OneLine(logging.Formatter):
    """`2026-11-24T03:40:30.123Z INFO portal.runs: text`; control characters are written as `\\n`, `\\x1b`."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROL)

"""Log lines: one record, one line, tracebacks too, so that nothing a stranger sent can pass for a line of its own."""

import logging
import time


class OneLine(logging.Formatter):
    """`2026-11-24T03:40:30.123Z INFO portal.runs: text`; line breaks are written as `\\n`."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n")

"""A request that an agent does not carry out."""

from __future__ import annotations

from wsnode.core.protocol import RefusalCode


class Refused(Exception):
    """Nothing has changed. The message says why."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code

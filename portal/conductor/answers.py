"""What agents answer, read leniently: a later agent may say more."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from portal.conductor.channel import BadAgent
from wsnode.core.protocol import LoadState, Remains

T = TypeVar("T", bound=BaseModel)


class FindingLine(BaseModel):
    """One of a preflight's findings."""

    level: Literal["ok", "warn", "unfit"]
    check: str
    message: str


class Examined(BaseModel):
    """The answer to `preflight`."""

    fit: bool
    findings: list[FindingLine]
    environment: dict[str, Any]
    remains: Remains | None = None


class Prepared(BaseModel):
    """The answer to `prepare`."""

    workers: int
    environment: dict[str, Any]


class Started(BaseModel):
    """The answer to `go`: the origin in force, on the host's own clock (ns since the epoch)."""

    start_at: int


class LoadRow(BaseModel):
    """A load that an agent knows."""

    run_id: str
    epoch: int
    state: LoadState
    seconds: int
    start_at: int | None


class Loads(BaseModel):
    """The answer to `list`."""

    loads: list[LoadRow]


def read(kind: type[T], answer: dict[str, Any]) -> T:
    """An answer's data. Raises BadAgent where it is not of this kind."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        item = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, item["loc"]))
        raise BadAgent(f"its answer ({kind.__name__}) is not of the protocol: {where}: {item['msg']}") from error

"""What `wsnode serve` can be told: one definition for the command line and serve.toml."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from wsnode.telemetry import MAX_SLOTS

_NOT_LEAN = "--coalesce-ms {ms}: the engine {engine} writes each message by itself: use --engine lean, or leave it at 0"


class OptionError(ValueError):
    """A value that cannot be used. The message names it, what was wanted, and where it stands."""


class ServeOptions(BaseModel):
    """Options of `wsnode serve`. A TOML key is the field's name, an option the name with dashes and without `_s`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every IPv4 one")
    port: int = Field(3000, ge=0, le=65535, description="port for WebSocket and /healthz; 0 takes a free one")
    metrics_host: str | None = Field(None, min_length=1, description="address of /metrics; not given: that of --host")
    metrics_port: int = Field(9091, ge=0, le=65535, description="port of /metrics; 0 takes a free one")
    engine: Literal["lean", "websockets"] = Field(
        "lean", description="what speaks WebSocket: our own fast one, or the library's asyncio API"
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=MAX_SLOTS,
        description="processes; not given: one a core, more where --max-connections needs more descriptors",
    )
    max_connections: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="connections at once over all workers, more get 503; not given: what descriptors allow",
    )
    max_message_bytes: int = Field(1 << 20, ge=1, le=1 << 30, description="largest message, larger close with 1009")
    max_backlog_bytes: int = Field(
        1 << 20, ge=1, le=1 << 30, description="unsent bytes at which a broadcast subscriber is closed with 1013"
    )
    ping_interval_s: float = Field(20, ge=0, le=3600, description="seconds between pings to each client; 0: none")
    ping_timeout_s: float = Field(
        20, ge=0, le=3600, description="seconds to wait for a pong before closing with 1011; 0: for ever"
    )
    drain_timeout_s: float = Field(
        10, ge=0, le=3600, description="seconds from SIGTERM, and 1001 to all, to cutting who has not left"
    )
    compression: bool = Field(False, description="permessage-deflate for clients that offer it")
    coalesce_ms: float = Field(
        0,
        ge=0,
        le=1000,
        description="milliseconds for which a room's messages may wait to be written to each subscriber in one piece: a"
        " delivery comes up to that, and the timer's 1 ms, later; 0: only those of one turn of the loop go together;"
        " needs the lean engine",
    )
    pin: bool = Field(False, description="keep each worker on one core of those allowed, in turn")

    @model_validator(mode="after")
    def _lean_coalesces(self) -> Self:
        if self.coalesce_ms and self.engine != "lean":
            raise PydanticCustomError("engine", _NOT_LEAN, {"ms": f"{self.coalesce_ms:g}", "engine": self.engine})
        return self

    @classmethod
    def read(cls, given: dict[str, Any], config: Path | None) -> Self:
        """Options given on the command line over those of a TOML file over the defaults.

        Raises OptionError.
        """
        from_file: dict[str, Any] = {}
        if config is not None:
            try:
                from_file = tomllib.loads(config.read_text())
            except OSError as error:
                raise OptionError(f"--config {config}: {error.strerror}") from error
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise OptionError(f"--config {config}: not TOML: {error}") from error
        try:
            return cls.model_validate(from_file | given)
        except ValidationError as error:
            raise OptionError("\n".join(_explain(item, given, config) for item in error.errors())) from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare every field as an option. Values stay text: the model checks them, wherever they come from."""
    for name, field in ServeOptions.model_fields.items():
        default = "" if field.default is None else f" (default: {str(field.default).lower()})"
        described: dict[str, Any] = {
            "dest": name,
            "default": argparse.SUPPRESS,
            "help": f"{field.description}{default}",
        }
        if field.annotation is bool:
            parser.add_argument(_option(name), action=argparse.BooleanOptionalAction, **described)
        else:
            parser.add_argument(_option(name), metavar=_metavar(name, field), **described)


def _option(name: str) -> str:
    return "--" + name.removesuffix("_s").replace("_", "-")


def _metavar(name: str, field: FieldInfo) -> str:
    if choices := _choices(field):
        return "|".join(choices)
    return {"s": "SECONDS", "ms": "MS", "bytes": "BYTES", "host": "HOST", "port": "PORT"}.get(
        name.rpartition("_")[2], "N"
    )


def _choices(field: FieldInfo) -> tuple[str, ...]:
    return get_args(field.annotation) if field.annotation not in (int | None, str | None) else ()


def _explain(item: Any, given: dict[str, Any], config: Path | None) -> str:
    """One validation error in words: where, which value, what was wanted."""
    if not item["loc"]:
        return str(item["msg"])
    name = str(item["loc"][0])
    field = ServeOptions.model_fields.get(name)
    if field is None:
        known = ", ".join(ServeOptions.model_fields)
        return f"{config}: unknown key {name!r}; known are {known}"
    where = f"{_option(name)} {item['input']}" if name in given else f"{config}: {name} = {item['input']!r}"
    return f"{where}: wanted {_wanted(field)}"


def _wanted(field: FieldInfo) -> str:
    if choices := _choices(field):
        return " or ".join(choices)
    if field.annotation is bool:
        return "true or false"
    bounds = {
        key: value for rule in field.metadata for key in ("ge", "le") if (value := getattr(rule, key, None)) is not None
    }
    if not bounds:
        return "an address or a host name"
    number = "a number" if field.annotation is float else "a whole number"
    return f"{number} from {bounds['ge']} to {bounds['le']}"

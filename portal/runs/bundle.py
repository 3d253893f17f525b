"""A run as one file that another portal can take: everything that makes it, checked field by field when it is read.

zstd of one JSON object. The archive is in it as it is stored; who made the run and wrote its notes are names.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import zstandard
from django.conf import settings
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from portal.runs.archive import BadArchive, Opened
from portal.runs.models import Run
from portal.runs.states import OVER
from wsnode.core.result import Result, read_result
from wsnode.core.scenario import Scenario

KIND = "wslab run"
VERSION = 1
SUFFIX = ".wslab.zst"
MOST_BYTES = 64 << 20
"""Of a file."""
MOST_UNPACKED = 256 << 20
"""Of a file, and of the archive in it, once decompressed."""
LEVEL = 10

Short = Annotated[str, Field(max_length=200)]
Facts = dict[str, Any]


def _plain(value: str) -> str:
    if "\x00" in value:
        raise ValueError("a NUL character is refused")
    return value


def _web(value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise ValueError("wanted an address of http or https")
    return value


Text = Annotated[str, Field(max_length=100_000), AfterValidator(_plain)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Event(_Part):
    """A line of the conductor's log."""

    at: AwareDatetime
    level: Literal["info", "warning", "error"]
    text: Text
    confirms: Annotated[str, Field(max_length=100)] = ""


class EvidenceLine(_Part):
    """`portal.runs.record.EvidenceRow`."""

    order: Annotated[int, Field(ge=0, le=10_000)]
    name: Annotated[str, Field(max_length=100)]
    host: Annotated[str, Field(max_length=100)]
    value: Annotated[float, Field(allow_inf_nan=False)] | None
    unit: Annotated[str, Field(max_length=20)]
    no_data: Text | None
    promql: Text
    window_s: Annotated[float, Field(allow_inf_nan=False)]
    step_s: Annotated[float, Field(allow_inf_nan=False)]
    samples: Annotated[int, Field(ge=0, le=2**31 - 1)]
    grafana_url: Annotated[Text | None, AfterValidator(_web)]


class HostEnvironment(_Part):
    """What a host was like before and after."""

    host: Annotated[str, Field(min_length=1, max_length=100)]
    role: Annotated[str, Field(max_length=14)]
    begin: Facts
    end: Facts


class Window(_Part):
    """A further judgement over a window that somebody chose."""

    label: Annotated[str, Field(max_length=80)]
    from_s: Annotated[int, Field(ge=0, le=10**6)]
    to_s: Annotated[int, Field(ge=1, le=10**6)]
    result: Result
    created_at: AwareDatetime


class NoteText(_Part):
    """A note, with who wrote it."""

    author: Short
    text: Annotated[str, Field(min_length=1, max_length=20_000), AfterValidator(_plain)]
    created_at: AwareDatetime


class RunFacts(_Part):
    """A run's own row, without what belongs to the portal that made it."""

    id: Annotated[str, Field(pattern=r"^r-[a-z2-7]{10}$")]
    state: Literal["finished", "failed", "cancelled", "lost"]
    state_reason: Text
    machine: Annotated[str, Field(max_length=64)]
    generators: list[Short]
    weights: list[float]
    scenario: Scenario
    accept_partial: bool
    target: Annotated[str, Field(max_length=70)] = ""
    aim: Facts | None = None
    subject_name: Short
    subject_version: Short
    subject_source: Literal["", "given", "probed", "own"]
    reason: Annotated[str, Field(max_length=500), AfterValidator(_plain)]
    engine: Annotated[str, Field(max_length=40)]
    environment_digest: Annotated[str, Field(max_length=64)]
    created_at: AwareDatetime
    preflight_at: AwareDatetime | None
    preparing_at: AwareDatetime | None
    running_at: AwareDatetime | None
    collecting_at: AwareDatetime | None
    judging_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    start_at_ns: Annotated[int, Field(ge=0, lt=2**63)] | None
    last_second: Annotated[int, Field(ge=0, le=2**31 - 1)]
    verdict: Literal["passed", "failed", "none"] | None
    validity: Literal["valid", "suspect", "invalid"] | None


class BadBundle(ValueError):
    """A file that is no run of another portal; `lines` say why."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class Bundle(_Part):
    """A run with everything that is kept of it."""

    kind: Literal["wslab run"]
    version: Literal[1]
    portal: Short
    """Where it was exported."""
    made_by: Short
    run: RunFacts
    tags: Annotated[list[Annotated[str, Field(pattern=r"^[^\s,\x00]{1,50}$")]], Field(max_length=20)]
    baseline: Annotated[str, Field(max_length=12)] | None
    events: Annotated[list[Event], Field(max_length=100_000)]
    result: Result | None
    evidence: Annotated[list[EvidenceLine], Field(max_length=10_000)]
    environments: Annotated[list[HostEnvironment], Field(max_length=1000)]
    windows: Annotated[list[Window], Field(max_length=20)]
    notes: Annotated[list[NoteText], Field(max_length=1000)]
    archive: str | None
    """Base64 of the archive as it is stored."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        run, result = self.run, self.result
        if result is None and run.state == "finished":
            raise ValueError("a finished run without a result")
        if result is not None:
            if result.run_id != run.id:
                raise ValueError(f"the result is of run {result.run_id}, not of {run.id}")
            if run.state == "finished" and (result.verdict, result.validity) != (run.verdict, run.validity):
                raise ValueError("verdict or validity of the run are not its result's")
        for name, keys in (
            ("evidence", [row.order for row in self.evidence]),
            ("environments", [row.host for row in self.environments]),
            ("windows", [(row.from_s, row.to_s) for row in self.windows]),
        ):
            if len(set(keys)) != len(keys):
                raise ValueError(f"{name}: one stands there twice")
        return self

    @property
    def archive_bytes(self) -> bytes | None:
        """The archive, unpacked from its text."""
        return None if self.archive is None else base64.b64decode(self.archive, validate=True)


def pack(run: Run) -> bytes:
    """A run that is over, as a file.

    Raises:
        ValueError: it is not over.
    """
    if run.state not in OVER:
        raise ValueError(f"run {run.pk} is {run.state}: only a run that is over can be exported")
    archive = getattr(run, "archive", None)
    data = {
        "kind": KIND,
        "version": VERSION,
        "portal": settings.PORTAL_URL[:200],
        "made_by": run.created_by.username,
        "run": {name: _text(getattr(run, name)) for name in RunFacts.model_fields},
        "tags": list(run.tags.values_list("name", flat=True)),
        "baseline": run.baseline_id,
        "events": [
            {name: _text(getattr(event, name)) for name in Event.model_fields} for event in run.events.order_by("id")
        ],
        "result": run.summary.content.model_dump(mode="json") if hasattr(run, "summary") else None,
        "evidence": [
            {name: getattr(row, name) for name in EvidenceLine.model_fields} for row in run.evidence.order_by("order")
        ],
        "environments": list(run.environments.order_by("id").values(*HostEnvironment.model_fields)),
        "windows": [
            {"label": one.label, "from_s": one.from_s, "to_s": one.to_s, "created_at": _text(one.created_at),
             "result": one.content.model_dump(mode="json")}
            for one in run.other_windows.order_by("id")
        ],
        "notes": [
            {"author": note.author.username, "text": note.text, "created_at": _text(note.created_at)}
            for note in run.notes.select_related("author")
        ],
        "archive": base64.b64encode(archive.content).decode() if archive is not None else None,
    }  # fmt: skip
    text = json.dumps(data, separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=LEVEL).compress(text)


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def read(content: bytes) -> Bundle:
    """A file of another portal, checked.

    Raises:
        BadBundle: it is too big, no file of this kind, of a newer version, or a field is wrong.
    """
    if len(content) > MOST_BYTES:
        raise BadBundle([f"the file is refused: {len(content):,} bytes, wanted at most {MOST_BYTES:,}"])
    try:
        data = json.loads(_decompressed(content, MOST_UNPACKED))
    except (zstandard.ZstdError, ValueError, RecursionError) as error:
        raise BadBundle([f"the file is no exported run: {str(error)[:200]}; wanted one of {SUFFIX}"]) from error
    if not isinstance(data, Mapping) or data.get("kind") != KIND:
        raise BadBundle([f"the file is no exported run: wanted one of {SUFFIX}"])
    if data.get("version") != VERSION:
        raise BadBundle([f"version: {str(data.get('version'))[:20]} is refused: this portal reads {VERSION}"])
    try:
        # Results and scenarios of older portals are brought up to date first, as those in the database are.
        if data.get("result") is not None:
            data = {**data, "result": read_result(data["result"])}
        bundle = Bundle.model_validate(data)
        archive = bundle.archive_bytes
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:20]]
        raise BadBundle(lines) from error
    except (binascii.Error, ValueError, LookupError, TypeError) as error:
        raise BadBundle([f"the file is refused: {str(error)[:200]}"]) from error
    if archive is not None:
        _check_archive(archive, bundle.run.id)
    return bundle


def _check_archive(archive: bytes, run_id: str) -> None:
    try:
        _decompressed(archive, MOST_UNPACKED)
        of = Opened(archive).head["run_id"]
    except (zstandard.ZstdError, BadArchive, LookupError, TypeError, ValueError) as error:
        raise BadBundle([f"archive: {str(error)[:200]}"]) from error
    if of != run_id:
        raise BadBundle([f"archive: it is of run {str(of)[:20]}, not of {run_id}"])


def _decompressed(content: bytes, most: int) -> bytes:
    """What is in a zstd frame; never more than `most` bytes are made of it.

    Raises:
        ValueError: there would be more.
    """
    with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(content)) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes when it is unpacked")
    return data

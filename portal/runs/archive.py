"""The archive of a run: a tar under zstd that explains itself, from which everything can be judged again.

`tar --zstd -xf` opens it. Archives of format 1, one JSON document under zstd, are read as well.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import zstandard
from pydantic_core import to_json

from portal.runs.columns import SUMS, Buckets, Columns
from portal.runs.deltas import grow

if TYPE_CHECKING:
    from portal.conductor.job import ClockReading, HostOutcome, Outcome
    from portal.monitoring.prometheus import Series

FORMAT = 2
MOST_BYTES = 1 << 30
"""Of an archive once it is unpacked: an archive of another portal may be made to fill a memory."""
LEVEL = 19
"""Of what is left after the columns' layout, this saves a tenth over level 10, at about a second per five minutes."""
README = """A run of wslab.

run.json       the run: scenario, how it ended, each host's own result and environments, the conductor's log
seconds.json   what each second added, a column for each counter; histograms' moments (ns), and the load generators'
               processors (cumulative, s, as steps). Second 1 is the first. A message counts in the second in which
               it was due.
machine.json   of each load generator the processors alone, the same way
samples.json   what Prometheus had of the measured window. A series' `times` is a place in the list `times`, whose
               rows are a first time and the steps after it (ms since the epoch). `steps` is the first value and what
               each one added, as decimal numbers; behind a `=` stands the value itself. All `steps` are of that kind.
buckets/NAME   a histogram. Its buckets (`indices` in seconds.json) are log-linear: one for each value below 256 ns,
               128 to each power of two above. The file has planes; a plane has a row for each bucket; a row has two
               seconds in each byte, the earlier in the upper four bits. Plane p holds digit p, to the base of 16,
               of what that second added to that bucket.
"""


class BadArchive(ValueError):
    """Bytes that are no archive of a run. The message says what is wrong."""


def pack(
    *,
    run_id: str,
    scenario: dict[str, Any],
    outcome: Outcome,
    seconds: Iterable[bytes],
    series: Sequence[tuple[str, Sequence[Series]]],
    log: Iterable[dict[str, str]],
) -> bytes:
    """Everything as bytes. `seconds` are the merged cumulative lines in order, each as `RunSecond` keeps it; `series`
    the samples behind the evidence."""
    head = {
        "format": FORMAT,
        "run_id": run_id,
        "scenario": scenario,
        "state": outcome.state,
        "start_at_ns": outcome.start_at_ns,
        "hosts": [_host(host) for host in outcome.hosts],
        "log": list(log),
    }
    columns = Columns.of(json.loads(zstandard.decompress(line)) for line in seconds)
    machine = {
        host.name: [line.host.model_dump(mode="json") for line in host.run.counted]
        for host in outcome.hosts
        if host.run
    }
    samples = [
        {"selector": selector, "result": [{"labels": one.labels, "samples": one.samples} for one in found]}
        for selector, found in series
    ]
    return _written(head, columns, machine, samples)


def repack(content: bytes) -> bytes:
    """An archive of any format in today's.

    Raises:
        BadArchive: it is none.
    """
    found = Opened(content)
    return _written({**found.head, "format": FORMAT}, found.columns, found.machine, found.series)


class Opened:
    """An archive, each part read when it is first asked for."""

    def __init__(self, content: bytes) -> None:
        """Raises BadArchive."""
        self._old: dict[str, Any] | None = None
        try:
            if zstandard.frame_content_size(content) > MOST_BYTES:
                raise ValueError(f"it holds more than {MOST_BYTES:,} bytes")
            data = zstandard.ZstdDecompressor().decompress(content, max_output_size=MOST_BYTES)
            if data[:1] == b"{":
                self._old = json.loads(data)
                found = self._old["format"]
            else:
                self._files = _files(data)
                found = self.head["format"]
        except (zstandard.ZstdError, tarfile.TarError, LookupError, TypeError, ValueError) as error:
            raise BadArchive(f"no archive of a run: {error}") from error
        if found not in (1, FORMAT):
            raise BadArchive(f"an archive of format {found!r}: this portal reads 1 to {FORMAT}")

    @cached_property
    def head(self) -> dict[str, Any]:
        """Run, scenario, hosts, log."""
        if self._old is not None:
            hosts = [{key: of for key, of in host.items() if key != "machine"} for host in self._old["hosts"]]
            return {key: self._old[key] for key in self._old if key not in ("seconds", "series")} | {"hosts": hosts}
        found: dict[str, Any] = json.loads(self._files["run.json"])
        return found

    @cached_property
    def columns(self) -> Columns:
        """The merged seconds. Raises BadArchive."""
        try:
            return self._columns()
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise BadArchive(f"the seconds of an archive cannot be read: {type(error).__name__}: {error}") from error

    def _columns(self) -> Columns:
        if self._old is not None:
            return Columns.of_gains(self._old["seconds"])
        data = json.loads(self._files["seconds.json"])
        length = len(data["numbers"])
        buckets = {}
        for name, indices in data["indices"].items():
            width = (length + 1) // 2
            plane = width * len(indices)
            content = self._files[f"buckets/{name}"]
            planes = [content[begin : begin + plane] for begin in range(0, len(content), plane)]
            buckets[name] = Buckets(indices, planes, width)
        sums = {part: data["sums"].get(part, {}) for part in SUMS}  # kinds were not known before protocol 4
        return Columns(data["numbers"], sums, data["moments"], buckets, _times_of(data["host"], length))

    @cached_property
    def machine(self) -> dict[str, list[dict[str, Any]]]:
        """By load generator its `HostSecond`s: what the merged lines cannot tell apart."""
        if self._old is not None:
            return {host["name"]: host["machine"] for host in self._old["hosts"] if host["machine"]}
        found = {}
        for name, part in json.loads(self._files["machine.json"]).items():
            columns = _times_of(part["times"], part["seconds"])
            found[name] = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return found

    @cached_property
    def series(self) -> list[dict[str, Any]]:
        """The samples behind the evidence: `selector`, and a `result` of `labels` and `samples` (s since the epoch)."""
        if self._old is not None:
            old: list[dict[str, Any]] = self._old["series"]
            return old
        data = json.loads(self._files["samples.json"])
        times = [[at / 1000 for at in _added_up(row)] for row in data["times"]]
        return [
            {
                "selector": one["selector"],
                "result": [
                    {
                        "labels": series["labels"],
                        "samples": [
                            [at, float(value)]
                            for at, value in zip(times[series["times"]], _grown(series["steps"]), strict=True)
                        ],
                    }
                    for series in one["result"]
                ],
            }
            for one in data["series"]
        ]


def unpack(content: bytes) -> dict[str, Any]:
    """What `pack` was given, `seconds` as cumulative lines in the wire form of `wsnode.core.protocol.Second`.

    Raises:
        BadArchive: it is no archive.
    """
    found = Opened(content)
    hosts = [{**host, "machine": found.machine.get(host["name"], [])} for host in found.head["hosts"]]
    return {**found.head, "hosts": hosts, "seconds": list(grow(found.columns.gains())), "series": found.series}


def _host(host: HostOutcome) -> dict[str, Any]:
    return {
        "name": host.name,
        "role": host.role,
        "clock_begin": _clock(host.clock_begin),
        "clock_started": _clock(host.clock_started),
        "clock_end": _clock(host.clock_end),
        "start_skew_s": host.start_skew_s,
        "environment_begin": host.environment_begin,
        "environment_end": host.environment_end,
        "lost": host.lost,
        "result": host.run.result.model_dump(mode="json") if host.run else None,
    }


def _clock(reading: ClockReading | None) -> dict[str, float] | None:
    return None if reading is None else {"offset_s": reading.offset_s, "bound_s": reading.bound_s}


# --- the file -------------------------------------------------------------------------------------------------------
def _written(
    head: Mapping[str, Any],
    columns: Columns,
    machine: Mapping[str, Sequence[Mapping[str, Any]]],
    series: Sequence[Mapping[str, Any]],
) -> bytes:
    seconds = {
        "numbers": columns.numbers,
        "sums": columns.sums,
        "moments": columns.moments,
        "indices": {name: buckets.indices for name, buckets in columns.buckets.items()},
        "host": _steps_of(columns.host),
    }
    processors = {
        name: {"seconds": len(lines), "times": _steps_of({key: [line[key] for line in lines] for key in lines[0]})}
        for name, lines in machine.items()
        if lines
    }
    files = {
        "README.txt": README.encode(),
        "run.json": _json(head),
        "seconds.json": _json(seconds),
        "machine.json": _json(processors),
        "samples.json": _json(_samples(series)),
        **{f"buckets/{name}": b"".join(buckets.planes) for name, buckets in columns.buckets.items()},
    }
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mtime = (head["start_at_ns"] or 0) // 1_000_000_000
            tar.addfile(entry, io.BytesIO(content))
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(written.getvalue())


def _files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry)) is not None}


def _json(value: object) -> bytes:
    # json.dumps keeps a string for every number until it joins them: of 200 hosts' histograms 100 MB.
    return to_json(value)


WORKERS = "worker_cpu_s"


def _steps_of(columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Cumulative times of processors, by second, as steps; those of the workers one worker after the other."""
    found: dict[str, Any] = {key: _steps(values) for key, values in columns.items() if key != WORKERS}
    rows = columns.get(WORKERS, ())
    alike = len({len(row) for row in rows}) <= 1
    return {WORKERS: [_steps(values) for values in zip(*rows, strict=True)] if alike else {"rows": rows}} | found


def _times_of(columns: Mapping[str, Any], seconds: int) -> dict[str, list[Any]]:
    """`_steps_of` undone."""
    workers = columns[WORKERS]
    if isinstance(workers, dict):
        rows: list[Any] = workers["rows"]
    else:
        each = [[float(value) for value in _grown(steps)] for steps in workers]
        rows = [list(row) for row in zip(*each, strict=True)] if each else [[] for _ in range(seconds)]
    others = {key: [float(value) for value in _grown(steps)] for key, steps in columns.items() if key != WORKERS}
    return {WORKERS: rows} | others


def _samples(series: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples of one target share their times; counters take less room as steps."""
    places: dict[tuple[int, ...], int] = {}
    found = []
    for one in series:
        result = []
        for each in one["result"]:
            times = tuple(round(at * 1000) for at, _ in each["samples"])
            place = places.setdefault(times, len(places))
            result.append({"labels": each["labels"], "times": place, "steps": _steps(v for _, v in each["samples"])})
        found.append({"selector": one["selector"], "result": result})
    rows = [[times[0], *(b - a for a, b in itertools.pairwise(times))] if times else [] for times in places]
    return {"times": rows, "series": found}


def _added_up(row: Sequence[int]) -> list[int]:
    total, found = 0, []
    for step in row:
        total += step
        found.append(total)
    return found


def _steps(values: Iterable[float]) -> str:
    """Decimal, since differences of floats do not add up to what they were. With `=` stands a value that no step leads
    to: what is no number, or lies too far away."""
    words, before = [], Decimal(0)
    for value in values:
        now = Decimal(repr(float(value)))
        if now.is_finite() and (step := now - before) + before == now:
            words.append(f"{step.normalize():f}" if step else "0")
            before = now
        else:
            words.append(f"={now}")
            before = now if now.is_finite() else before
    return " ".join(words)


def _grown(text: str) -> Iterable[Decimal]:
    total = Decimal(0)
    for word in text.split():
        value = Decimal(word.removeprefix("="))
        total = value if word.startswith("=") and value.is_finite() else total + value if value.is_finite() else total
        yield total if value.is_finite() else value

"""The archive: seconds are kept as what each added, and come back exactly."""

from __future__ import annotations

import io
import json
import re
import tarfile

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.conductor.job import HostOutcome, Outcome
from portal.monitoring.prometheus import Series
from portal.runs.archive import BadArchive, Opened, pack, repack, unpack
from portal.runs.deltas import grow, shrink
from tests.portal.factories import SMOKE, host_runs
from wsnode.core.histogram import Histogram
from wsnode.core.merge import merge
from wsnode.core.protocol import HISTOGRAMS, Counters, HostSecond, Second

GAINS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(HISTOGRAMS), st.integers(0, 1 << 43)), max_size=6),
        st.integers(0, 50),
        st.integers(-5, 5),
        st.sampled_from(["reset", "connect_refused", ""]),
    ),
    max_size=12,
)


def lines_of(gains: list[tuple[list[tuple[str, int]], int, int, str]]) -> list[Second]:
    """A load's cumulative seconds: values recorded, messages due, a gauge that may fall, an error."""
    times = {name: Histogram() for name in HISTOGRAMS}
    due, is_open, errors = 0, 10, dict[str, int]()
    lines = []
    for second, (values, more, change, error) in enumerate(gains, 1):
        for name, value in values:
            times[name].record(value)
        due, is_open = due + more, max(0, is_open + change)
        if error:
            errors[error] = errors.get(error, 0) + 1
        lines.append(
            Second(
                second=second,
                counters=Counters(messages_due=due, connections_open=is_open),
                errors=dict(errors),  # type: ignore[arg-type]
                histograms={name: Histogram.from_wire(h.to_wire()) for name, h in times.items() if h.count},
                host=HostSecond(worker_cpu_s=(0.1 * second, 0.2 * second), core_s=2.0 * second),
            )
        )
    return lines


@settings(max_examples=150, deadline=None)
@given(GAINS)
def test_what_each_second_added_gives_the_cumulative_lines_again(
    gains: list[tuple[list[tuple[str, int]], int, int, str]],
) -> None:
    lines = lines_of(gains)
    small = json.loads(json.dumps(list(shrink(line.model_dump(mode="json") for line in lines))))
    assert [Second.model_validate(line) for line in grow(small)] == lines


def test_a_second_in_which_nothing_happened_is_kept_with_nothing_in_it() -> None:
    lines = lines_of([([("handshake", 5)], 3, 0, ""), ([], 0, 0, "")])
    first, second = shrink(line.model_dump(mode="json") for line in lines)
    assert first["counters"] == {"messages_due": 3, "connections_open": 10}
    assert first["histograms"]["handshake"]["buckets"] == [5, 1]
    assert (second["counters"], second["errors"], second["histograms"]) == ({}, {}, {})


@pytest.fixture(scope="module")
def archive() -> bytes:
    runs = host_runs()
    merged = [merge([a, b]) for a, b in zip(*(run.series for run in runs), strict=True)]
    lines = [zstandard.compress(line.model_dump_json().encode()) for line in merged]
    hosts = [HostOutcome("server", "server"), *(HostOutcome(run.name, "load_generator", run=run) for run in runs)]
    samples = [("up{}", [Series({"job": "node"}, ((1.5, 1.0), (2.5, 1.0)))])]
    return pack(
        run_id="r-x",
        scenario=SMOKE.model_dump(mode="json"),
        outcome=Outcome("finished", None, hosts, 17),
        seconds=lines,
        series=samples,
        log=[{"at": "now", "level": "info", "text": "all hosts are ready"}],
    )


def test_an_archive_holds_what_everything_can_be_judged_from_again(archive: bytes) -> None:
    data = unpack(archive)
    assert set(data) == {"format", "run_id", "scenario", "state", "start_at_ns", "hosts", "seconds", "series", "log"}
    assert (data["format"], data["state"], data["start_at_ns"]) == (2, "finished", 17)
    runs = host_runs()
    merged = [merge([a, b]) for a, b in zip(*(run.series for run in runs), strict=True)]
    assert [Second.model_validate(line) for line in data["seconds"]] == merged
    assert data["hosts"][0]["result"] is None
    assert data["hosts"][1]["result"] == runs[0].result.model_dump(mode="json")
    assert data["hosts"][1]["machine"][4]["worker_cpu_s"] == list(runs[0].series[4].host.worker_cpu_s)
    assert data["series"] == [
        {"selector": "up{}", "result": [{"labels": {"job": "node"}, "samples": [[1.5, 1.0], [2.5, 1.0]]}]}
    ]


def test_an_archive_is_a_tar_that_explains_itself(archive: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(zstandard.decompress(archive))) as tar:
        names = tar.getnames()
        assert names[:5] == ["README.txt", "run.json", "seconds.json", "machine.json", "samples.json"]
        readme = tar.extractfile("README.txt")
        assert readme is not None
        text = readme.read().decode()
        assert {*names[5:]} == {f"buckets/{name}" for name in HISTOGRAMS if name != "one_way"}
        assert all(name.partition("/")[0] in text for name in names[1:])


def test_an_archive_of_format_1_reads_the_same(archive: bytes) -> None:
    data = unpack(archive)
    old = {**data, "format": 1, "seconds": list(shrink(data["seconds"]))}
    written = zstandard.compress(json.dumps(old).encode())
    assert unpack(written) == {**data, "format": 1}
    assert repack(written) == repack(archive) == archive


BOMB = b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"
"""A zstd frame that says of itself that it holds a terabyte."""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no archive of a run: "),
        (b"PK\x03\x04", "no archive of a run: "),
        (zstandard.compress(b"hello"), "no archive of a run: "),
        (zstandard.compress(b"[]"), "no archive of a run: "),
        (zstandard.compress(b'{"format": 9}'), "an archive of format 9: this portal reads 1 to 2"),
        (zstandard.compress(b"{}"), "no archive of a run: 'format'"),
        (BOMB, "no archive of a run: it holds more than 1,073,741,824 bytes"),
    ],
)
def test_what_is_no_archive_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(BadArchive, match=re.escape(why)):
        Opened(content)


@given(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=8),
    st.integers(1_600_000_000_000, 1_900_000_000_000),
)
def test_samples_come_back_as_they_were(values: list[float], begin_ms: int) -> None:
    samples = tuple(((begin_ms + 1000 * place) / 1000, value) for place, value in enumerate(values))
    content = pack(
        run_id="r-x",
        scenario={},
        outcome=Outcome("finished", None, (), 17),
        seconds=[],
        series=[("up", [Series({"job": "node"}, samples)])],
        log=[],
    )
    assert Opened(content).series[0]["result"][0]["samples"] == [list(pair) for pair in samples]


def test_a_smoke_run_takes_less_than_30_kilobytes(archive: bytes) -> None:
    assert len(archive) < 30_000
    assert len(zstandard.decompress(archive)) > 3 * len(archive)


def test_workers_that_come_and_go_are_kept_as_they_were() -> None:
    lines = lines_of([([("handshake", 5)], 3, 0, "")] * 3)
    lines[1] = lines[1].model_copy(update={"host": HostSecond(worker_cpu_s=(0.2,), core_s=4.0)})
    lines[2] = lines[2].model_copy(update={"host": HostSecond()})
    content = pack(
        run_id="r-x",
        scenario={},
        outcome=Outcome("finished", None, (), 17),
        seconds=[zstandard.compress(line.model_dump_json().encode()) for line in lines],
        series=(),
        log=(),
    )
    assert [Second.model_validate(line) for line in unpack(content)["seconds"]] == lines

"""What an agent keeps on disk, and what it makes of what it finds there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.wsnode.agents import plan, second
from wsnode.agent.store import DataInUse, State, Store, StoreError, out_of_keeping
from wsnode.core.protocol import HostResult, encode
from wsnode.environment import boot_id

DAY = 86_400.0


def state(run_id: str = "r1") -> State:
    return State(run_id=run_id, epoch=1, state="running", boot_id=boot_id(), workers=2, start_at_ns=5)


def lines(count: int) -> list[bytes]:
    return [encode(second(number)) for number in range(1, count + 1)]


def result(run_id: str = "r1") -> HostResult:
    return HostResult(
        run_id=run_id,
        host="load-1",
        state="finished",
        seconds=3,
        final=second(3),
        workers=2,
        start_at_ns=5,
        first_connect_due_ns=0,
        first_connect_begun_ns=7,
        environment_begin={"stable": {"kernel": "6.1"}},
        environment_end={},
    )


def test_a_load_is_found_again_as_it_was_left(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = store.create(plan(), state())
    for line in lines(3):
        record.append(line)
    record.keep_result(result())
    record.update(state="finished", ended_at=17.0, epoch=4)
    record.close()
    store.close()
    store = Store(tmp_path)
    [again] = store.records()
    assert again.plan == plan()
    assert again.state == record.state
    assert (again.state.epoch, again.state.ended_at) == (4, 17.0)
    assert again.result() == result()
    assert again.seconds == 3
    assert again.lines(1) == (b"".join(lines(3)), 4)
    assert again.lines(3) == (lines(3)[2], 4)
    again.close()
    store.close()


def test_lines_are_given_in_portions_and_at_least_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = store.create(plan(), state())
    all_lines = lines(5)
    for line in all_lines:
        record.append(line)
    assert record.lines(1, most_bytes=1) == (all_lines[0], 2)
    two = len(all_lines[1]) + len(all_lines[2])
    assert record.lines(2, most_bytes=two) == (all_lines[1] + all_lines[2], 4)
    record.close()
    store.close()


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        (b'{"type":"second","second":4,"coun', 3),
        (b"\0" * 4096, 3),
        (lines(5)[4], 3),
        (lines(4)[3] + lines(5)[4][:-1], 4),
        (lines(2)[1], 3),
    ],
)
def test_what_is_not_the_whole_next_line_is_cut_off(tmp_path: Path, tail: bytes, kept: int) -> None:
    store = Store(tmp_path)
    record = store.create(plan(), state())
    for line in lines(3):
        record.append(line)
    os.write(record._fd, tail)
    record.close()
    [again] = store.records()
    assert again.seconds == kept
    assert (again.path / "lines.jsonl").read_bytes() == b"".join(lines(kept))
    again.append(lines(kept + 1)[-1])
    assert again.lines(1)[0] == b"".join(lines(kept + 1))
    again.close()
    store.close()


def test_what_is_no_load_is_thrown_away(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create(plan(), state("good")).close()
    for name in ("torn", "renamed"):
        store.create(plan(), state(name)).close()
    (store.path / "torn" / "state.json").write_text('{"run_id": "to')
    (store.path / "renamed").rename(store.path / "other")
    (store.path / "empty").mkdir()
    (store.path / "not a run").mkdir()
    (store.path / "stray").write_text("x")
    assert [record.state.run_id for record in store.records()] == ["good"]
    assert [path.name for path in store.path.iterdir()] == ["good"]
    store.close()


def test_only_their_owner_may_read_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = store.create(plan(), state())
    record.append(lines(1)[0])
    record.keep_result(result())
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(record.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in record.path.iterdir()} == {0o600}
    record.close()
    store.close()


def test_a_folder_has_one_agent(tmp_path: Path) -> None:
    first = Store(tmp_path)
    with pytest.raises(DataInUse) as error:
        Store(tmp_path)
    assert str(tmp_path) in str(error.value)
    first.close()
    Store(tmp_path).close()


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as error:
        Store(tmp_path / "file")
    assert "file" in str(error.value)


def test_a_forgotten_load_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = store.create(plan(), state())
    record.append(lines(1)[0])
    record.delete()
    assert list(store.path.iterdir()) == []
    store.close()


@pytest.mark.parametrize(
    ("ended", "go"),
    [
        ({}, []),
        ({"a": 99 * DAY, "b": 98 * DAY}, []),
        ({"a": 86 * DAY}, []),
        ({"a": 85.9 * DAY}, ["a"]),
        ({"a": 99 * DAY, "b": 98 * DAY, "c": 97 * DAY, "d": 99.5 * DAY}, ["c"]),
        ({"a": 99 * DAY, "b": 1 * DAY, "c": 98 * DAY, "d": 97 * DAY}, ["b"]),
    ],
)
def test_old_and_surplus_results_go_the_oldest_first(ended: dict[str, float], go: list[str]) -> None:
    assert out_of_keeping(ended, keep=3, keep_days=14, now=100 * DAY) == go

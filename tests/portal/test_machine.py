"""The machine's lock: one holder over all stacks and users."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from portal.runs.machine import Holder, MachineLock, shared_folder

ME, OTHER = Holder("r-mine", "http://127.0.0.1:8000"), Holder("r-other", "http://127.0.0.1:8500")


def test_of_two_the_first_has_it_and_the_second_knows_who(tmp_path: Path) -> None:
    first, second = MachineLock("m", ME, tmp_path), MachineLock("m", OTHER, tmp_path)
    assert first.acquire()
    assert first.acquire()
    assert first.held
    assert not second.acquire()
    assert not second.held
    assert second.holder() == ME
    first.release()
    assert second.holder() is None
    assert second.acquire()
    assert first.holder() == OTHER


def test_machines_have_locks_of_their_own(tmp_path: Path) -> None:
    with MachineLock("a", ME, tmp_path) as a, MachineLock("b", OTHER, tmp_path) as b:
        assert a.acquire()
        assert b.acquire()


def test_the_file_is_for_everybody_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        lock = MachineLock("m", ME, tmp_path)
        lock.acquire()
    finally:
        os.umask(before)
    assert stat.S_IMODE(lock.file.stat().st_mode) == 0o666
    lock.release()
    assert lock.file.exists()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "wslab-m.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        MachineLock("m", ME, tmp_path).acquire()
    assert target.read_text() == "mine"


def test_anything_but_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "wslab-m.lock")
    with pytest.raises(OSError, match="no regular file"):
        MachineLock("m", ME, tmp_path).acquire()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"run_id": 1}'])
def test_nonsense_in_the_file_names_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wslab-m.lock").write_bytes(content)
    lock = MachineLock("m", ME, tmp_path)
    assert lock.holder() is None
    assert lock.acquire()


def test_what_a_holder_writes_is_shown_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "wslab-m.lock").write_text('{"run_id": "r-\\u001b[2Jx", "portal": "http://p\\n"}')
    assert MachineLock("m", ME, tmp_path).holder() == Holder("r-[2Jx", "http://p")


def test_the_shared_folder_is_one_that_everybody_may_write_to() -> None:
    assert shared_folder().stat().st_mode & stat.S_IWOTH


def test_a_second_name_of_somebodys_file_is_not_emptied(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "wslab-m.lock").hardlink_to(target)
    with pytest.raises(OSError, match="this one name"):
        MachineLock("m", ME, tmp_path).acquire()
    assert target.read_text() == "mine"

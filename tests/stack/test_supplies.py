"""Wheel folders, and the cache that they and the package repositories lie in."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stack import hoard, paths, supplies, wheels
from stack.errors import StackError
from wsnode import __version__


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "wslab" / "supplies"


def never() -> None:
    raise AssertionError("nobody is to be waited for")


def filled(text: str = "content") -> object:
    def make(folder: Path) -> None:
        (folder / "file").write_text(text)

    return make


# The cache


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=40), min_size=1, max_size=6))
def test_the_digest_is_of_names_and_contents_alone(tmp_path_factory: pytest.TempPathFactory, files: dict) -> None:
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    for name, content in files.items():
        (one / name).write_bytes(content)
    for name, content in reversed(files.items()):
        (other / name).write_bytes(content)
        (other / name).chmod(0o400)
        os.utime(other / name, (1, 1))
    digest = hoard.tree_digest(one)
    assert digest == hoard.tree_digest(other)
    name = next(iter(files))
    (one / name).write_bytes(files[name] + b"!")
    assert hoard.tree_digest(one) != digest
    (other / name).rename(other / (name + "0"))
    assert hoard.tree_digest(other) != digest


def test_an_entry_is_made_once_and_kept(cache: Path) -> None:
    first = hoard.obtain("apt-x", filled(), never)
    again = hoard.obtain("apt-x", filled("other"), never)
    assert again == first
    assert (again.folder / "file").read_text() == "content"
    assert first.digest == hoard.tree_digest(first.folder)


def test_a_refreshed_entry_is_made_anew(cache: Path) -> None:
    first = hoard.obtain("apt-x", filled(), never)
    again = hoard.obtain("apt-x", filled("other"), never, refresh=True)
    assert (again.folder / "file").read_text() == "other"
    assert again.digest != first.digest


@pytest.mark.parametrize("damage", ["gone", "short", "added", "entry"])
def test_a_damaged_entry_is_made_anew(cache: Path, damage: str) -> None:
    folder, digest = hoard.obtain("apt-x", filled(), never)
    if damage == "gone":
        (folder / "file").unlink()
    elif damage == "short":
        (folder / "file").write_text("cont")
    elif damage == "added":
        (folder / "more").touch()
    else:
        (folder.parent / "entry.json").write_text("{")
    assert hoard.look_up("apt-x") is None
    assert hoard.obtain("apt-x", filled(), never) == (folder, digest)
    assert [file.name for file in folder.iterdir()] == ["file"]


def test_what_fails_leaves_nothing_that_looks_like_an_entry(cache: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise StackError("no network")

    with pytest.raises(StackError, match="no network"):
        hoard.obtain("apt-x", fails, never)
    assert [path.name for path in cache.iterdir()] == [".lock-apt"]


def test_of_two_at_once_one_makes_and_the_other_waits_and_takes_it(cache: Path) -> None:
    begun, go_on, waited = threading.Event(), threading.Event(), threading.Event()
    found = []

    def slow(folder: Path) -> None:
        begun.set()
        assert go_on.wait(10)
        (folder / "file").write_text("first")

    def waiting() -> None:
        waited.set()
        go_on.set()

    first = threading.Thread(target=lambda: found.append(hoard.obtain("apt-x", slow, never)))
    first.start()
    assert begun.wait(10)
    found.append(hoard.obtain("apt-x", filled("second"), waiting))
    first.join()
    assert waited.is_set()
    assert found[0] == found[1]
    assert (found[0].folder / "file").read_text() == "first"


def test_entries_that_nobody_used_for_long_go_and_used_ones_stay(cache: Path) -> None:
    old, used = (hoard.obtain(name, filled(), never).folder.parent for name in ("apt-old", "apt-used"))
    leftover = cache / ".making-killed"
    leftover.mkdir()
    then = time.time() - (hoard.KEEP_DAYS + 1) * 86400
    for folder in (old, used, leftover):
        os.utime(folder, (then, then))
    assert hoard.look_up("apt-used") is not None
    hoard.obtain("apt-new", filled(), never)
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == ["apt-new", "apt-used"]


def test_files_are_readable_by_all_whatever_the_umask(cache: Path) -> None:
    old = os.umask(0o077)
    try:
        folder = hoard.obtain("apt-x", filled(), never).folder
    finally:
        os.umask(old)
    assert oct(folder.stat().st_mode & 0o777) == "0o755"
    assert oct((folder / "file").stat().st_mode & 0o777) == "0o644"


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StackError, match=r"the cache .*/file/wslab/supplies cannot be written"):
        hoard.obtain("apt-x", filled(), never)


# wsnode's wheel


def test_the_wheel_of_wsnode_is_the_same_bytes_each_time_and_leaves_nothing_in_the_clone(tmp_path: Path) -> None:
    made_by_builds = ("build", "dist", "wsnode.egg-info")
    before = {name: (paths.ROOT / name).exists() for name in made_by_builds}
    digests = []
    for umask in (0o022, 0o077):
        folder = tmp_path / str(umask)
        folder.mkdir()
        old = os.umask(umask)
        try:
            wheel = wheels.build_wsnode(folder)
        finally:
            os.umask(old)
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert {name: (paths.ROOT / name).exists() for name in made_by_builds} == before
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    ours = {str(path.relative_to(paths.ROOT)) for path in (paths.ROOT / "wsnode").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == ours
    assert {name.split("/")[0] for name in names} == {"wsnode", f"wsnode-{__version__}.dist-info"}


# Wheels of a lock, from an index in a folder


def tiny_wheel(index: Path, name: str, tag: str = "py3-none-any") -> str:
    """A wheel that installs nothing, in a PEP 503 index; returns its line for a lock."""
    page = index / name
    page.mkdir(parents=True, exist_ok=True)
    file = page / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        info = f"{name}-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    links = "".join(
        f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(page.iterdir()) if path.suffix != ".html"
    )
    (page / "index.html").write_text(f"<html><body>{links}</body></html>")
    return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Locks of this test's own, over an index in a folder that is pip's only source."""
    folder, index = tmp_path / "locks", tmp_path / "index"
    folder.mkdir()
    monkeypatch.setattr(wheels, "lock_file", lambda name: folder / f"{name}.txt")
    monkeypatch.setenv("PIP_INDEX_URL", index.as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    (folder / "pip.txt").write_text(tiny_wheel(index, "pip"))
    return folder


def test_the_folder_holds_the_wheels_of_the_target_pip_and_wsnode_and_one_hashed_list(
    cache: Path, locks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    tiny_wheel(index, "binary", "cp312-cp312-manylinux_2_17_x86_64")
    tiny_wheel(index, "binary", "cp311-cp311-manylinux_2_28_aarch64")
    line = tiny_wheel(index, "binary", "cp311-cp311-manylinux_2_28_x86_64")
    other = 'elsewhere==1.0 ; sys_platform == "win32" \\\n    --hash=sha256:' + "0" * 64 + "\n"
    locked = "# a lock\n" + line + tiny_wheel(index, "pure") + other
    (locks / "node.txt").write_text(locked)
    folder, digest = supplies.wheel_folder("node", "3.11.2", "x86_64")
    names = sorted(file.name for file in folder.iterdir())
    assert names == [
        "binary-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "pip-1.0-py3-none-any.whl", "pure-1.0-py3-none-any.whl",
        "requirements.txt", f"wsnode-{__version__}-py3-none-any.whl",
    ]  # fmt: skip
    listed = (folder / "requirements.txt").read_text()
    own = hashlib.sha256((folder / f"wsnode-{__version__}-py3-none-any.whl").read_bytes()).hexdigest()
    assert listed == locked + f"wsnode=={__version__} \\\n    --hash=sha256:{own}\n"
    assert "fetching the wheels of requirements/node.txt for Python 3.11, x86_64" in capsys.readouterr().err
    for page in index.iterdir():  # a filled cache needs no index
        (page / "index.html").unlink()
    assert supplies.wheel_folder("node", "3.11", "x86_64") == (folder, digest)
    assert capsys.readouterr().err == ""


def test_the_portals_folder_holds_no_wsnode(cache: Path, locks: Path, tmp_path: Path) -> None:
    (locks / "portal.txt").write_text(tiny_wheel(tmp_path / "index", "pure"))
    folder = supplies.wheel_folder("portal", "3.13", "x86_64").folder
    assert sorted(file.name for file in folder.glob("*.whl")) == [
        "pip-1.0-py3-none-any.whl",
        "pure-1.0-py3-none-any.whl",
    ]
    assert (folder / "requirements.txt").read_text() == (locks / "portal.txt").read_text()


def test_a_wheel_with_other_contents_than_the_lock_says_is_refused(cache: Path, locks: Path, tmp_path: Path) -> None:
    line = tiny_wheel(tmp_path / "index", "pure")
    (locks / "portal.txt").write_text(line[:-9] + "deadbeef\n")
    with pytest.raises(StackError, match=r"came for requirements/portal.txt has other contents .*pure"):
        supplies.wheel_folder("portal", "3.13", "x86_64")
    assert not list(cache.glob("wheels-*"))


def test_what_has_no_wheel_for_the_target_is_named(cache: Path, locks: Path, tmp_path: Path) -> None:
    line = tiny_wheel(tmp_path / "index", "binary", "cp313-cp313-manylinux_2_17_x86_64")
    (locks / "portal.txt").write_text(line)
    with pytest.raises(
        StackError, match=r"binary==1.0 \(requirements/portal.txt\) has no wheel for Python 3.13, aarch64"
    ):
        supplies.wheel_folder("portal", "3.13", "aarch64")


def test_an_index_out_of_reach_is_said_to_be_that(
    cache: Path, locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (locks / "portal.txt").write_text(tiny_wheel(tmp_path / "index", "pure"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(StackError, match="not in the cache, and no package index can be reached"):
        supplies.wheel_folder("portal", "3.13", "x86_64")


def test_of_pips_settings_only_those_that_say_how_to_reach_an_index_count(
    cache: Path, locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tiny_wheel(tmp_path / "elsewhere", "binary")
    (locks / "portal.txt").write_text(line)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "elsewhere" / "binary"))
    with pytest.raises(StackError, match=r"binary==1.0 .* has no wheel"):
        supplies.wheel_folder("portal", "3.13", "x86_64")


@pytest.mark.parametrize(
    ("marker", "python", "machine", "kept"),
    [
        ("sys_platform == 'win32'", "3.13", "x86_64", False),
        ("python_version < '3.12'", "3.11", "x86_64", True),
        ("python_version < '3.12'", "3.13", "x86_64", False),
        ("platform_machine == 'aarch64'", "3.13", "aarch64", True),
        ("platform_python_implementation != 'PyPy'", "3.13", "x86_64", True),
    ],
)  # fmt: skip
def test_markers_are_asked_about_the_target_not_about_the_controller(
    marker: str, python: str, machine: str, kept: bool
) -> None:
    hashes, last = " \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n", "last==2 \\\n    --hash=sha256:cc\n"
    wanted = f"# head\nthing==1{hashes}{last}" if kept else f"# head\n{last}"
    assert wheels.for_target(f"# head\nthing==1 ; {marker}{hashes}{last}", python, machine) == wanted


@pytest.mark.parametrize("lock", ["node", "portal", "pip"])
def test_the_real_locks_lose_no_requirement_on_the_way(lock: str) -> None:
    text = wheels.lock_file(lock).read_text()
    kept = wheels.for_target(text, "3.13", "x86_64")
    gone = [line for line in text.splitlines() if "==" in line and line.partition(" ")[0] not in kept]
    assert all("win32" in line for line in gone)
    assert kept.count("--hash=sha256:") >= text.count("==") - len(gone)
    assert " ; " not in kept


# The command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("wheels --lock nodes --python 3.11", "the lock 'nodes' is none of node, portal"),
        ("wheels --lock portal --python 3.11", "Python '3.11' is no version from 3.12 on, which portal.txt needs"),
        ("wheels --lock node --python three", "Python 'three' is no version from 3.11 on"),
        ("wheels --lock node --python 3.11 --machine sparc", "the machine 'sparc' is none of x86_64, aarch64"),
        ("apt --release trixy chrony", "the release 'trixy' is none of bookworm, trixie"),
        ("apt --release trixie Chrony", "'Chrony' is no package name"),
        ("apt --release trixie --arch x86_64 chrony", "the architecture 'x86_64' is none of amd64, arm64"),
        ("apt --release trixie --status /nonexistent chrony", "the status file /nonexistent cannot be read"),
        ("apt --release trixie --status /dev/null chrony", "/dev/null is no dpkg status file"),
    ],
)
def test_wrong_words_are_named_with_what_was_wanted(
    cache: Path, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert supplies.main(arguments.split()) == 2
    answer = capsys.readouterr()
    assert answer.out == ""
    assert said in answer.err
    assert "\n  fix: " in answer.err
    assert not cache.exists()


def test_the_answer_is_a_folder_and_the_digest_of_its_contents(
    cache: Path, locks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (locks / "portal.txt").write_text(tiny_wheel(tmp_path / "index", "pure"))
    out = tmp_path / "out"
    words = ["wheels", "--lock", "portal", "--python", "3.13", "--machine", "x86_64", "--json", "--out", str(out)]
    assert supplies.main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"folder": str(out), "digest": hoard.tree_digest(out)}

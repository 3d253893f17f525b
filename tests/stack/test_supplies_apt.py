"""Flat package repositories: where packages come from, and what the index says, with apt itself as the judge."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stack import apt, hoard, repository, supplies
from stack.apt import Source
from stack.errors import StackError

needs_apt = pytest.mark.skipif(bool(apt.missing_tools()), reason=f"not on PATH: {', '.join(apt.missing_tools())}")

DEB822 = """\
# As Debian's own images have it.
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
  http://other.test/debian-security
Suites: bookworm-security
# a remark between
Components: main

Types: deb-src
URIs: http://sources.test/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main
"""


def test_a_sources_file_gives_its_enabled_binary_entries() -> None:
    assert apt.parse_deb822(DEB822) == [
        Source(
            ("http://mirror.test/debian",), ("bookworm", "bookworm-updates"), ("main", "contrib"),
            "/usr/share/keyrings/debian-archive-keyring.gpg",
        ),
        Source(
            ("http://mirror.test/debian-security", "http://other.test/debian-security"), ("bookworm-security",),
            ("main",),
        ),
    ]  # fmt: skip


def test_a_key_within_a_sources_file_is_kept_as_it_is() -> None:
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBGQ=\n -----END PGP PUBLIC KEY BLOCK-----"
    source = Source(("http://m.test/d",), ("trixie",), ("main",), key.strip("\n").strip())
    text = f"Types: deb\nURIs: http://m.test/d\nSuites: trixie\nComponents: main\nSigned-By:{key}\n"
    assert apt.parse_deb822(text)[0].signed_by.splitlines() == source.signed_by.splitlines()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("deb http://m.test/debian bookworm main", [Source(("http://m.test/debian",), ("bookworm",), ("main",))]),
        (
            "  deb [ arch=amd64 signed-by=/a.gpg,/b.gpg ] http://m.test/d bookworm main contrib # why",
            [Source(("http://m.test/d",), ("bookworm",), ("main", "contrib"), "/a.gpg /b.gpg")],
        ),
        ("deb [trusted=yes] file:/srv/own ./", [Source(("file:/srv/own",), ("./",), (), "", True)]),
        ("deb-src http://m.test/debian bookworm main", []),
        ("# deb http://m.test/debian bookworm main", []),
        ("", []),
    ],
)
def test_a_line_of_a_list_file(line: str, found: list[Source]) -> None:
    assert apt.parse_one_line(line) == found


words = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
some = st.lists(words, min_size=1, max_size=3).map(tuple)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.builds(Source, some, some, some, st.just("") | words, st.booleans()), max_size=4))
def test_what_is_written_is_read_again(sources: list[Source]) -> None:
    assert apt.parse_deb822("\n".join(source.deb822() for source in sources)) == sources


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=200))
def test_no_text_breaks_the_readers(text: str) -> None:
    for source in apt.parse_deb822(text) + apt.parse_one_line(text):
        assert source.uris
        assert source.suites


def test_only_the_distributions_own_entries_are_taken_over_for_another_release() -> None:
    sources = apt.parse_deb822(DEB822) + apt.parse_one_line(
        "deb http://vendor.test/apt nodistro main\n"
        "deb http://cloud.test/apt cloud-sdk-bookworm main\n"
        "deb http://mirror.test/debian bookworm-backports main\n"
        "deb http://mirror.test/debian stable main\n"
        "deb [trusted=yes] file:/srv/own ./\n"
    )
    assert [(source.uris[0], source.suites) for source in apt.resuited(sources, "bookworm", "trixie")] == [
        ("http://mirror.test/debian", ("trixie", "trixie-updates")),
        ("http://mirror.test/debian-security", ("trixie-security",)),
        ("http://mirror.test/debian", ("trixie",)),
    ]


def test_both_kinds_of_files_are_read_and_others_are_not(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.test/d bookworm main\n")
    (parts / "b.list").write_text("deb http://three.test/d bookworm main\n")
    (parts / "a.sources").write_text("Types: deb\nURIs: http://two.test/d\nSuites: bookworm\nComponents: main\n")
    (parts / "c.list.save").write_text("deb http://never.test/d bookworm main\n")
    assert [source.uris[0] for source in apt.system_sources(tmp_path)] == [
        "http://one.test/d", "http://two.test/d", "http://three.test/d",
    ]  # fmt: skip


def test_another_distributions_release_wants_a_mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apt, "os_release", lambda: {"ID": "debian", "PRETTY_NAME": "Debian 12"})
    with pytest.raises(StackError, match="noble is Ubuntu, and this machine is Debian 12") as caught:
        apt.sources_for("noble")
    assert caught.value.fix == "--mirror URI --keyring FILE"
    keyring = tmp_path / "ring.gpg"
    keyring.touch()
    assert apt.sources_for("noble", "http://m.test/ubuntu", keyring) == [
        Source(
            ("http://m.test/ubuntu",), ("noble", "noble-updates", "noble-security"), ("main", "universe"), str(keyring)
        )
    ]
    with pytest.raises(StackError, match="there is no keyring"):
        apt.sources_for("noble", "http://m.test/ubuntu", tmp_path / "none.gpg")


def test_of_a_status_file_what_is_installed_counts() -> None:
    status = """\
Package: one
Status: install ok installed
Architecture: amd64
Version: 1.0-1
Description: a thing
 Package: not this

Package: half
Status: install ok half-configured
Architecture: amd64
Version: 1

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 2

Package: held
Status: hold ok installed
Architecture: all
Version: 1:3
"""
    assert repository.installed(status) == ["held:all=1:3", "one:amd64=1.0-1"]


# Real packages, made here, fetched by apt from a folder


def build_deb(folder: Path, name: str, version: str = "1", **fields: str) -> None:
    tree = folder.parent / f"tree-{name}-{version}".replace(":", "-")
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN").chmod(0o755)
    more = "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in fields.items())
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@example.test>\n{more}"
        "Description: ein kleines Päckchen\n two lines,\n .\n and a paragraph\n"
    )
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, file], check=True, capture_output=True)


def flat(folder: Path) -> Source:
    return Source((f"file:{folder}/",), ("./",), (), "", True)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A repository with `top`, which needs `middle`, which needs `base`; recommends `extra`."""
    folder = tmp_path / "archive"
    build_deb(folder, "top", "1:2.0", Depends="middle (>= 1)", Recommends="extra")
    build_deb(folder, "middle", Depends="base")
    build_deb(folder, "base")
    build_deb(folder, "extra")
    (folder / "Packages").write_text(repository.index(folder), encoding="utf-8")
    return folder


def fill(tmp_path: Path, archive: Path, *names: str, status: str | None = None, out: str = "out") -> Path:
    given = None
    if status is not None:
        given = tmp_path / "status"
        given.write_text(status)
    folder = tmp_path / out
    folder.mkdir()
    repository.fill(
        folder, names, release="trixie", arch="amd64", status=given, sources=[flat(archive)], say=lambda text: None
    )
    return folder


@needs_apt
def test_the_repository_holds_the_closure_and_apt_installs_from_it_alone(tmp_path: Path, archive: Path) -> None:
    folder = fill(tmp_path, archive, "top")
    assert sorted(file.name for file in folder.iterdir()) == [
        "Packages", "base_1_all.deb", "middle_1_all.deb", "top_2.0_all.deb",
    ]  # fmt: skip
    shutil.rmtree(archive)
    again = fill(tmp_path, folder, "top", out="again")
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


@needs_apt
def test_what_the_machine_has_stays_out(tmp_path: Path, archive: Path) -> None:
    status = (
        "Package: base\nStatus: install ok installed\nArchitecture: all\nVersion: 1\nMaintainer: T\nDescription: x\n"
    )
    folder = fill(tmp_path, archive, "top", "base", status=status)
    assert sorted(file.name for file in folder.glob("*.deb")) == ["middle_1_all.deb", "top_2.0_all.deb"]


@needs_apt
def test_apt_refuses_a_package_that_was_changed_after_the_index(tmp_path: Path, archive: Path) -> None:
    file = archive / "base_1_all.deb"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StackError, match=r"packages of trixie \(amd64\) could not be fetched: .*base"):
        fill(tmp_path, archive, "base")


@needs_apt
def test_a_package_that_there_is_not_is_named(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(StackError, match="Unable to locate package nonesuch") as caught:
        fill(tmp_path, archive, "nonesuch")
    assert caught.value.fix.startswith("correct the name")


@needs_apt
def test_lists_that_cannot_be_fetched_are_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="the package lists of trixie could not be fetched"):
        fill(tmp_path, tmp_path / "nowhere", "top")


@needs_apt
def test_no_file_is_a_package_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "x_1_all.deb").write_text("no")
    with pytest.raises(StackError, match=r"x_1_all.deb is no Debian package"):
        repository.index(tmp_path)


@needs_apt
def test_a_repository_is_cached_by_what_it_is_for_and_copied_out_in_place(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(apt, "sources_for", lambda release, mirror, keyring: [flat(archive)])
    first = supplies.apt_repository("trixie", "amd64", ["top"])
    more = supplies.apt_repository("trixie", "amd64", ["extra", "top"])
    assert first.digest != more.digest
    shutil.rmtree(archive)  # a filled cache needs no archive
    assert supplies.apt_repository("trixie", "amd64", ["top", "top"]) == first
    out = tmp_path / "served"
    repository.export(more.folder, out)
    inode = out.stat().st_ino
    kept = (out / "base_1_all.deb").stat().st_mtime_ns
    repository.export(first.folder, out)
    assert out.stat().st_ino == inode
    assert (out / "base_1_all.deb").stat().st_mtime_ns == kept
    assert hoard.tree_digest(out) == first.digest
    (out / "notes").touch()
    with pytest.raises(StackError, match="holds other things than supplies: notes"):
        repository.export(first.folder, out)


@needs_apt
def test_apt_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests of this file run without root already")
    nobody = 65534
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        build_deb(folder / "archive", "base")
        (folder / "archive" / "Packages").write_text(repository.index(folder / "archive"), encoding="utf-8")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, nobody, nobody)

        def as_nobody() -> None:
            os.setgroups([])
            os.setgid(nobody)
            os.setuid(nobody)
            monkeypatch.setenv("HOME", name)
            fill(folder, folder / "archive", "base")

        child = multiprocessing.get_context("fork").Process(target=as_nobody)
        child.start()
        child.join(60)
        assert child.exitcode == 0
        deb = folder / "out" / "base_1_all.deb"
        assert deb.read_bytes() == (folder / "archive" / "base_1_all.deb").read_bytes()
        assert deb.stat().st_uid == nobody

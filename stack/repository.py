"""A flat apt repository of the packages that a machine lacks: a folder of .deb files and one Packages file.

The Packages file is written here and not by dpkg-scanpackages (dpkg-dev) or apt-ftparchive (apt-utils), which a
controller seldom has: its paragraph of a package is the package's own control file and four lines more.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from stack.apt import Apt, Source, missing_tools, paragraphs
from stack.errors import StackError

INDEX = "Packages"
_EXPORTED = re.compile(r"Packages|requirements\.txt|.+\.(deb|whl|new)")
_LIMIT_S = 1200.0


def installed(status: str) -> list[str]:
    """NAME:ARCH=VERSION of what a dpkg status file calls installed, sorted."""
    return sorted(
        f"{fields['Package']}:{fields.get('Architecture', '')}={fields.get('Version', '')}"
        for fields in paragraphs(status)
        if "Package" in fields and fields.get("Status", "").endswith(" installed")
    )


def file_digest(file: Path, name: str = "sha256") -> str:
    """A file's digest in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, name).hexdigest()


def index(folder: Path) -> str:
    """The Packages file of all .deb files in a folder; the same for the same files.

    Raises:
        StackError: a file is no Debian package.
    """
    return "".join(_paragraph(file) for file in sorted(folder.glob("*.deb")))


def _paragraph(deb: Path) -> str:
    done = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise StackError(f"{deb} is no Debian package: {done.stderr.strip()}", f"rm {deb}")
    own = (
        f"Filename: ./{deb.name}\nSize: {deb.stat().st_size}\n"
        f"MD5sum: {file_digest(deb, 'md5')}\nSHA256: {file_digest(deb)}\n"
    )
    return f"{done.stdout.rstrip()}\n{own}\n"


def fill(
    folder: Path,
    names: Iterable[str],
    *,
    release: str,
    arch: str,
    status: Path | None,
    sources: list[Source],
    say: Callable[[str], None],
) -> None:
    """Put into an empty folder the closure of `names` that a machine with this dpkg status lacks, and its index.

    Raises:
        StackError: what could not be had, and why.
    """
    lacking = missing_tools()
    if lacking:
        raise StackError(
            f"a package repository is made with {' and '.join(lacking)}, which this machine lacks",
            "run it on a Debian or Ubuntu machine, or set wslab_apt_source to a repository made on one",
        )
    work = folder.with_name(folder.name + ".apt")
    work.mkdir()
    try:
        if status is None:
            status = work / "status"
            status.touch()
        apt = Apt(work, _LIMIT_S, [_copied(source) for source in sources], status, arch)
        say(f"fetching the package lists of {release}")
        updated = apt.run("update", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=2")
        if updated:  # of all lists or of none: what is cached without security updates would stay so
            raise StackError(
                f"the package lists of {release} could not be fetched: {updated}", "check the network; or --mirror URI"
            )
        wanted = sorted(set(names))
        say(f"fetching {len(wanted)} packages of {release}, and what they need")
        said = apt.run(
            "install", "--yes", "--download-only", "--no-install-recommends", "-o", "Debug::NoLocking=1", *wanted
        )  # fmt: skip
        if said:
            raise StackError(f"packages of {release} ({arch}) could not be fetched: {said}", _fix(said))
        for deb in sorted((work / "cache" / "archives").glob("*.deb")):
            target = folder / re.sub(r"_\d+%3a", "_", deb.name)  # no epoch, as dpkg names its files
            shutil.move(deb, target)
            target.chmod(0o644)
        (folder / INDEX).write_text(index(folder), encoding="utf-8")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copied(source: Source) -> Source:
    """With its folders on this machine as `copy:`: of `file:` apt leaves the packages where they are."""
    return source._replace(uris=tuple(re.sub("^file:", "copy:", uri) for uri in source.uris))


def _fix(said: str) -> str:
    if re.search(r"Unable to locate|no installation candidate|was not found", said):
        return "correct the name; `apt-cache search` and packages of the release tell which there are"
    if "unmet dependencies" in said or "broken packages" in said:
        return "the status file may be of another release than --release"
    return "check the network, or --mirror URI"


def export(folder: Path, out: Path) -> None:
    """Make `out` hold what `folder` holds, in place: it may be mounted or served while this happens.

    New files come first, an index is replaced before what it no longer names goes.

    Raises:
        StackError: `out` cannot be written, or holds other things.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in out.iterdir() if not _EXPORTED.fullmatch(path.name))
        if others:
            raise StackError(
                f"{out} holds other things than supplies: {', '.join(others[:3])}", "--out an empty folder"
            )
        have = sorted(folder.iterdir(), key=lambda file: (file.suffix not in (".deb", ".whl"), file.name))
        for file in have:
            if not _same(file, out / file.name):
                _replace(file, out / file.name)
        for name in {file.name for file in out.iterdir()} - {file.name for file in have}:
            (out / name).unlink()
    except OSError as error:
        raise StackError(f"{out} cannot be written: {error.strerror}", "--out a folder of yours") from None


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.stat().st_size == other.stat().st_size and file_digest(one) == file_digest(other)


def _replace(source: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    shutil.copyfile(source, beside)
    beside.chmod(0o644)
    beside.replace(target)

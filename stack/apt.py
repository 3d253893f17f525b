"""apt-get with lists and cache of its own: needs no root, touches nothing of the system's, serves other releases too.

Where packages come from is read out of the controller's own apt sources (mirrors, proxies and credentials as they are
there), with the release's name replaced.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stack.errors import StackError

DISTRIBUTIONS = {"bookworm": "debian", "trixie": "debian", "forky": "debian", "jammy": "ubuntu", "noble": "ubuntu"}
_KEYRINGS = {
    "debian": Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    "ubuntu": Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}
_COMPONENTS = {"debian": "main", "ubuntu": "main universe"}
_ALIASES = ("stable", "oldstable")  # suites that sources name a Debian release by
_POCKETS = ("", "-updates", "-security")
_SYSTEM_STATUS = Path("/var/lib/dpkg/status")


class Source(NamedTuple):
    """One entry of apt's sources: where binary packages come from.

    Attributes:
        components: none where the one suite is a path (a flat repository).
        signed_by: as apt has it: paths, a fingerprint or a key.
        trusted: whether no signature is asked for.
    """

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: bool = False

    def deb822(self) -> str:
        """The entry as a paragraph of a .sources file."""
        lines = ["Types: deb", f"URIs: {' '.join(self.uris)}", f"Suites: {' '.join(self.suites)}"]
        if self.components:
            lines.append(f"Components: {' '.join(self.components)}")
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        if self.trusted:
            lines.append("Trusted: yes")
        return "\n".join(lines) + "\n"


def _yes(word: str) -> bool:
    return word.lower() in ("yes", "true", "with", "on", "enable", "1")  # as apt's own StringToBool


def parse_deb822(text: str) -> list[Source]:
    """The entries of a .sources file that are enabled and bring binary packages (sources.list(5), deb822)."""
    found = []
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", text):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in " \t" and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or not _yes(fields.get("enabled", "yes")):
            continue
        uris, suites = fields.get("uris", "").split(), fields.get("suites", "").split()
        if uris and suites:
            components = fields.get("components", "").split()
            signed_by, trusted = fields.get("signed-by", "").strip(), _yes(fields.get("trusted", "no"))
            found.append(Source(tuple(uris), tuple(suites), tuple(components), signed_by, trusted))
    return found


def parse_one_line(text: str) -> list[Source]:
    """The entries of a .list file that bring binary packages (sources.list(5), one-line style)."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)([^#]*)", line)
        if match:
            options = dict(part.partition("=")[::2] for part in (match[1] or "").split())
            signed_by, trusted = options.get("signed-by", "").replace(",", " "), _yes(options.get("trusted", "no"))
            found.append(Source((match[2],), (match[3],), tuple(match[4].split()), signed_by, trusted))
    return found


def system_sources(root: Path = Path("/etc/apt")) -> list[Source]:
    """The controller's own sources, in apt's order."""
    found = []
    parts = sorted((root / "sources.list.d").glob("*")) if (root / "sources.list.d").is_dir() else []
    for file in [root / "sources.list", *parts]:
        parse = {".list": parse_one_line, ".sources": parse_deb822}.get(file.suffix)
        if parse and file.is_file():
            found += parse(file.read_text(encoding="utf-8", errors="replace"))
    return found


def resuited(sources: list[Source], own: str, release: str) -> list[Source]:
    """The distribution's own entries of `sources` (of release `own`), for another release. What is a third party's,
    or of a pocket that is not `release`, `-updates` or `-security`, stays out."""
    found = []
    for source in sources:
        suites = []
        for suite in source.suites:
            base, dash, pocket = suite.partition("-")
            if base in (own, *_ALIASES) and dash + pocket in _POCKETS:
                suites.append(release + dash + pocket)
        if suites and source.components:
            found.append(source._replace(suites=tuple(suites)))
    return found


def os_release(file: Path = Path("/etc/os-release")) -> dict[str, str]:
    """The controller's os-release(5); empty where it has none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name: value.strip("\"'") for name, sign, value in (line.partition("=") for line in lines) if sign}


def sources_for(release: str, mirror: str | None = None, keyring: Path | None = None) -> list[Source]:
    """Where packages of a release come from, seen from this machine.

    Raises:
        StackError: the release is unknown, or is another distribution's and no mirror is given.
    """
    distribution = DISTRIBUTIONS.get(release)
    if distribution is None:
        raise StackError(f"the release {release!r} is none of {', '.join(DISTRIBUTIONS)}", "--release NAME of these")
    known = keyring or _KEYRINGS[distribution]
    signed_by = str(known) if known.is_file() else ""
    if keyring and not signed_by:
        raise StackError(f"there is no keyring {keyring}", "--keyring FILE, as Signed-By in apt's sources")
    if mirror:
        suites = (release, f"{release}-updates", *((f"{release}-security",) if distribution == "ubuntu" else ()))
        return [Source((mirror,), suites, tuple(_COMPONENTS[distribution].split()), signed_by)]
    here = os_release()
    if here.get("ID") != distribution:
        raise StackError(
            f"{release} is {distribution.capitalize()}, and this machine is {here.get('PRETTY_NAME', 'neither')}: "
            "its apt sources name no mirror of that",
            "--mirror URI --keyring FILE",
        )
    found = resuited(system_sources(), here.get("VERSION_CODENAME", ""), release)
    if not found:
        raise StackError(
            f"this machine's apt sources hold no entry of {distribution.capitalize()}'s own archive",
            "--mirror URI, or mend /etc/apt/sources.list.d",
        )
    if release == here.get("VERSION_CODENAME"):
        return found
    # An entry may be signed by one release's key alone; the distribution's keyring has those of all.
    return [source._replace(signed_by=signed_by or source.signed_by) for source in found]


class Apt:
    """A private apt-get in the folder `work`, which must be new.

    Args:
        sources: instead of the system's own sources.
        status: dpkg's status file of the machine that the packages are for.
        arch: as dpkg names it; None is this machine's.
        limit_s: what all calls together may take.
    """

    def __init__(
        self,
        work: Path,
        limit_s: float,
        sources: list[Source] | None = None,
        status: Path = _SYSTEM_STATUS,
        arch: str | None = None,
    ) -> None:
        self.work = work
        self.deadline = time.monotonic() + limit_s
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        options = {
            "Dir::State": work / "state",
            "Dir::State::status": status,
            "Dir::Cache": work / "cache",
            "APT::Sandbox::User": "root",  # the private folders are closed to apt's own user
            "Acquire::Languages": "none",
            "Acquire::Retries": "0",
            "Acquire::http::Timeout": "8",
            "Acquire::https::Timeout": "8",
        }
        if sources is not None:
            (work / "wslab.sources").write_text("\n".join(source.deb822() for source in sources), encoding="utf-8")
            options |= {
                "Dir::Etc::sourcelist": work / "wslab.sources",
                "Dir::Etc::sourceparts": "/dev/null",
                "Dir::Etc::preferences": "/dev/null",  # pins are about this machine
                "Dir::Etc::preferencesparts": "/dev/null",
            }
        if arch is not None:
            options |= {"APT::Architecture": arch, "APT::Architectures": arch}
        self.options = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]

    def run(self, *arguments: str) -> str | None:
        """None, or why it failed. A failed update of one source is no reason to give up on the others."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return "apt-get took too long"
        try:
            done = subprocess.run(
                ["apt-get", "-q", *self.options, *arguments],
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=left,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            return "apt-get took too long"
        if done.returncode == 0:
            return None
        errors = [line[2:].strip() for line in done.stderr.splitlines() if line.startswith("E:")]
        return errors[0] if errors else f"apt-get {arguments[0]} failed with {done.returncode}"


def missing_tools() -> list[str]:
    """Which of the programs that all this needs are not on PATH."""
    return [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a dpkg status file, single-line fields only, their names as written."""
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if line[:1].isalpha() and ": " in line)
        if fields:
            yield fields

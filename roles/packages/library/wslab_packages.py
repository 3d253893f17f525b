#!/usr/bin/python
"""Installs Debian packages from one source, starts nothing, and records what is new, so that teardown purges just that.

A module, and not ansible.builtin.apt: that one needs python3-apt on the host, which a bare host lacks (in check mode it
then fails, else it installs it), and it cannot tell what came along as a dependency.
"""

import contextlib
import os
import pwd
import re
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: wslab_packages
short_description: Install Debian packages from one source and record what is new
description:
  - Packages that are there, in the wanted version if one is given, are left alone and cost one look at dpkg's database.
  - Nothing is started by the installation.
  - Works without python3-apt and in check mode on a bare host.
options:
  names:
    description: Packages, each as NAME or NAME=VERSION.
    type: list
    elements: str
    default: []
  source:
    description: URI of a flat repository that is then the only source; empty for the host's own sources.
    type: str
    default: ""
  record:
    description: File that lists what was newly installed or taken away.
    type: path
    default: /var/lib/wslab/packages
  state:
    description: With C(absent), everything in the record is purged, and the source is taken away; O(names) is not read.
    type: str
    choices: [present, absent]
    default: present
author:
  - wslab
"""

EXAMPLES = r"""
- name: Install chrony from a folder on the host
  wslab_packages:
    names: [chrony]
    source: file:/srv/wslab/apt
"""

RETURN = r"""
installed:
  description: What was newly installed, dependencies included; in check mode, what of O(names) is missing.
  returned: always
  type: list
  elements: str
purged:
  description: What was purged.
  returned: always
  type: list
  elements: str
"""

SOURCE_FILE = Path("/etc/apt/sources.list.d/wslab.sources")
ONLY_OURS = ["-o", f"Dir::Etc::sourcelist={SOURCE_FILE}", "-o", "Dir::Etc::sourceparts=-",
             "-o", "APT::Get::List-Cleanup=0"]  # fmt: skip
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_ASIDE = POLICY.with_name("policy-rc.d.before-wslab")
POLICY_MARK = "# wslab: nothing is started while packages are installed"
LISTS = Path("/var/lib/apt/lists")
LISTS_AGE_S = 3600.0
LOCK_WAIT_S = 120
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "UCF_FORCE_CONFFOLD": "1",
    "NEEDRESTART_SUSPEND": "1",
    **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
}

NEW, LEFTOVER, GONE, USER = "new", "leftover", "gone", "user"
INTERRUPTED = ("half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")


def source_text(uri: str) -> str:
    """The source file for a flat repository; empty for none."""
    if not uri:
        return ""
    return f"# Managed by wslab, role packages.\nTypes: deb\nURIs: {uri.rstrip('/')}/\nSuites: ./\nTrusted: yes\n"


def read(path: Path) -> str:
    """What a file holds; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file at once; no text: take it away."""
    if not text:
        path.unlink(missing_ok=True)
        return
    beside = path.with_name(path.name + ".wslab-new")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(mode)
    beside.replace(path)


class Package:
    """What dpkg knows of one package."""

    def __init__(self, line: str) -> None:
        self.name, self.arch, self.status, self.version = line.split("\t")
        self.installed = self.status == "installed"
        self.full = f"{self.name}:{self.arch}"


class Host:
    """dpkg and apt-get of this host.

    Raises (all methods): subprocess.CalledProcessError, with what the program said in `output`.
    """

    def __init__(self, source: str) -> None:
        # The only source: the host's own ones may be out of reach, and then each update would wait for them.
        self.options = ONLY_OURS if source else []

    def run(self, *command: str, say: str = "") -> str:
        """What it said, both streams."""
        done = subprocess.run(
            command, env=ENVIRONMENT, input=say, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False,
        )  # fmt: skip
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout)
        return done.stdout

    def packages(self) -> list[Package]:
        """All that dpkg has a record of."""
        said = self.run(
            "dpkg-query", "-W", "-f", r"${Package}\t${Architecture}\t${db:Status-Status}\t${Version}\n"
        )  # fmt: skip
        return [Package(line) for line in said.splitlines()]

    def apt(self, *arguments: str) -> str:
        """apt-get, restricted to the source."""
        general = ["-o", f"DPkg::Lock::Timeout={LOCK_WAIT_S}", "-o", "Acquire::Retries=2",
                   "-o", "APT::Keep-Downloaded-Packages=false"]  # fmt: skip
        return self.run("apt-get", "-q", "-y", *general, *self.options, *arguments)

    def forget_lists(self) -> None:
        """Take away the index files that the source brought."""
        if SOURCE_FILE.exists():
            said = self.run("apt-get", *ONLY_OURS, "indextargets", "--format", "$(FILENAME)")
            for line in said.splitlines():
                if line.startswith(f"{LISTS}/"):
                    Path(line).unlink(missing_ok=True)

    def purge(self, options: str, names: list[str]) -> str:
        """By dpkg, which refuses to take what something else has come to need; apt-get would take that too."""
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                return self.run("dpkg", options, *names)
            except subprocess.CalledProcessError as error:
                if "lock was locked by another process" in error.output and time.monotonic() < deadline:
                    time.sleep(2)
                    continue
                if "dependency problems prevent" in error.output:
                    return error.output
                raise


@contextlib.contextmanager
def nothing_starts():
    """A policy that forbids maintainer scripts to start anything; an existing one is put back.

    One that a killed run left behind is ours to take away, else no service would ever start by itself again.
    """
    if POLICY_MARK not in read(POLICY) and POLICY.exists():
        POLICY.replace(POLICY_ASIDE)
    write(POLICY, f"#!/bin/sh\n{POLICY_MARK}\nexit 101\n", 0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
        if POLICY_ASIDE.exists():
            POLICY_ASIDE.replace(POLICY)


def missing(names: list[str], packages: list[Package]) -> list[str]:
    """Those of the wanted names that are not installed, or not in the wanted version."""
    versions: dict[str, set[str]] = {}
    for package in packages:
        if package.installed:
            for key in (package.name, package.full):
                versions.setdefault(key, set()).add(package.version)
    wanted = (name.partition("=") for name in dict.fromkeys(names))
    return [
        name + equals + version
        for name, equals, version in wanted
        if name not in versions or (version and version not in versions[name])
    ]


def read_record(path: Path) -> dict[str, str]:
    """NAME:ARCH of a package -> what became of it; NAME of a user -> user."""
    return dict(line.split() for line in read(path).splitlines() if line and not line.startswith("#"))


def write_record(path: Path, entries: dict[str, str]) -> None:
    """Readable by root only, as all records of wslab."""
    if entries:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    head = "# wslab: packages that are new, were a leftover, or had to go (gone), and users that are new.\n"
    write(path, head + "".join(f"{name} {fate}\n" for name, fate in sorted(entries.items())) if entries else "", 0o600)


def changes(before: list[Package], after: list[Package]) -> dict[str, str]:
    """What an installation did: NAME:ARCH -> new, leftover or gone."""
    old = {package.full: package for package in before}
    now = {package.full for package in after if package.installed}
    fates = {}
    for name in now:
        if name not in old or not old[name].installed:
            fates[name] = LEFTOVER if name in old and old[name].status == "config-files" else NEW
    fates.update({name: GONE for name, package in old.items() if package.installed and name not in now})
    return fates


def merged(record: dict[str, str], fates: dict[str, str]) -> dict[str, str]:
    """The record after a further installation; what went and came again is as it was."""
    result = dict(record)
    for name, fate in fates.items():
        known = record.get(name)
        if known and (fate == GONE) != (known == GONE):
            del result[name]
        elif not known:
            result[name] = fate
    return result


def users() -> set[str]:
    """The machine's own users, not a directory service's."""
    return {line.partition(":")[0] for line in read(Path("/etc/passwd")).splitlines()}


def remove_users(host: Host, names: list[str]) -> list[str]:
    """Remove users that packages made (Debian's seldom take theirs along); returns those that had to stay."""
    kept = []
    for name in names:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            try:
                host.run("userdel", name)
            except subprocess.CalledProcessError:  # a process of it runs still
                kept.append(name)
    return kept


def lists_are_old() -> bool:
    """Whether the host's package lists were brought up to date longer ago than an hour, or never."""
    stamps = [Path("/var/lib/apt/periodic/update-success-stamp"), LISTS]
    newest = max((path.stat().st_mtime for path in stamps if path.exists()), default=0.0)
    return not any(LISTS.glob("*_Packages*")) or time.time() - newest > LISTS_AGE_S


def update(host: Host, source: str) -> None:
    """Bring the lists up to date. One of a host's own sources may be out of reach, then the others may do."""
    try:
        host.apt("update", "-o", "APT::Update::Error-Mode=any")
    except subprocess.CalledProcessError:
        if source or not any(LISTS.glob("*_Packages*")):
            raise
    if not source:
        os.utime(LISTS)


def present(module: AnsibleModule) -> None:
    """Install what is missing."""
    source, record = module.params["source"], Path(module.params["record"])
    host = Host(source)
    before = host.packages()
    lacking = missing(module.params["names"], before)
    old_source, new_source = read(SOURCE_FILE), source_text(source)
    changed = bool(lacking) or old_source != new_source
    diff = [{"before": "", "after": "".join(f"{name}\n" for name in lacking),
             "before_header": "packages", "after_header": "packages to install"}] if lacking else []  # fmt: skip
    if old_source != new_source:
        diff.append({"before": old_source, "after": new_source,
                     "before_header": str(SOURCE_FILE), "after_header": str(SOURCE_FILE)})  # fmt: skip
    if module.check_mode or not changed:
        module.exit_json(changed=changed, installed=lacking, purged=[], diff=diff)
    if old_source != new_source:
        host.forget_lists()
        write(SOURCE_FILE, new_source, 0o644)
    if not lacking:
        module.exit_json(changed=True, installed=[], purged=[], diff=diff)
    if source or lists_are_old():
        update(host, source)
    old_users = users()
    try:
        with nothing_starts():
            if any(package.status in INTERRUPTED for package in before):
                host.run("dpkg", "--configure", "-a")
            host.apt(
                "install", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef",
                "-o", "Dpkg::Options::=--force-confold", *lacking,
            )  # fmt: skip
    finally:  # also where it failed half-way: teardown must know
        after = host.packages()
        fates = changes(before, after) | dict.fromkeys(users() - old_users, USER)
        write_record(record, merged(read_record(record), fates))
    still = missing(lacking, after)
    if still:
        module.fail_json(msg=f"apt-get said that all is well, but missing is: {', '.join(still)}")
    module.exit_json(
        changed=True,
        installed=sorted(name for name, fate in fates.items() if fate in (NEW, LEFTOVER)),
        purged=[],
        diff=diff,
    )


def absent(module: AnsibleModule) -> None:
    """Purge what is recorded and nothing else; bring back what had to go for it, where a source has it."""
    record = Path(module.params["record"])
    entries = read_record(record)
    host = Host("")
    packages = {package.full: package for package in host.packages()}
    here = sorted(
        name for name, fate in entries.items()
        if fate in (NEW, LEFTOVER) and name in packages and (packages[name].installed or fate == NEW)
    )  # fmt: skip
    gone = sorted(
        name for name, fate in entries.items()
        if fate == GONE and not (name in packages and packages[name].installed)
    )  # fmt: skip
    old_source = read(SOURCE_FILE)
    diff = {"before": old_source + read(record), "after": "",
            "before_header": f"{SOURCE_FILE}, {record}", "after_header": "nothing"}  # fmt: skip
    changed = bool(here or gone or entries or old_source)
    if module.check_mode or not changed:
        module.exit_json(changed=changed, installed=[], purged=here, diff=diff)
    said = ""
    for options, fate in (("--purge", NEW), ("--remove", LEFTOVER)):
        names = [name for name in here if entries[name] == fate]
        said += host.purge(options, names) if names else ""
    for needed in sorted(set(re.findall(r"^dpkg: dependency problems prevent removal of (\S+):", said, re.MULTILINE))):
        host.run("dpkg", "--set-selections", say=f"{needed} install\n")  # else it stays marked as to be purged
        module.warn(f"{needed} stays: something that was installed since needs it")
    for name in remove_users(host, sorted(name for name, fate in entries.items() if fate == USER)):
        module.warn(f"the user {name} stays: processes of it run still; fix: userdel {name}")
    if gone:
        try:
            if lists_are_old():
                update(host, "")
            host.apt("install", "--no-install-recommends", *gone)
        except subprocess.CalledProcessError:
            module.warn(f"no source has what had to go at installation: {', '.join(gone)}; fix: apt-get install it")
    host.forget_lists()
    write(SOURCE_FILE, "", 0o644)
    write_record(record, {})
    with contextlib.suppress(OSError):  # other roles' records may lie there
        record.parent.rmdir()
    module.exit_json(changed=True, installed=[], purged=here, diff=diff)


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "str", "default": ""},
            "record": {"type": "path", "default": "/var/lib/wslab/packages"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        (present if module.params["state"] == "present" else absent)(module)
    except subprocess.CalledProcessError as error:
        said = [line for line in error.output.splitlines() if line.startswith(("E:", "dpkg: error"))]
        source = module.params["source"] or "the host's own apt sources"
        module.fail_json(
            msg=f"{error.cmd[0]} failed ({source}): {' / '.join(said[:3]) or error.output[-500:].strip()}"
            "; fix: the name, or where packages come from: packages_source, in group_vars wslab_apt_source",
            cmd=" ".join(error.cmd), output=error.output[-4000:],
        )  # fmt: skip


if __name__ == "__main__":
    main()

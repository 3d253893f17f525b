#!/usr/bin/python
"""Makes a release of the portal the one that runs: database backed up and migrated, scenarios and administrator there,
then settings and one symlink switched. What fails leaves the release before it running, with the settings and on the
database that it knows.

The portal's own commands do the work, as its user and with its settings, in a transient unit of systemd (systemd reads
the settings just as it does for the services). No secret is in an argument or in what is returned.
"""

import grp
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: portal_activate
short_description: Migrate the portal's database and switch to a release
options:
  root:
    description: Folder of releases and environments.
    type: path
    required: true
  release:
    description: Name of a release that is there; in check mode it may be missing.
    type: str
    required: true
  state_folder:
    description: Of the portal's user.
    type: path
    required: true
  units:
    description: Stopped while the database is migrated.
    type: list
    elements: str
    required: true
  settings:
    description: Text of the settings file.
    type: str
    required: true
  settings_file:
    description: Where it is.
    type: path
    required: true
  settings_group:
    description: Who but root may read it.
    type: str
    required: true
  broker_group:
    description: Group that the broker's socket is for; empty where it has none.
    type: str
    default: ""
  username:
    description: Of the first administrator.
    type: str
    default: admin
  password:
    description: Of the first administrator, also of one that is there; empty to have one made.
    type: str
    default: ""
  password_file:
    description: Where a password that was made is kept, for root only.
    type: path
    required: true
  backups:
    description: How many copies of a SQLite database to keep.
    type: int
    default: 3
  hidden:
    description: Texts that nothing returned may hold.
    type: list
    elements: str
    default: []
author:
  - wslab
"""

EXAMPLES = r"""
- name: Activate
  portal_activate:
    root: /opt/wslab/portal
    release: 0123456789ab
    state_folder: /var/lib/wslab-portal
    units: [wslab-portal.service]
    settings: "WSLAB_STATE=/var/lib/wslab-portal\n"
    settings_file: /etc/wslab/portal.env
    settings_group: wslab-portal
    password_file: /etc/wslab/admin_password
"""

RETURN = r"""
done:
  description: What was done, or in check mode would be.
  returned: always
  type: list
  elements: str
password_made:
  description: Whether a password was made, and written to O(password_file).
  returned: success
  type: bool
"""

COPY = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as source, sqlite3.connect(sys.argv[2]) as target:
    source.backup(target)
"""


class Failed(Exception):
    """A step that did not work: which, and its last words."""


class Portal:
    """A release, and the portal's commands in it."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.root = Path(asked["root"])
        self.folder = self.root / "releases" / asked["release"]
        self.current = self.root / "current"
        self.settings = Path(asked["settings_file"])
        self.in_use = self.settings

    @property
    def has_settings(self) -> bool:
        """Whether the settings are in place, for the right readers."""
        try:
            found, text = self.settings.stat(), self.settings.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        gid = group_id(self.asked["settings_group"])
        have = (text, found.st_uid, found.st_gid, found.st_mode & 0o7777)
        return have == (self.asked["settings"], os.getuid(), gid, 0o640)

    @contextmanager
    def new_settings(self) -> Iterator[None]:
        """Meanwhile the commands have the new settings; they take the place of the old ones only if all goes well."""
        self.in_use = self.settings.with_name(f".{self.settings.name}.new")
        gid = group_id(self.asked["settings_group"])
        if gid is None:
            raise Failed(f"this host has no group {self.asked['settings_group']}, which the portal's user brings")
        write(self.in_use, self.asked["settings"], 0o640, gid)
        try:
            yield
            self.in_use.replace(self.settings)
        finally:
            self.in_use.unlink(missing_ok=True)
            self.in_use = self.settings

    def command(self, *arguments: str, say: str = "") -> str:
        """Run something of the release as the portal; its standard output.

        Raises:
            Failed: it failed, with the last lines of what it said.
        """
        done = subprocess.run(
            [self.root / "manage", *arguments], input=f"{say}\n", capture_output=True, text=True, errors="replace",
            env={**os.environ, "WSLAB_RELEASE": str(self.folder), "WSLAB_SETTINGS": str(self.in_use)}, check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()
            last = [line for line in said if line and not line.startswith((" ", "Traceback"))][-3:] or said[-1:]
            raise Failed(f"`manage {' '.join(arguments[:2])}` failed: {' / '.join(last)}")
        return done.stdout

    def wanted(self, password: str) -> tuple[list[str], dict[str, Any]]:
        """What is to be done before the release can run, and which database it is.

        Raises:
            Failed: see `command`.
        """
        said = self.command("bootstrap", "--check", "--skip-checks", *self._options(), say=password)
        try:
            answer = json.loads(said.splitlines()[-1])
            return answer["wanted"], answer["database"]
        except (IndexError, ValueError, KeyError):
            raise Failed(f"`manage bootstrap --check` answers {said[-300:]!r}, wanted JSON") from None

    def bootstrap(self, password: str) -> None:
        """Do it."""
        self.command("bootstrap", "--json", "--skip-checks", *self._options(), say=password)

    def _options(self) -> list[str]:
        token = str(Path(self.asked["state_folder"]) / "token")
        options = ["--username", self.asked["username"], "--password-stdin", "--token-file", token]
        return [*options, "--set-password"] if self.asked["password"] else options

    def copy(self, source: Path, target: Path) -> None:
        """A consistent copy of a SQLite database, over the target's content, as the portal's user."""
        self.command("--python", "-I", "-c", COPY, str(source), str(target))

    @property
    def is_current(self) -> bool:
        """Whether it is the one that runs."""
        return self.current.is_symlink() and self.current.resolve() == self.folder.resolve()

    def switch(self) -> None:
        """Make it so, at once."""
        link = self.root / ".current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(self.folder.relative_to(self.root))
        link.replace(self.current)

    def drop_others(self, before: str) -> None:
        """Take away releases and environments but for this one and the one to go back to."""
        kept = {self.folder.name, before}
        environments = {(self.root / "releases" / name / "venv").resolve().name for name in kept}
        for path in (self.root / "releases").iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        for path in (self.root / "venvs").iterdir():
            if path.name not in environments:
                shutil.rmtree(path, ignore_errors=True)


def group_id(name: str) -> int | None:
    """None where there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def write(file: Path, text: str, mode: int, gid: int) -> None:
    """A new file of root's, never open to more than it is to be in the end."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        os.fchown(stream.fileno(), os.getuid(), gid)
        os.fchmod(stream.fileno(), mode)
        stream.write(text)


def systemctl(*arguments: str) -> int:
    """Exit code."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, check=False).returncode


@contextmanager
def stopped(units: list[str]) -> Iterator[None]:
    """Meanwhile the units don't run; those that did run again after a failure (else the play starts them)."""
    active = [unit for unit in units if systemctl("--quiet", "is-active", unit) == 0]
    systemctl("stop", *units)
    try:
        yield
    except BaseException:
        if active:
            systemctl("start", *active)
        raise


def migrate(portal: Portal, migrations: list[str], database: dict[str, Any]) -> str:
    """With the services stopped: copy a SQLite database, migrate, and bring the copy back where that fails.

    Returns:
        Where the copy is; empty where there is none.

    Raises:
        Failed: the migration, or the copy.
    """
    file = Path(database["file"] or "")
    with stopped(portal.asked["units"]):
        copy: Path | None = None
        if database["vendor"] == "sqlite" and portal.current.exists() and file.exists() and file.stat().st_size:
            copy = backup_file(portal)
            portal.copy(file, copy)
        try:
            portal.command("migrate", "--no-input", "--skip-checks")
        except Failed as error:
            if copy is None:
                raise Failed(f"{error}; wanted {', '.join(migrations)}") from None
            portal.copy(copy, file)
            raise Failed(
                f"{error}; the database is as it was ({copy} is a copy), and the release before goes on"
            ) from None
    return str(copy or "")


def backup_file(portal: Portal) -> Path:
    """A name for a copy; the oldest that are too many by it are taken away."""
    folder = Path(portal.asked["state_folder"]) / "backups"
    owner = folder.parent.stat()
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, owner.st_uid, owner.st_gid)
    old = sorted(folder.glob("portal-*.sqlite3"))
    for path in old[: max(0, len(old) + 1 - portal.asked["backups"])]:
        path.unlink()
    before = portal.current.resolve().name
    return folder / f"portal-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{before}.sqlite3"


def kept_password(file: Path) -> str:
    """The password that was made earlier; empty for none."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def keep_password(file: Path, password: str) -> None:
    """Write it down for root; no password: take away what does not hold any more."""
    if not password:
        file.unlink(missing_ok=True)
        return
    beside = file.with_name(f".{file.name}.new")
    write(beside, f"{password}\n", 0o600, os.getgid())
    beside.replace(file)


def activate(portal: Portal, *, really: bool) -> tuple[list[str], bool]:
    """(what was done, or would be; whether a password was made).

    Raises:
        Failed: see there.
    """
    asked, file = portal.asked, Path(portal.asked["password_file"])
    switched = [] if portal.is_current else [f"release {asked['release']}"]
    settled = [] if portal.current.exists() and portal.has_settings else [f"settings {portal.settings}"]
    stale = [f"{file} away: portal_admin_password is set"] if asked["password"] and file.exists() else []
    if not really and (switched or settled):
        return [*switched, *settled, *stale], False
    with portal.new_settings() if settled else nullcontext():
        done, made = prepare(portal, really=really)
    if not really:
        return [*done, *stale], False
    if stale:
        keep_password(file, "")
    if switched:
        before = portal.current.resolve().name
        portal.switch()
        portal.drop_others(before)
    return [*done, *switched, *settled, *stale], made


def prepare(portal: Portal, *, really: bool) -> tuple[list[str], bool]:
    """What the database lacks for the release.

    Returns, Raises: as `activate`.
    """
    asked, file = portal.asked, Path(portal.asked["password_file"])
    password = asked["password"] or kept_password(file) or secrets.token_urlsafe(15)
    wanted, database = portal.wanted(password)
    if not (really and wanted):
        return wanted, False
    done = list(wanted)
    if migrations := [line for line in wanted if line.startswith("migration ")]:
        copy = migrate(portal, migrations, database)
        wanted, _ = portal.wanted(password)
        done += [*([f"backup {copy}"] if copy else []), *wanted]
    made = not asked["password"] and "administrator" in wanted
    if made:  # written before it holds: a password that was made and lost would lock everybody out
        keep_password(file, password)
    if wanted:
        portal.bootstrap(password)
    return done, made


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "state_folder": {"type": "path", "required": True},
            "units": {"type": "list", "elements": "str", "required": True},
            "settings": {"type": "str", "required": True, "no_log": True},
            "settings_file": {"type": "path", "required": True},
            "settings_group": {"type": "str", "required": True},
            "broker_group": {"type": "str", "default": ""},
            "username": {"type": "str", "default": "admin"},
            "password": {"type": "str", "default": "", "no_log": True},
            "password_file": {"type": "path", "required": True, "no_log": False},
            "backups": {"type": "int", "default": 3},
            "hidden": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )
    group = module.params["broker_group"]
    if group and not module.check_mode and group_id(group) is None:
        module.fail_json(
            msg=f"portal_broker_url is a socket of group {group}, which this host does not have; "
            "fix: role redis before this one, or portal_broker_url of another Redis"
        )
    try:
        done, made = activate(Portal(module.params), really=not module.check_mode)
    except Failed as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(done), done=done, password_made=made,
        diff={"before": "", "after": "".join(f"{line}\n" for line in done)},
    )  # fmt: skip


if __name__ == "__main__":
    main()

#!/usr/bin/python
"""Puts several small files in place at once, after a program has looked at all of them together.

A module, and not ansible.builtin.copy: that one takes two round trips for each file, checks each by itself (a rule
file is only wrong beside the configuration that names it), leaves files behind that nobody wants any more, and fails in
check mode where a folder is still to be made.
"""

import grp
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: wslab_files
short_description: Put files in place together, after a check of all of them
description:
  - Each file is replaced at once, folders are made as needed, and what did not change is left alone.
  - Where the check fails, nothing has changed.
options:
  files:
    description: The text of each file, by its absolute path.
    type: dict
    default: {}
  folders:
    description: Folders that hold these files and nothing else; one that has none of them is taken away.
    type: list
    elements: path
    default: []
  absent:
    description: Files and folders to take away; a folder named *.d that this leaves empty goes, too.
    type: list
    elements: path
    default: []
  group:
    description: The files' group, the process's own if empty. Files of systemd are always root's.
    type: str
    default: ""
  mode:
    description: The files' mode. Those of systemd have 0644, new folders 0755 (/var/lib/wslab 0700).
    type: str
    default: "0644"
  check:
    description:
      - A program and its arguments, run before anything is put in place, if anything is to be.
      - The word {stage} in them is a folder that holds all files under their absolute paths.
      - In check mode it is left out where the program is not there yet.
    type: list
    elements: str
    default: []
author:
  - wslab
"""

EXAMPLES = r"""
- name: Configure
  wslab_files:
    files: {/etc/thing/thing.yml: "a: 1\n"}
    folders: [/etc/thing]
    check: [thing, --check, "{stage}/etc/thing/thing.yml"]
"""

RETURN = r"""
written:
  description: What was written, or in check mode would be.
  returned: always
  type: list
  elements: str
removed:
  description: What was taken away, or in check mode would be.
  returned: always
  type: list
  elements: str
"""

RECORDS = Path("/var/lib/wslab")
"""Folder of what wslab notes on a host, readable by root only."""

LONGEST_DIFF = 20_000
"""Characters of a file that a diff shows; of a longer one it gives the length."""


class Attributes(NamedTuple):
    """Of a file that was put in place."""

    mode: int
    gid: int


def here(path: Path) -> str | None:
    """What a plain file holds; None where there is none."""
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_text(encoding="utf-8", errors="replace")


def others(folders: list[Path], files: dict[Path, str]) -> list[Path]:
    """What lies in the folders and is neither wanted nor a folder of something wanted; the outermost of each only."""
    kept = {*files, *(parent for path in files for parent in path.parents)}
    found: list[Path] = []
    for folder in folders:
        if not os.path.lexists(folder):
            continue
        if folder not in kept or folder.is_symlink():
            found.append(folder)
            continue
        for root, names, plain in os.walk(folder):
            found += [path for name in (*names, *plain) if (path := Path(root, name)) not in kept]
            names[:] = [name for name in names if Path(root, name) in kept]
    return sorted(found)


def attributes(path: Path, mode: int, gid: int) -> Attributes:
    """What a file is to have. systemd complains of units that not all may read."""
    return Attributes(0o644, os.getgid()) if path.is_relative_to("/etc/systemd") else Attributes(mode, gid)


def fits(path: Path, wanted: Attributes) -> bool:
    """Whether mode and owner are as wanted."""
    found = path.lstat()
    return (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (wanted.mode, os.getuid(), wanted.gid)


def write(path: Path, text: str, wanted: Attributes) -> None:
    """Replace a file at once, whatever it was."""
    for folder in reversed(path.parents):
        folder.mkdir(mode=0o700 if folder == RECORDS else 0o755, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    beside = path.with_name(f".{path.name}.wslab-new")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        os.fchown(file.fileno(), os.getuid(), wanted.gid)
        os.fchmod(file.fileno(), wanted.mode)
        file.write(text)
    beside.replace(path)


def remove(path: Path) -> None:
    """Take away whatever it is, and the folder of drop-ins, or of our records, that it was the last in."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if (path.parent.suffix == ".d" or path.parent == RECORDS) and not any(path.parent.iterdir()):
        path.parent.rmdir()


def objection(command: list[str], files: dict[Path, str]) -> str:
    """What the program has against the files; empty for nothing.

    Raises:
        FileNotFoundError: the program is not there.
    """
    with tempfile.TemporaryDirectory(prefix="wslab-") as stage:
        for path, text in files.items():
            write(Path(f"{stage}{path}"), text, Attributes(0o600, os.getgid()))
        done = subprocess.run(
            [word.replace("{stage}", stage) for word in command], stdin=subprocess.DEVNULL, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return done.stdout.replace(stage, "").strip() or f"exit code {done.returncode}" if done.returncode else ""


def diff(path: Path, before: str, after: str) -> dict[str, str]:
    """For --diff."""
    shown = [text if len(text) <= LONGEST_DIFF else f"({len(text)} characters)\n" for text in (before, after)]
    return {"before": shown[0], "after": shown[1], "before_header": str(path), "after_header": str(path)}


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "default": {}},
            "folders": {"type": "list", "elements": "path", "default": []},
            "absent": {"type": "list", "elements": "path", "default": []},
            "group": {"type": "str", "default": ""},
            "mode": {"type": "str", "default": "0644"},
            "check": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    asked = module.params
    files = {Path(path): text for path, text in asked["files"].items()}
    if strange := [str(path) for path in files if not path.is_absolute() or ".." in path.parts]:
        module.fail_json(msg=f"files names {', '.join(strange)}, wanted absolute paths without ..")
    try:
        gid = grp.getgrnam(asked["group"]).gr_gid if asked["group"] else os.getgid()
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"group is {asked['group']!r}, which this host does not have; its package makes it")
        gid = -1
    wanted = {path: attributes(path, int(asked["mode"], 8), gid) for path in files}
    old = {path: here(path) for path in files}
    differ = [path for path, text in files.items() if old[path] != text]
    loose = [path for path in files if path not in differ and not fits(path, wanted[path])]
    unwanted = others([Path(folder) for folder in asked["folders"]], files)
    unwanted += [Path(path) for path in asked["absent"] if os.path.lexists(path)]
    if (differ or unwanted) and asked["check"]:
        try:
            if said := objection(asked["check"], files):
                module.fail_json(
                    msg=f"{' '.join(asked['check'][:-1])} refuses the new files, nothing was changed: {said}"
                )
        except FileNotFoundError:
            if not module.check_mode:
                module.fail_json(msg=f"{asked['check'][0]} is not on this host; without it nothing is put in place")
    lost = [(path, here(path) or "(no plain file)\n") for path in unwanted]
    if not module.check_mode:
        for path in unwanted:
            remove(path)
        for path in (*differ, *loose):
            write(path, files[path], wanted[path])
    module.exit_json(
        changed=bool(differ or loose or unwanted),
        written=[str(path) for path in (*differ, *loose)],
        removed=[str(path) for path in unwanted],
        diff=[
            *(diff(path, old[path] or "", files[path]) for path in differ),
            *(diff(path, "wrong owner or mode\n", "right owner and mode\n") for path in loose),
            *(diff(path, text, "") for path, text in lost),
        ],
    )


if __name__ == "__main__":
    main()

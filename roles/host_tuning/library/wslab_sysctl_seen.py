#!/usr/bin/python
"""Reads everything that host_tuning decides by, in one go, and changes nothing."""

import json
import os
import re
import resource
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: wslab_sysctl_seen
short_description: Read kernel settings, what sets them at boot, and what was there before wslab
options:
  keys:
    description: Settings to read, with dots. Those of the record and of our own file are read too.
    type: list
    elements: str
    required: true
  files:
    description: Our files; the first is the one in sysctl.d.
    type: list
    elements: str
    required: true
  mark:
    description: Text in the first line of a file that tells that it is ours.
    type: str
    required: true
  record:
    description: File that keeps what was there before.
    type: path
    required: true
  open_files:
    description: Descriptors for a login that are wanted.
    type: int
    required: true
author:
  - wslab
"""

EXAMPLES = r"""
- name: Look at the accept queue
  wslab_sysctl_seen:
    keys: [net.core.somaxconn]
    files: [/etc/sysctl.d/99-wslab.conf]
    mark: Managed by wslab
    record: /var/lib/wslab/host_tuning.json
    open_files: 1000000
"""

RETURN = r"""
seen:
  description: >-
    values (KEY -> value, None where there is no such key), read_only (keys), container (its kind, empty on a machine),
    kernel (release), pages (of memory), boot (KEY -> [[file, value]] in the order in which systemd-sysctl reads them),
    ours (KEY -> value in our file), marked (paths of files that are ours), files (PATH -> content and mode of the
    others, None where there is none), record (None where there is none), record_folder (whether it is there),
    open_files (hard: of this session; settable: what a login could have, up to what is wanted; login: what one has,
    where our file says so).
  returned: always
  type: dict
"""

# In the order of systemd: a file hides those of the same name in the folders after it (sysctl.d(5)).
FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")


def proc_path(root: Path, key: str) -> Path:
    """Where a setting is, by its name with dots."""
    return Path(f"{root}/proc/sys/{key.replace('.', '/')}")


def dotted(key: str) -> str:
    """A key of sysctl.d with dots between its parts: the separator that comes first in it counts (sysctl.d(5))."""
    first = re.search(r"[./]", key)
    return key.translate(str.maketrans("./", "/.")) if first and first[0] == "/" else key


def assignments(text: str) -> list[tuple[str, str]]:
    """KEY, VALUE of each line that sets one key. Patterns set only what no line names, and so win over none."""
    found = []
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";")):
            found.append((dotted(key.strip().lstrip("-").strip()), " ".join(value.split())))
    return found


def boot(root: Path, keys: list[str]) -> dict[str, list[list[str]]]:
    """For each key the files that set it at boot, in order: the last one wins."""
    files: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in (root / folder).glob("*.conf"):
            files.setdefault(path.name, path)
    found: dict[str, list[list[str]]] = {key: [] for key in keys}
    for name in sorted(files, key=os.fsencode):
        for key, value in assignments(read(root, files[name]) or ""):
            if key in found:
                found[key].append([f"/{files[name].relative_to(root)}", value])
    return found


def read(root: Path, path: Path) -> "str | None":
    """A file's text, None where there is none or where it cannot be read; a link is followed within the root."""
    if path.is_symlink() and os.readlink(path).startswith("/"):
        path = root / os.readlink(path).lstrip("/")
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def value_of(root: Path, key: str) -> "str | None":
    """What is in force, tabs as blanks; None: there is no such key, or it cannot be read."""
    found = read(root, proc_path(root, key))
    return None if found is None else " ".join(found.split())


def settable(wanted: int) -> int:
    """How many descriptors a login could have, up to what is wanted. Tried: a machine may forbid it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, wanted)))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    except (OSError, ValueError):
        return hard
    return max(hard, wanted)


def login_limit() -> "int | None":
    """What PAM gives to a new session, which an SSH connection that Ansible keeps open would not show."""
    command = ["runuser", "-u", "root", "--", "sh", "-c", "ulimit -Sn"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
        return int(said)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def seen(root: Path, keys: list[str], files: list[str], mark: str, record: str, open_files: int) -> dict:
    """All of RETURN's `seen`.

    Raises:
        ValueError: the record is no JSON.
    """
    texts = {path: read(root, root / path.lstrip("/")) for path in files}
    marked = [path for path, text in texts.items() if text is not None and mark in text.partition("\n")[0]]
    ours = dict(assignments(texts[files[0]] or "")) if files[0] in marked else {}
    kept_text = read(root, root / record.lstrip("/"))
    kept = None if kept_text is None else json.loads(kept_text)
    keys = list(dict.fromkeys([*keys, *ours, *(kept or {}).get("values", {})]))
    values = {key: value_of(root, key) for key in keys}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return {
        "values": values,
        "read_only": [key for key in keys if values[key] is not None and not os.access(proc_path(root, key), os.W_OK)],
        "container": (read(root, root / "run/systemd/container") or "").strip(),
        "kernel": os.uname().release,
        "pages": os.sysconf("SC_PHYS_PAGES"),
        "boot": boot(root, keys),
        "ours": ours,
        "marked": marked,
        "files": {
            path: None
            if text is None
            else {"content": text, "mode": f"{(root / path.lstrip('/')).stat().st_mode & 0o7777:04o}"}
            for path, text in texts.items()
            if path not in marked
        },
        "record": kept,
        "record_folder": (root / record.lstrip("/")).parent.is_dir(),
        "open_files": {
            "login": login_limit() if any("/limits.d/" in path for path in marked) else None,
            "hard": hard,
            "settable": settable(open_files),
        },
    }


def main() -> None:
    """The module."""
    spec = options()
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        found = seen(Path("/"), **{name: module.params[name] for name in spec})
    except ValueError as error:
        module.fail_json(
            msg=f"{module.params['record']}, what this host had before wslab, cannot be read: {error}; fix: restore "
            "it, or remove it and know that `baseline` will not bring the values back before the next boot"
        )
    module.exit_json(changed=False, seen=found)


def options() -> dict:
    """The options, as in DOCUMENTATION."""
    names = {"type": "list", "elements": "str", "required": True}
    return {
        "keys": names,
        "files": names,
        "mark": {"type": "str", "required": True},
        "record": {"type": "path", "required": True},
        "open_files": {"type": "int", "required": True},
    }


if __name__ == "__main__":
    main()

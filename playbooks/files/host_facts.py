"""What lab.json says of this host (`host_keys`, `hooks`, `facts` of portal/labs/lab.py), as JSON. Runs on it, as root.

Its arguments are the folder of the environment that wsnode runs in, and the unit whose limits count.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path


def text(path):
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def line(value):
    """As `Text` in portal/labs/lab.py wants it: printable ASCII, one line, at most 100 characters; None of nothing."""
    return re.sub(r"[^ -~]", "?", " ".join(value.split()))[:100].strip() or None


def said(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def wsnode_version(environment):
    for folder in Path(environment).glob("lib/python3*/site-packages/wsnode-*.dist-info"):
        return line(folder.name.removeprefix("wsnode-").removesuffix(".dist-info"))
    return None


def open_files(unit):
    """The limit in force for the unit's main process. None while it does not run."""
    pid = said("systemctl", "show", "--property=MainPID", "--value", unit)
    found = re.search(r"^Max open files\s+(\d+)", text(f"/proc/{pid}/limits"), re.MULTILINE)
    return int(found.group(1)) if found else None


def host_keys():
    """As sshd shows them; no comments."""
    files = Path("/etc/ssh").glob("ssh_host_*_key.pub")
    lines = [text(file).split() for file in sorted(files, key=lambda file: ("ed25519" not in file.name, file.name))]
    return [" ".join(words[:2]) for words in lines if len(words) >= 2]


def hooks():
    """What this host's agent may be asked to have done before a run (role wsnode)."""
    folder = Path("/run/wsnode-hooks")
    return sorted(path.name for path in folder.iterdir() if path.is_socket()) if folder.is_dir() else []


def main(environment, unit):
    memory = re.search(r"^MemTotal:\s+(\d+) kB", text("/proc/meminfo"), re.MULTILINE)
    facts = {
        "cpu_count": os.cpu_count(),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "virtualization": line(said("systemd-detect-virt")),
        "wsnode": wsnode_version(environment),
        "open_files": open_files(unit),
    }
    print(json.dumps({"host_keys": host_keys(), "hooks": hooks(), "facts": facts}))


if __name__ == "__main__":
    main(*sys.argv[1:])

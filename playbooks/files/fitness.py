"""Is this host fit for the lab? Only reads. Runs on the host, as root, under its own python3: nothing newer than 3.7.

Takes one JSON object (see playbooks/preflight.yml), prints one: `host`, one line of what it is, and `problems`, each
with what was found and what was wanted.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

MIB = 2**20


def _text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def release(text):
    """`Debian 13`, `Ubuntu 24.04`: as os-release says."""
    fields = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', text, re.MULTILINE))
    name = {"debian": "Debian", "ubuntu": "Ubuntu"}.get(fields.get("ID", ""), fields.get("ID", "unknown"))
    return f"{name} {fields.get('VERSION_ID', '?')}"


def listening(text):
    """Inodes of listening sockets by port, from /proc/net/tcp or tcp6."""
    found = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == "0A":
            found.setdefault(int(words[1].rpartition(":")[2], 16), set()).add(words[9])
    return found


def _open_files(pid):
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for number in numbers:
        try:
            yield os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:  # closed meanwhile
            continue


def holders(inodes):
    """Units (or pid and name, outside of a unit) of the processes that hold these sockets."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if not wanted.isdisjoint(_open_files(pid)):
            unit = re.search(r"/([^/\n]+\.service)", _text(f"/proc/{pid}/cgroup"))
            found.add(unit.group(1) if unit else f"pid {pid} ({_text(f'/proc/{pid}/comm').strip()})")
    return sorted(found) or ["a process that cannot be seen"]


def port_problems(ports, taken, held_by):
    """Ports held by others than the units that are to have them. `ports`: number (as text, from JSON) to unit."""
    for port, unit in sorted(ports.items(), key=lambda item: int(item[0])):
        if int(port) in taken:
            others = [name for name in held_by(taken[int(port)]) if name != unit]
            if others:
                yield f"port {port} is held by {', '.join(others)}, wanted: free, or held by {unit}"


def _apt_uris():
    """Where the host's own package sources have their signed index."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    for line in sorted(set(listed.stdout.splitlines())):
        uri, _, name = line.partition(" ")
        yield uri.rstrip("/") + ("/" + name if name.endswith("/") else f"/dists/{name}/") + "InRelease"


def apt_problems(source):
    """`source`: a flat repository's URI, or "" for the host's own sources, each asked by apt's own means."""
    if shutil.which("apt-get") is None:
        return ["no apt-get, wanted: a Debian or Ubuntu"]
    uris = [source.rstrip("/") + "/Packages"] if source else list(_apt_uris())
    if not uris:
        return ["apt has no package source, wanted: one, or wslab_apt_source (docs/operating.md, 'Air-gapped')"]
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        for uri in uris:
            asked = subprocess.run(
                [
                    "/usr/lib/apt/apt-helper", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=0",
                    "-o", "Acquire::http::Timeout=5", "-o", "Acquire::https::Timeout=5",
                    "download-file", uri, os.path.join(folder, "index"),
                ],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            if asked.returncode != 0:
                reasons = [line.strip() for line in asked.stdout.splitlines() if line.strip().startswith("E:")]
                why = reasons[0][2:].strip() if reasons else f"apt-helper ended with {asked.returncode}"
                problems.append(f"package source {uri} cannot be read: {why}")
    return problems


def problems(wanted, seen):
    """All that makes `seen` unfit. Both: see `main`."""
    if seen["service_manager"] != "systemd":
        yield f"its service manager is {seen['service_manager']}, wanted: systemd"
    if seen["release"] not in wanted["releases"]:
        yield f"its release is {seen['release']}, wanted: {', '.join(wanted['releases'])}"
    for what, unit in (("python", ""), ("cores", ""), ("memory_mb", " MiB"), ("disk_mb", " MiB")):
        if seen[what] < wanted[what]:
            shown, least = (
                ".".join(map(str, value)) if isinstance(value, list) else str(value)
                for value in (seen[what], wanted[what])
            )
            yield f"{what.partition('_')[0]}: {shown}{unit}, wanted: at least {least}{unit}"
    if seen["user"] != 0:
        yield f"its user {seen['user']} is not root and sudo did not make it so"
    # the controller looked at its clock before it called: what comes later may be the way here
    ahead, most = seen["time"] - wanted["time"], wanted["clock_s"]
    if ahead < -most:
        yield f"its clock is at least {-ahead:.1f} s behind the controller's, wanted: at most {most}"
    elif ahead > most + wanted["way_s"]:
        yield f"its clock is about {ahead:.1f} s ahead of the controller's, wanted: at most {most}"


def look(folders):
    """What this host is."""
    memory = re.search(r"^MemTotal:\s+(\d+)", _text("/proc/meminfo"), re.MULTILINE)
    return {
        "time": time.time(),
        "service_manager": _text("/proc/1/comm").strip() or "unknown",
        "release": release(_text("/etc/os-release")),
        "python": list(sys.version_info[:2]),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": int(memory.group(1)) // 1024 if memory else 0,
        "disk_mb": min(shutil.disk_usage(folder).free for folder in folders) // MIB,
        "user": os.geteuid(),
    }


def main(wanted):
    seen = look(wanted["folders"])
    taken = {}
    for name in ("tcp", "tcp6"):
        for port, inodes in listening(_text("/proc/net/" + name)).items():
            taken.setdefault(port, set()).update(inodes)
    found = list(problems(wanted, seen))
    found += port_problems(wanted["ports"], taken, holders)
    found += apt_problems(wanted["apt_source"])
    host = (
        f"{seen['release']}, Python {'.'.join(map(str, seen['python']))}, {seen['cores']} cores, "
        f"{seen['memory_mb'] / 1024:.1f} GiB memory, {seen['disk_mb'] / 1024:.1f} GiB free"
    )
    print(json.dumps({"host": host, "problems": found}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

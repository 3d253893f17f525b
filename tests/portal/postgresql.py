"""A PostgreSQL of this test's own: a cluster in a temporary folder, on a Unix socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

BINARIES = Path("/usr/lib/postgresql")
USER = "postgres"
"""Debian's; the server refuses to run as root."""


def programs() -> Path | None:
    """The folder of the newest server's programs; None where there is none."""
    found = [folder for folder in BINARIES.glob("*/bin") if (folder / "initdb").exists()]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def cluster(bin_folder: Path) -> Iterator[str]:
    """Run one. Gives the URL of its database."""
    # Short: a socket's path has 108 bytes at most. Quick: nothing here outlives a power cut.
    folder = Path(tempfile.mkdtemp(prefix="wslab-pg-"))
    owner = pwd.getpwnam(USER) if os.geteuid() == 0 else None
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)

    def run(program: str, *arguments: str) -> None:
        as_owner = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
        done = subprocess.run(
            [bin_folder / program, *arguments],
            check=False,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGHOST": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **as_owner,  # type: ignore[arg-type]
        )
        assert done.returncode == 0, f"{program}: {done.stdout}"

    data = folder / "data"
    name = owner.pw_name if owner else pwd.getpwuid(os.geteuid()).pw_name
    try:
        run("initdb", "--pgdata", str(data), "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c full_page_writes=off -c synchronous_commit=off"
        run("pg_ctl", "--pgdata", str(data), "--log", str(folder / "log"), "--wait", "--options", options, "start")
        try:
            run("createdb", "wslab")
            yield f"postgres://{name}@{quote(str(folder), safe='')}/wslab"
        finally:
            run("pg_ctl", "--pgdata", str(data), "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder)

"""Images for a machine that cannot ask a registry: Debian 13's own packages under the tags that the files name.

docs/compose.md lists how they differ from the real ones. The roots are made once and kept in the cache of supplies.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from stack import hoard
from stack.errors import StackError
from tests.compose.composition import base_image, image_tags
from tests.compose.engine import RELEASE, Absent, Engine

FOLDER = Path(__file__).parent / "standins"
ROOTS = {
    "python": ("python3",),
    "services": ("postgresql-17", "redis-server", "prometheus", "prometheus-node-exporter", "wget"),
}
LEFT_OUT = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/i18n/*", "/usr/share/javascript/*"),
    *("/usr/lib/*/libLLVM*", "/usr/lib/*/libz3*", "/usr/bin/promtool"),
)


def roots() -> dict[str, Path]:
    """A tar for each root.

    Raises:
        Absent: they cannot be made here, and why.
    """
    if shutil.which("mmdebstrap") is None:
        raise Absent("no mmdebstrap to make images with: apt install mmdebstrap")
    try:
        return {name: _root(name, packages) for name, packages in ROOTS.items()}
    except StackError as error:
        raise Absent(str(error)) from None


def _root(name: str, packages: tuple[str, ...]) -> Path:
    options = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    options += ["--dpkgopt=force-unsafe-io", f"--include={','.join(packages)}"]

    def make(folder: Path) -> None:
        done = subprocess.run(
            ["nice", "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", *options, RELEASE,
             folder / "root.tar"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["no word"]
            raise StackError(f"mmdebstrap cannot make a {RELEASE}: {said[0]}")

    return hoard.obtain(f"standin-{name}-{hoard.key(RELEASE, options)}", make, lambda: None).folder / "root.tar"


def load(engine: Engine, tars: dict[str, Path]) -> None:
    """Put all images of the registry into an engine, Grafana's left out: Debian has none."""
    engine.load(tars["python"], base_image())
    engine.load(tars["services"], "standin-services:local")
    tags = {f"TAG_{name.upper()}": tag for name, tag in image_tags().items()}
    done = engine.compose(FOLDER, "build", **tags)
    assert done.returncode == 0, done.stdout

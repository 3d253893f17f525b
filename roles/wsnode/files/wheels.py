"""On the controller: the wheel folder for a host's Python and machine, and at need an archive of it.

Prints {"folder", "digest", "archive"}: archive is a file of the caller's to delete, or null where it was not asked for
or the host has what the digest stands for. Out of the cache, or a wheelhouse: a folder that holds one folder for each
Python and machine.
"""

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from stack import hoard, supplies
from stack.errors import StackError


def from_wheelhouse(wheelhouse: Path, python: str, machine: str) -> hoard.Supply:
    """The wheelhouse's folder. Raises StackError, saying how it comes to be there."""
    folder = wheelhouse / f"node-{python}-{machine}"
    if not (folder / "requirements.txt").is_file():
        raise StackError(
            f"the wheelhouse has no folder {folder} with a requirements.txt",
            f"python -m stack.supplies wheels --lock node --python {python} --machine {machine} --out {folder}",
        )
    return hoard.Supply(folder, hoard.tree_digest(folder))


def archive(folder: Path) -> str:
    """A new file with all that the folder holds."""
    handle, name = tempfile.mkstemp(prefix="wslab-wheels-", suffix=".tar")
    with open(handle, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    return name


def main() -> int:
    """0: printed, else the fault is on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True)
    parser.add_argument("--machine", required=True)
    parser.add_argument("--wheelhouse", default="")
    parser.add_argument("--archive-unless", nargs="*", metavar="DIGEST")
    asked = parser.parse_args()
    try:
        if asked.wheelhouse:
            supply = from_wheelhouse(Path(asked.wheelhouse), asked.python, asked.machine)
        else:
            supply = supplies.wheel_folder("node", asked.python, asked.machine)
    except StackError as error:
        sys.stderr.write(f"{error.show()}\n")
        return error.code
    lacking = asked.archive_unless is not None and supply.digest not in asked.archive_unless
    made = archive(supply.folder) if lacking else None
    print(json.dumps({"folder": str(supply.folder), "digest": supply.digest, "archive": made}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python
"""Puts a release of the portal beside the one that runs: its code, and an environment from a folder of wheels.

Nothing of it is used until the symlink `current` names it (module portal_activate), and it is complete or not at all.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: portal_release
short_description: Unpack a release of the portal and make its environment
options:
  root:
    description: Folder of releases and environments.
    type: path
    required: true
  name:
    description: Of the release.
    type: str
    required: true
  code:
    description: Archive of the code.
    type: path
    required: true
  wheels:
    description: Archive of wheels, pip's among them, with C(requirements.txt), whose hashes are checked.
    type: path
    required: true
  environment:
    description: Name of the environment; one of that name which is complete is used as it is.
    type: str
    required: true
  python:
    description: Interpreter that the environment is made from.
    type: str
    required: true
author:
  - wslab
"""

EXAMPLES = r"""
- name: Unpack
  portal_release:
    root: /opt/wslab/portal
    name: 0123456789ab
    code: /opt/wslab/portal/incoming/code.tar.gz
    wheels: /opt/wslab/portal/incoming/wheels.tar
    environment: ba9876543210
    python: /usr/bin/python3
"""

RETURN = r"""
release:
  description: Its folder.
  returned: success
  type: str
"""

COMPLETE = ".complete"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull}


class Failed(Exception):
    """A step that did not work: which, and its last words."""


def run(what: str, *command: str | Path) -> None:
    """Run a program to its end.

    Raises:
        Failed: it failed.
    """
    done = subprocess.run(
        command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{what} failed: {' / '.join(done.stdout.strip().splitlines()[-4:]) or 'without a word'}")


def unpack(archive: str, folder: Path) -> None:
    """All of an archive, as root's, writable by nobody else.

    Raises:
        Failed: it is none, or reaches outside of the folder.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise Failed(f"{archive} cannot be unpacked: {error}") from None


def fresh(folder: Path) -> Path:
    """An empty folder in the place of whatever is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755, parents=True)
    return folder


def make_environment(folder: Path, wheels: str, python: str) -> None:
    """A virtual environment with all that the wheels' requirements.txt says, in the place where it stays.

    Raises:
        Failed: see there.
    """
    if (folder / COMPLETE).exists():
        return
    with tempfile.TemporaryDirectory(prefix="wslab-wheels-") as work:
        unpack(wheels, Path(work))
        pip = next(Path(work).glob("pip-*.whl"), None)
        if pip is None:
            raise Failed(f"{wheels} holds no wheel of pip; fix: make it by python -m stack.supplies wheels")
        fresh(folder)
        # Debian's python3 comes without ensurepip; pip runs from its own wheel.
        run("making the environment", python, "-m", "venv", "--without-pip", folder)
        run(
            "installing the wheels", folder / "bin" / "python", pip / "pip", "install", "--quiet", "--no-index",
            "--find-links", work, "--require-hashes", "--no-cache-dir", "--disable-pip-version-check",
            "--root-user-action", "ignore", "-r", Path(work) / "requirements.txt",
        )  # fmt: skip
    (folder / COMPLETE).touch()


def make_release(folder: Path, code: str, environment: Path) -> None:
    """The code, compiled, with a link `venv`; renamed to its place at the end.

    Raises:
        Failed: see there.
    """
    draft = fresh(folder.with_name(f".{folder.name}.new"))
    unpack(code, draft)
    (draft / "venv").symlink_to(os.path.relpath(environment, folder))
    # Its user may not write there, so Python could not keep what it compiles.
    run(
        "compiling the code",
        draft / "venv" / "bin" / "python",
        "-m",
        "compileall",
        "-q",
        draft / "portal",
        draft / "wsnode",
    )
    (draft / COMPLETE).touch()
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            name: {"type": kind, "required": True}
            for name, kind in (("root", "path"), ("name", "str"), ("code", "path"), ("wheels", "path"),
                               ("environment", "str"), ("python", "str"))
        },
        supports_check_mode=True,
    )  # fmt: skip
    asked = module.params
    os.umask(0o022)
    root = Path(asked["root"])
    release, environment = root / "releases" / asked["name"], root / "venvs" / asked["environment"]
    if (release / COMPLETE).exists() and (environment / COMPLETE).exists():
        module.exit_json(changed=False, release=str(release))
    if not module.check_mode:
        try:
            make_environment(environment, asked["wheels"], asked["python"])
            make_release(release, asked["code"], environment)
        except Failed as error:
            module.fail_json(msg=str(error))
        for archive in (asked["code"], asked["wheels"]):
            Path(archive).unlink(missing_ok=True)
    module.exit_json(changed=True, release=str(release), diff={"before": "", "after": f"{release}\n"})


if __name__ == "__main__":
    main()

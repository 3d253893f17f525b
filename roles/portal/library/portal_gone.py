#!/usr/bin/python
"""Takes the portal's units and files away from a host, whatever of them is there."""

import os
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: portal_gone
short_description: Stop units, and take units and files away
options:
  units:
    description: Units of /etc/systemd/system, stopped, disabled and removed.
    type: list
    elements: str
    required: true
  paths:
    description: Files and whole folders.
    type: list
    elements: path
    default: []
  parents:
    description: Folders that go if they are empty then.
    type: list
    elements: path
    default: []
  reload:
    description: A unit that is reloaded, if it runs, where one of O(reload_for) went.
    type: str
    default: ""
  reload_for:
    description: Paths that O(reload) reads.
    type: list
    elements: path
    default: []
author:
  - wslab
"""

EXAMPLES = r"""
- name: Take away
  portal_gone:
    units: [wslab-portal.service]
    paths: [/opt/wslab/portal]
    parents: [/opt/wslab]
"""

RETURN = r"""
gone:
  description: What went, or in check mode would.
  returned: always
  type: list
  elements: str
"""

UNITS = Path("/etc/systemd/system")


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it; a host without systemd has nothing to stop."""
    try:
        return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "no systemctl")


def remove(path: Path) -> None:
    """Whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> None:
    """The module."""
    lists = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "paths": lists,
            "parents": lists,
            "reload": {"type": "str", "default": ""},
            "reload_for": lists,
        },
        supports_check_mode=True,
    )
    asked = module.params
    units = [unit for unit in asked["units"] if os.path.lexists(UNITS / unit)]
    running = [unit for unit in asked["units"] if systemctl("--quiet", "is-active", unit).returncode == 0]
    read = [path for path in asked["reload_for"] if os.path.lexists(path)]
    paths = [path for path in (*asked["paths"], *asked["reload_for"]) if os.path.lexists(path)]
    gone = [*(str(UNITS / unit) for unit in units), *paths]
    if not module.check_mode:
        if stop := [*dict.fromkeys((*units, *running))]:
            systemctl("stop", *stop)
            still = [unit for unit in stop if systemctl("--quiet", "is-active", unit).returncode == 0]
            if still:
                module.fail_json(msg=f"{', '.join(still)} cannot be stopped; see journalctl -u {still[0]}")
        if units:
            systemctl("--quiet", "disable", *units)
        for path in gone:
            remove(Path(path))
        if units:
            systemctl("daemon-reload")
            systemctl("reset-failed", *units)
        if read and asked["reload"] and systemctl("--quiet", "is-active", asked["reload"]).returncode == 0:
            systemctl("reload", asked["reload"])
        for parent in asked["parents"]:
            folder = Path(parent)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    module.exit_json(
        changed=bool(gone or running), gone=gone, diff={"before": "".join(f"{path}\n" for path in gone), "after": ""}
    )


if __name__ == "__main__":
    main()

"""Says in one line that no inventory is chosen, where Ansible would say in three that it cannot be parsed."""

from __future__ import annotations

import os

from ansible import context
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = """
name: chosen
short_description: Stops where inventory/current is not there
description:
  - Parses nothing. Asked about C(inventory/current) while there is none, it ends the command with the choices.
options: {}
"""


class InventoryModule(BaseInventoryPlugin):
    """Only `verify_file` matters: it is asked about each source before any other plugin."""

    NAME = "chosen"

    def verify_file(self, path: str) -> bool:
        """False, or the end of the command.

        Raises:
            SystemExit: `path` is inventory/current and nothing is there.
        """
        if context.CLIARGS.get("syntax"):  # which ansible-lint asks for, too
            return False
        folder, name = os.path.split(path)
        if name == "current" and os.path.basename(folder) == "inventory" and not os.path.exists(path):
            gone = f" ({os.readlink(path)} is gone)" if os.path.islink(path) else ""
            raise SystemExit(
                f"no inventory is chosen{gone}: ./wslab lab up (virtual hosts), "
                "./wslab inventory use PATH (your own, see docs/operating.md), or ansible-playbook -i PATH"
            )
        return False

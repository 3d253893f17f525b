#!/usr/bin/python
"""Puts kernel settings in force now. What keeps them over a boot is the file in sysctl.d."""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: wslab_sysctl
short_description: Put kernel settings in force
description:
  - Unlike systemd-sysctl it names each setting that changes, in check mode too, and what the kernel said to those that
    it refuses.
  - A refused setting does not keep the others from being set, and does not fail.
options:
  values:
    description: Settings, KEY with dots -> value.
    type: dict
    required: true
author:
  - wslab
"""

EXAMPLES = r"""
- name: Lengthen the accept queue
  wslab_sysctl:
    values: {net.core.somaxconn: "65535"}
"""

RETURN = r"""
refused:
  description: KEY -> what the kernel said.
  returned: always
  type: dict
"""


def lines(values: dict) -> str:
    """Settings as in a file."""
    return "".join(f"{key} = {value}\n" for key, value in sorted(values.items()))


def main() -> None:
    """The module."""
    module = AnsibleModule(argument_spec={"values": {"type": "dict", "required": True}}, supports_check_mode=True)
    before, after, refused = {}, {}, {}
    for key, value in module.params["values"].items():
        path, wanted = Path("/proc/sys", *key.split(".")), " ".join(str(value).split())
        try:
            now = " ".join(path.read_text(encoding="ascii").split())
            if now == wanted:
                continue
            before[key], after[key] = now, wanted
            if not module.check_mode:
                path.write_text(f"{wanted}\n", encoding="ascii")
        except (OSError, ValueError) as error:
            refused[key] = getattr(error, "strerror", None) or str(error)
            before.pop(key, None)
            after.pop(key, None)
    diff = {
        "before": lines(before),
        "after": lines(after),
        "before_header": "in force",
        "after_header": "to be in force",
    }
    module.exit_json(changed=bool(after), refused=refused, diff=diff)


if __name__ == "__main__":
    main()

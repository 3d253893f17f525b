#!/usr/bin/python
"""Compares the running node_exporter with what was set up: its options, and that each collector shows something."""

import ctypes
import os
import re
import subprocess
import time
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: wslab_node_exporter_state
short_description: See whether node_exporter runs as it was set up, and which collectors have nothing to show
options:
  unit:
    description: Its unit.
    type: str
    required: true
  flags:
    description: The options that it is to have, in order.
    type: list
    elements: str
    required: true
  address:
    description: Where it listens.
    type: str
    required: true
  port:
    description: Where it listens.
    type: int
    required: true
  collectors:
    description: The collectors that are to succeed, and no other to be there.
    type: list
    elements: str
    required: true
  optional:
    description:
      - Of those, the ones that a host may have nothing for.
      - Each has a file that must be there, or a call (adjtimex) that must be allowed, and the words (why) if not.
    type: dict
    default: {}
  wait_s:
    description: How long to wait for an answer.
    type: int
    default: 30
author:
  - wslab
"""

EXAMPLES = r"""
- name: Look at node_exporter
  wslab_node_exporter_state:
    unit: prometheus-node-exporter.service
    flags: [--collector.disable-defaults, --collector.conntrack]
    address: 192.0.2.20
    port: 9100
    collectors: [conntrack]
    optional:
      conntrack: {file: /proc/sys/net/netfilter/nf_conntrack_count, why: conntrack has no module}
"""

RETURN = r"""
without:
  description: Collectors that this host has nothing for, each with the reason.
  returned: always
  type: list
  elements: str
"""

SUCCESS = re.compile(r'^node_scrape_collector_success\{collector="([^"]+)"\} ([01])$', re.MULTILINE)
PATIENCE_S = 5


def url(address: str, port: int) -> str:
    """Where it is reached from its own host."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - nothing is bound
    return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"


def said_by(program: list[str]) -> str:
    """What a program prints, whatever its exit code."""
    return subprocess.run(
        program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    ).stdout.strip()


def options(unit: str) -> list[str]:
    """The running process's options; none where it does not run."""
    pid = said_by(["systemctl", "show", "-P", "MainPID", unit])
    try:
        with open(f"/proc/{int(pid)}/cmdline", encoding="utf-8") as file:
            return file.read().rstrip("\0").split("\0")[1:]
    except (OSError, ValueError):
        return []


def page(where: str) -> str:
    """What it shows. Raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(where, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode("utf-8", "replace"))


def lacks(need: dict[str, str]) -> bool:
    """Whether this host lacks what a collector reads."""
    if "file" in need:
        return not os.path.exists(need["file"])
    state = (ctypes.c_char * 1024)()  # all 0: struct timex with modes 0, which only reads
    return bool(ctypes.CDLL(None).adjtimex(state) == -1)


def judge(shown: str, wanted: list[str], optional: dict[str, dict[str, str]]) -> tuple[list[str], list[str]]:
    """What is wrong with the collectors, and which have nothing to show for a reason."""
    found = {name: value == "1" for name, value in SUCCESS.findall(shown)}
    problems = [f"collector {name} is there, wanted: not" for name in sorted(found.keys() - set(wanted))]
    without = []
    for name in wanted:
        need = optional.get(name)
        if found.get(name):
            continue
        if name in found and need is not None and lacks(need):
            without.append(need["why"])
        else:
            problems.append(f"collector {name} {'fails' if name in found else 'is not there'}")
    return problems, without


def main() -> None:
    """The module."""
    texts = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "flags": texts,
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "collectors": texts,
            "optional": {"type": "dict", "default": {}},
            "wait_s": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    where = url(asked["address"], asked["port"])
    deadline = time.monotonic() + asked["wait_s"]
    while True:
        try:
            running, shown, why = options(asked["unit"]), page(where), ""
        except OSError as error:
            why = f"{where} does not answer ({getattr(error, 'reason', None) or error})"
        else:
            if running == asked["flags"]:
                break
            why = f"{asked['unit']} runs with {' '.join(running) or 'nothing'}, wanted {' '.join(asked['flags'])}"
        if time.monotonic() > deadline:
            journal = said_by(["journalctl", "--no-pager", "-q", "-o", "cat", "-n", "15", "-u", asked["unit"]])
            module.fail_json(msg=f"{why}, after {asked['wait_s']} s. Its journal ends with:\n{journal or '(nothing)'}")
        time.sleep(0.1)
    problems, without = judge(shown, asked["collectors"], asked["optional"])
    if problems:
        module.fail_json(msg=f"{where}: {'; '.join(problems)}", without=without)
    module.exit_json(changed=False, without=without)


if __name__ == "__main__":
    main()

#!/usr/bin/python
"""Asks a running Prometheus whether it is what was set up: its flags, its rules, its targets. Changes nothing."""

import datetime
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: wslab_prometheus_state
short_description: Compare a running Prometheus with what was set up
description:
  - Waits until all of it is so, or fails and names each difference.
  - A target that cannot be scraped is no difference, it is named in C(down).
options:
  url:
    description: Where it listens.
    type: str
    required: true
  config:
    description: Folder of prometheus.yml and rules. What changed there must have been loaded since.
    type: path
    required: true
  flags:
    description: Flags and their values, compared as durations and sizes where both are.
    type: dict
    default: {}
  groups:
    description: Names of all its rule groups.
    type: list
    elements: str
    default: []
  targets:
    description: All its targets, each as JOB HOST ADDRESS.
    type: list
    elements: str
    default: []
  timeout_s:
    description: How long to wait, in seconds.
    type: float
    default: 30
author:
  - wslab
"""

EXAMPLES = r"""
- name: Look
  wslab_prometheus_state:
    url: http://127.0.0.1:9090
    config: /etc/prometheus
    targets: [node load-1 198.51.100.7:9100]
"""

RETURN = r"""
down:
  description: Targets that cannot be scraped, with Prometheus' reason.
  returned: success
  type: list
  elements: str
"""

PAUSE_S = 0.5
DURATIONS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
SIZES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40, "PB": 1 << 50, "EB": 1 << 60}


def amount(text: str) -> float | str:
    """A duration in s or a size in bytes as Prometheus writes them (2w1d, 10GiB); anything else as it is."""
    for units in (DURATIONS, SIZES):
        pairs = re.findall(r"([0-9.]+)([A-Za-z]+)", text)
        if pairs and "".join(number + unit for number, unit in pairs) == text:
            named = [(number, unit.replace("i", "") if units is SIZES else unit) for number, unit in pairs]
            if all(unit in units for _, unit in named):
                return sum(float(number) * units[unit] for number, unit in named)
    return text


def wrong_flags(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Differences between the flags in force and those wanted."""
    return [
        f"flag --{name} is {found.get(name)!r}, wanted {value!r}"
        for name, value in wanted.items()
        if amount(found.get(name, "")) != amount(str(value))
    ]


def wrong_config(found: dict[str, Any], changed_at: float) -> list[str]:
    """What is wrong with the configuration in force, whose files changed at `changed_at` (s since the epoch)."""
    loaded = datetime.datetime.fromisoformat(found["lastConfigTime"]).timestamp()
    if not found["reloadConfigSuccess"]:
        return ["the last reload of its configuration failed; its journal says why"]
    if loaded < int(changed_at):
        return ["its configuration is older than the files; fix: systemctl reload prometheus"]
    return []


def changed_at(folder: str) -> float:
    """When prometheus.yml or a rule file last changed, came or went (s since the epoch)."""
    rules = Path(folder, "rules")
    return max(path.stat().st_mtime for path in (Path(folder, "prometheus.yml"), rules, *rules.iterdir()))


def wrong_rules(found: list[dict[str, Any]], wanted: list[str]) -> list[str]:
    """Rule groups that lack or are too many, and rules that cannot be evaluated."""
    names = {group["name"] for group in found}
    return [
        *(f"rule group {name} is not loaded" for name in wanted if name not in names),
        *(f"rule group {name} is loaded, but not in the clone" for name in sorted(names - set(wanted))),
        *(
            f"rule {rule['name']}: {rule['lastError']}"
            for group in found
            for rule in group["rules"]
            if rule.get("health") == "err"
        ),
    ]


def named(target: dict[str, Any]) -> str:
    """JOB HOST ADDRESS of a target of the API."""
    address = target["scrapeUrl"].partition("://")[2].partition("/")[0]
    return " ".join((target["labels"].get("job", "?"), target["labels"].get("host", "?"), address))


def wrong_targets(found: list[dict[str, Any]], wanted: list[str]) -> list[str]:
    """Targets that lack or are too many."""
    names = {named(target) for target in found}
    return [
        *(f"target {name} is not known" for name in wanted if name not in names),
        *(f"target {name} is known, but not in the inventory" for name in sorted(names - set(wanted))),
    ]


def down(found: list[dict[str, Any]]) -> list[str]:
    """Targets whose last scrape failed, and why."""
    return sorted(f"{named(one)}: {one.get('lastError') or 'down'}" for one in found if one.get("health") == "down")


class Prometheus:
    """Its HTTP API, without any proxy: it is on this host.

    Raises (all methods): OSError, ValueError where it does not answer as a Prometheus.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read(self, path: str) -> bytes:
        """The body of an answer."""
        with self._opener.open(f"{self.url}{path}", timeout=5) as answer:
            body: bytes = answer.read()
        return body

    def data(self, path: str) -> Any:
        """`data` of an answer of the API."""
        body = json.loads(self.read(f"/api/v1/{path}"))
        if not isinstance(body, dict) or body.get("status") != "success":
            raise ValueError(f"{self.url}/api/v1/{path} answers unlike a Prometheus")
        return body["data"]


def look(prometheus: Prometheus, asked: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(differences, targets that are down) at this moment."""
    try:
        prometheus.read("/-/ready")
        differences = wrong_flags(prometheus.data("status/flags"), asked["flags"])
        differences += wrong_config(prometheus.data("status/runtimeinfo"), changed_at(asked["config"]))
        differences += wrong_rules(prometheus.data("rules")["groups"], asked["groups"])
        targets = prometheus.data("targets?state=active")["activeTargets"]
    except (OSError, ValueError, KeyError) as error:
        return [f"it does not answer at {prometheus.url}: {error}"], []
    return [*differences, *wrong_targets(targets, asked["targets"])], down(targets)


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "config": {"type": "path", "required": True},
            "flags": {"type": "dict", "default": {}},
            "groups": {"type": "list", "elements": "str", "default": []},
            "targets": {"type": "list", "elements": "str", "default": []},
            "timeout_s": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    prometheus = Prometheus(module.params["url"])
    deadline = time.monotonic() + module.params["timeout_s"]
    while True:
        differences, silent = look(prometheus, module.params)
        if not differences:
            module.exit_json(changed=False, down=silent)
        if time.monotonic() > deadline:
            module.fail_json(msg=f"Prometheus is not as set up: {'; '.join(differences)}", down=silent)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()

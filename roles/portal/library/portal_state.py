#!/usr/bin/python
"""Waits until the portal is healthy, and reads back what was set up: release, settings, units, certificate, journal.
Changes nothing."""

import grp
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: portal_state
short_description: Wait until the portal is healthy and look for errors
options:
  units:
    description: All that have to be active and enabled.
    type: list
    elements: str
    required: true
  ready:
    description: What a unit's processes say when they have come up, by unit.
    type: dict
    default: {}
  port:
    description: Of the portal on 127.0.0.1.
    type: int
    required: true
  release:
    description: Folder in which the units' processes have to run.
    type: path
    required: true
  environment_file:
    description: The settings.
    type: path
    required: true
  group:
    description: Group of the settings; a unit that runs as a user of this name has to run in the release.
    type: str
    required: true
  tls_name:
    description: Name to ask nginx for; empty without TLS.
    type: str
    default: ""
  tls_port:
    description: Of nginx.
    type: int
    default: 443
  certificate:
    description: PEM file whose first certificate nginx has to show.
    type: str
    default: ""
  timeout_s:
    description: How long to wait for health, in seconds.
    type: float
    default: 60
  hidden:
    description: Texts that nothing returned may hold.
    type: list
    elements: str
    default: []
author:
  - wslab
"""

EXAMPLES = r"""
- name: Verify
  portal_state:
    units: [wslab-portal.service]
    port: 8000
    release: /opt/wslab/portal/releases/0123456789ab
    environment_file: /etc/wslab/portal.env
    group: wslab-portal
"""

RETURN = r"""
healthy_s:
  description: Seconds until it was healthy.
  returned: success
  type: float
"""

PAUSE_S = 0.25
SETTLED_S = 300.0
"""A unit that has run for longer was not started by this play: its errors are told, but they are no failure of it."""
SHOWN = 15
ERROR = re.compile(r"(^|[\s\[])(ERROR|CRITICAL)([\]\s:/]|$)|^Traceback ")
"""As Django, Celery and gunicorn write them."""


class Differs(Exception):
    """What is not as it was set up: found, and wanted."""


def shown(command: list[str]) -> str:
    """What a program says."""
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout


def properties(unit: str) -> dict[str, str]:
    """Of a unit."""
    names = "ActiveState,SubState,UnitFileState,Job,MainPID,InvocationID,ActiveEnterTimestampMonotonic,User"
    lines = shown(["systemctl", "show", f"--property={names}", unit]).splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def journal(unit: str, invocation: str = "") -> list[str]:
    """What a unit's processes have said, in its present life if that is given."""
    chosen = [f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else ["-u", unit, "-n", str(SHOWN)]
    lines = shown(
        ["journalctl", "--no-pager", "-q", "-b", "-o", "json", "--output-fields=MESSAGE", *chosen]
    ).splitlines()
    messages = [json.loads(line).get("MESSAGE") for line in lines]
    return [message if isinstance(message, str) else repr(message) for message in messages]


def asked_for_health(port: int) -> str:
    """Empty when healthy, else what is wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        text = answer.read(300).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"http://127.0.0.1:{port}/healthz does not answer: {error}"
    finally:
        connection.close()
    return "" if (answer.status, text) == (200, "ok") else f"/healthz says {answer.status} {text!r}, wanted 200 'ok'"


def down(unit: str, word: str) -> str:
    """Why a unit is not up; empty when it is, would be after a reboot, and has said its word (if it has one)."""
    one = properties(unit)
    if one.get("Job", "0") not in ("", "0"):
        return f"{unit} is being started"
    if (one.get("ActiveState"), one.get("UnitFileState")) != ("active", "enabled"):
        state, file = f"{one.get('ActiveState')} ({one.get('SubState')})", one.get("UnitFileState") or "unknown"
        return f"{unit} is {state} and {file}, wanted active and enabled"
    if word and not any(word in line for line in journal(unit, one["InvocationID"])):
        return f"{unit} has not said {word!r} yet"
    return ""


def check_release(units: list[str], release: str, user: str) -> None:
    """The processes run in the release that was activated.

    Raises:
        Differs: one does not.
    """
    for unit in units:
        one = properties(unit)
        if one.get("User") != user:
            continue
        found = os.readlink(f"/proc/{one['MainPID']}/cwd")
        if found != release:
            raise Differs(f"{unit} runs {found}, wanted {release}; fix: systemctl restart {unit}")


def check_settings(file: str, group: str) -> None:
    """Nobody else reads the secrets.

    Raises:
        Differs: somebody could.
    """
    found = os.stat(file)
    have = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
    if have != (0, grp.getgrnam(group).gr_gid, 0o640):
        raise Differs(f"{file} has owner {have[0]}, group {have[1]}, mode {have[2]:04o}, wanted root, {group}, 0640")


def check_tls(name: str, port: int, certificate: str) -> None:
    """nginx shows the certificate, and leads to the portal.

    Raises:
        Differs: it does not.
    """
    context = ssl.create_default_context()
    # The chain may end at a root that this host does not know; the certificate itself is compared.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    wanted = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first_certificate(certificate))).hexdigest()
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            found = hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()
            host = name if port == 443 else f"{name}:{port}"
            secure.sendall(f"GET /accounts/login/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(secure)
            answer.begin()
    except OSError as error:
        raise Differs(f"https://{name}:{port} does not answer here: {error}") from None
    if found != wanted:
        raise Differs(f"nginx shows another certificate than {certificate}; fix: systemctl reload nginx")
    if answer.status != 200 or not answer.getheader("Strict-Transport-Security"):
        raise Differs(
            f"https://{name}:{port}/accounts/login/ answers {answer.status}, "
            f"Strict-Transport-Security {answer.getheader('Strict-Transport-Security')!r}; wanted 200, and that header"
        )


def first_certificate(file: str) -> str:
    """The PEM block that a server shows of a file with a chain."""
    text = Path(file).read_text(encoding="utf-8")
    start, end = text.index("-----BEGIN CERTIFICATE"), "-----END CERTIFICATE-----"
    return text[start : text.index(end, start) + len(end)]


def errors(unit: str) -> tuple[list[str], bool]:
    """(lines of the unit's present life that speak of an error, whether it was started just now)."""
    one = properties(unit)
    age_s = time.clock_gettime(time.CLOCK_MONOTONIC) - int(one["ActiveEnterTimestampMonotonic"]) / 1e6
    found = [line for line in journal(unit, one["InvocationID"]) if ERROR.search(line)]
    return [f"{unit}: {line[:500]}" for line in found], age_s < SETTLED_S


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "ready": {"type": "dict", "default": {}},
            "port": {"type": "int", "required": True},
            "release": {"type": "path", "required": True},
            "environment_file": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "tls_name": {"type": "str", "default": ""},
            "tls_port": {"type": "int", "default": 443},
            "certificate": {"type": "str", "default": ""},
            "timeout_s": {"type": "float", "default": 60},
            "hidden": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    began = time.monotonic()
    while True:
        faults = [
            *(down(unit, asked["ready"].get(unit, "")) for unit in asked["units"]),
            asked_for_health(asked["port"]),
        ]
        if not (wrong := [fault for fault in faults if fault]):
            break
        if time.monotonic() - began > asked["timeout_s"]:
            last = {unit: journal(unit) for unit in asked["units"]}
            module.fail_json(
                msg=f"the portal is not healthy after {asked['timeout_s']:g} s: {'; '.join(wrong)}", journal=last
            )
        time.sleep(PAUSE_S)
    healthy_s = round(time.monotonic() - began, 1)
    try:
        check_release(asked["units"], asked["release"], asked["group"])
        check_settings(asked["environment_file"], asked["group"])
        if asked["tls_name"]:
            check_tls(asked["tls_name"], asked["tls_port"], asked["certificate"])
    except (Differs, OSError) as error:
        module.fail_json(msg=str(error))
    for unit in asked["units"]:
        found, is_new = errors(unit)
        if found and is_new:
            module.fail_json(
                msg=f"errors in the journal since the start: {' / '.join(found[-SHOWN:])}; "
                f"where it is mended already: systemctl restart {unit}"
            )
        if found:
            module.warn(f"{len(found)} errors in the journal since the start, the last one: {found[-1]}")
    module.exit_json(changed=False, healthy_s=healthy_s)


if __name__ == "__main__":
    main()

"""What to write, to give back and to leave alone on a host: a function of what was seen there and what is wanted.

`seen` is what the module wslab_sysctl_seen returns; it says the shape.
"""

from __future__ import annotations

import re
from typing import Any

KEY = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)+")
KINDS = ("set", "at_least", "cap", "include")
CONNTRACK = "net.netfilter.nf_conntrack_max"

Seen = dict[str, Any]
Setting = dict[str, Any]


def plain(value: object) -> str:
    """A value as the kernel shows it, tabs and runs of blanks as one blank."""
    return " ".join(str(value).split())


def ports(value: str) -> set[int]:
    """The ports of a list such as `3000,9090-9094`.

    Raises:
        ValueError: it is no such list.
    """
    found: set[int] = set()
    for part in plain(value).replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if part:
            found.update(range(int(first), int(last if dash else first) + 1))
    if found and (min(found) < 1 or max(found) > 65535):
        raise ValueError(value)
    return found


def port_list(found: set[int]) -> str:
    """Ports in the kernel's own form: ascending, neighbours as a range."""
    ranges: list[list[int]] = []
    for port in sorted(found):
        if ranges and port == ranges[-1][1] + 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def target(setting: Setting, before: str | None, now: str) -> str | None:
    """The value to write so that the setting holds; None: what was there before is enough.

    `before` is what the host had when the role first touched the key, None if that is not known any more. It decides,
    and not `now`: else a minimum that we raised ourselves would count as enough, leave the file, and be gone after the
    next boot.
    """
    kind, value = setting["kind"], plain(setting["value"])
    if kind == "at_least":
        return value if before is None or int(before) < int(value) else None
    if kind == "cap":
        *rest, most = [int(number) for number in (now if before is None else before).split()]
        capped = min(most, max([int(value), *rest]))  # never below the default, which lies between minimum and maximum
        return " ".join(map(str, [*rest, capped])) if before is None or capped < most else None
    if kind == "include":
        known = ports(before or "")
        wanted = known | ports(value)
        return port_list(wanted) if before is None or wanted != known else None
    return value


def holds(setting: Setting, wanted: str, found: str) -> bool:
    """Whether a value found does what the value wanted does."""
    try:
        if setting["kind"] == "include":
            return ports(found) >= ports(wanted)
        if setting["kind"] == "at_least":
            return int(found) >= int(wanted)
    except ValueError:
        return False
    return plain(found) == wanted


def merged(table: list[Setting], extra: dict[str, Any], host: str) -> list[Setting]:
    """The table's lines for this kind of host, but for those that the user has settings of their own for, and these."""
    own = [{"key": key, "kind": "set", "value": value, "reason": "host_tuning_extra"} for key, value in extra.items()]
    return [setting for setting in table if host in setting["for"] and setting["key"] not in extra] + own


def why_not(key: str, seen: Seen) -> str | None:
    """Why this host cannot set a key; None: it can."""
    container = seen["container"]
    if seen["values"].get(key) is None:
        return (
            f"not there in a {container} container"
            if container
            else "not there: this kernel lacks it, or its module is not loaded"
        )
    if container and not key.startswith("net."):
        return f"the machine's, not a {container} container's"
    return "read-only here" if key in seen["read_only"] else None


def host_tuning_plan(
    seen: Seen,
    table: list[Setting],
    extra: dict[str, Any],
    host: str,
    profile: str,
    open_files: int,
    paths: dict[str, str],
) -> dict[str, Any]:
    """All that follows from what was seen on a host.

    Returns:
        in_force: KEY -> value read, of all settings of the table and the user, whatever the profile.
        write: settings for the file, each with key, value, reason and before (None: not known any more).
        skipped: KEY -> why this host cannot have what is wanted.
        pending: KEY -> value to be put in force now. unmet: for each of them a line with what was wanted and found.
        overridden: lines that name a file which wins over ours at boot.
        files: KIND -> path, of those to be there.
        give_back: files of ours that are to be as they were: path, content (None: absent) and mode.
        record: what is ours to give back, values and files; None: nothing.
        remember: the record to save before anything is touched, None where the host has all of it.
        forget: the host's record says more than `record`, which is to replace it once nothing is unmet.
        said: a line for people: how much is set, what is not and why, and what only they can decide.
    """
    known, kept = (dict((seen["record"] or {}).get(part, {})) for part in ("values", "files"))
    settings = merged(table, extra, host)
    chosen = _settings(settings if profile == "tuned" else [], seen, known, paths["sysctl"])
    _values_to_give_back(chosen, seen, known)
    files = _files(chosen, seen, profile, open_files, paths)
    give_back = [
        {"path": path, **(kept.get(path) or {"content": None, "mode": None})}
        for path in paths.values()
        if path not in files.values()
        and (path in seen["marked"] or (kept.get(path) and seen["files"].get(path) is None))
    ]
    held = [*files.values(), *(item["path"] for item in give_back)]
    record = {"values": chosen["first"], "files": {path: kept.get(path, seen["files"].get(path)) for path in held}}
    remember = {"values": record["values"] | known, "files": record["files"] | kept}
    old = {"values": known, "files": kept}
    return {
        "in_force": {s["key"]: seen["values"][s["key"]] for s in settings if seen["values"].get(s["key"]) is not None},
        **{name: chosen[name] for name in ("write", "skipped", "pending", "unmet", "overridden")},
        "said": _said(profile, chosen),
        "files": files,
        "give_back": give_back,
        "record": record if any(record.values()) else None,
        "remember": remember if remember != old else None,
        "forget": seen["record"] is not None and (record != remember or not any(record.values())),
    }


def _settings(settings: list[Setting], seen: Seen, known: dict[str, Any], file: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "write": [],
        "first": {},
        "skipped": {},
        "pending": {},
        "unmet": [],
        "overridden": [],
        "other_kernel": [],
        "unknown": [],
    }
    for setting in settings:
        key, now = setting["key"], seen["values"].get(setting["key"])
        reason = why_not(key, seen)
        entry = known.get(key) or {"value": None if key in seen["ours"] else now, "kernel": seen["kernel"]}
        before = entry["value"]
        if now is None:
            chosen["skipped"][key] = reason
            if key not in known or key not in seen["ours"]:
                continue
            value: str | None = seen["ours"][key]  # its module is not loaded just now: it stays ours
        else:
            value = target(setting, before, now)
        if value is None:
            continue
        if now is not None and reason is not None:
            if not holds(setting, value, now):
                chosen["skipped"][key] = reason
            continue
        chosen["write"].append({"key": key, "value": value, "reason": setting["reason"], "before": before})
        chosen["first"][key] = entry
        if now is not None and not holds(setting, value, now):
            chosen["pending"][key] = value
            chosen["unmet"].append(f"{key}: wanted {value or 'nothing'}, found {now or 'nothing'}")
        for other, last in seen["boot"].get(key, [])[-1:]:
            if other.rpartition("/")[2] > file.rpartition("/")[2] and not holds(setting, value, last):
                chosen["overridden"].append(f"{key}: {other} sets {last} at boot, after {file} with {value}")
        if setting["kind"] != "set" and before is not None and entry["kernel"] != seen["kernel"]:
            chosen["other_kernel"].append(key)
    return chosen


def _values_to_give_back(chosen: dict[str, Any], seen: Seen, known: dict[str, Any]) -> None:
    for key, entry in known.items():
        before, now = entry["value"], seen["values"].get(key)
        if key in chosen["first"] or now is None or key in seen["read_only"]:
            continue
        if before is None:
            chosen["unknown"].append(key)
        elif now != before:
            chosen["pending"][key] = before
            chosen["unmet"].append(f"{key}: wanted {before or 'nothing'}, as before wslab, found {now or 'nothing'}")


def _files(chosen: dict[str, Any], seen: Seen, profile: str, open_files: int, paths: dict[str, str]) -> dict[str, str]:
    files = {}
    if chosen["write"]:
        files["sysctl"] = paths["sysctl"]
    if any(setting["key"] == CONNTRACK for setting in chosen["write"]):
        files["udev"] = paths["udev"]
    if profile == "tuned":
        allowed = seen["open_files"]["settable"]
        if allowed < open_files:
            chosen["skipped"]["nofile"] = f"this host allows a process {allowed} descriptors, not {open_files}"
        else:
            files["limits"] = paths["limits"]
            found = seen["open_files"]["login"]
            if found is not None and found < open_files:
                chosen["unmet"].append(f"nofile of a login: wanted {open_files}, found {found}")
    return files


def _said(profile: str, chosen: dict[str, Any]) -> str:
    tuned = f"{len(chosen['write'])} settings written and in force"
    parts = [f"{profile}: {tuned if profile == 'tuned' else 'as it was before wslab'}"]
    if chosen["skipped"]:
        parts.append("Not set here: " + "; ".join(f"{key} ({why})" for key, why in chosen["skipped"].items()))
    if chosen["other_kernel"]:
        built = ", ".join(chosen["other_kernel"])
        parts.append(f"Built on what an earlier kernel had ({built}): baseline, a reboot, then tuned again")
    if chosen["unknown"]:
        parts.append(f"Not known any more, so left as they are until the next boot: {', '.join(chosen['unknown'])}")
    return ". ".join(parts)


def host_tuning_faults(
    table: list[Setting],
    extra: dict[str, Any],
    refused: list[dict[str, str]],
    seen: Seen,
    numbers: dict[str, tuple[Any, int, int]],
) -> list[str]:
    """What is wrong with the settings that the variables ask for: a line for each, empty when all is well.

    `refused` holds rules (key, when, reason), `numbers` variables by name with value (or several), least
    and most.
    """
    faults = [
        f"{name} is {one!r}, wanted {least} to {most}; fix: correct it in group_vars"
        for name, (value, least, most) in numbers.items()
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, bool) or not re.fullmatch(r"[0-9]+", str(one)) or not least <= int(one) <= most
    ]
    if faults:
        return faults  # the table is made of them
    for number, setting in enumerate(table):
        name = f"host_tuning_sysctls[{number}]"
        lacking = [field for field in ("key", "kind", "value", "for", "reason") if setting.get(field) in (None, "", [])]
        if lacking:
            faults.append(f"{name} has no {', '.join(lacking)}; fix: name key, kind, value, for and reason")
        elif setting["kind"] not in KINDS:
            faults.append(f"{name}.kind is {setting['kind']!r}, wanted one of {', '.join(KINDS)}")
        else:
            faults += _faults(f"{name}, {setting['key']},", setting, refused, seen)
    for key, value in extra.items():
        faults += _faults(
            f"host_tuning_extra, {key},", {"key": key, "kind": "set", "value": value}, refused, seen, own=True
        )
    return faults


def _faults(name: str, setting: Setting, refused: list[dict[str, str]], seen: Seen, own: bool = False) -> list[str]:
    key, value, kind = setting["key"], setting["value"], setting["kind"]
    if not isinstance(key, str) or not KEY.fullmatch(key):
        return [
            f"{name} is no key; wanted parts of letters, digits, _ and - with dots between, as in net.core.somaxconn"
        ]
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(r"[ -~]*", str(value)):
        return [f"{name} is {value!r}; wanted a number or one line of text (1 or 0 for yes or no)"]
    numbers = plain(value).split()
    try:
        if kind in ("at_least", "cap") and not plain(value).isdigit():
            raise ValueError
        if kind == "include":
            ports(str(value))
    except ValueError:
        wanted = "ports, as in 3000,9090-9094" if kind == "include" else "a natural number"
        return [f"{name} is {value!r}; wanted {wanted}"]
    if own and seen["values"].get(key) is None and not seen["container"]:
        return [f"{name} is no setting of this kernel; fix: correct the name, or load its module at boot"]
    now = (seen["record"] or {}).get("values", {}).get(key, {}).get("value") or seen["values"].get(key)
    for rule in refused:
        if rule["key"] != key:
            continue
        last = int(numbers[-1]) if numbers and numbers[-1].isdigit() else None
        if (
            rule["when"] == "always"
            or (rule["when"] == "zero" and last == 0)
            or (rule["when"] == "pages" and last is not None and last > seen["pages"])
            or (
                rule["when"] == "lower"
                and kind != "at_least"
                and last is not None
                and now is not None
                and last < int(now)
            )
        ):
            return [f"{name} is {value!r}: refused, since {rule['reason']}; fix: leave it out"]
    return []


class FilterModule:
    """The filters, for Ansible."""

    def filters(self) -> dict[str, Any]:
        """By name."""
        return {"host_tuning_plan": host_tuning_plan, "host_tuning_faults": host_tuning_faults}

"""`./wslab compare`: what the portal says of runs or groups against a base, and an exit code for scripts."""

import json
from pathlib import Path
from typing import Any

from stack.client import Portal


def show(found: dict[str, Any]) -> str:
    """A comparison in lines: of each contender what differs, the verdict and what weakens it."""
    lines = [f"base: {found['base']['title']}", *(f"  caution: {caution}" for caution in found["cautions"])]
    for one in found["contenders"]:
        lines.append(f"{one['side']['title']}: {one['verdict']}")
        lines.append(f"  {one['sentence']}")
        for line in one["differences"]:
            hosts = f" ({', '.join(line['hosts'])})" if line["hosts"] else ""
            lines.append(f"  {line['part']}: {line['what']} {line['base']} → {line['contender']}{hosts}")
        lines += [f"  caution: {caution}" for caution in one["cautions"]]
    return "\n".join([*lines, found["url"]]).replace("\u00a0", " ")


def compare(portal: Portal, base: str, contenders: list[str], file: Path | None) -> int:
    """Print the comparison, and write it to a file; its exit code: 0 none is worse, 1 one is, 3 nothing can be said of
    one."""
    found = portal.compare(base, contenders)
    print(show(found))
    if file is not None:
        file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(found["exit_code"])

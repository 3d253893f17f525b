"""Record what equal runs differ in: one load, repeated against one server, the figures of each run to a file.

    python -m tests.benchmarks.record_repeats FILE [RUNS]

`tests/portal/repeats.json` was made by this: 160 runs in 25 minutes on a machine of two cores that did other work, now
more now less. Half of the runs are suspect for it. Such noise is what comparisons must not take for a change.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCENARIO = {"clients": 100, "interval_ms": 100, "ramp_up_s": 1, "duration_s": 6, "rate_per_s": 100}
KEPT = ("response_time.p50", "response_time.p99", "handshake.p50", "received_per_s")


@contextlib.contextmanager
def serving(log: Path) -> Iterator[str]:
    """A server of our own for the time being: its URL."""
    command = [sys.executable, "-m", "wsnode", "serve", "--port", "0", "--metrics-port", "0", "--workers", "1"]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out, text=True)
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                    yield f"ws://127.0.0.1:{found[1]}/echo"
                    return
            raise SystemExit(f"the server did not start: see {log}")
        finally:
            server.terminate()
            server.wait()


def once(url: str, file: Path) -> dict[str, Any]:
    """One run: its figures, and whether it can be believed."""
    given = [part for name, value in SCENARIO.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "wsnode", "load", url, *given, "--workers", "1", "--quiet", "--json", str(file)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    from wsnode.core.result import figures, read_result

    result = read_result(json.loads(file.read_text()))
    known = figures(result)
    return {"validity": result.validity, "figures": {name: known[name] for name in KEPT}}


def main() -> None:
    """Write FILE anew after each run, so that what was measured is kept whatever comes."""
    target, runs = Path(sys.argv[1]), int((sys.argv[2:] or ["100"])[0])
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "serve.log") as url:
        for number in range(1, runs + 1):
            found.append(once(url, Path(folder) / "result.json"))
            text = ",\n  ".join(json.dumps(run) for run in found)
            about = json.dumps({"scenario": SCENARIO, "cores": os.cpu_count(), "kernel": os.uname().release})
            target.write_text(f'{{"recorded": {about}, "runs": [\n  {text}\n]}}\n')
            print(number, found[-1], flush=True)


if __name__ == "__main__":
    main()

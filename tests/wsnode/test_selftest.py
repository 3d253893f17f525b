"""`wsnode selftest` on this host: what it expects is so, and what is not so it says."""

from __future__ import annotations

import json
import subprocess
import sys

from wsnode.selftest import Check, table

BY_THE_CLOCK = ("delay: ", "stall: response time", "stall: not blamed")
"""What another program on this machine may disturb; a generator that is wrong would fail each time."""
OF_THE_HOST = "schedule: scheduler lag p99"
"""A busy machine has a late schedule, and the row is there to say so."""


def selftest() -> tuple[int, dict[str, dict[str, object]]]:
    done = subprocess.run(
        [sys.executable, "-m", "wsnode", "selftest", "--json"], capture_output=True, text=True, timeout=180, check=False
    )
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    return done.returncode, {check["name"]: check for check in told["checks"]}


def test_the_generator_tells_of_known_faults_what_is_true() -> None:
    for _ in range(3):
        code, checks = selftest()
        wrong = [name for name, check in checks.items() if not check["ok"] and name != OF_THE_HOST]
        assert [name for name in wrong if not name.startswith(BY_THE_CLOCK)] == []
        assert code == (0 if checks[OF_THE_HOST]["ok"] and not wrong else 1)
        if not wrong:
            break
    assert wrong == []
    assert checks["stall: messages of the window"]["measured"] == "3,500 due, 3,500 answered"
    assert checks["loss: every 100th lost"]["measured"] == checks["loss: every 100th lost"]["expected"] != "0"
    assert checks["close in mid-reply: opened"]["expected"] == "21"
    assert any(name.startswith("floor: response time at 1,000/s") for name in checks)


def test_the_table_says_what_is_not_as_expected() -> None:
    lines = list(table([Check("loss", "11", "11", True), Check("delay: p50", "20.0 ms ± 2.00 ms", "25.1 ms", False)]))
    assert lines == [
        "            expected           measured",
        "loss        11                 11        ok",
        "delay: p50  20.0 ms ± 2.00 ms  25.1 ms   NOT",
    ]

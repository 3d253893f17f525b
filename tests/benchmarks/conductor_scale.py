"""What a run costs its conductor, by the number of load generators: one worker, over SSH, from the queue to the record.

    python -m tests.benchmarks.conductor_scale [--hosts 2,20,200] [--seconds 60] [--rounds 3] [--json FILE]

A load of this machine is recorded once; then so many simulated hosts replay it, a line a second in real time, each
over an SSH connection of its own. The worker's process alone is measured (`scale_worker.py`): its CPU time by /proc,
over the whole run and while it follows, and its largest memory. With --baseline FOLDER, another checkout, both conduct
in turns, and ratios are given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh

from tests.portal.replay import Recording, record
from tests.wsnode.serving import ROOT, serving
from wsnode.core.scenario import Scenario
from wsnode.environment import cpu_model

LIMIT_CORES, LIMIT_BYTES = 0.25, 300_000_000
"""What 200 load generators may take of the conducting worker (issue "Runs over SSH")."""
SAMPLE_S = 0.1
WORKER = Path(__file__).with_name("scale_worker.py")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """What one run cost the worker."""

    hosts: int
    seconds: int
    buckets: int
    """Non-empty ones of a host's last line, all histograms together."""
    cpu_s: float
    """From the claim to the worker's end."""
    cores: float
    """The same a second."""
    following_cores: float
    """The same from the origin to the end of the last line."""
    start_s: float
    """From the claim until every host was told to go."""
    start_cpu_s: float
    end_s: float
    """From the last line until all was stored."""
    end_cpu_s: float
    memory_bytes: int
    """The worker's peak, its interpreter included."""

    @property
    def us_per_host_second(self) -> float:
        """CPU time (µs) for a host's second, from the claim to the worker's end."""
        return self.cpu_s / self.hosts / self.seconds * 1e6


def main() -> None:
    """Print a table, in Markdown; write JSON where asked."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="wslab-scale-") as name:
        folder = Path(name)
        recording = _recording(options, folder)
        trees = {"here": ROOT} | ({"baseline": options.baseline.resolve()} if options.baseline else {})
        costs: dict[str, list[Cost]] = {tree: [] for tree in trees}
        for hosts in options.hosts:
            for number in range(options.rounds):
                # In turns, each first as often as the other: what else goes on here then weighs on both alike.
                for tree in list(trees) if number % 2 else reversed(trees):
                    cost = _run(
                        recording, hosts, folder / f"{hosts}-{number}-{tree}", trees[tree], folder / "recording"
                    )
                    print(f"{tree}: {cost}", file=sys.stderr, flush=True)
                    costs[tree].append(cost)
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} × {cpu_model()}, Linux {platform.release()}, Python {platform.python_version()}",
        "costs": {tree: [asdict(cost) for cost in found] for tree, found in costs.items()},
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{document['at']}, {document['machine']}; medians of {options.rounds} runs of {options.seconds} s\n")
    for line in table(options.hosts, costs):
        print(line)


def table(all_hosts: list[int], costs: dict[str, list[Cost]]) -> Iterator[str]:
    """Medians by number of hosts, Markdown."""
    head = ["hosts", "CPU", "of a core", "following", "µs a host and second", "start, CPU", "end, CPU", "memory"]
    if "baseline" in costs:
        head.append("CPU to baseline")
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---:' for _ in head)} |"
    for hosts in all_hosts:
        found = [cost for cost in costs["here"] if cost.hosts == hosts]

        def median(name: str, found: list[Cost] = found) -> float:
            return statistics.median(getattr(cost, name) for cost in found)

        row = (
            f"| {hosts} | {median('cpu_s'):.1f} s | {median('cores'):.1%} | {median('following_cores'):.1%} |"
            f" {median('us_per_host_second'):,.0f} | {median('start_cpu_s'):.1f} s | {median('end_cpu_s'):.1f} s |"
            f" {median('memory_bytes') / 1e6:.0f} MB |"
        )
        if "baseline" in costs:
            pairs = zip(found, (cost for cost in costs["baseline"] if cost.hosts == hosts), strict=True)
            row += f" {statistics.median(one.cpu_s / other.cpu_s for one, other in pairs):.2f} |"
        yield row


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--hosts", type=lambda text: [int(part) for part in text.split(",")], default=[2, 20, 200], metavar="N,N,…"
    )
    parser.add_argument("--seconds", type=int, default=60, help="length of the load (default 60)")
    parser.add_argument("--clients", type=int, default=400, help="of each host (default 400)")
    parser.add_argument("--interval", type=int, default=200, metavar="MS", help="between a client's messages (200)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each number of hosts (default 3)")
    parser.add_argument("--recording", type=Path, metavar="FILE", help="take this one; made there where it is missing")
    parser.add_argument("--baseline", type=Path, metavar="FOLDER", help="another checkout to compare with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's figures")
    return parser.parse_args()


def _recording(options: argparse.Namespace, folder: Path) -> Recording:
    file = options.recording or folder / "recording"
    if not file.exists():
        scenario = Scenario(
            clients=options.clients, interval_ms=options.interval, duration_s=options.seconds, ramp_up_s=5,
            rate_per_s=options.clients / 5, drain_s=2, reply_timeout_s=1,
        )  # fmt: skip
        print(f"recording {options.seconds} s of {options.clients} clients", file=sys.stderr, flush=True)
        with serving("--workers", "1") as server:
            asyncio.run(record(scenario, server.url())).save(file)
    if file != folder / "recording":
        shutil.copy(file, folder / "recording")
    return Recording.load(file)


# --- one run ----------------------------------------------------------------------------------------------------------


def _run(recording: Recording, hosts: int, folder: Path, tree: Path, file: Path) -> Cost:
    """A run of `tree`'s conductor over so many hosts."""
    folder.mkdir()
    for name in ("host", "client"):
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(folder / name)
        (folder / name).chmod(0o600)
    with _replaying(file, hosts, folder) as port:
        (folder / "lab.json").write_text(json.dumps(_lab(hosts, port, folder)))
        environment = {
            **os.environ,
            "WSLAB_STATE": str(folder),
            "WSLAB_LAB": str(folder / "lab.json"),
            "WSLAB_SSH_KEY": str(folder / "client"),
            "DJANGO_SETTINGS_MODULE": "portal.config.settings",
            "DATABASE_URL": "",
            "PYTHONPATH": str(tree),
            "SCALE_SCENARIO": recording.for_hosts(hosts).model_dump_json(),
        }
        worker = [sys.executable, str(WORKER)]
        subprocess.run([*worker, "prepare"], cwd=tree, env=environment, check=True, stdout=sys.stderr)
        samples, peak = _watched([*worker, "conduct"], tree, environment, folder)
    told = json.loads((folder / "told.json").read_text())
    assert told["state"] == "finished", told
    assert told["seconds"] == recording.scenario.duration_s, told
    ends = told["start_at_ns"] / 1e9 + recording.scenario.duration_s + 1
    origin, claimed, over = told["start_at_ns"] / 1e9, told["preflight_at"], samples[-1][0]

    def cpu(at: float) -> float:
        return samples[min(bisect_left(samples, (at, 0.0)), len(samples) - 1)][1]

    return Cost(
        hosts=hosts,
        seconds=recording.scenario.duration_s,
        buckets=sum(len(histogram.buckets) for histogram in recording.lines[-1].histograms.values()),
        cpu_s=cpu(over) - cpu(claimed),
        cores=(cpu(over) - cpu(claimed)) / (over - claimed),
        following_cores=(cpu(ends) - cpu(origin)) / (ends - origin),
        start_s=origin - claimed,
        start_cpu_s=cpu(origin) - cpu(claimed),
        end_s=over - ends,
        end_cpu_s=cpu(over) - cpu(ends),
        memory_bytes=peak,
    )


@contextmanager
def _replaying(file: Path, hosts: int, folder: Path) -> Iterator[int]:
    """The simulated hosts, in a process of their own. Gives their port."""
    command = [sys.executable, "-m", "tests.portal.replay", str(file), str(hosts), str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as replay:
        try:
            assert replay.stdout is not None
            yield int(replay.stdout.readline())
        finally:
            replay.terminate()


def _watched(
    command: list[str], tree: Path, environment: dict[str, str], folder: Path
) -> tuple[list[tuple[float, float]], int]:
    """Run the worker. Its CPU time (s) at moments (s since the epoch), and the most memory (bytes) that it had."""
    samples: list[tuple[float, float]] = []
    peak = 0
    with (folder / "log").open("w") as log:
        worker = subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=log)
        while worker.poll() is None:
            try:
                fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
                status = Path(f"/proc/{worker.pid}/status").read_text()
            except OSError:
                break
            samples.append((time.time(), (int(fields[11]) + int(fields[12])) / TICKS))
            if "VmHWM:" in status:
                peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
            time.sleep(SAMPLE_S)
    assert worker.wait() == 0, (folder / "log").read_text()[-4000:]
    return samples, peak


def _lab(hosts: int, port: int, folder: Path) -> dict[str, Any]:
    key = asyncssh.read_private_key(folder / "host").export_public_key().decode().strip()
    place = {"transport": "ssh", "address": "127.0.0.1", "port": port, "host_keys": [key], "socket": "/run/agent"}
    names = [f"load-{number}" for number in range(1, hosts + 1)]
    generators = [{"name": name, "role": "load_generator", "user": name, **place} for name in names]
    # The server is only looked at, before and after: the first load generator's twin answers for it.
    server = {"name": "server", "role": "server", "user": "server", "ws_url": "ws://127.0.0.1:9", **place}
    return {"lab": "scale", "machine": f"scale-{os.getpid()}", "hosts": [server, *generators]}


if __name__ == "__main__":
    main()

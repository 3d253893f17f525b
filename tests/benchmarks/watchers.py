"""What those who watch a run cost the portal: CPU time of its process, with so many watchers and with none.

    python -m tests.benchmarks.watchers --url http://127.0.0.1:8000 --run r-… --user ada --password … [--watchers 1 10]

Needs a lab in which that run is running. Each watcher does what a browser does: once a second it fetches the live part
and the seconds that it does not have. The portal's process is the one that listens at the address, with its children.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from urllib.parse import urlsplit

import httpx
import psutil


class Watcher(threading.Thread):
    """One browser, more or less."""

    def __init__(self, options: argparse.Namespace, until: float) -> None:
        super().__init__()
        self._client = httpx.Client(base_url=options.url, trust_env=False, timeout=10, follow_redirects=True)
        self._run, self._until = options.run, until
        self.took_s: list[float] = []
        self.bytes = 0
        page = self._client.get("/accounts/login/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        if token is None:
            raise SystemExit(f"{options.url} has no login page")
        form = {"username": options.user, "password": options.password, "csrfmiddlewaretoken": token[1]}
        answer = self._client.post("/accounts/login/", data=form, headers={"Referer": options.url})
        if "/accounts/login" in str(answer.url):
            raise SystemExit(f"{options.user} is not let in")

    def run(self) -> None:
        """Watch until the time is over."""
        after = hosts_after = 0
        while time.monotonic() < self._until:
            begun = time.monotonic()
            live = self._client.get(f"/runs/{self._run}/live", headers={"HX-Request": "true"})
            query = {"after": after, "hosts_after": hosts_after}
            series = self._client.get(f"/runs/{self._run}/series.json", params=query)
            self.took_s.append((time.monotonic() - begun) / 2)
            self.bytes += len(live.content) + len(series.content)
            data = series.raise_for_status().json()
            if data["over"]:
                raise SystemExit(f"run {self._run} is over: start one that lasts longer")
            after, hosts_after = ((data["tables"][name]["second"] or [was])[-1] for name, was in
                                  (("run", after), ("hosts", hosts_after)))  # fmt: skip
            time.sleep(max(0.0, begun + 1 - time.monotonic()))


def portal(url: str) -> list[psutil.Process]:
    """The processes that listen at an address, and those that they made."""
    port = urlsplit(url).port
    owners = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid
    }
    found = {
        process.pid: process for pid in owners for process in (psutil.Process(pid), *psutil.Process(pid).children())
    }
    if not found:
        raise SystemExit(f"nobody listens at {url}, or it is not ours to see")
    return list(found.values())


def cpu_s(processes: list[psutil.Process]) -> float:
    """CPU time that they have used."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def main() -> None:
    """Print a line for each number of watchers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--run", required=True, help="a run that is running")
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--watchers", type=int, nargs="+", default=[0, 1, 10], help="how many (default 0 1 10)")
    parser.add_argument("--seconds", type=float, default=20, help="how long for each (default 20)")
    options = parser.parse_args()
    processes = portal(options.url)
    for n in options.watchers:
        until = time.monotonic() + options.seconds + 2
        watchers = [Watcher(options, until) for _ in range(n)]
        for place, watcher in enumerate(watchers):
            threading.Timer(place / max(1, n), watcher.start).start()
        time.sleep(2)  # what everybody loads first
        before, begun = cpu_s(processes), time.monotonic()
        time.sleep(options.seconds)
        share = (cpu_s(processes) - before) / (time.monotonic() - begun)
        for watcher in watchers:
            watcher.join()
        took = sorted(t for watcher in watchers for t in watcher.took_s[2:])
        words = f"{n:3} watchers: {share:6.1%} of a core"
        if took:
            middle, late = took[len(took) // 2], took[int(len(took) * 0.95)]
            sent = sum(watcher.bytes for watcher in watchers) / n / options.seconds / 1024
            words += f", a request {middle * 1e3:.1f} ms (p95 {late * 1e3:.1f}), {sent:.1f} KiB/s each"
        print(words)


if __name__ == "__main__":
    main()

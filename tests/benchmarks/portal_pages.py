"""Server time of the portal's pages over a large history.

    python -m portal.manage migrate && python -m portal.manage seed_demo --runs 10000
    python -m tests.benchmarks.portal_pages [--rounds 20] [--only list]

Asks the portal of `WSLAB_STATE` or `DATABASE_URL` in this process, as somebody signed in, from the request to the
finished response: middleware, queries and templates, no network. Prints of each page the median and the 95th
percentile, that also of processor time, which says more on a machine that has other things to do; then its queries and
its size. The exit code is 1 where a 95th percentile is over its limit, by the clock, or with --processor by processor
time, in which PostgreSQL's own is not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator
from time import perf_counter, process_time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

import django

if TYPE_CHECKING:
    from django.test import Client


class Asked(NamedTuple):
    """An address, and what it may take."""

    page: str
    path: str
    limit_ms: float | None


def main() -> int:
    """Measure. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="pages whose name begins so")
    parser.add_argument("--processor", action="store_true", help="hold processor time against the limits")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.config.settings")
    django.setup()
    return measure(options.rounds, options.only, by_processor=options.processor)


def measure(rounds: int, only: str, *, by_processor: bool) -> int:
    """Ask for every page `rounds` times, in turns, since a busy machine slows whatever it meets."""
    from django.conf import settings
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from portal.accounts.models import User

    settings.ALLOWED_HOSTS = ["testserver"]
    user, _ = User.objects.update_or_create(username="benchmark", defaults={"role": "operator"})
    client = Client()
    client.force_login(user)
    # An address that leads to a permalink is asked for at that.
    asked = [one._replace(path=_led_to(client, one.path)) for one in addresses() if one.page.startswith(only)]
    times: dict[Asked, list[float]] = {one: [] for one in asked}
    spent: dict[Asked, list[float]] = {one: [] for one in asked}
    told: dict[Asked, tuple[int, int]] = {}
    for one in asked:
        with CaptureQueriesContext(connection) as queries:
            answer = client.get(one.path)
        if answer.status_code != 200:
            print(f"{one.path}: {answer.status_code}", file=sys.stderr)
            return 2
        told[one] = len(queries), len(answer.content)
    for _ in range(rounds):
        for one in asked:
            begun, before = perf_counter(), process_time()
            client.get(one.path)
            times[one].append((perf_counter() - begun) * 1000)
            spent[one].append((process_time() - before) * 1000)
    print(f"{connection.vendor}, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'page':<9} {'median':>8} {'p95':>8} {'p95 CPU':>8} {'limit':>6} {'queries':>8} {'KiB':>6}  address")
    over = 0
    for one, taken in times.items():
        p95, p95_cpu = (statistics.quantiles(some, n=20)[-1] for some in (taken, spent[one]))
        failed = one.limit_ms is not None and (p95_cpu if by_processor else p95) > one.limit_ms
        over += failed
        limit = "" if one.limit_ms is None else f"{one.limit_ms:.0f}"
        queries, size = told[one]
        print(
            f"{one.page:<9} {statistics.median(taken):>8.1f} {p95:>8.1f} {p95_cpu:>8.1f} {limit:>6} {queries:>8} "
            f"{size / 1024:>6.0f}  {one.path}{'  OVER' if failed else ''}"
        )
    for page in dict.fromkeys(one.page for one in asked):
        for what, measured in (("clock", times), ("processor", spent)):
            every = [ms for one, taken in measured.items() if one.page == page for ms in taken]
            p95 = statistics.quantiles(every, n=20)[-1]
            print(f"{page:<9} all, by {what}: median {statistics.median(every):.1f}, p95 {p95:.1f}")
    return 1 if over else 0


def _led_to(client: Client, path: str) -> str:
    answer = client.get(path)
    return answer["Location"] if answer.status_code == 302 else path


def addresses() -> Iterator[Asked]:
    """What is asked for, of what the database has."""
    from django.urls import NoReverseMatch, reverse

    from portal.runs.models import Run, RunGroup

    yield Asked("home", "/", None)
    newest = Run.objects.finished().order_by("-created_at")
    last = newest.first()
    assert last is not None, "no runs: manage seed_demo --runs 10000"
    group = RunGroup.objects.filter(kind="repeat").first()
    middle = newest[newest.count() // 2]
    for parameters in (
        {},
        {"page": "150"},
        {"scenario": last.scenario_name},
        {"subject": last.subject_name},
        {"subject": last.subject_name, "version": last.subject_version},
        {"version": middle.subject_version},
        {"verdict": "failed"},
        {"validity": "suspect"},
        {"tag": "nightly"},
        {"tag": "regression"},
        {"author": "grace"},
        {"host": "load-1"},
        {"host": "load-4"},
        {"from": f"{middle.created_at:%Y-%m-%d}", "to": f"{middle.created_at:%Y-%m-%d}"},
        {"to": f"{middle.created_at:%Y-%m-%d}"},
        {"engine": "lean"},
        {"state": "lost"},
        {"state": "active"},
        {"group": group.pk if group else "g-none"},
        {"starred": "yes"},
        {"q": "kernel"},
        {"q": "backup"},
        {"q": "nothing-like-it"},
        {"sort": "p99"},
        {"sort": "-p99"},
        {"sort": "-throughput", "scenario": last.scenario_name},
        {"sort": "-errors", "host": "load-4"},
        {"sort": "subject", "verdict": "failed"},
        {"scenario": last.scenario_name, "verdict": "failed", "host": "load-1", "q": "gate", "sort": "-p99"},
    ):
        yield Asked("list", f"/runs/?{urlencode(parameters)}", 60)
    for name in ("release-gate", "smoke", "idle-hold"):
        run = newest.filter(scenario_name=name).first()
        if run is not None:
            yield Asked("run", f"/runs/{run.pk}/", 120)
    keys = list(newest.filter(scenario_name=last.scenario_name).values_list("pk", flat=True)[:5])
    yield Asked("compare", "/runs/compare?" + urlencode([("run", key) for key in keys]), 250)
    if len(groups := list(RunGroup.objects.filter(kind="alternate", partner__isnull=False)[:1])):
        first = groups[0]
        yield Asked("compare", "/runs/compare?" + urlencode([("run", first.pk), ("run", first.partner_id)]), 250)
        yield Asked("group", first.get_absolute_url(), None)
    for name in ("history:history", "scenarios:list", "schedules:list", "runs:new", "lab"):
        try:
            path = reverse(name)
        except NoReverseMatch:
            continue
        if name == "history:history":
            yield Asked("history", f"{path}?scenario=nightly-echo", 200)
        else:
            yield Asked("other", path, None)


if __name__ == "__main__":
    sys.exit(main())

"""A run that goes on is read once for all who watch it; its hosts are asked once a second."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from portal.labs.lab import load_lab
from portal.runs import series
from portal.runs.models import Run
from portal.runs.progress import at_present, words
from portal.runs.series import of_line, tabulate
from portal.runs.states import State
from portal.runs.watching import MOST_RUNS, forget, watching
from tests.portal.factories import add_seconds, host_runs, make_run, make_user, merged_lines, say

pytestmark = pytest.mark.django_db
START_S = 1_795_000_000


@pytest.fixture
def running() -> Run:
    run = make_run(make_user(), State.RUNNING, start_at_ns=START_S * 1_000_000_000)
    forget(run.pk)
    add_seconds(run, merged_lines(host_runs(lose_every=50))[:5])
    return run


def whole(n: int) -> series.Table:
    """The table of the first n seconds."""
    before, points = None, []
    for line in merged_lines(host_runs(lose_every=50))[:n]:
        points.append(of_line(line, before))
        before = line
    return tabulate(points)


def test_each_second_is_read_once(running: Run, django_assert_num_queries: Callable[[int], Any]) -> None:
    seen = watching(running.pk)
    with django_assert_num_queries(1):
        seen.read_seconds(running)
    for _ in range(10):
        with django_assert_num_queries(0):
            watching(running.pk).read_seconds(running)
    assert seen.table == whole(5)
    add_seconds(running, merged_lines(host_runs(lose_every=50))[5:7])
    seen.read_seconds(running)
    assert seen.table == whole(7)
    assert [line.second for line in seen.lines if line] == [6, 7]


def test_only_the_last_few_runs_are_kept_in_memory(running: Run) -> None:
    seen = watching(running.pk)
    for n in range(MOST_RUNS - 1):
        watching(f"r-other{n}")
    assert watching(running.pk) is seen
    for n in range(MOST_RUNS):
        watching(f"r-more{n}")
    assert watching(running.pk) is not seen


def test_errors_of_now_are_counted_in_all_and_in_the_last_second() -> None:
    lines = merged_lines(host_runs(lose_every=50))
    now = at_present(None, lines[3:5])
    assert [(kind.name, kind.n, kind.lately) for kind in now.errors] == [("messages lost", 44, 10)]
    assert (now.offered_per_s, now.answered_per_s) == (500, 490)
    assert now.lag_p99_s == pytest.approx(0.0002, rel=0.3)
    assert at_present(None, []) == (None, None, None, None, None, [])


def test_a_word_is_a_hosts_own(running: Run) -> None:
    say(running, "load-2: prepared")
    event = say(running, "load-2: its load is over")
    event.confirms = "load-2"
    event.save()
    said = words(running, list(running.events.all()))
    assert [(word.host, word.text, word.at) for word in said] == [
        ("load-1", "no word yet", None),
        ("load-2", "its load is over", event.at),
    ]
    running.state = State.CANCELLED
    assert words(running, [])[0].text == "nothing was running there"


# --- hosts -------------------------------------------------------------------------------------------------------
class Asked:
    """A stand-in that knows the instant queries of a Prometheus; what was asked of it."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.answers: dict[str, Callable[[float], list[dict[str, Any]]]] = {}
        self.broken = False


@contextmanager
def prometheus(asked: Asked) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            query, at = form["query"][0], float(form["time"][0])
            asked.queries.append(query)
            found = next((answer(at) for key, answer in asked.answers.items() if key in query), [])
            body = {"status": "success", "data": {"resultType": "matrix", "result": found}}
            text = b"out of order" if asked.broken else json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def asked() -> Asked:
    found = Asked()

    def of(host: str, *values: float) -> Callable[[float], list[dict[str, Any]]]:
        times = [START_S + 1, START_S + 2]
        samples = [[at, str(value)] for at, value in zip(times, values, strict=True)]
        return lambda _: [{"metric": {"host": host}, "values": samples}]

    found.answers = {
        "node_cpu_seconds_total": of("server", 1.25, 1.5),
        'node_worker_cpu_seconds_total{job="wsnode-agent"': of("load-1", 0.25, 0.5),
        'node_eventloop_lag_seconds{job="wsnode-server"': of("server", 0.001, 0.25),
    }
    return found


def test_hosts_are_asked_once_a_second_for_what_is_new(
    running: Run, asked: Asked, lab_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [START_S + 2.5]
    monkeypatch.setattr("portal.runs.watching.time.time", lambda: clock[0])
    with prometheus(asked) as url:
        data = json.loads(lab_file.read_text())
        lab_file.write_text(json.dumps({**data, "prometheus_url": url}))
        lab, seen = load_lab(lab_file), watching(running.pk)
        for _ in range(10):
            seen.ask_hosts(running, lab)
        assert len(asked.queries) == 5
        assert all(query.endswith("[3s:1s]") for query in asked.queries)
        assert seen.hosts == {
            "second": [1, 2],
            "cpu:server": [1.25, 1.5],
            "worker:load-1": [0.25, 0.5],
            "loop_lag:server": [0.001, 0.25],
        }
        now = {host.name: host for host in seen.hosts_now(running)}
        assert list(now) == ["server", "load-1", "load-2"]
        assert now["server"] == ("server", "server", 1.5, None, 0.25)
        assert now["load-1"] == ("load-1", "load generator", None, 0.5, None)
        assert now["load-2"][2:] == (None, None, None)

        clock[0] += 1
        asked.answers = {"node_cpu_seconds_total": lambda at: [
            {"metric": {"host": "server"}, "values": [[START_S + 2, "1.5"], [START_S + 3, "1.75"]]}
        ]}  # fmt: skip
        seen.ask_hosts(running, lab)
        assert seen.hosts["second"] == [1, 2, 3]
        assert seen.hosts["cpu:server"] == [1.25, 1.5, 1.75]
        assert seen.hosts["loop_lag:server"] == [0.001, 0.25, None]


def test_a_prometheus_out_of_order_costs_the_hosts_and_is_left_alone_for_a_while(
    running: Run, asked: Asked, lab_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [START_S + 2.5]
    monkeypatch.setattr("portal.runs.watching.time.time", lambda: clock[0])
    asked.broken = True
    with prometheus(asked) as url:
        lab_file.write_text(json.dumps({**json.loads(lab_file.read_text()), "prometheus_url": url}))
        lab, seen = load_lab(lab_file), watching(running.pk)
        seen.ask_hosts(running, lab)
        assert seen.fault == f"{url} is no Prometheus: HTTP 200, no JSON"
        clock[0] += 2
        seen.ask_hosts(running, lab)
        assert len(asked.queries) == 1
        clock[0] += 4
        asked.broken = False
        seen.ask_hosts(running, lab)
        assert (seen.fault, seen.hosts["second"]) == ("", [1, 2])


def test_a_lab_without_prometheus_says_so(running: Run, lab_file: Any) -> None:
    seen = watching(running.pk)
    seen.ask_hosts(running, load_lab(lab_file))
    assert seen.fault == "the lab has no Prometheus"
    running.start_at_ns = None
    other = watching("r-before")
    other.ask_hosts(running, None)
    assert other.fault == ""

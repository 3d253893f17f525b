"""Evidence from a real Prometheus with a hand-made history, and without one."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from portal.monitoring.evidence import NO_PROMETHEUS, Row, Seen, Span, Target, Watched, missing_targets, watch
from portal.monitoring.prometheus import Prometheus, PrometheusError
from tests.monitoring.conftest import T0, Server, free_port

SERVER = Target("wsnode-server", "server", "server")
LOAD_1 = Target("wsnode-agent", "load-1", "load_generator")
LOAD_2 = Target("wsnode-agent", "load-2", "load_generator")
TARGETS = [
    SERVER,
    Target("wsnode-agent", "server", "server"),
    Target("node", "server", "server"),
    LOAD_1,
    LOAD_2,
]
WINDOW = Span(T0, T0 + 10)
"""Ten samples of each series: at 0.4, 1.4 … 9.4."""


def ask(url: str | None, targets: Sequence[Target] = TARGETS, **options: object) -> Watched:
    arguments = {"window": WINDOW, "whole": Span(T0 - 1, T0 + 12), "clock": lambda: T0 + 20.0, "patience_s": 0.3}
    return watch(url, targets, **(arguments | options))  # type: ignore[arg-type]


def row(watched: Watched, name: str) -> Row:
    (found,) = [one for one in watched.rows if one.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "value", "host"),
    [
        ("Server CPU", 0.75, "server"),
        ("Server memory, most", 1_009_000, "server"),
        ("Server event-loop lag, largest", 0.080, "server"),
        ("Server connections, most", 40 + 41 + 5 + 5, "server"),
        ("Generator CPU, busiest worker", 0.6, "load-2"),
        ("Host CPU", 0.7, "server"),
        ("Host memory available, least", 7e9, "server"),
        ("Host sockets, most", 309, "server"),
    ],
)
def test_each_figure_is_what_the_raw_samples_of_the_window_give(
    prometheus: Server, name: str, value: float, host: str
) -> None:
    found = row(ask(prometheus.url), name)
    assert found.no_data is None
    assert found.value == pytest.approx(value, rel=1e-9)
    assert (found.host, found.samples, found.window_s, found.step_s) == (host, 10, 10, 1)
    assert found.grafana_url is None


def test_each_rows_query_gives_the_same_figure_when_it_is_pasted_into_prometheus(prometheus: Server) -> None:
    watched = ask(prometheus.url)
    with Prometheus(prometheus.url) as client:
        for found in watched.rows:
            ((_, value),) = client.values(found.promql, time.time())
            assert value == pytest.approx(found.value, rel=1e-6), found.promql


def test_the_samples_behind_each_row_are_kept(prometheus: Server) -> None:
    watched = ask(prometheus.url)
    assert len(watched.series) == len(watched.rows) == 8
    selector, series = watched.series[0]
    assert selector == 'node_worker_cpu_seconds_total{job="wsnode-server",host="server"}'
    assert [one.labels["worker"] for one in series] == ["0", "1"]
    assert [at for at, _ in series[0].samples] == pytest.approx([T0 + 0.4 + n for n in range(10)])


def test_several_hosts_have_a_row_each_where_the_figure_is_a_hosts(prometheus: Server) -> None:
    watched = ask(prometheus.url, [*TARGETS, Target("node", "load-1", "load_generator")])
    assert row(watched, "Host CPU (server)").value == pytest.approx(0.7)
    assert row(watched, "Host CPU (load-1)").value == pytest.approx(1.4)
    assert row(watched, "Host CPU (load-1)").host == "load-1"
    assert len(watched.rows) == 11


def test_three_samples_are_no_data(prometheus: Server) -> None:
    watched = ask(prometheus.url, [Target("wsnode-server", "seldom", "server")])
    found = row(watched, "Server memory, most")
    assert (found.value, found.no_data, found.samples) == (None, "no data: 3 samples in 10 s", 3)
    wider = ask(prometheus.url, [Target("wsnode-server", "away", "server")], window=Span(T0 - 4, T0 + 10))
    assert (row(wider, "Server memory, most").value, row(wider, "Server memory, most").samples) == (5.0, 4)


def test_samples_before_and_after_the_window_are_no_data(prometheus: Server) -> None:
    found = row(ask(prometheus.url, [Target("wsnode-server", "away", "server")]), "Server memory, most")
    assert (found.value, found.no_data) == (None, "no data: 0 samples in 10 s")


def test_a_host_that_is_not_scraped_is_said_to_be_so(prometheus: Server) -> None:
    watched = ask(prometheus.url, [SERVER])
    assert row(watched, "Host CPU").no_data == "no host of this lab is scraped as node"
    assert row(watched, "Generator CPU, busiest worker").no_data == (
        "no load generator of this lab is scraped as wsnode-agent"
    )


def test_a_server_that_was_started_anew_is_noticed_and_its_gain_is_right(prometheus: Server) -> None:
    watched = ask(prometheus.url, [Target("wsnode-server", "reset", "server")])
    assert watched.restarts == 1
    # From 1000 - 2 * 100 to 1000 + 4 * 100, then from 0 to 7 * 100.
    assert watched.received == 600 + 700
    # 4 in the four seconds before, then half of 4: over the 9 s between the first and the last sample.
    assert row(watched, "Server CPU").value == pytest.approx((4 + 2) / 9)
    assert ask(prometheus.url).restarts == 0


def test_totals_run_from_the_sample_before_the_run_to_the_one_after_it(prometheus: Server) -> None:
    watched = ask(prometheus.url)
    assert (watched.received, watched.opened) == (1000, 50)
    assert ask(prometheus.url, whole=Span(T0 + 2.5, T0 + 5.5)).received == 400
    unknown = ask(prometheus.url, whole=Span(T0 + 2.5, T0 + 20.6))
    assert (unknown.received, unknown.opened) == (None, None)


def test_failed_and_missing_scrapes_are_counted_per_target(prometheus: Server) -> None:
    seen = {one.target: one for one in ask(prometheus.url).seen}
    assert seen[SERVER] == Seen(SERVER, 10, 0, 0)
    assert seen[LOAD_1] == Seen(LOAD_1, 10, 2, 0)
    assert seen[LOAD_2] == Seen(LOAD_2, 10, 0, 3)
    assert str(LOAD_1) == "load-1 (wsnode-agent)"


def test_a_sample_after_the_run_is_waited_for_but_not_for_ever(prometheus: Server) -> None:
    begin, times = time.monotonic(), iter([T0 + 5.0, T0 + 5.0])
    watched = ask(prometheus.url, [SERVER], clock=lambda: next(times, T0 + 13.0), patience_s=20)
    assert watched.received == 1000
    assert 0.4 < time.monotonic() - begin < 10
    begin = time.monotonic()
    ask(prometheus.url, [SERVER], clock=lambda: T0 + 5.0, patience_s=0.5)
    assert 0.5 <= time.monotonic() - begin < 10


def test_rows_link_to_grafana_where_there_is_one(prometheus: Server) -> None:
    watched = ask(prometheus.url, grafana_url="http://lab:3001")
    assert all((found.grafana_url or "").startswith("http://lab:3001/explore?") for found in watched.rows)


def test_targets_that_are_not_up_are_named(prometheus: Server) -> None:
    itself = Target("wsnode-server", "itself", "server")
    silent = Target("wsnode-agent", "silent", "load_generator")
    unknown = Target("node", "nobody", "server")
    assert missing_targets(prometheus.url, [itself], 20) == []
    deadline = time.monotonic() + 20
    while (lines := missing_targets(prometheus.url, [itself, silent, unknown], 0.0)) != [
        "silent (wsnode-agent) is down",
        "nobody (node) is not scraped yet",
    ]:
        assert time.monotonic() < deadline, lines
        time.sleep(0.2)


def test_a_refused_query_says_why(prometheus: Server) -> None:
    with Prometheus(prometheus.url) as client, pytest.raises(PrometheusError, match=r"refuses sum\(: .*parse error"):
        client.values("sum(", time.time())


def test_without_a_prometheus_every_row_says_so() -> None:
    watched = ask(None)
    assert len(watched.rows) == 8
    assert {(found.value, found.no_data, found.samples) for found in watched.rows} == {(None, NO_PROMETHEUS, 0)}
    assert watched.seen == []
    assert watched.received is watched.opened is None


def test_an_unreachable_prometheus_costs_the_figures_and_counts_as_scrapes_missing() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    watched = ask(url)
    assert watched.fault is not None
    assert watched.fault.startswith(f"Prometheus at {url} does not answer: ")
    assert {found.no_data for found in watched.rows} == {watched.fault}
    assert watched.seen == [Seen(target, 10, 0, 10) for target in TARGETS]
    with pytest.raises(PrometheusError, match="does not answer"):
        missing_targets(url, TARGETS, 0)


@pytest.fixture
def stranger() -> Iterator[str]:
    """A web server that is no Prometheus."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_something_else_in_prometheus_place_is_named(stranger: str) -> None:
    watched = ask(stranger)
    assert watched.fault == f"{stranger} is no Prometheus: HTTP 404, no JSON"

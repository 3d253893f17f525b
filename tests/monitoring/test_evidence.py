"""Evidence from a real Prometheus with a hand-made history, and without one."""

from __future__ import annotations

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs

import pytest

from portal.monitoring.evidence import NO_PROMETHEUS, Kernel, Row, Seen, Span, Target, Watched, missing_targets, watch
from portal.monitoring.links import Page
from portal.monitoring.prometheus import Prometheus, PrometheusError
from portal.monitoring.queries import QUERIES
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


@pytest.fixture(scope="module")
def usual(prometheus: Server) -> Watched:
    """The usual targets over the usual window."""
    return ask(prometheus.url)


def row(watched: Watched, name: str) -> Row:
    (found,) = [one for one in watched.rows if one.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "value", "host"),
    [
        ("Server CPU", 0.75, "server"),
        ("Server memory, most", 1_009_000, "server"),
        ("Server memory, at the end", 1_009_000, "server"),
        ("Server event-loop lag, largest", 0.080, "server"),
        ("Server event-loop utilisation, busiest worker's mean", 0.5, "server"),
        ("Server connections, most", 40 + 41 + 5 + 5, "server"),
        ("Server messages received", 100, "server"),
        ("Server messages sent", 80, "server"),
        ("Server bytes received", 6400, "server"),
        ("Server bytes sent", 5120, "server"),
        ("Server connection errors", 2 + 1, "server"),
        ("Server room messages dropped between workers", 4 + 0.5, "server"),
        ("Server open descriptors, most in a worker", 10 + 2 + 9, "server"),
        # Rank 99 of 100 lies half way between 98 (5 ms) and 100 (10 ms).
        ("Server processing time p99, approximate", 0.0075, "server"),
        ("Generator CPU, busiest worker", 0.6, "load-2"),
        # Rank 198 of 200 over both: 190 within 0.5 ms, 200 within 1 ms.
        ("Generator scheduler lag p99, approximate", 0.0009, ""),
        ("Generator messages sent", 30 + 50, ""),
        ("Generator open descriptors, most in a worker", 9, "load-2"),
        ("Host CPU", 0.7, "server"),
        ("Host CPU, stolen", 0.05, "server"),
        ("Host CPU pressure", 0.125, "server"),
        ("Host context switches", 1000, "server"),
        ("Host memory available, least", 7e9, "server"),
        ("Host sockets, most", 309, "server"),
        ("Host TCP sockets in use, most", 209, "server"),
        ("Host TIME-WAIT sockets, most", 109, "server"),
        ("Host IP traffic in", 9000, "server"),
        ("Host IP traffic out", 8000, "server"),
        ("Host TCP segments retransmitted", 4, "server"),
        ("Host listen queue overflows", 2, "server"),
        ("Host listen drops", 3, "server"),
        ("Host packets dropped on input", 1 + 2, "server"),
        ("Host conntrack table, fullest", 0.6, "server"),
    ],
)
def test_each_figure_is_what_the_raw_samples_of_the_window_give(
    usual: Watched, name: str, value: float, host: str
) -> None:
    found = row(usual, name)
    assert found.no_data is None
    assert found.value == pytest.approx(value, rel=1e-9)
    assert (found.host, found.samples, found.window_s, found.step_s) == (host, 10, 10, 1)
    assert found.grafana_url is None


def test_the_table_above_has_every_row(usual: Watched) -> None:
    assert [found.name for found in usual.rows if found.value is not None] == [query.name for query in QUERIES]


def test_each_rows_query_gives_the_same_figure_when_it_is_pasted_into_prometheus(
    prometheus: Server, usual: Watched
) -> None:
    with Prometheus(prometheus.url) as client:
        for found in usual.rows:
            ((_, value),) = client.values(found.promql, time.time())
            assert value == pytest.approx(found.value, rel=1e-6), found.promql


def test_the_samples_behind_each_row_are_kept(usual: Watched) -> None:
    assert len(usual.series) == len(usual.rows) + 1
    assert [selector for selector, _ in usual.series[-2:]] == [
        'node_nf_conntrack_entries{job="node",host="server"}',
        'node_nf_conntrack_entries_limit{job="node",host="server"}',
    ]
    selector, series = usual.series[0]
    assert selector == 'node_worker_cpu_seconds_total{job="wsnode-server",host="server"}'
    assert [one.labels["worker"] for one in series] == ["0", "1"]
    assert [at for at, _ in series[0].samples] == pytest.approx([T0 + 0.4 + n for n in range(10)])


def test_several_hosts_have_a_row_each_where_the_figure_is_a_hosts(prometheus: Server) -> None:
    watched = ask(prometheus.url, [*TARGETS, Target("node", "load-1", "load_generator")])
    assert row(watched, "Host CPU (server)").value == pytest.approx(0.7)
    assert row(watched, "Host CPU (load-1)").value == pytest.approx(1.4)
    assert row(watched, "Host CPU (load-1)").host == "load-1"
    assert len(watched.rows) == len(QUERIES) + sum(query.per_host for query in QUERIES)


def test_what_a_shared_kernel_counts_is_stored_once_as_the_machines(prometheus: Server) -> None:
    """The virtual lab: a kernel for all, a network namespace for each."""
    targets = [*TARGETS, Target("node", "load-1", "load_generator"), Target("node", "load-2", "load_generator")]
    kernels = {
        "server": Kernel("k1", "net:[1]"), "load-1": Kernel("k1", "net:[2]"), "load-2": Kernel("k1", "net:[3]"),
    }  # fmt: skip
    watched = ask(prometheus.url, targets, kernels=kernels)
    names = Counter(one.name.partition(" (")[0] for one in watched.rows if one.name.startswith("Host "))
    machines = {one.name for one in QUERIES if one.of == "machine"}
    assert {name for name, n in names.items() if n == 1} == machines
    assert {n for name, n in names.items() if name not in machines} == {3}
    cpu = row(watched, "Host CPU (machine)")
    assert (cpu.value, cpu.host) == (pytest.approx(0.7), "machine of server, load-1, load-2")
    assert sum("node_context_switches_total" in text for text, _ in watched.series) == 1
    assert row(watched, "Host IP traffic in (server)").host == "server"


def test_hosts_of_one_network_have_its_counts_in_common_too(prometheus: Server) -> None:
    """The embedded lab: processes of one machine, of which node_exporter is asked as the server's."""
    kernels = {name: Kernel("k1", "net:[1]") for name in ("server", "load-1", "load-2")}
    watched = ask(prometheus.url, kernels=kernels)
    hosts = {one.name: one.host for one in watched.rows if one.name.startswith("Host ")}
    assert set(hosts.values()) == {"machine of server, load-1, load-2"}
    assert row(watched, "Host IP traffic in (machine)").value == pytest.approx(9000)


def test_of_two_machines_each_has_its_own_row_and_unread_hosts_share_nothing(prometheus: Server) -> None:
    nodes = [Target("node", name, "load_generator") for name in ("load-1", "load-2", "load-3")]
    kernels = {"server": Kernel("k1", None), "load-1": Kernel("k1", None), "load-2": Kernel(None, None)}
    watched = ask(prometheus.url, [*TARGETS, *nodes], kernels=kernels)
    assert [one.name for one in watched.rows if one.name.startswith("Host CPU (")] == [
        "Host CPU (machine of server)", "Host CPU (load-2)", "Host CPU (load-3)",
    ]  # fmt: skip
    assert "Host IP traffic in (load-1)" in {one.name for one in watched.rows}
    many = {f"load-{n}": Kernel("k1", "net:[1]") for n in range(200)}
    named = ask(None, [Target("node", "load-0", "load_generator")], kernels=many)
    assert row(named, "Host CPU (machine)").host == "machine of load-0 and 199 more"


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
    page = Page("http://lab:3001", "http://lab:8000", "r-abc")
    for query, found in zip(QUERIES, ask(prometheus.url, page=page).rows, strict=True):
        path, _, values = (found.grafana_url or "").partition("?")
        assert path == f"http://lab:3001/d/{query.dashboard}/{query.dashboard}"
        assert f"from={(T0 - 15) * 1000}&to={(T0 + 25) * 1000}&viewPanel=panel-{query.panel}&" in values
        assert f"var-begin={(T0 - 1) * 1000}&var-ramp_end={T0 * 1000}&var-end={(T0 + 10) * 1000}" in values
        shown = ["load-1", "load-2"] if query.role else ["server"]
        assert parse_qs(values)["var-host"] == shown


def test_a_ratio_without_a_denominator_and_a_quantile_of_nothing_are_no_data(prometheus: Server) -> None:
    watched = ask(prometheus.url, [Target("wsnode-server", "reset", "server")])
    found = row(watched, "Server processing time p99, approximate")
    assert (found.value, found.no_data) == (None, "no data: nothing was timed in the window")
    assert row(watched, "Server event-loop utilisation, busiest worker's mean").no_data == "no data: 0 samples in 10 s"
    empty = ask(prometheus.url, [Target("node", "module-away", "server")])
    assert row(empty, "Host conntrack table, fullest").no_data == ("no data: node_nf_conntrack_entries_limit was 0")


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
    assert len(watched.rows) == len(QUERIES)
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

"""The worst seconds in words, and what hosts did over time."""

from __future__ import annotations

from portal.conductor.job import HostOutcome, Outcome
from portal.monitoring.prometheus import Series
from portal.runs.archive import Opened, pack
from portal.runs.charts import summaries
from portal.runs.host_series import host_table
from portal.runs.hurt import findings
from portal.runs.series import Table, tabulate
from tests.portal.factories import SMOKE, host_runs

START_S = 1_795_000_000
NO_HOSTS: Table = {"second": []}


def table(**columns: list[float | None]) -> Table:
    """Ten even seconds, and what a test sets."""
    usual: Table = {
        "second": [float(n) for n in range(1, 11)],
        "p50": [0.001] * 10,
        "p95": [0.002] * 10,
        "p99": [0.004] * 10,
        "offered": [500.0] * 10,
        "answered": [500.0] * 10,
        "open": [100.0] * 10,
        "lost": [0.0] * 10,
        "lag_p50": [0.0001] * 10,
        "lag_p99": [0.001] * 10,
    }
    return usual | columns


def told(run: Table, hosts: Table = NO_HOSTS, window: tuple[int, int] | None = (2, 10)) -> list[str]:
    return [finding.text.replace("\u00a0", " ") for finding in findings(run, hosts, window, 10)]


def test_an_even_run_hurt_nowhere() -> None:
    assert told(table()) == ["Response time was even: p99 at most 4 ms, in second 3."]


def test_the_worst_second_is_told_against_the_usual_one() -> None:
    p99 = [0.9, 0.9, *[0.004] * 4, 0.05, *[0.004] * 3]
    found = findings(table(p99=p99), NO_HOSTS, (2, 10), 10)
    assert [(f.text.replace("\u00a0", " "), f.from_s, f.to_s) for f in found] == [
        ("Response time was worst in second 7: p99 50 ms, 12.5 times the usual 4 ms.", 4, 9)
    ]
    assert "second 1:" in told(table(p99=p99), window=None)[0]


def test_what_was_never_answered_is_told_first_and_most() -> None:
    run = table(p99=[0.004] * 6 + [None] * 2 + [0.004] * 2, answered=[500.0] * 6 + [400.0, 450.0, 500.0, 500.0],
                lost=[0.0] * 6 + [100.0, 50.0, 0.0, 0.0])  # fmt: skip
    assert told(run)[1:] == [
        "In 2 seconds more than 1 % of what was due was never answered, first in second 7.",
        "Least was answered in second 7: 80 % of what was due.",
        "Messages lost, from second 7 on: most in second 7, 100/s.",
    ]


def test_errors_count_in_the_whole_run_but_unopened_ones_only_in_the_window() -> None:
    run = table(**{"error:reset": [3.0] + [0.0] * 9, "unsent:not_open": [9.0, 0.0] + [0.0] * 8})
    assert told(run)[1:] == ["Reset: most in second 1, 3/s."]
    late = table(**{"unsent:not_open": [9.0] + [0.0] * 8 + [2.0]})
    assert told(late)[1:] == ["Unsent, not open: most in second 10, 2/s."]


def test_late_generators_and_kept_loops_are_named() -> None:
    hosts: Table = {"second": [8.0, 9.0, 10.0], "loop_lag:server": [0.05, 0.3, None], "loop_lag:other": [0.09] * 3}
    assert told(table(lag_p99=[0.001] * 8 + [0.02, 0.001]), hosts)[1:] == [
        "The load generators were latest in second 9: scheduler lag p99 20 ms. "
        "The response time does not contain it, but a host that is late is short of CPU.",
        "server: an event loop was kept for 300 ms in second 9.",
    ]


def test_a_run_without_seconds_has_no_worst_one() -> None:
    assert findings(tabulate([]), NO_HOSTS, None, 0) == []


# --- hosts over time -----------------------------------------------------------------------------------------------
def archive() -> Opened:
    """A run of twelve seconds; Prometheus looked at half past each second from 2.5 on."""
    times = [START_S + 2.5 + n for n in range(10)]

    def series(rate: float, **labels: str) -> Series:
        return Series(labels, tuple((at, 100 + rate * n) for n, at in enumerate(times)))

    cpu = 'node_cpu_seconds_total{job="node",host="server",mode!~"idle|iowait|steal"}'
    stolen = 'node_cpu_seconds_total{job="node",host="server",mode="steal"}'
    lag = 'node_eventloop_lag_seconds{job="wsnode-server",host="server"}'
    runs = host_runs()
    hosts = [HostOutcome("server", "server"), *(HostOutcome(r.name, "load_generator", run=r) for r in runs)]
    content = pack(
        run_id="r-x",
        scenario=SMOKE.model_dump(mode="json"),
        outcome=Outcome("finished", None, hosts, START_S * 1_000_000_000),
        seconds=[],
        series=[
            (cpu, [series(0.5, host="server", cpu="0"), series(0.25, host="server", cpu="1")]),
            (stolen, [series(9.0, host="server", cpu="0")]),
            (lag, [Series({"host": "server", "worker": w}, tuple((at, float(w)) for at in times)) for w in "13"]),
        ],
        log=(),
    )
    return Opened(content)


def test_host_charts_come_from_the_samples_behind_the_evidence() -> None:
    found = host_table(archive())
    assert found["second"] == [float(n) for n in range(1, 13)]
    assert found["cpu:server"] == [None] * 3 + [0.75] * 9
    assert found["loop_lag:server"] == [None] * 2 + [3.0] * 10
    assert found["worker:load-1"] == found["worker:load-2"] == [0.2] * 12


def test_longer_points_take_the_mean_of_processors_and_the_most_of_lags() -> None:
    found = host_table(archive(), most=4)
    assert found["second"] == [3.0, 6.0, 9.0, 12.0]
    assert found["cpu:server"] == [None, 0.75, 0.75, 0.75]
    assert found["loop_lag:server"] == [3.0] * 4


def test_host_charts_are_told_in_words() -> None:
    said = summaries(table(), host_table(archive()), None)
    assert said["cpu"] == (
        "server 0.750 cores on average, at most 0.750; of the workers that of load-1 was busiest, at most 0.200 cores."
    )
    assert said["loop_lag"].replace("\u00a0", " ") == "server 3 s on average, at most 3 s."

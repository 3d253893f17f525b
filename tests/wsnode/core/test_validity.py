"""Each row of the validity table: what provokes it, and the next weaker case, which passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from tests.wsnode.core.runs import MS, SCENARIO, Load, steady
from wsnode.core.judge import Agreement, Clock, Observed, Scrapes, Surroundings, lab_notes, validity
from wsnode.core.summary import HostRun, summarise


class Case(NamedTuple):
    """A run, and what the table says of it."""

    row: str
    hosts: Callable[[], HostRun | Sequence[HostRun]]
    level: str
    reason: str = ""
    scenario: dict[str, Any] = {}
    around: Surroundings = Surroundings()

    def __str__(self) -> str:
        return f"{self.row}: {self.level}"


def window(**per_second: Any) -> Callable[[], HostRun]:
    """A steady load with these keywords in each second of the window."""
    return lambda: steady(**per_second).run()


def lags(late_per_second: int, ms: float) -> Callable[[], HostRun]:
    """Of the 1,000 turns of each second so many come late."""
    return window(lag_ns=[100_000] * (1000 - late_per_second) + [round(ms * MS)] * late_per_second)


def late(name: str, **per_second: Any) -> HostRun:
    """The same of another host."""
    return steady(name, **per_second).run()


def cpu(*seconds: Sequence[float]) -> Callable[[], HostRun]:
    """A window of 20 s whose last seconds use this much CPU time by worker; the others 0.1 each."""

    def run() -> HostRun:
        workers = len(seconds[0])
        quiet = (0.1,) * workers
        load = Load().tick(connects=50, cpu_s=(0.99,) * workers).tick(connects=50, cpu_s=(0.99,) * workers)
        load.tick(seconds=20 - len(seconds), cpu_s=quiet)
        for second in seconds:
            load.tick(cpu_s=second)
        return load.run()

    return run


def connects(begun: int, late: int = 0, reconnects: int = 0) -> Callable[[], HostRun]:
    """Of 100 clients so many have begun to connect by the end of the ramp-up."""
    return lambda: (
        Load().tick(connects=50).tick(connects=begun - 50, late=late, reconnects=reconnects).tick(seconds=10).run()
    )


def broken(**counters: int) -> Callable[[], HostRun]:
    """A steady load whose books have these counters in the last second, whatever happened."""
    return lambda: steady().tick(**counters).run()


def exhausted(kind: str) -> Callable[[], HostRun]:
    return lambda: Load().tick(connects=51, failed=1, errors={kind: 1}).tick(connects=50).tick(seconds=10).run()


LONG = {"duration_s": 22}

CASES = [
    # --- identity broken ---
    Case("identity", window(), "valid"),
    Case("identity", window(messages_unexpected=5), "valid"),
    Case("identity", window(lost=10, unsent={"not_open": 10}), "valid"),
    Case(
        "identity", window(messages_lost=1), "invalid", "the accounts of the window do not add up: messages_sent 10,000"
    ),
    Case("identity", window(messages_unsent=1), "invalid", "messages_due 10,000 is not sent + unsent 10,010"),
    Case("identity", broken(connections_pending=1), "invalid", "the accounts of load-1 do not add up: connections_att"),
    Case("identity", window(due=990, response_ns=[MS] * 991), "invalid", "9,910 times of response_time were recorded"),
    # --- a load generator lost, the server changed ---
    Case("lost", lambda: steady().run("stopped", reason="asked to"), "valid"),
    Case(
        "lost",
        lambda: steady().run("interrupted", reason="worker 0 was killed by signal 9"),
        "invalid",
        "load generator load-1 was lost after 12 s: worker 0 was killed by signal 9",
    ),
    Case(
        "lost",
        lambda: [steady().run(), Load("load-2").run("interrupted")],
        "invalid",
        "load generator load-2 was lost after 0 s",
    ),
    Case("lost", window(), "invalid", "load generator load-9 was lost", around=Surroundings(lost_hosts=["load-9"])),
    Case(
        "server changed",
        window(),
        "invalid",
        "the server changed during the run: started anew",
        around=Surroundings(server_changed=["started anew"]),
    ),
    # --- scheduler lag p99 ---
    Case("lag, exactly 1 % later than 50 ms", lags(10, 80), "valid"),
    Case("lag, more than 1 % later than 50 ms", lags(11, 80), "invalid", "lag p99 80.0 ms is above 50 ms, the limit"),
    Case("lag 5 ms", lags(1000, 5), "valid"),
    Case("lag 5.1 ms", lags(11, 5.1), "suspect", "scheduler lag p99 5.1 ms is above 5 ms"),
    Case("lag 50 ms", lags(1000, 50), "suspect"),
    Case("lag 50.3 ms", lags(11, 50.3), "invalid", "is above 50 ms, the limit"),
    Case("lag 10 ms of an interval of 10", lags(1000, 10), "suspect", scenario={"interval_ms": 10}),
    Case(
        "lag 10.1 ms of an interval of 10",
        lags(11, 10.1),
        "invalid",
        "is above 10 ms, one message interval",
        scenario={"interval_ms": 10},
    ),
    Case("lag 5.9 ms of an interval of 6", lags(11, 5.9), "suspect", scenario={"interval_ms": 6}),
    Case("lag 6.1 ms of an interval of 6", lags(11, 6.1), "invalid", "above 6 ms, one", scenario={"interval_ms": 6}),
    Case("lag 49 ms of an interval of 5", lags(11, 49), "suspect", scenario={"interval_ms": 5}),
    Case("lag 4.9 ms of an interval of 1", lags(11, 4.9), "valid", scenario={"interval_ms": 1}),
    Case("lag 49 ms of an interval of 1000", lags(11, 49), "suspect", scenario={"interval_ms": 1000}),
    Case("lag 51 ms of an interval of 1000", lags(11, 51), "invalid", "the limit", scenario={"interval_ms": 1000}),
    Case(
        "lag of one host of two",
        lambda: [steady().run(), late("load-2", lag_ns=80 * MS)],
        "invalid",
        "lag p99 80.0 ms is above 50 ms, the limit (load-2)",
    ),
    Case(
        "lag of both hosts",
        lambda: [late("load-1", lag_ns=9 * MS), late("load-2", lag_ns=9 * MS)],
        "suspect",
        "is above 5 ms (load-1, load-2)",
    ),
    # --- unsent by the generator's fault ---
    Case(
        "own unsent of one host of two",
        lambda: [steady().run(), late("load-2", unsent={"generator_late": 30})],
        "invalid",
        "own fault, above 1.0% (load-2)",
    ),
    Case("own unsent 0.1 %", window(unsent={"generator_late": 1}), "valid"),
    Case(
        "own unsent 0.2 %",
        window(unsent={"generator_late": 2}),
        "suspect",
        "0.20% of the due messages were not sent by the generator's own fault, above 0.1%",
    ),
    Case(
        "own unsent 1 %",
        window(unsent={"generator_late": 10}),
        "suspect",
        "1.00% of the due messages were not sent by the generator's own fault, above 0.1%",
    ),
    Case("own unsent 1.1 %", window(unsent={"generator_late": 11}), "invalid", "own fault, above 1.0%"),
    Case("own unsent 1.1 %", window(unsent={"generator_late": 11}), "invalid", "the turn never came"),
    Case(
        "unsent by the server", window(unsent={"not_open": 300, "connection_down": 200, "max_in_flight": 90}), "valid"
    ),
    # --- any one worker's CPU ---
    Case("cpu 0.80", cpu(*[(0.8,)] * 20), "valid", scenario=LONG),
    Case("cpu 0.81 in 5 %", cpu((0.81,)), "valid", scenario=LONG),
    Case(
        "cpu 0.81 in 10 %",
        cpu((0.81,), (0.81,)),
        "suspect",
        "load-1: a load worker used more than 0.8 CPU seconds per second in 10% of the seconds, above 5%",
        scenario=LONG,
    ),
    Case("cpu 0.95", cpu(*[(0.95,)] * 20), "suspect", "more than 0.8 CPU", scenario=LONG),
    Case("cpu 0.96 in 5 %", cpu((0.96,)), "valid", scenario=LONG),
    Case("cpu 0.96 in 10 %", cpu((0.96,), (0.96,)), "invalid", "more than 0.95 CPU", scenario=LONG),
    Case("cpu 0.96 in 5 %, 0.81 in 5 %", cpu((0.96,), (0.81,)), "suspect", "more than 0.8 CPU", scenario=LONG),
    Case("cpu of one of four workers", cpu(*[(0.1, 0.1, 0.96, 0.1)] * 2), "invalid", "0.95", scenario=LONG),
    Case("cpu of one worker after another", cpu((0.9, 0.1), (0.1, 0.9)), "valid", scenario=LONG),
    Case(
        "cpu of the second host",
        lambda: [steady("load-1").run(), steady("load-2", cpu_s=(0.97,)).run()],
        "invalid",
        "load-2: a load worker",
    ),
    # --- steal or throttling, of 2 core-seconds per second ---
    Case("steal 1 %", window(steal_s=0.02), "valid"),
    Case("steal 1.5 %", window(steal_s=0.03), "suspect", "load-1: 1.5% of the core-seconds were stolen or throttled"),
    Case("steal 10 %", window(steal_s=0.2), "suspect", "above 1%"),
    Case(
        "steal 10.5 %", window(steal_s=0.21), "invalid", "10.5% of the core-seconds were stolen or throttled, above 10%"
    ),
    Case("throttled 1 %", window(throttled_s=0.02), "valid"),
    Case("throttled 1.5 %", window(throttled_s=0.03), "suspect", "1.5% of the core-seconds"),
    Case("throttled and stolen", window(throttled_s=0.015, steal_s=0.015), "suspect", "1.5% of the core-seconds"),
    Case(
        "steal and throttling of the ramp-up",
        lambda: Load().tick(connects=50, steal_s=0.7, throttled_s=0.4, seconds=2).tick(seconds=10).run(),
        "valid",
    ),
    Case(
        "steal of a host that tells no core-seconds",
        lambda: Load(cores=0).tick(connects=50, seconds=2).tick(seconds=10).run(),
        "valid",
    ),
    # --- connects begun late ---
    Case("connects late 1 %", connects(100, late=1), "valid"),
    Case(
        "connects late 2 %", connects(100, late=2), "suspect", "2 of 100 connects began more than 50 ms late or never"
    ),
    Case("connects never begun 1 %", connects(99), "valid"),
    Case("connects never begun 2 %", connects(98), "suspect", "2 of 100 connects began more than 50 ms late or never"),
    Case("reconnects are no first connects", connects(100, reconnects=2), "suspect", "2 of 102 connects"),
    Case("connects late and never", connects(99, late=1), "suspect", "2 of 100 connects"),
    # --- exhausted on a generator ---
    Case("refused", exhausted("connect_refused"), "valid"),
    Case("ports", exhausted("source_ports_exhausted"), "suspect", "source ports were exhausted on a load generator, 1"),
    Case("descriptors", exhausted("descriptors_exhausted"), "suspect", "file descriptors were exhausted on a load"),
    # --- a behaviour's own code ---
    Case("logins failed", exhausted("login_failed"), "valid"),
    Case("behaviour", exhausted("behaviour_failed"), "invalid", "the behaviour echo failed 1 times: its own code, not"),
    Case(
        "conntrack",
        window(),
        "suspect",
        "exhausted on a load generator: conntrack of load-1",
        around=Surroundings(exhausted=["conntrack of load-1"]),
    ),
    # --- scrapes ---
    *(
        Case(
            f"scrapes: {failed} failed, {missing} missing",
            window(),
            level,
            f"server (node): {bad} of 100 scrapes failed or are missing, above 5%" if level == "suspect" else "",
            around=Surroundings(scrapes=[Scrapes("server (node)", 100, failed, missing)]),
        )
        for failed, missing, bad, level in (
            (5, 0, 5, "valid"),
            (5, 1, 5, "valid"),
            (6, 0, 6, "suspect"),
            (0, 6, 5, "valid"),
            (0, 7, 6, "suspect"),
            (3, 3, 5, "valid"),
            (3, 4, 6, "suspect"),
        )
    ),
    Case("scrapes: none expected", window(), "valid", around=Surroundings(scrapes=[Scrapes("x", 0, 0, 1)])),
    # --- agreement of Prometheus and the load generators ---
    Case("agreement at the limit", window(), "valid", around=Surroundings(agreements=[Agreement("m", 900, 1000, 100)])),
    Case(
        "agreement at the limit", window(), "valid", around=Surroundings(agreements=[Agreement("m", 1100, 1000, 100)])
    ),
    Case(
        "agreement: too few",
        window(),
        "suspect",
        "messages: Prometheus has 8,990, the load generators 10,000; more than 1,000 apart",
        around=Surroundings(agreements=[Agreement("messages", 8990, 10_000, 1000)]),
    ),
    Case("agreement: too many", window(), "suspect", around=Surroundings(agreements=[Agreement("m", 1101, 1000, 100)])),
    # --- clocks ---
    Case("clock 25 ms", window(), "valid", around=Surroundings(clocks=[Clock("load-1", 0.025)])),
    Case(
        "clock 25.1 ms",
        window(),
        "suspect",
        "load-1: clock known within 25.1 ms only, above 25 ms",
        around=Surroundings(clocks=[Clock("load-2", 0.001), Clock("load-1", 0.0251)]),
    ),
    # --- environment ---
    Case("environment the same", window(), "valid", around=Surroundings(environment_changed=[])),
    Case(
        "environment changed",
        window(),
        "suspect",
        "the environment changed during the run: load-1: somaxconn 4096 → 128",
        around=Surroundings(environment_changed=["load-1: somaxconn 4096 → 128"]),
    ),
    # --- what the measured server does is a result ---
    Case("a server that refuses", lambda: Load().tick(connects=100, failed=90).tick(seconds=11).run(), "valid"),
    Case("a server that drops half", window(lost=500), "valid"),
]


def judged(case: Case) -> tuple[str, list[str]]:
    hosts = case.hosts()
    runs = [hosts] if isinstance(hosts, HostRun) else list(hosts)
    summary = summarise(SCENARIO.model_copy(update=case.scenario), runs)
    assert summary is not None
    return validity(summary, runs, case.around)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table_says(case: Case) -> None:
    level, reasons = judged(case)
    assert level == case.level
    if case.level == "valid":
        assert reasons == []
    else:
        assert any(reason.startswith(f"{case.level}: ") and case.reason in reason for reason in reasons)


def test_the_graver_reasons_come_first() -> None:
    run = steady(steal_s=0.03, unsent={"generator_late": 20}).run()
    summary = summarise(SCENARIO, [run])
    assert summary is not None
    level, reasons = validity(summary, [run], Surroundings(lost_hosts=["load-7"], environment_changed=["x"]))
    assert level == "invalid"
    assert [reason.partition(":")[0] for reason in reasons] == ["invalid"] * 3 + ["suspect"] * 2


def test_without_a_window_the_whole_run_is_judged() -> None:
    own = {"unsent": {"generator_late": 30}, "steal_s": 0.03}
    run = Load().tick(connects=50, due=1000, cpu_s=(0.97,), **own).tick(connects=50, due=1000, **own).run("stopped")
    summary = summarise(SCENARIO, [run])
    assert summary is not None
    assert summary.window is None
    level, reasons = validity(summary, [run])
    assert level == "invalid"
    assert any("0.95 CPU seconds per second in 50% of the seconds" in reason for reason in reasons)
    assert any("1.5% of the core-seconds were stolen" in reason for reason in reasons)
    assert any("3.00% of the due messages" in reason for reason in reasons)


def test_clients_of_a_lost_generator_are_not_late_connects() -> None:
    run = Load().tick(connects=25, seconds=2).tick(seconds=10).run()
    summary = summarise(SCENARIO, [run])
    assert summary is not None
    _, reasons = validity(summary, [run], Surroundings(lost_hosts=["load-2"]))
    assert reasons == ["invalid: load generator load-2 was lost"]
    assert validity(summary, [run])[1] == ["suspect: 50 of 100 connects began more than 50 ms late or never, above 1%"]


def test_a_stopped_load_owes_only_the_connects_that_were_due() -> None:
    run = Load().tick(connects=48).run("stopped")
    summary = summarise(SCENARIO, [run])
    assert summary is not None
    # Of the 50 connects of second 1 the last two were due less than 50 ms before its end.
    assert validity(summary, [run]) == ("valid", [])


def observed(
    name: str, role: Any, boot_id: str | None, *, cpus: int = 4, usable: int = 4, dropped: Any = 0
) -> Observed:
    stable = {"boot_id": boot_id, "cpu_count": cpus, "cpus_usable": usable}
    return Observed(
        name, role, {"stable": stable, "volatile": {"packets_dropped": 100}}, {"volatile": {"packets_dropped": dropped}}
    )


def test_who_shares_the_servers_kernel_is_noted() -> None:
    server, one = (
        observed("server", "server", "k1", dropped=100),
        observed("load-1", "load_generator", "k1", dropped=100),
    )
    other = observed("load-2", "load_generator", "k2", dropped=900)
    assert lab_notes([server, one, other]) == [
        "server and load-1 share a kernel and its 4 cores: what a load generator takes, the server has not"
    ]
    assert lab_notes([server, other]) == []
    assert lab_notes([one, other]) == []
    assert lab_notes([server]) == []
    third = observed("load-3", "load_generator", "k1", usable=2, dropped=100)
    assert lab_notes([server, one, third]) == [
        "server and load-1, load-3 share a kernel: what a load generator takes, the server has not"
    ]
    many = [observed(f"load-{n}", "load_generator", "k1", dropped=100) for n in range(1, 201)]
    assert lab_notes([server, *many]) == [
        "server and load-1, load-2, load-3, load-4, load-5, load-6, load-7 and 193 more share a kernel and its 4 cores:"
        " what a load generator takes, the server has not"
    ]


def test_packets_dropped_on_a_shared_kernel_are_noted() -> None:
    hosts = [observed("server", "server", "k1", dropped=1123), observed("load-1", "load_generator", "k1", dropped=1100)]
    assert lab_notes(hosts)[1:] == ["the kernel that server and load-1 share dropped 1,023 packets during the run"]
    unknown = [
        observed("server", "server", "k1", dropped=None),
        observed("load-1", "load_generator", "k1", dropped=None),
    ]
    assert len(lab_notes(unknown)) == 1


def test_hosts_that_nobody_has_read_share_nothing() -> None:
    assert lab_notes([Observed("server", "server", {}, {}), Observed("load-1", "load_generator", {}, {})]) == []
    assert lab_notes([observed("server", "server", None), observed("load-1", "load_generator", None)]) == []

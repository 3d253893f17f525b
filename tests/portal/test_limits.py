"""Warnings of a plan: what it takes against what hosts have and have achieved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.labs.lab import HostFacts, Lab
from portal.runs.achieved import Done, achieved, best
from portal.runs.limits import USUAL_SOURCE_PORTS, Achieved, Best, source_ports, wire_bits
from portal.runs.models import Run, Summary
from portal.runs.plan import plain_plan
from tests.portal.conftest import LAB
from tests.portal.factories import SMOKE, make_finished, make_user
from wsnode.core.scenario import Scenario

LOADS = ("load-1", "load-2")
BIG = Scenario(clients=100_000, interval_ms=1000, ramp_up_s=60, duration_s=300, rate_per_s=10_000)
ROOMY: dict[str, Any] = {
    "cpu_count": 8,
    "memory_bytes": 32 << 30,
    "open_files": 1_000_000,
    "tuned": {"net.ipv4.ip_local_port_range": "1024 65535"},
}


def lab(transport: str = "local", server: dict[str, Any] | None = None, **facts: Any) -> Lab:
    """The tests' lab with these facts on its load generators."""
    hosts = [
        {**host, "transport": transport, "user": "wslab", "facts": facts if host["role"] != "server" else server}
        for host in LAB["hosts"]
    ]
    return Lab.model_validate({**LAB, "hosts": hosts}, strict=False)


def warnings(scenario: Scenario, where: Lab | None = None, done: dict[str, Achieved] | None = None) -> list[str]:
    """Those about hosts."""
    plain = set(plain_plan(scenario, LOADS, achieved={}).warnings) if where or done else set()
    found = plain_plan(scenario, LOADS, lab=where, achieved=done or {}).warnings
    return [line.replace("\u00a0", " ") for line in found if line not in plain]


def test_hosts_with_room_for_it_are_not_warned_of() -> None:
    fits = BIG.model_copy(update={"clients": 50_000})
    assert warnings(fits, lab(server=ROOMY, **ROOMY)) == []
    assert warnings(fits, lab("ssh", server=ROOMY, **ROOMY)) == []


def test_source_ports_are_those_in_force_and_the_usual_ones_where_nobody_looked() -> None:
    tuned = lab(tuned={"net.ipv4.ip_local_port_range": "10000 49999"})
    first, second = warnings(BIG, tuned)
    assert first == (
        "load-1 opens 50,000 connections, and one address has 40,000 source ports there "
        "(net.ipv4.ip_local_port_range): the preflight will refuse it. Fewer clients, or more load generators."
    )
    assert second.startswith("load-2 ")
    assert "may lack" in warnings(BIG.model_copy(update={"clients": 64_100}), tuned)[0]
    assert warnings(BIG.model_copy(update={"clients": 64_000}), tuned) == []
    unknown = [line for line in plain_plan(BIG, LOADS).warnings if "source ports" in line]
    assert len(unknown) == 2
    assert f"{USUAL_SOURCE_PORTS:,}" in unknown[0]


@given(st.integers(1, 65_535), st.integers(1, 65_535), st.integers(1, 65_535), st.integers(1, 65_535))
def test_reserved_ports_are_no_source_ports(low: int, high: int, first: int, last: int) -> None:
    low, high = sorted((low, high))
    first, last = sorted((first, last))
    facts = HostFacts(
        tuned={"net.ipv4.ip_local_port_range": f"{low} {high}", "net.ipv4.ip_local_reserved_ports": f"{first}-{last}"}
    )
    assert source_ports(facts) == len(set(range(low, high + 1)) - set(range(first, last + 1)))


@pytest.mark.parametrize("text", ["", "1024", "a b", "1024 65535 1"])
def test_a_port_range_that_is_none_is_not_known(text: str) -> None:
    assert source_ports(HostFacts(tuned={"net.ipv4.ip_local_port_range": text} if text else {})) is None
    assert source_ports(None) is None


def test_descriptors_that_take_many_processes_are_told() -> None:
    few = {**ROOMY, "cpu_count": 2, "open_files": 10_064}
    calm = BIG.model_copy(update={"interval_ms": 60_000, "rate_per_s": 1000})
    fits = calm.model_copy(update={"clients": 72_000})
    assert warnings(fits, lab(**few)) == []
    assert warnings(calm.model_copy(update={"clients": 72_004}), lab(**few))[0] == (
        "load-1 needs 5 processes for 36,002 connections, since each may have 10,064 open files, and has 2 cores: "
        "raise LimitNOFILE of its agent."
    )
    assert warnings(SMOKE, lab(open_files=1024))[0].startswith("load-1 allows a process 1,024 open files: wanted at")
    assert warnings(calm.model_copy(update={"clients": 50_000}), lab(server={"cpu_count": 2, "open_files": 20_064}))[
        0
    ] == (
        "The server is to hold 50,000 connections; with 2 cores and 20,064 open files a process it has room for about "
        "36,000, unless it was set up with more workers."
    )


def test_what_the_server_has_said_to_take_goes_before_the_estimate() -> None:
    few = lab(server={"cpu_count": 2, "open_files": 1064})
    hundred = SMOKE.model_copy(update={"clients": 10_000, "rate_per_s": 5000, "interval_ms": 0})
    found = plain_plan(hundred, LOADS, lab=few, takes=9999).warnings
    assert [line for line in found if line.startswith("The server")] == [
        "The server takes 9,999 connections at once, as its host told last, and 10,000 are asked of it: it refuses the "
        "rest. Give it a higher max_connections, or fewer clients."
    ]
    assert not [line for line in plain_plan(hundred, LOADS, lab=few, takes=10_000).warnings if "The server" in line]
    assert [line for line in plain_plan(hundred, LOADS, lab=few).warnings if line.startswith("The server is to hold")]


def test_memory_is_counted_for_generators_and_server() -> None:
    fits = BIG.model_copy(update={"clients": 50_000})
    (load, _, server) = warnings(fits, lab(memory_bytes=1 << 30, server={"memory_bytes": 1 << 30}))
    assert load == "load-1 needs about 1.21 GiB of memory for 25,000 connections and has 1 GiB."
    assert server == "The server needs about 1.14 GiB of memory for 50,000 connections and has 1 GiB."


def test_a_link_of_a_gigabit_is_warned_of_only_where_there_is_one() -> None:
    heavy = SMOKE.model_copy(update={"size_bytes": 32_768, "clients": 1000, "rate_per_s": 1000})
    (line,) = warnings(heavy, lab("ssh"))
    assert line.startswith("About 1.39 Gbit/s pass the server's link each way")
    assert warnings(heavy, lab()) == []


@given(st.integers(1, 1 << 20))
def test_a_message_takes_more_on_the_wire_than_its_payload_and_not_thrice_that_when_large(size_bytes: int) -> None:
    bits = wire_bits(size_bytes)
    assert bits > 8 * size_bytes
    assert bits <= 8 * (size_bytes + 14 + 90 * (size_bytes // 1448 + 2))
    assert wire_bits(size_bytes + 1) > bits


def test_more_than_hosts_have_ever_achieved_is_said_in_one_line() -> None:
    done = {"load-1": Achieved(Best(8000.0, "r-a"), Best(300.0, "r-b")), "load-2": Achieved(Best(9000.0, "r-a"))}
    load = Scenario(clients=2000, interval_ms=100, ramp_up_s=2, duration_s=30, rate_per_s=1000)
    assert warnings(load, lab(), done) == [
        "More than has been achieved in a run that can be believed: load-1 is to send 10,000 messages/s (so far "
        "8,000/s, r-a) and make 500 connects/s (so far 300/s, r-b); load-2 is to send 10,000 messages/s (so far "
        "9,000/s, r-a)."
    ]
    near = {name: Achieved(Best(9600.0, "r-a"), Best(480.0, "r-a")) for name in LOADS}
    assert warnings(load, lab(), near) == []
    # What any host does need not have been seen.
    assert warnings(SMOKE, lab(), {"load-1": Achieved(Best(1.0, "r-a"), Best(1.0, "r-a"))}) == []


def test_estimates_stand_in_where_nothing_is_stored() -> None:
    busy = BIG.model_copy(update={"clients": 50_000, "interval_ms": 500})
    assert warnings(busy, lab(cpu_count=2))[0] == (
        "load-1 is to send 50,000 messages/s on 2 cores; about 15,000/s of each is what to expect, and nothing is "
        "stored of what it has achieved."
    )


def test_a_rate_at_which_a_host_was_not_believed_is_named() -> None:
    bad = {"load-1": Achieved(None, None, Best(240.0, "r-x"))}
    assert warnings(SMOKE, lab(), bad) == [
        "load-1 was not believed at 240 messages/s in run r-x, by its own fault; here it is to send 250/s."
    ]
    better = {"load-1": Achieved(Best(300.0, "r-y"), None, Best(240.0, "r-x"))}
    assert warnings(SMOKE, lab(), better) == []


def host(name: str, sent: int, opened: int) -> dict[str, Any]:
    return {"name": name, "counters": {"messages_sent": sent, "connections_opened": opened}}


def test_a_hosts_part_of_a_rate_is_its_part_of_what_was_counted() -> None:
    rates = {"sent_per_s": 400.0, "connect_per_s": 40.0}
    hosts = [{"name": "server", "counters": None}, host("load-1", 3000, 50), host("load-2", 1000, 50)]
    found = best([
        Done("r-1", "valid", hosts, rates, []),
        Done("r-2", "valid", hosts, {"sent_per_s": 200.0, "connect_per_s": None}, []),
        Done("r-3", "suspect", hosts, {"sent_per_s": 800.0, "connect_per_s": 1.0}, ["suspect: scheduler lag p99 9 ms"]),
        Done("r-4", "invalid", hosts, {"sent_per_s": 900.0, "connect_per_s": 1.0}, ["invalid: the server changed"]),
    ])  # fmt: skip
    assert found == {
        "load-1": Achieved(Best(300.0, "r-1"), Best(20.0, "r-1"), Best(600.0, "r-3")),
        "load-2": Achieved(Best(100.0, "r-1"), Best(20.0, "r-1"), Best(200.0, "r-3")),
    }


@pytest.mark.django_db
def test_what_was_achieved_is_read_from_stored_runs_once_for_each_newest(django_assert_num_queries: Any) -> None:
    assert achieved("this-machine") == {}
    ada = make_user()
    run = make_finished(ada)
    rates = Summary.objects.get().content.rates
    with django_assert_num_queries(3):
        found = achieved("this-machine")
    assert found["load-1"].messages is not None
    assert rates.sent_per_s is not None
    assert found["load-1"].messages.run_id == run.pk
    assert found["load-1"].messages.per_s == pytest.approx(rates.sent_per_s / 2, rel=0.01)
    with django_assert_num_queries(1):
        assert achieved("this-machine") == found
    Run.objects.update(validity="invalid")
    later = make_finished(
        ada, SMOKE.model_copy(update={"interval_ms": 400}), created_at=run.created_at.replace(year=2027)
    )
    now = achieved("this-machine")
    assert now["load-1"].messages is not None
    assert now["load-1"].messages.run_id == later.pk

"""Who gets how many clients."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.accounts.models import User
from portal.labs.lab import HostFacts, load_lab
from portal.runs.capacity import last_told, weights_of
from portal.runs.limits import Achieved, Best
from portal.runs.models import Environment
from portal.runs.split import MOST_PROCESSES, Capacity, Limit, beyond, capacity, split
from tests.portal.factories import NOW, make_run, make_user
from wsnode.core.scenario import Plan, Scenario
from wsnode.telemetry import MAX_SLOTS

SCENARIO = Scenario(clients=1000, interval_ms=1000, ramp_up_s=10, rate_per_s=100, duration_s=30)
RANGE = "net.ipv4.ip_local_port_range"


def facts(cores: int | None = 8, **more: Any) -> HostFacts:
    return HostFacts(cpu_count=cores, **more)


def shares(*hosts: Capacity, clients: int = 1000, how: Any = "capacity") -> list[int]:
    return split(clients, hosts, how)


def of(name: str, *parts: Any, **more: Any) -> Capacity:
    return capacity(name, SCENARIO, *parts, **more)


def test_clients_are_dealt_by_cores_and_evenly_where_that_is_asked_for_or_somebodys_cores_are_not_known() -> None:
    big, small, unknown = of("big", facts(8)), of("small", facts(2)), of("unknown")
    assert shares(big, small) == [800, 200]
    assert shares(big, small, how="even") == [500, 500]
    assert shares(big, small, unknown) == [334, 333, 333]
    assert (big.words, unknown.words, unknown.tightest) == ("8 cores", "", None)


def test_what_is_left_over_goes_by_name_and_not_by_place() -> None:
    a, b, c = (of(name, facts(1)) for name in "abc")
    assert shares(a, b, c) == [334, 333, 333]
    assert shares(c, b, a) == [333, 333, 334]


@pytest.mark.parametrize(
    ("more", "reading", "most", "words"),
    [
        ({"tuned": {RANGE: "32768 33067"}}, {}, 300, "300 source ports to one address"),
        (
            {"tuned": {RANGE: "32768 32867"}},
            {"agent.source_addresses": 3},
            300,
            "100 source ports to one address from each of 3",
        ),
        ({"tuned": {RANGE: "32768 33067", "net.ipv4.ip_local_reserved_ports": "33000"}}, {}, 299, "299 source ports"),
        ({"open_files": 65}, {}, 230, "65 open files in each of at most 256 processes"),
        ({"memory_bytes": (64 << 20) * 8 + (48 << 10) * 7}, {}, 7, "of memory"),
        ({}, {"agent.max_clients": 50}, 50, r"its agent allows 50 (max_clients)"),
        ({}, {"agent.max_rate_per_s": 2.5}, 25, "its agent allows 2.5 (max_rate_per_s)"),
        ({}, {"agent.max_messages_per_s": 40}, 40, "(max_messages_per_s)"),
        ({}, {"agent.max_duration_s": 10}, 0, "its agent allows 10 s of duration"),
    ],
)
def test_each_limit_keeps_a_host_below_its_share_and_the_others_take_over(
    more: dict[str, Any], reading: dict[str, Any], most: int, words: str
) -> None:
    tight = of("tight", facts(8, **more), reading)
    assert tight.tightest is not None
    assert tight.tightest.most == most
    assert words in tight.tightest.by
    assert shares(tight, of("free", facts(8))) == [most, 1000 - most]
    assert beyond([most, 1000 - most], [tight, of("free", facts(8))]) == []


def test_what_has_no_room_is_dealt_by_room_and_named_with_need_and_limit() -> None:
    one = of("one", facts(8, tuned={RANGE: "1000 1299"}))
    other = of("other", facts(2, tuned={RANGE: "1000 1099"}))
    counts = shares(one, other)
    assert counts == [750, 250]
    assert beyond(counts, [one, other]) == ["All load generators together have room for 400 of 1,000 clients."]
    capped = of("capped", facts(8), {"agent.max_clients": 50})
    assert beyond([500, 500], [capped, of("free", facts(8))]) == [
        "capped would have 500 clients, and room for 50: its agent allows 50 (max_clients).",
    ]
    even = split(380, [one, other], "even")
    assert even == [190, 190]
    assert beyond(even, [one, other])[-1] == "With split 'capacity' all 380 clients have room."


def test_a_host_that_did_more_than_its_cores_should_gets_more_and_one_that_broke_down_less() -> None:
    usual = of("usual", facts(2))
    did = of("did", facts(2), done=Achieved(Best(60_000, "r-a"), Best(6_000, "r-a")))
    broke = of("broke", facts(2), done=Achieved(too_many=Best(15_000, "r-b")))
    assert shares(usual, did) == [333, 667]
    assert shares(usual, broke) == [667, 333]
    assert did.words == "2 cores, 60,000 messages/s achieved"
    little = of("little", facts(2), done=Achieved(Best(10, "r-c"), Best(1, "r-c")))
    assert shares(usual, little) == [500, 500]


def test_a_load_has_no_more_processes_than_its_agent_can_give_it() -> None:
    assert MOST_PROCESSES == MAX_SLOTS


def test_without_facts_in_lab_json_what_the_agent_told_last_counts() -> None:
    told = {"cpus_usable": 4, "open_file_limit": 20_000, RANGE: "1000 1099", "memory_bytes": 8_000_000_000}
    known = of("told", None, told)
    assert known.words.startswith("4 cores, ")
    assert known.tightest is not None
    assert known.tightest.most == 100
    assert of("told", None, told | {"agent.cores": 1}).words.startswith("1 core, ")


NAMES = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)


@st.composite
def labs(draw: Any) -> list[Capacity]:
    limit = st.none() | st.integers(0, 3000)
    return [
        Capacity(name, draw(st.integers(1, 50)), "", () if (most := draw(limit)) is None else (Limit(most, "x"),))
        for name in draw(NAMES)
    ]


@given(hosts=labs(), clients=st.integers(1, 5000), how=st.sampled_from(["capacity", "even"]))
def test_every_client_has_exactly_one_number_and_no_host_is_beyond_its_limit_while_there_is_room(
    hosts: list[Capacity], clients: int, how: Any
) -> None:
    counts = split(clients, hosts, how)
    assert sum(counts) == clients
    room = [clients if one.tightest is None else one.tightest.most for one in hosts]
    if how == "capacity" and sum(room) >= clients:
        assert all(count <= most for count, most in zip(counts, room, strict=True))
        assert beyond(counts, hosts) == []
    plans = Plan.divide(SCENARIO.model_copy(update={"clients": clients}), "ws://x", counts)
    assert [plan.count for plan in plans] == counts
    assert sorted(number for plan in plans for number in plan.share.clients()) == list(range(clients))


@given(hosts=labs(), clients=st.integers(1, 5000), order=st.randoms(use_true_random=False))
def test_the_order_of_hosts_decides_nothing(hosts: list[Capacity], clients: int, order: Any) -> None:
    shuffled = hosts.copy()
    order.shuffle(shuffled)

    def by_name(some: list[Capacity]) -> dict[str, int]:
        return dict(zip((one.name for one in some), split(clients, some, "capacity"), strict=True))

    assert by_name(hosts) == by_name(shuffled)


@given(hosts=labs(), clients=st.integers(1, 5000))
def test_without_limits_each_has_its_part_to_a_client(hosts: list[Capacity], clients: int) -> None:
    free = [one._replace(limits=()) for one in hosts]
    total = sum(one.power or 0 for one in free)
    for count, one in zip(split(clients, free, "capacity"), free, strict=True):
        assert abs(count - clients * (one.power or 0) / total) < 1


@pytest.mark.django_db
def test_a_plan_knows_what_the_hosts_of_the_newest_run_told(lab_file: Path) -> None:
    user: User = make_user()
    lab = load_lab(lab_file)
    assert weights_of(SCENARIO, lab) == [500, 500]
    for age, cores in enumerate((1, 3)):
        run = make_run(user, machine=lab.machine, created_at=NOW + timedelta(hours=age))
        for name, cpus in (("load-1", cores), ("load-2", 1)):
            stable = {"cpus_usable": cpus, "agent.max_clients": 600 + age}
            Environment.objects.create(run=run, host=name, role="load_generator", begin={"stable": stable})
    assert last_told(lab.machine)["load-1"] == {"cpus_usable": 3, "agent.max_clients": 601}
    assert weights_of(SCENARIO, lab) == [601, 399]

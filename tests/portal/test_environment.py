"""What of the hosts' environments makes two runs comparable, and what is told of those that are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.runs.environment import HostReading, engine_of, environment_digest, run_differences

KERNEL = {"kernel": "6.8.0-45", "cpu_count": 8, "net.core.somaxconn": "4096", "boot_id": "one"}


def host(name: str, role: str = "load_generator", **facts: Any) -> HostReading:
    named = {key.replace("__", "."): value for key, value in facts.items()}
    return HostReading(name, role, {"stable": {**KERNEL, **named}, "volatile": {"load_1m": 0.4}})


def told(base: list[HostReading], contender: list[HostReading]) -> list[str]:
    return [str(line) for line in run_differences(base, contender)]


def test_each_difference_is_a_line_that_names_its_hosts_the_servers_first() -> None:
    base = [host("load-1"), host("load-2"), host("server", "server")]
    contender = [
        host("load-1", net__core__somaxconn="1024"),
        host("load-2", net__core__somaxconn="1024", extra=True),
        host("server", "server", kernel="6.8.0-51"),
    ]
    assert told(base, contender) == [
        "kernel 6.8.0-45 → 6.8.0-51 (server)",
        "net.core.somaxconn 4096 → 1024 (load-1, load-2)",
        "extra absent → yes (load-2)",
    ]
    assert told(base, base) == []


def test_a_host_with_no_counterpart_is_told_and_one_with_another_name_is_paired_by_its_role() -> None:
    base = [host("server", "server"), host("load-1"), host("load-2")]
    contender = [host("big", "server", cpu_count=64), host("load-1")]
    assert told(base, contender) == [
        "cpu_count 8 → 64 (server → big)",
        "host load-2, load generator present → absent (load-2)",
    ]
    assert told(contender, base)[-1] == "host load-2, load generator absent → present (load-2)"


def test_a_new_boot_and_what_the_kernel_works_out_at_boot_are_no_difference() -> None:
    before = host("server", "server", memory_bytes=25_196_363_776, net__ipv4__tcp_mem="282474 376634 564948")
    after = host(
        "server", "server", boot_id="two", memory_bytes=25_196_359_680, net__ipv4__tcp_mem="282480 376640 564960",
        server__start_id="another",
    )  # fmt: skip
    assert told([before], [after]) == []
    halved = host("server", "server", memory_bytes=12_598_181_888, net__ipv4__tcp_mem="282474 376634 564948")
    assert told([before], [halved]) == ["memory_bytes 25196363776 → 12598181888 (server)"]


def test_of_a_host_that_was_not_read_nothing_is_said() -> None:
    unread = HostReading("load-1", "load_generator", {})
    assert told([unread], [host("load-1")]) == told([host("load-1")], [unread]) == []
    assert environment_digest([host("server", "server"), unread]) == ""
    assert environment_digest([]) == ""


@pytest.mark.parametrize(
    ("facts", "same"),
    [
        ({"boot_id": "two"}, True),
        ({"hostname": "elsewhere", "machine_id": "0" * 16}, True),
        ({"nic__eth0__mtu_bytes": 1500}, False),
        ({"kernel": "6.8.0-51"}, False),
        ({"net__core__somaxconn": "1024"}, False),
        ({"cpu_count": 16}, False),
        ({"never_asked_before": None}, True),
    ],
)
def test_the_digest_changes_with_what_makes_a_difference_and_with_nothing_else(
    facts: dict[str, Any], same: bool
) -> None:
    assert (environment_digest([host("load-1", **facts)]) == environment_digest([host("load-1")])) is same


def test_the_digest_leaves_the_subject_out_and_keeps_how_it_was_set_up() -> None:
    def server(**facts: Any) -> str:
        return environment_digest([host("server", "server", **{"server__workers": 1, **facts})])

    assert server() == server(wsnode="9.9", server__engine="lean")
    assert server() != server(server__workers=2)
    assert environment_digest([host("load-1", wsnode="9.9")]) != environment_digest([host("load-1", wsnode="1.0")])


def test_the_engine_is_what_the_servers_host_told() -> None:
    assert engine_of([host("load-1", server__engine="other"), host("s", "server", server__engine="lean")]) == "lean"
    assert engine_of([host("s", "server")]) == engine_of([]) == ""


FACTS = st.dictionaries(st.sampled_from(["kernel", "python", "nic.eth0.queues", "nic.eth1.queues"]), st.integers(0, 3))
HOSTS = st.lists(st.tuples(st.sampled_from(["server", "load_generator"]), FACTS), min_size=1, max_size=5)


@given(hosts=HOSTS, order=st.randoms(use_true_random=False))
def test_neither_the_order_nor_the_names_of_hosts_and_interfaces_change_the_digest(
    hosts: list[tuple[str, dict[str, int]]], order: Any
) -> None:
    def readings(of: list[tuple[str, dict[str, int]]], prefix: str, nic: str) -> list[HostReading]:
        return [
            HostReading(
                f"{prefix}{n}", role, {"stable": {k.replace("eth", nic): v for k, v in facts.items()} | {"x": 1}}
            )
            for n, (role, facts) in enumerate(of)
        ]

    shuffled = hosts.copy()
    order.shuffle(shuffled)
    assert environment_digest(readings(hosts, "a", "eth")) == environment_digest(readings(shuffled, "b", "ens"))


@given(hosts=HOSTS, place=st.integers(0, 4), key=st.sampled_from(["kernel", "python", "nic.eth0.queues"]))
def test_where_the_digest_is_the_same_no_difference_is_told_and_the_other_way_round(
    hosts: list[tuple[str, dict[str, int]]], place: int, key: str
) -> None:
    def readings(of: list[tuple[str, dict[str, int]]]) -> list[HostReading]:
        return [HostReading(f"h{n}", role, {"stable": {**facts, "x": 1}}) for n, (role, facts) in enumerate(of)]

    changed = [(role, dict(facts)) for role, facts in hosts]
    facts = changed[place % len(changed)][1]
    facts[key] = facts.get(key, 0) + 1
    assert run_differences(readings(hosts), readings(hosts)) == []
    [line] = run_differences(readings(hosts), readings(changed))
    assert (line.name, line.hosts) == (key, (f"h{place % len(changed)}",))

"""Timetables: what is due when, to the nanosecond, and how evenly."""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import pairwise
from math import gcd

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsnode.core.pacing import Pacing, Phase, Share, deal_step, spread_step
from wsnode.core.scenario import Plan, Scenario

MS = 1_000_000
S = 1000 * MS


def deviation(moments: list[int], of_ns: int, width_ns: int = MS) -> float:
    """How far the number of moments in any window of `width_ns`, wherever it begins, gets from its mean.

    `moments` ascend and repeat every `of_ns`. A window is fullest that begins at a moment, emptiest right after one.
    """
    n = len(moments)
    mean = n * width_ns / of_ns
    around = moments + [moment + of_ns for moment in moments]
    worst = 0.0
    full = empty = 0
    for first in range(n):
        until = moments[first] + width_ns
        while full < 2 * n and around[full] < until:
            full += 1
        empty = max(empty, full)
        while empty < 2 * n and around[empty] <= until:
            empty += 1
        worst = max(worst, full - first - mean, mean - (empty - first - 1))
    return worst


def phases(clients: int, interval_ms: int, connected: int | None = None) -> list[int]:
    pacing = Pacing(clients, interval_ms * MS, S, 10 * S)
    return sorted(pacing.phase_of(client) for client in range(clients if connected is None else connected))


def any_pacing(max_clients: int = 12) -> st.SearchStrategy[Pacing]:
    return st.builds(
        Pacing,
        clients=st.integers(1, max_clients),
        interval_ns=st.one_of(st.just(0), st.integers(1, 40), st.integers(100, 5000)),
        ramp_ns=st.integers(1, 3000),
        end_ns=st.integers(1, 2000),
        phase=st.sampled_from(("spread", "random", "aligned")),
        seed=st.integers(0, 2**32 - 1),
        stages=st.just(()),
        think=st.none(),  # not given, they would be made up
        churn=st.none(),
    )


def test_the_measure_of_flatness_sees_gaps_and_heaps() -> None:
    assert deviation(list(range(0, 1000, 10)), 1000, 100) == 0
    assert deviation(list(range(0, 1000, 10)), 1000, 105) == 0.5
    assert deviation([0] * 50 + list(range(500, 1000, 10)), 1000, 100) == 49  # 910 … 990 and the heap
    assert deviation(list(range(0, 500, 5)), 1000, 100) == 10


@pytest.mark.parametrize(
    ("clients", "interval_ms"),
    [
        (1, 1000),
        (7, 3),
        (1000, 10),
        (1000, 1000),
        (5000, 100),
        (70_200, 805),
        (99_991, 333),
        (100_000, 10),
        (100_000, 1000),
        (20_000, 60_000),
    ],
)
def test_any_millisecond_is_offered_its_mean_of_messages_within_three(clients: int, interval_ms: int) -> None:
    assert deviation(phases(clients, interval_ms), interval_ms * MS) <= 1 < 3


@given(st.integers(1, 2500), st.integers(1, 5000))
@example(1247, 3)
def test_any_number_of_clients_at_any_interval_is_offered_evenly(clients: int, interval_ms: int) -> None:
    assert deviation(phases(clients, interval_ms), interval_ms * MS) <= 1


@given(st.integers(1, 2500), st.integers(1, 5000), st.floats(0, 1))
def test_also_while_only_the_first_clients_are_connected(clients: int, interval_ms: int, share: float) -> None:
    connected = max(1, int(share * clients))
    assert deviation(phases(clients, interval_ms, connected), interval_ms * MS) <= 5


@pytest.mark.parametrize("connected", [24_438, 50_441, 62_139])
def test_also_while_a_part_of_a_hundred_thousand_clients_is_connected(connected: int) -> None:
    assert deviation(phases(100_000, 1000, connected), 1000 * MS) <= 3


@pytest.mark.parametrize(("clients", "hosts", "workers"), [(100_000, 3, 4), (9973, 8, 2)])
def test_what_hosts_and_workers_offer_together_is_as_flat(clients: int, hosts: int, workers: int) -> None:
    scenario = Scenario(clients=clients, interval_ms=1000, rate_per_s=10_000)
    pacing = scenario.pacing()
    merged = sorted(
        pacing.phase_of(client)
        for host in Plan.divide(scenario, "ws://127.0.0.1/echo", hosts)
        for worker in host.divide_among(workers)
        for client in worker.share.clients()
    )
    assert len(merged) == clients
    assert deviation(merged, S) <= 1


def test_the_merged_timetables_of_workers_are_flat_in_every_millisecond_of_the_window() -> None:
    scenario = Scenario(clients=1000, interval_ms=20, ramp_up_s=1, rate_per_s=1000, duration_s=2)
    pacing = scenario.pacing()
    dues = sorted(
        due
        for host in Plan.divide(scenario, "ws://127.0.0.1/echo", 2)
        for worker in host.divide_among(3)
        for due, _ in pacing.timetable(worker.share)
    )
    window = dues[bisect_left(dues, S) :]
    assert len(window) == 50_000
    assert all(0 <= due < 2 * S for due in dues)
    counts = [bisect_left(window, due + MS) - place for place, due in enumerate(window) if due + MS <= 2 * S]
    assert {*counts} <= {49, 50, 51}
    assert max(later - earlier for earlier, later in pairwise(window)) <= 20_001


@given(st.integers(1, 200_000))
@example(1)
@example(2)
@example(100_000)
def test_the_spread_step_visits_every_place_once(clients: int) -> None:
    step = spread_step(clients)
    assert 1 <= step <= clients
    assert gcd(step, clients) == 1
    if clients > 1000:
        assert abs(step / clients - 0.6180339887) < 0.065


@given(st.integers(1, 200_000))
@example(1)
@example(2)
@example(100_000)
def test_clients_are_dealt_by_a_step_of_their_own(clients: int) -> None:
    step = deal_step(clients)
    assert gcd(step, clients) == 1
    if clients > 3:
        assert step not in (0, clients)
    if clients > 100:
        assert step not in (spread_step(clients), clients - spread_step(clients))


@given(
    st.integers(0, 3000),
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), max_size=4),
)
def test_dealing_gives_each_client_to_exactly_one_taker_for_any_weights_and_nesting(
    clients: int, nesting: list[list[int]]
) -> None:
    shares = [Share(clients, 0, clients)]
    for weights in nesting:
        dealt = [part for share in shares for part in share.deal(weights)]
        for place, share in enumerate(shares):
            parts = dealt[place * len(weights) : (place + 1) * len(weights)]
            assert sum(part.size for part in parts) == share.size
            for part, weight in zip(parts, weights, strict=True):
                assert abs(part.size - share.size * weight / sum(weights)) < 1
        shares = dealt
    numbers = [client for share in shares for client in share.clients()]
    assert sorted(numbers) == list(range(clients))
    assert all(share.clients() == sorted(share.clients()) and len(share.clients()) == share.size for share in shares)


EVEN = 5
"""Clients or messages by which a taker's part of any stretch may differ from its mean (found: 4.3 at most)."""


@given(st.integers(2, 30_000), st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(2, 60))
@example(100_000, [1, 1], 50)
@example(100_000, [1, 1, 1], 50)
@example(30_000, [1] * 8, 50)
@example(33, [1, 1], 4)
@settings(max_examples=40)
def test_every_taker_has_its_part_of_each_stretch_of_the_ramp_up_and_of_the_interval(
    clients: int, weights: list[int], stretches: int
) -> None:
    golden = spread_step(clients)
    for share in Share(clients, 0, clients).deal(weights):
        connects, messages = [0] * stretches, [0] * stretches
        for client in share.clients():
            connects[client * stretches // clients] += 1
            messages[client * golden % clients * stretches // clients] += 1
        mean = share.size / stretches
        assert max(abs(count - mean) for count in connects) <= EVEN
        assert max(abs(count - mean) for count in messages) <= EVEN


@given(st.integers(1, 500), st.integers(1, 6), st.integers(1, 6))
def test_plans_over_hosts_and_workers_partition_the_clients(clients: int, hosts: int, workers: int) -> None:
    plans = Plan.divide(Scenario(clients=clients), "ws://127.0.0.1:3000/echo", hosts)
    assert len(plans) == hosts
    dealt = [client for plan in plans for part in plan.divide_among(workers) for client in part.share.clients()]
    assert sorted(dealt) == list(range(clients))
    assert {plan.url for plan in plans} == {"ws://127.0.0.1:3000/echo"}


def test_each_host_gets_its_part_of_every_second_of_the_ramp_up() -> None:
    scenario = Scenario(clients=1000, ramp_up_s=10, rate_per_s=100)
    pacing = scenario.pacing()
    for plan, part in zip(Plan.divide(scenario, "ws://127.0.0.1/echo", [2, 1, 1]), (50, 25, 25), strict=True):
        begun = [pacing.connect_due(client) // S for client in plan.share.clients()]
        assert [part - 2 <= begun.count(second) <= part + 2 for second in range(10)] == [True] * 10


@pytest.mark.parametrize("parts", [0, -1])
def test_dividing_over_nobody_is_refused(parts: int) -> None:
    with pytest.raises(ValueError, match="10 clients over takers of the weights"):
        Share(10, 0, 10).split(parts)
    with pytest.raises(ValueError, match="over takers of the weights"):
        Plan.divide(Scenario(), "ws://127.0.0.1/echo", parts)
    with pytest.raises(ValueError, match=r"over takers of the weights \[2, -1\]"):
        Share(10, 0, 10).deal([2, -1])


@given(any_pacing())
def test_the_timetable_is_the_closed_forms_and_in_order(pacing: Pacing) -> None:
    table = list(pacing.timetable(Share(pacing.clients, 0, pacing.clients)))
    expected = sorted(
        (pacing.message_due(client, k), client)
        for client in range(pacing.clients)
        if pacing.interval_ns
        for k in range(pacing.end_ns // pacing.interval_ns + 2)
        if pacing.connect_due(client) <= pacing.message_due(client, k) < pacing.end_ns
    )
    assert sorted(table) == expected
    assert [due for due, _ in table] == sorted(due for due, _ in table)


@given(any_pacing(), st.integers(-5, 2500))
def test_messages_due_counts_the_timetable_before_any_moment(pacing: Pacing, before_ns: int) -> None:
    share = Share(pacing.clients, 0, pacing.clients)
    table = list(pacing.timetable(share))
    for client in share.clients():
        due = [at for at, whose in table if whose == client]
        assert pacing.messages_due(client, before_ns) == sum(at < before_ns for at in due)
    assert pacing.offered(share, before_ns) == sum(at < before_ns for at, _ in table)


@given(any_pacing(), st.integers(1, 4))
def test_the_timetables_of_shares_are_the_timetable_of_the_whole(pacing: Pacing, parts: int) -> None:
    whole = Share(pacing.clients, 0, pacing.clients)
    dealt = [row for share in whole.split(parts) for row in pacing.timetable(share)]
    assert sorted(dealt) == sorted(pacing.timetable(whole))


@given(any_pacing(200))
def test_phases_lie_within_the_interval_and_connects_within_the_ramp_up(pacing: Pacing) -> None:
    connects = [pacing.connect_due(client) for client in range(pacing.clients)]
    assert connects[0] == 0
    assert connects == sorted(connects)
    assert connects[-1] < pacing.ramp_ns or pacing.clients == 1
    for client in range(pacing.clients):
        assert 0 <= pacing.phase_of(client) < max(1, pacing.interval_ns)


def test_connects_are_evenly_spaced_at_the_planned_rate() -> None:
    pacing = Scenario(clients=1000, ramp_up_s=2, rate_per_s=100, duration_s=80).pacing()
    assert pacing.ramp_ns == 10 * S
    assert {later - earlier for earlier, later in pairwise(map(pacing.connect_due, range(1000)))} == {10 * MS}


def test_an_idle_load_has_no_messages() -> None:
    pacing = Scenario(clients=10, interval_ms=0).pacing()
    assert list(pacing.timetable(Share(10, 0, 10))) == []
    assert pacing.offered(Share(10, 0, 10), 80 * S) == 0


def test_aligned_phases_are_all_zero() -> None:
    pacing = Pacing(50, 200 * MS, S, 10 * S, "aligned")
    assert {pacing.phase_of(client) for client in range(50)} == {0}
    at = [due for due, _ in pacing.timetable(Share(50, 0, 50)) if due >= S]
    assert len(at) == 50 * 45
    assert {due % (200 * MS) for due in at} == {0}


def test_random_phases_come_again_with_their_seed_and_are_uniform() -> None:
    def drawn(seed: int) -> list[int]:
        pacing = Pacing(20_000, S, S, 10 * S, "random", seed)
        return [pacing.phase_of(client) for client in range(20_000)]

    assert drawn(1) == drawn(1)
    assert sum(a == b for a, b in zip(drawn(1), drawn(2), strict=True)) == 0
    for seed in (0, 1, 2**32 - 1):
        tenths = [0] * 10
        for phase in drawn(seed):
            tenths[phase * 10 // S] += 1
        # Chi-squared with 9 degrees of freedom: 27.9 is exceeded once in a thousand.
        assert sum((n - 2000) ** 2 / 2000 for n in tenths) < 27.9
        neighbours = [a < b for a, b in pairwise(drawn(seed))]
        assert sum(neighbours) / len(neighbours) == pytest.approx(0.5, abs=0.02)


def test_random_phases_are_not_flat_where_spread_ones_are() -> None:
    draw = Pacing(1000, 100 * MS, S, 10 * S, "random", 3)
    assert deviation(sorted(draw.phase_of(client) for client in range(1000)), 100 * MS) > 5
    assert deviation(phases(1000, 100), 100 * MS) <= 1


@pytest.mark.parametrize("phase", ["spread", "random", "aligned"])
def test_nothing_is_due_before_a_connect_or_after_the_end(phase: Phase) -> None:
    draw = random.Random(5)
    for _ in range(20):
        pacing = Pacing(
            draw.randint(1, 30), draw.randint(1, 10**8), draw.randint(1, 10**9), draw.randint(1, 10**9), phase
        )
        for due, client in pacing.timetable(Share(pacing.clients, 0, pacing.clients)):
            assert pacing.connect_due(client) <= due < pacing.end_ns


@pytest.mark.parametrize(("clients", "step"), [(1, 1), (2, 1), (5, 2), (100, 27), (1000, 633), (100_000, 61_827)])
def test_phases_stay_the_same_over_versions_since_hosts_and_runs_are_compared(clients: int, step: int) -> None:
    assert spread_step(clients) == step
    pacing = Pacing(clients, S, S, 10 * S)
    assert pacing.phase_of(clients - 1) == (clients - 1) * step % clients * S // clients


def test_random_phases_are_those_of_splitmix64() -> None:
    # The generator's published outputs for seed 0: 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F.
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    phases = [Pacing(1, 1 << 64, 1, 1, "random", seed).phase_of(0) for seed in range(3)]
    assert phases == outputs

"""Client kinds: what may be said, and who is of which kind."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from wsnode.core.kinds import Cast, Kind
from wsnode.core.pacing import Share
from wsnode.core.scenario import Scenario

KINDS = ("slow_reader 5%", "never_reads 1%", "half_open 1%", "idle_pings 10%")


@pytest.mark.parametrize(
    ("text", "name", "percent", "amount", "again"),
    [
        ("slow_reader 5%", "slow_reader", 5, 1024, "slow_reader 5%"),
        ("  slow_reader  2.5 %  4096B/s ", "slow_reader", 2.5, 4096, "slow_reader 2.5% 4096 B/s"),
        ("never_reads 1%", "never_reads", 1, 0, "never_reads 1%"),
        ("half_open 0.1%", "half_open", 0.1, 0, "half_open 0.1%"),
        ("idle_pings 10% 30 s", "idle_pings", 10, 30, "idle_pings 10% 30 s"),
    ],
)
def test_a_kind_is_a_name_a_share_and_for_some_an_amount(
    text: str, name: str, percent: float, amount: int, again: str
) -> None:
    kind = Kind.parse(text)
    assert (kind.name, float(kind.percent), kind.amount, kind.text) == (name, percent, amount, again)
    assert Kind.parse(again) == kind


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["slow_reader"], "expected NAME SHARE%"),
        (["slow_reader 5"], "expected NAME SHARE%"),
        (["sleepy 5%"], "known: slow_reader, never_reads, half_open, idle_pings"),
        (["normal 5%"], "the rest is normal"),
        (["half_open 0%"], "above 0 % and below 100 %"),
        (["half_open 100%"], "above 0 % and below 100 %"),
        (["half_open 1% 5 s"], "half_open takes nothing behind its share"),
        (["slow_reader 1% 5 s"], "slow_reader takes 1 to 1,000,000 B/s"),
        (["idle_pings 1% 0 s"], "idle_pings takes 1 to 1,000,000 s"),
        (["half_open 1%", "half_open 2%"], "half_open stands there 2 times"),
        (["half_open 50%", "never_reads 50%"], "100 % of the clients; expected less than 100 %"),
    ],
)
def test_what_is_no_kind_is_refused_with_what_may_stand_there(texts: list[str], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Scenario.model_validate({"kinds": texts})
    assert says in str(refused.value)


@pytest.mark.parametrize("clients", [1, 2, 7, 100, 1000, 9973, 100_000])
def test_each_kind_has_its_share_to_a_client(clients: int) -> None:
    cast = Cast.of(KINDS, clients)
    found = dict.fromkeys(("slow_reader", "never_reads", "half_open", "idle_pings", ""), 0)
    for client in range(clients):
        kind = cast.kind_of(client)
        found[kind.name if kind else ""] += 1
    assert {name: n for name, n in found.items() if name} == cast.counts()
    for kind in cast.kinds:
        assert abs(found[kind.name] - clients * float(kind.percent) / 100) <= 1
    assert cast.senders == clients - found["half_open"] - found["idle_pings"]


@pytest.mark.parametrize("clients", [1000, 4096, 9973, 50_000])
def test_every_share_and_every_stretch_of_the_ramp_up_has_its_part(clients: int) -> None:
    cast = Cast.of(KINDS, clients)
    groups = [share.clients() for share in Share(clients, 0, clients).split(7)]
    groups += [list(range(n * clients // 10, (n + 1) * clients // 10)) for n in range(10)]
    for group in groups:
        for kind in cast.kinds:
            n = sum((found := cast.kind_of(client)) is not None and found.name == kind.name for client in group)
            assert abs(n - len(group) * float(kind.percent) / 100) <= 4


@pytest.mark.parametrize("more", [{"payload": "${seq}", "match": "order"}, {"first_messages": ["> hello"]}])
def test_kinds_do_not_go_with_a_conversation(more: dict[str, object]) -> None:
    Scenario.model_validate(more)
    with pytest.raises(ValidationError, match=f"kinds do not go with {next(iter(more))}"):
        Scenario.model_validate({"kinds": ["half_open 1%"], **more})


def test_without_kinds_all_are_normal_and_nothing_is_noted() -> None:
    scenario = Scenario(clients=10)
    assert scenario.cast.kind_of(3) is None
    assert scenario.notes() == []
    assert scenario.offered_per_s == 10


def test_who_sends_nothing_is_not_in_the_offered_load_and_a_note_says_who_is_not_normal() -> None:
    scenario = Scenario(clients=100, kinds=("idle_pings 10%", "half_open 20%", "slow_reader 5%"))
    assert scenario.offered_per_s == 70
    [note] = scenario.notes()
    assert "of 100 clients these are not normal: 10 idle_pings, 20 half_open, 5 slow_reader" in note

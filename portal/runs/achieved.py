"""What each load generator has achieved in the runs that are stored: what a plan is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from django.core.cache import cache

from portal.runs.limits import Achieved, Best
from portal.runs.models import Run, Summary

LOOKED_AT = 50
"""Runs, the newest ones."""
KEPT_S = 3600
GENERATORS_FAULT = (
    "scheduler lag p99",
    "by the generator's own fault",
    "connects began more",
    "a load worker used more",
)
"""In the reasons for which a run was not believed where a generator had too much to do (`wsnode.core.judge`)."""


class Done(NamedTuple):
    """What a run says of its generators."""

    run_id: str
    validity: str
    hosts: list[dict[str, Any]]
    rates: Mapping[str, float | None]
    reasons: list[str]


def achieved(machine: str) -> dict[str, Achieved]:
    """By host, from the newest finished runs of a machine. Two queries, or one where no run has finished since."""
    runs = Run.objects.finished().filter(machine=machine, summary__isnull=False).order_by("-created_at", "-pk")
    newest = runs.values_list("pk", flat=True).first()
    if newest is None:
        return {}
    key = f"achieved-{machine}-{newest}"
    found: dict[str, Achieved] | None = cache.get(key)
    if found is None:
        rows = (
            Summary.objects.filter(pk__in=list(runs.values_list("pk", flat=True)[:LOOKED_AT]))
            .order_by("-run__created_at")
            .values_list("run_id", "run__validity", "result__hosts", "result__rates", "result__reasons")
        )
        found = best(Done(pk, validity or "", hosts, rates, why) for pk, validity, hosts, rates, why in rows)
        cache.set(key, found, KEPT_S)
    return found


def best(runs: Iterable[Done]) -> dict[str, Achieved]:
    """The best of each host over these runs. A host's part of a rate is its part of what was counted."""
    hosts: dict[str, Achieved] = {}
    for run in runs:
        generators = [host for host in run.hosts if host.get("counters")]
        for host in generators:
            name, before = host["name"], hosts.get(host["name"], Achieved())
            messages = _part(run, host, generators, "sent_per_s", "messages_sent")
            connects = _part(run, host, generators, "connect_per_s", "connections_opened")
            if run.validity == "valid":
                before = before._replace(
                    messages=_most(before.messages, messages), connects=_most(before.connects, connects)
                )
            elif messages is not None and any(word in reason for reason in run.reasons for word in GENERATORS_FAULT):
                least = before.too_many
                before = before._replace(too_many=messages if least is None else min(least, messages))
            hosts[name] = before
    return hosts


def _part(run: Done, host: Mapping[str, Any], all_hosts: list[dict[str, Any]], rate: str, counter: str) -> Best | None:
    per_s, total = run.rates.get(rate), sum(one["counters"][counter] for one in all_hosts)
    return Best(per_s * host["counters"][counter] / total, run.run_id) if per_s and total else None


def _most(one: Best | None, other: Best | None) -> Best | None:
    return max((found for found in (one, other) if found is not None), default=None)

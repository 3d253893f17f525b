"""A scenario in plain words, before it runs: what each load generator does, what is offered, when, what to expect."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from portal.labs.lab import Lab
from portal.runs.figures import count, number, percentile, size, span
from portal.runs.limits import Achieved, limits
from portal.runs.split import Capacity, beyond
from wsnode.core.histogram import nearest_rank
from wsnode.core.result import QUANTILES, SAMPLES_BEYOND
from wsnode.core.scenario import NoWindow, Plan, Scenario
from wsnode.core.threshold import Threshold

SHORT_WINDOW_S = 10

_SETTING = re.compile(r"(\w+) (?:>=|<=) (\d+)")


class Part(NamedTuple):
    """What one load generator does."""

    generator: str
    connections: int
    connect_per_s: float
    messages_per_s: float
    text: str


class Stretch(NamedTuple):
    """A piece of the run's time (s from the origin)."""

    name: str
    kind: str
    """`ramp`, `warm`, `window` or `drain`."""
    from_s: float
    to_s: float


class Repair(NamedTuple):
    """One way to get a measured window: which fields to set to what."""

    text: str
    settings: dict[str, str]

    @property
    def assignments(self) -> str:
        """The settings as `field=value`, with spaces between."""
        return " ".join(f"{name}={value}" for name, value in self.settings.items())


class PlainPlan(NamedTuple):
    """A plan as it is read."""

    parts: list[Part]
    dealt: str
    """By what the clients are dealt; empty where there is nothing to say."""
    offered: str
    moments: list[tuple[str, str]]
    """(when, what happens then), in order."""
    stretches: list[Stretch]
    total: str
    warnings: list[str]
    no_window: str | None
    """Why there is no measured window, where there is none."""
    repairs: list[Repair]

    @property
    def end_s(self) -> float:
        """Where the last stretch ends."""
        return self.stretches[-1].to_s


def plain_plan(
    scenario: Scenario,
    generators: Sequence[str],
    weights: Sequence[int] | None = None,
    *,
    accept_partial: bool = False,
    lab: Lab | None = None,
    achieved: Mapping[str, Achieved] | None = None,
    capacities: Sequence[Capacity] = (),
    takes: int | None = None,
) -> PlainPlan:
    """Describe `scenario` on these load generators, the clients dealt in proportion to the weights (none: evenly). A
    scenario without a window is described too, see `no_window`. Warnings compare it with what the lab's hosts have and
    have achieved, as far as that is known; `capacities`, in the generators' order, say by what they were dealt.
    `takes`: connections that the measured server has said to take at once."""
    no_window, repairs = _no_window(scenario)
    weights = weights or [1] * len(generators)
    parts = _parts(scenario, generators, weights, {one.name: one for one in capacities})
    lacking = limits(scenario, parts, lab, achieved or {}, takes)
    if capacities:
        lacking = [*beyond([part.connections for part in parts], capacities), *lacking]
    warnings = [*lacking, *_time_warnings(scenario), *_sample_warnings(scenario), *scenario.notes()]
    if no_window and accept_partial:
        warnings.insert(0, "Ramp-up only, as accepted: nothing is measured in a window, and there is no verdict.")
    return PlainPlan(
        parts=parts,
        dealt=_dealt(scenario, generators, weights),
        offered=_offered(scenario),
        moments=_moments(scenario),
        stretches=_stretches(scenario),
        total=f"{span(scenario.duration_s)} of load, then at most {span(scenario.drain_s)} of drain; "
        "checks before and collecting after take a few seconds more.",
        warnings=warnings,
        no_window=no_window,
        repairs=repairs,
    )


def _no_window(scenario: Scenario) -> tuple[str | None, list[Repair]]:
    try:
        scenario.check_window()
    except NoWindow as error:
        text = str(error)
    else:
        return None, []
    offers = text.partition("Repairs: ")[2].partition("; or accept")[0]
    repairs = [
        Repair(offer, dict(settings)) for offer in offers.split(", or ") if (settings := _SETTING.findall(offer))
    ]
    return text, repairs


def _dealt(scenario: Scenario, generators: Sequence[str], weights: Sequence[int]) -> str:
    if len(generators) < 2 or scenario.split == "even":
        return ""
    if max(weights) - min(weights) <= 1:
        return ""
    return "The clients are dealt by what each can carry. With split 'even' each has as many."


def _parts(
    scenario: Scenario, generators: Sequence[str], weights: Sequence[int], capacities: Mapping[str, Capacity]
) -> list[Part]:
    if not generators:
        return []
    plans = Plan.divide(scenario, "ws://plan", weights)
    parts = [_part(scenario, name, plan.count) for name, plan in zip(generators, plans, strict=True)]
    return [
        part._replace(text=_having(plan.count, capacities[part.generator]) + part.text)
        if plan.count and part.generator in capacities
        else part
        for part, plan in zip(parts, plans, strict=True)
    ]


def _having(clients: int, capacity: Capacity) -> str:
    """Such as `600 clients (8 cores, 16 GB; room for 28,232): `; empty where nothing is known of the host."""
    room = "" if capacity.tightest is None else f"room for {count(capacity.tightest.most)}"
    has = "; ".join(filter(None, (capacity.words, room)))
    return f"{_many(clients, 'client')} ({has}): " if has else ""


def _part(scenario: Scenario, generator: str, clients: int) -> Part:
    if not clients:
        return Part(generator, 0, 0.0, 0.0, "has no client: there are fewer clients than load generators.")
    connect_per_s = scenario.connects_per_s * clients / scenario.clients
    connections = clients if scenario.stages else min(clients, math.ceil(connect_per_s * scenario.duration_s))
    messages_per_s = scenario.offered_per_s * connections / scenario.clients
    if scenario.stages:
        opens = f"opens up to {_many(clients, 'connection')}, at most {number(connect_per_s)}/s"
    elif connections == clients:
        opens = f"opens {_many(clients, 'connection')}, {number(connect_per_s)}/s, in {span(scenario.planned_ramp_s)}"
    else:
        opens = (
            f"opens {count(connections)} of its {_many(clients, 'connection')}, {number(connect_per_s)}/s, "
            f"in the {span(scenario.duration_s)} there are"
        )
    if scenario.pace == "closed":
        keeps = (
            f"Each keeps {_many(scenario.in_flight or 1, 'message')} of {_many(scenario.size_bytes, 'byte')} in flight"
        )
        return Part(generator, connections, connect_per_s, messages_per_s, f"{opens}. {keeps}.")
    if not messages_per_s:
        return Part(generator, connections, connect_per_s, 0.0, f"{opens}, and keeps them idle.")
    awaits = (
        "No reply is awaited."
        if scenario.match == "none"
        else f"A reply that takes longer than {span(scenario.reply_timeout_s)} is lost."
    )
    text = (
        f"{opens}. Each sends {_many(scenario.size_bytes, 'byte')} of {scenario.message_type} "
        f"every {_interval(scenario.interval_ms)}: {number(messages_per_s)} messages/s in the end. {awaits}"
    )
    return Part(generator, connections, connect_per_s, messages_per_s, text)


def _offered(scenario: Scenario) -> str:
    connections = scenario.connected_by_end
    if scenario.pace == "closed":
        return (
            f"{_many(connections, 'connection')}; how many messages there are follows from the replies (closed pace)."
        )
    if not scenario.offered_per_s:
        return f"{_many(connections, 'connection')} and no messages: what idle connections cost."
    per_s = scenario.offered_per_s * connections / scenario.clients
    text = (
        f"{number(per_s)} messages/s over {_many(connections, 'connection')}, "
        f"{size(per_s * scenario.size_bytes)}/s of payload each way"
    )
    if scenario.window_s >= 1:
        text += f"; about {count(scenario.due_in_window)} messages fall into the measured window"
    return text + "."


def _moments(scenario: Scenario) -> list[tuple[str, str]]:
    events = [(0.0, "the first client connects")]
    for stage in scenario.staged:
        there = f"{_many(stage.clients, 'client')} are connected"
        events.append((stage.begin_s, f"{there}, held" if stage.is_hold else f"on to {_many(stage.clients, 'client')}"))
    if not scenario.stages and scenario.planned_ramp_s <= scenario.duration_s:
        events.append((scenario.planned_ramp_s, f"all {_many(scenario.clients, 'client')} are connected"))
    if scenario.window_s >= 1:
        events.append((scenario.window_open_s, f"the measured window opens, for {span(scenario.window_s)}"))
        events.append((scenario.duration_s, "the window closes, sending ends"))
    else:
        connected = f"{count(scenario.connected_by_end)} of {_many(scenario.clients, 'client')} are connected"
        events.append((scenario.duration_s, f"sending ends; {connected}"))
    events.append((scenario.duration_s + scenario.drain_s, "at the latest: every reply is in or lost, all are closed"))
    moments: dict[str, list[str]] = {}
    for at_s, event in events:
        moments.setdefault(span(at_s), []).append(event)
    return [(when, "; ".join(what)) for when, what in moments.items()]


def _stretches(scenario: Scenario) -> list[Stretch]:
    end = scenario.duration_s
    ramp = min(scenario.planned_ramp_s, end)
    opens = min(scenario.window_open_s, end)
    stretches = [Stretch("First climb" if scenario.stages else "Ramp-up", "ramp", 0, ramp)]
    if scenario.warm_up_s and opens > ramp:
        stretches.append(Stretch("Warm-up", "warm", ramp, opens))
    if scenario.window_s >= 1:
        stretches.append(Stretch("Measured window", "window", opens, end))
    stretches.append(Stretch("Drain", "drain", end, end + scenario.drain_s))
    return stretches


def _time_warnings(scenario: Scenario) -> list[str]:
    warnings = []
    if scenario.planned_ramp_s > scenario.ramp_up_s:
        warnings.append(
            f"The ramp-up takes {span(scenario.planned_ramp_s)} instead of {span(scenario.ramp_up_s)}: "
            f"{count(scenario.clients)} clients at {number(scenario.rate_per_s)}/s need that long."
        )
    if 1 <= scenario.window_s < SHORT_WINDOW_S:
        warnings.append(f"The measured window is {span(scenario.window_s)} only: a single hiccup weighs much.")
    if scenario.offered_per_s and scenario.phase == "aligned":
        warnings.append(
            f"Phase is aligned: all {count(scenario.clients)} clients send at the same moment, "
            f"every {_interval(scenario.interval_ms)}."
        )
    return warnings


def _sample_warnings(scenario: Scenario) -> list[str]:
    """Which percentiles the window is too small for, and which thresholds with them."""
    if scenario.window_s < 1 or not scenario.due_in_window or scenario.match == "none":
        return []
    due = scenario.due_in_window
    missing = [name for name, q in QUANTILES.items() if due - nearest_rank(q, due) < SAMPLES_BEYOND]
    warnings = []
    if missing:
        needed = math.ceil(round(SAMPLES_BEYOND / (1 - QUANTILES[missing[0]]), 6))
        warnings.append(
            f"{', '.join(map(percentile, missing))} will have no value: about {count(due)} messages are due in the "
            f"window, {percentile(missing[0])} takes {count(needed)}."
        )
    for text in scenario.thresholds:
        latency, _, statistic = Threshold.parse(text).metric.partition(".")
        if statistic in missing and latency != "handshake":
            warnings.append(f"The threshold '{text}' can't be judged: too few messages for {percentile(statistic)}.")
    return warnings


def _interval(interval_ms: int) -> str:
    return span(interval_ms / 1000) if interval_ms >= 1000 else f"{interval_ms}\u00a0ms"


def _many(n: int, noun: str) -> str:
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"

"""What happened in the lab that never was: which runs, when, of what, by whom and why. Values only, no database."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

from portal.runs.demo.load import Condition, Recipe, dice_of
from wsnode.core.scenario import Scenario

AUTHORS = {"ada": "operator", "grace": "operator", "edsger": "admin", "barbara": "viewer"}
"""People of the story, with their roles; a viewer started runs before she was one."""
RUNS_A_DAY = 50
MOST_CHAPTERS = 16
"""So many versions does each subject have at most; between two of them nothing changes but the weather."""
VARIANTS = 6
"""Different loads of one version: repetitions differ as real ones do."""

KERNELS = ("6.1.0-28-amd64", "6.1.0-31-amd64")
KERNEL_UPDATE, BACKLOG_CUT, BACKLOG_BACK = 0.30, 0.68, 0.74
"""When the environment changed, as a share of the whole time."""
ENGINE_CHANGE = 0.55
"""When wsnode's server got its lean engine."""
SLOWER_FROM, SLOWER_UNTIL, JUMP = 0.42, 0.64, 0.75
"""The gateway got slower by and by until somebody mended it; the proxy at once, and still is."""

PAIRED = 12
"""Runs of two alternating groups: enough of each for a comparison to say something."""

REPEATED, ALTERNATED = "repeat", "alternate"


class Line(NamedTuple):
    """A scenario with what it is run on."""

    scenario: Scenario
    subject: str
    generators: tuple[str, ...]
    condition: Condition
    weight: int
    """How often it is run, against the others."""


def _generators(n: int) -> tuple[str, ...]:
    return tuple(f"load-{i + 1}" for i in range(n))


LINES = (
    Line(
        Scenario(
            name="smoke",
            description="Does everything work? 500 messages/s over 100 connections, in 12 seconds.",
            clients=100,
            interval_ms=200,
            ramp_up_s=2,
            duration_s=12,
            rate_per_s=100,
            thresholds=("response_time.p99 < 250ms", "error_ratio < 0.1%"),
        ),
        "wsnode",
        _generators(2),
        Condition(1.3),
        10,
    ),
    Line(
        Scenario(
            name="nightly-echo",
            description="Each night: a steady 400 messages/s through the gateway.",
            clients=200,
            interval_ms=500,
            ramp_up_s=2,
            duration_s=30,
            rate_per_s=200,
            thresholds=("response_time.p95 < 4.6ms", "error_ratio < 0.1%"),
        ),
        "chat-gateway",
        _generators(2),
        Condition(2.2),
        7,
    ),
    Line(
        Scenario(
            name="release-gate",
            description="What a release of the gateway has to pass: 800 messages/s over four hosts.",
            clients=400,
            interval_ms=500,
            ramp_up_s=5,
            duration_s=60,
            rate_per_s=100,
            thresholds=("response_time.p95 < 5.5ms", "response_time.p99 < 12ms", "error_ratio < 0.1%"),
        ),
        "chat-gateway",
        _generators(4),
        Condition(2.6, slow=0.006),
        4,
    ),
    Line(
        Scenario(
            name="edge-burst",
            description="300 clients that come within three seconds, through the edge.",
            clients=300,
            interval_ms=1000,
            ramp_up_s=3,
            duration_s=40,
            rate_per_s=100,
            thresholds=("response_time.p95 < 9.5ms", "connect_error_ratio < 1%"),
        ),
        "edge-proxy",
        _generators(2),
        Condition(4.1, spread=0.45, lost=0.0002),
        5,
    ),
    Line(
        Scenario(
            name="idle-hold",
            description="500 connections that say nothing.",
            clients=500,
            interval_ms=0,
            ramp_up_s=5,
            duration_s=25,
            rate_per_s=100,
            thresholds=("handshake.p99 < 25ms",),
        ),
        "wsnode",
        _generators(2),
        Condition(1.3, handshake_ms=2.0),
        2,
    ),
)

Trouble = Literal["", "late", "very late", "failed", "cancelled", "lost"]
_TROUBLES: tuple[tuple[Trouble, int], ...] = (
    ("", 912), ("late", 30), ("very late", 10), ("failed", 22), ("cancelled", 20), ("lost", 6),
)  # fmt: skip
FAILURES = (
    "server: its agent does not answer: no answer within 10 s",
    "load-2 is unfit: open_files: 1,024 descriptors are allowed, the plan needs 1,164",
    "the server at ws://198.18.0.2:3000/echo refused the connection",
    "load-1: the workers did not become ready within 30 s",
)
LOSSES = ("load-2: its channel broke and it cannot be reached: nobody can say what its load did",)
_REASONS = {
    "smoke": ("after the hosts' update", "is the lab all right?", "before the demo", "new engine, first look"),
    "nightly-echo": ("does it hold after the merge?", "p95 looks high since Tuesday", "before the freeze"),
    "release-gate": ("gate for {version}", "{version} again with more hosts", "is the fix in {version} enough?"),
    "edge-burst": ("bursts after the TLS change", "{version} against the last one", "checks the connect errors"),
    "idle-hold": ("memory per connection", "handshakes after the kernel update"),
}
_TAGS = {
    "smoke": ("lab",),
    "nightly-echo": ("nightly",),
    "release-gate": ("release",),
    "edge-burst": ("edge",),
    "idle-hold": ("memory",),
}


class Series(NamedTuple):
    """A group of the story; the two of an alternating pair name each other."""

    key: str
    kind: str
    title: str
    partner: str | None


@dataclass(frozen=True)
class Told:
    """A run of the story."""

    at: datetime
    """When it was asked for."""
    line: Line
    share: float
    """Of the whole time, in whole chapters."""
    version: str
    engine: str
    recipe: Recipe | None
    """None: nothing was ever counted."""
    trouble: Trouble
    why: str
    """Why a run did not finish."""
    author: str
    reason: str
    tags: tuple[str, ...]
    origin: Literal["web", "api", "schedule"]
    group: str | None = None
    place: int | None = None
    is_baseline: bool = False
    starred: bool = False
    note: str = ""


@dataclass
class Story:
    """Everything, in the order in which it happened."""

    runs: list[Told] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)


def tell(runs: int, until: datetime, seed: int) -> Story:
    """So many runs, the last of them a little before `until`."""
    return _Teller(runs, until, seed).tell()


def environment(share: float) -> dict[str, Any]:
    """The stable facts of every host at that time."""
    return {
        "cpu_count": 4,
        "cpu_model": "AMD EPYC 7543P 32-Core Processor",
        "kernel": KERNELS[share >= KERNEL_UPDATE],
        "machine": "x86_64",
        "memory_bytes": 17_179_869_184,
        "net.core.somaxconn": "1024" if BACKLOG_CUT <= share < BACKLOG_BACK else "65535",
        "net.ipv4.ip_local_port_range": "1024 65535",
        "net.ipv4.tcp_tw_reuse": "1",
        "open_file_limit": 1_000_000,
        "python": "3.11.2",
        "wsnode": _version("wsnode", share, 1),
    }


def _version(subject: str, share: float, chapters: int) -> str:
    chapter = min(chapters - 1, round(share * chapters))
    if subject == "wsnode":
        return "0.2.0" if share >= ENGINE_CHANGE else "0.1.0"
    return f"2.{chapter}.0" if subject == "chat-gateway" else f"1.{chapter // 2}.{chapter % 2}"


def _engine(line: Line, share: float) -> str:
    if line.subject != "wsnode":
        return ""
    return "lean" if share >= ENGINE_CHANGE else "websockets"


def condition(line: Line, share: float, trouble: Trouble) -> Condition:
    """How it was then, without the weather."""
    now, factor = line.condition, 0.95 if share >= KERNEL_UPDATE else 1.0
    if line.subject == "chat-gateway" and SLOWER_FROM <= share < SLOWER_UNTIL:
        factor *= 1 + 0.4 * (share - SLOWER_FROM) / (SLOWER_UNTIL - SLOWER_FROM)
    if line.subject == "edge-proxy":
        factor *= 1.4 if share >= JUMP else 1.0
        if BACKLOG_CUT <= share < BACKLOG_BACK:
            now = now._replace(refused=0.03, handshake_ms=4.0)
    if _engine(line, share) == "lean":
        factor *= 0.65
    lag = {"late": 2.4, "very late": 22.0}.get(trouble, now.lag_ms)
    return now._replace(median_ms=now.median_ms * factor, lag_ms=lag)


class _Teller:
    def __init__(self, runs: int, until: datetime, seed: int) -> None:
        self._wanted = runs
        self._until = until
        self._dice = dice_of(seed)
        self._days = max(2, math.ceil(runs / RUNS_A_DAY))
        self._chapters = max(4, min(MOST_CHAPTERS, runs // 60))
        self._story = Story()
        self._baselines: set[str] = set()

    def tell(self) -> Story:
        """Day by day."""
        first = self._until - timedelta(days=self._days)
        series = Series("nightly", "schedule", "nightly-echo every night at 02:00", None)
        self._story.series[series.key] = series
        for day in range(self._days):
            left = self._wanted - len(self._story.runs)
            n = left if day == self._days - 1 else round(left / (self._days - day))
            self._day(first + timedelta(days=day), n)
        for number, told in enumerate(self._story.runs):
            assert number == 0 or told.at > self._story.runs[number - 1].at
        return self._story

    def _day(self, begin: datetime, n: int) -> None:
        """A night's scheduled run, then the runs of the day, one after the other."""
        at = max(begin, datetime.combine(begin.date(), time(2), UTC))
        made = list(self._blocks(n, at))
        # Evenly over what the day has, so that none begins before the one before it is over.
        room = min(begin + timedelta(days=1), self._until) - at
        for number, told in enumerate(made[:n]):
            moved = at + room * number / max(1, n) + timedelta(seconds=self._dice.uniform(0, 20))
            self._story.runs.append(_moved(told, moved))

    def _blocks(self, n: int, at: datetime) -> Iterator[Told]:
        share = self._share(at)
        nightly = next(line for line in LINES if line.scenario.name == "nightly-echo")
        place = sum(told.group == "nightly" for told in self._story.runs) + 1
        yield self._run(nightly, share, 0, author="edsger", origin="schedule", group="nightly", place=place, reason="")
        made = 1
        while made < n:
            line = self._dice.choices(LINES, [line.weight for line in LINES])[0]
            block = list(self._block(line, share, min(n - made, PAIRED)))
            made += len(block)
            yield from block

    def _block(self, line: Line, share: float, most: int) -> Iterator[Told]:
        """What somebody does in one go: a run, a group of repetitions, or two alternating ones."""
        author = self._dice.choice([*AUTHORS] if share < 0.5 else ["ada", "grace", "edsger"])
        version = _version(line.subject, share, self._chapters)
        reason = self._dice.choice(_REASONS[line.scenario.name]).format(version=version)
        number = len(self._story.series)
        kind = self._dice.random()
        if kind < 0.16 and most >= 5:
            key = f"repeat {number}"
            self._story.series[key] = Series(key, REPEATED, f"{line.scenario.name} on {line.subject} {version}", None)
            for place in range(1, min(most, self._dice.choice((5, 5, 6))) + 1):
                yield self._run(line, share, place - 1, author=author, reason=reason, group=key, place=place)
        elif kind < 0.24 and most >= PAIRED and share > 0 and line.subject != "wsnode":
            before = share - 1 / self._chapters
            older = _version(line.subject, before, self._chapters)
            keys = f"a {number}", f"b {number}"
            for key, other, of in ((keys[0], keys[1], older), (keys[1], keys[0], version)):
                title = f"{line.scenario.name} on {line.subject} {of}"
                self._story.series[key] = Series(key, ALTERNATED, title, other)
            for n in range(PAIRED):
                first = n % 4 in (0, 3)
                yield self._run(
                    line,
                    share,
                    n // 2,
                    version_share=before if first else share,
                    author=author,
                    reason=f"{older} or {version}?",
                    group=keys[0] if first else keys[1],
                    place=n // 2 + 1,
                )
        else:
            origin: Literal["web", "api"] = "api" if line.scenario.name == "release-gate" else "web"
            said = reason if self._dice.random() < 0.7 else ""
            yield self._run(line, share, None, author=author, reason=said, origin=origin)

    def _run(
        self,
        line: Line,
        share: float,
        variant: int | None,
        *,
        author: str,
        reason: str,
        origin: Literal["web", "api", "schedule"] = "web",
        version_share: float | None = None,
        group: str | None = None,
        place: int | None = None,
    ) -> Told:
        dice = self._dice
        troubles, weights = zip(*_TROUBLES, strict=True)
        trouble: Trouble = dice.choices(troubles, weights)[0]
        variant = dice.randrange(VARIANTS) if variant is None else variant % VARIANTS
        of = share if version_share is None else version_share
        name = line.scenario.name
        why = {"failed": dice.choice(FAILURES), "lost": LOSSES[0], "cancelled": "cancelled by ada"}.get(trouble, "")
        tags = set(_TAGS[name]) if dice.random() < 0.6 else set()
        tags |= {"kernel"} if abs(share - KERNEL_UPDATE) < 0.02 and dice.random() < 0.5 else set()
        tags |= {"regression"} if SLOWER_FROM < share < SLOWER_UNTIL and dice.random() < 0.05 else set()
        good = trouble == "" and group is None
        is_baseline = good and share > 0.5 and name not in self._baselines
        if is_baseline:
            self._baselines.add(name)
        return Told(
            at=self._until,
            line=line,
            share=share,
            version=_version(line.subject, of, self._chapters),
            engine=_engine(line, share),
            recipe=self._recipe(line, share, of, variant, trouble) if not why else None,
            trouble=trouble,
            why=why,
            author=author,
            reason=reason,
            tags=tuple(sorted(tags)),
            origin=origin,
            group=group,
            place=place,
            is_baseline=is_baseline,
            starred=is_baseline or (good and dice.random() < 0.004),
            note=_note(trouble, share, dice),
        )

    def _recipe(self, line: Line, share: float, of: float, variant: int, trouble: Trouble) -> Recipe:
        """Of a chapter, so that its runs can share loads: how the subject's version is, in the lab of that time."""
        chapter, lab = (round(x * self._chapters) for x in (of, share))
        begin = chapter / self._chapters
        now = condition(line, begin, "late" if trouble == "late" else "very late" if trouble == "very late" else "")
        variant = 0 if trouble else variant
        seed = f"{line.scenario.name} {chapter} {lab} {variant} {trouble}"
        weather = dice_of(seed).gauss(0, 0.015)
        now = now._replace(median_ms=now.median_ms * math.exp(weather))
        begin_of_lab = lab / self._chapters
        engine = _engine(line, begin_of_lab)
        return Recipe(line.scenario, line.generators, now, environment(begin_of_lab), engine, seed)

    def _share(self, at: datetime) -> float:
        """How much of the whole time has passed, in whole chapters."""
        passed = 1 - (self._until - at) / timedelta(days=self._days)
        return min(self._chapters - 1, max(0, int(passed * self._chapters))) / self._chapters


def _moved(told: Told, at: datetime) -> Told:
    return Told(**{**told.__dict__, "at": at})


def _note(trouble: Trouble, share: float, dice: random.Random) -> str:
    if trouble in ("late", "very late"):
        return "A backup ran on **load-1** meanwhile. Not to be believed." if dice.random() < 0.4 else ""
    if dice.random() < 0.008:
        return dice.choice(
            (
                "Looks *the same* as last week.",
                f"Kernel is now `{KERNELS[1]}`." if share >= KERNEL_UPDATE else "The old kernel, for comparison.",
                "To be repeated with four hosts:\n\n- release-gate\n- edge-burst",
            )
        )
    return ""

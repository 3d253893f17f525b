"""The lab as its page shows it: what lab.json says, beside what Prometheus sees now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from portal.labs.lab import HostFacts, Lab, LabHost
from portal.monitoring.hosts import Machine, Scrape, Sight
from portal.runs import figures

JOBS = {"wsnode-server": "server", "wsnode-agent": "agent", "node": "node_exporter"}
"""What each scrape job asks."""


class Reach(NamedTuple):
    """Whether a host answers: icon, tone and words."""

    shape: str
    tone: str
    word: str


REACHABLE = Reach("check", "good", "reachable")
IN_PART = Reach("alert", "warn", "partly reachable")
UNREACHABLE = Reach("cross", "bad", "unreachable")
NOT_SCRAPED = Reach("question", "warn", "not scraped")
NO_DATA = Reach("dash", "", "no data")


class Scraped(NamedTuple):
    """One service of a host; `scrape` is None where Prometheus has never asked it."""

    job: str
    what: str
    scrape: Scrape | None


class HostRow(NamedTuple):
    """A host, and how Prometheus finds it."""

    host: LabHost
    reach: Reach
    scraped: list[Scraped]
    age_s: float | None
    """Since the last scrape of any of its services."""


class Fact(NamedTuple):
    """Something that is known of a host, as text: from the inventory's export, and as node_exporter sees it now."""

    name: str
    exported: Callable[[HostFacts], str | None]
    seen: Callable[[Machine], str | None] = lambda _: None
    exact: bool = True
    """Whether the two can be compared: how much memory there is, they count differently."""


FACTS = (
    Fact("Distribution", lambda facts: facts.distribution),
    Fact("Kernel", lambda facts: facts.kernel, lambda machine: machine.kernel),
    Fact("Architecture", lambda facts: facts.architecture, lambda machine: machine.architecture),
    Fact("Cores", lambda facts: _count(facts.cpu_count), lambda machine: _count(machine.cores)),
    Fact("Memory", lambda facts: _size(facts.memory_bytes), lambda machine: _size(machine.memory_bytes), exact=False),
    Fact("Virtualization", lambda facts: facts.virtualization),
    Fact("Python", lambda facts: facts.python),
    Fact("wsnode", lambda facts: facts.wsnode),
    Fact("Open-file limit", lambda facts: _count(facts.open_files)),
    Fact("Tuning profile", lambda facts: facts.tuning_profile),
    Fact(
        "Provisioned (UTC)",
        lambda facts: f"{facts.provisioned_at:%d %b %Y %H:%M}" if facts.provisioned_at else None,
    ),
)


class Cell(NamedTuple):
    """A fact of one host, None where nobody knows it; `note` says where it is from, or what it has become."""

    text: str | None
    note: str = ""


class FactRow(NamedTuple):
    """One fact of all hosts, in their order."""

    name: str
    cells: list[Cell]

    @property
    def is_known(self) -> bool:
        """Of any host."""
        return any(cell.text is not None for cell in self.cells)


@dataclass(frozen=True)
class LabPage:
    """What the page shows."""

    lab: Lab
    sight: Sight

    @property
    def hosts(self) -> list[HostRow]:
        """In the order of lab.json."""
        return [self._host(host) for host in self.lab.hosts]

    def _host(self, host: LabHost) -> HostRow:
        scraped = [Scraped(job, JOBS[job], self.sight.scrapes.get((host.name, job))) for job in host.metrics_ports]
        ages = [one.scrape.age_s for one in scraped if one.scrape]
        return HostRow(host, self._reach(scraped), scraped, min(ages, default=None))

    def _reach(self, scraped: list[Scraped]) -> Reach:
        if self.sight.fault is not None:
            return NO_DATA
        answers = [one.scrape.up for one in scraped if one.scrape]
        if not answers:
            return NOT_SCRAPED
        if all(answers) and len(answers) == len(scraped):
            return REACHABLE
        return IN_PART if any(answers) else UNREACHABLE

    @cached_property
    def _facts(self) -> list[FactRow]:
        known = [(host.facts or HostFacts(), self._machine(host)) for host in self.lab.hosts]
        return [FactRow(fact.name, [_cell(fact, *of) for of in known]) for fact in FACTS]

    @property
    def facts(self) -> list[FactRow]:
        """What is known of at least one host."""
        return [row for row in self._facts if row.is_known]

    @property
    def unknown(self) -> list[str]:
        """Names of what is known of none."""
        return [row.name for row in self._facts if not row.is_known] + ([] if self.sysctls else ["Kernel settings"])

    def _machine(self, host: LabHost) -> Machine:
        """As node_exporter sees it: the host's own, or one at the same address."""
        same = [other.name for other in self.lab.hosts if other.address == host.address]
        name = next((name for name in (host.name, *same) if name in self.sight.machines), None)
        return self.sight.machines[name] if name else Machine()

    @cached_property
    def sysctls(self) -> list[FactRow]:
        """Kernel settings in force on any of the hosts, in order of name."""
        tuned = [host.facts.tuned if host.facts else {} for host in self.lab.hosts]
        names = sorted({name for settings in tuned for name in settings})
        return [FactRow(name, [Cell(settings.get(name)) for settings in tuned]) for name in names]


def _cell(fact: Fact, facts: HostFacts, machine: Machine) -> Cell:
    exported, seen = fact.exported(facts), fact.seen(machine)
    if exported is None:
        return Cell(seen, "by Prometheus") if seen is not None else Cell(None)
    return Cell(exported, f"now {seen}" if fact.exact and seen not in (None, exported) else "")


def _count(number: int | None) -> str | None:
    return None if number is None else figures.count(number)


def _size(number: int | None) -> str | None:
    return None if number is None else str(figures.size(number))

"""Which hosts a virtual lab has, and what everything of it is called on this machine."""

from pathlib import Path
from typing import NamedTuple

from stack.errors import StackError

BRIDGE = "wslab0"
NETWORK = "198.18.0.0/24"  # reserved for benchmarks (RFC 2544): nobody else's addresses
GATEWAY = "198.18.0.1"  # this machine, as the hosts see it
GUARD_METRIC = 4278198272  # of the unreachable route: the bridge's own route wins while it is there
RUN = Path("/run/wslab-lab")
NAMESPACES = Path("/run/netns")
GUEST_APT = "/srv/wslab/apt"

RELEASES = ("bookworm", "trixie")
CONTROL_RELEASE = "trixie"  # the portal needs Python >= 3.12, which Debian 12 lacks
MOST_SERVERS = 20
MOST_LOAD_GENERATORS = 60
_FIRST = {"control": 10, "servers": 20, "load_generators": 40}


class Host(NamedTuple):
    """A host by its place in the lab. `group` is servers, load_generators or control."""

    name: str
    group: str
    release: str
    octet: int

    @property
    def address(self) -> str:
        """Its address on the bridge."""
        return f"{NETWORK.rsplit('.', 1)[0]}.{self.octet}"

    @property
    def machine(self) -> str:
        """Name of its machine, network namespace, cgroup and mount source."""
        return f"wslab-{self.name}"

    @property
    def link(self) -> str:
        """The bridge's end of its link; an interface's name has at most 15 bytes."""
        return f"wslab-v{self.octet}"

    @property
    def namespace(self) -> Path:
        """Its network namespace, as `ip netns` keeps it."""
        return NAMESPACES / self.machine

    @property
    def run(self) -> Path:
        """Its mount point and links to what is mounted: a short path without a character that mount(8) reads."""
        return RUN / "hosts" / self.name

    @property
    def root(self) -> Path:
        """Where its file system is mounted."""
        return self.run / "wslab-root"


def releases(text: str) -> list[str]:
    """`trixie,bookworm` as a list.

    Raises:
        StackError: one of them is none that an image is made of.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in RELEASES:
            raise StackError(f"--release {name!r}: there is no image of it", f"one or several of {', '.join(RELEASES)}")
    return names


def plan(servers: int = 1, load_generators: int = 2, dealt: list[str] | None = None) -> list[Host]:
    """The hosts of a lab, control first. Releases are dealt to servers and load generators in turn.

    Raises:
        StackError: a number is out of range.
    """
    for option, value, most in (
        ("--servers", servers, MOST_SERVERS),
        ("--load-generators", load_generators, MOST_LOAD_GENERATORS),
    ):
        if not 1 <= value <= most:
            raise StackError(f"{option} {value}: wanted 1 to {most}", f"./wslab lab up {option} 1")
    dealt = dealt or [CONTROL_RELEASE]
    names = [("server" if n == 0 else f"server-{n + 1}", "servers", n) for n in range(servers)]
    names += [(f"load-{n + 1}", "load_generators", n) for n in range(load_generators)]
    hosts = [Host("control", "control", CONTROL_RELEASE, _FIRST["control"])]
    return hosts + [
        Host(name, group, dealt[turn % len(dealt)], _FIRST[group] + n) for turn, (name, group, n) in enumerate(names)
    ]


def describe(hosts: list[Host]) -> str:
    """`1 server, 2 load generators and control; trixie`."""
    counts = [sum(host.group == group for host in hosts) for group in ("servers", "load_generators")]
    words = [
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in zip(counts, ("server", "load generator"), strict=True)
    ]
    used = list(dict.fromkeys(host.release for host in hosts if host.group != "control"))
    return f"{', '.join(words)} and control; {', '.join(used)}"

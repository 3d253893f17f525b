"""Which hosts a virtual lab has, and that what they are called fits."""

import pytest

from stack.errors import StackError
from stack.lab import layout


def names(**options: int) -> list[str]:
    return [host.name for host in layout.plan(**options)]


def test_the_default_lab_is_one_server_two_load_generators_and_control() -> None:
    hosts = layout.plan()
    assert [(host.name, host.group, host.address, host.release) for host in hosts] == [
        ("control", "control", "198.18.0.10", "trixie"),
        ("server", "servers", "198.18.0.20", "trixie"),
        ("load-1", "load_generators", "198.18.0.40", "trixie"),
        ("load-2", "load_generators", "198.18.0.41", "trixie"),
    ]
    assert layout.describe(hosts) == "1 server, 2 load generators and control; trixie"


def test_releases_are_dealt_in_turn_and_control_keeps_its_own() -> None:
    hosts = layout.plan(2, 3, layout.releases("bookworm, trixie"))
    assert [(host.name, host.release) for host in hosts] == [
        ("control", "trixie"),
        ("server", "bookworm"),
        ("server-2", "trixie"),
        ("load-1", "bookworm"),
        ("load-2", "trixie"),
        ("load-3", "bookworm"),
    ]


@pytest.mark.parametrize("text", ["", "trixie,", "sid", "trixie bookworm"])
def test_a_release_without_an_image_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(StackError, match="there is no image of it") as caught:
        layout.releases(text)
    assert caught.value.fix == "one or several of bookworm, trixie"


@pytest.mark.parametrize(("servers", "generators", "said"), [(0, 2, "--servers 0: wanted 1 to 20"), (1, 61, "1 to 60")])
def test_numbers_out_of_range_are_refused(servers: int, generators: int, said: str) -> None:
    with pytest.raises(StackError, match=said):
        layout.plan(servers, generators)


def test_in_the_largest_lab_every_name_fits_carries_wslab_and_is_there_once() -> None:
    hosts = layout.plan(layout.MOST_SERVERS, layout.MOST_LOAD_GENERATORS)
    for seen in (
        [host.link for host in hosts] + [layout.BRIDGE],
        [host.machine for host in hosts],
        [host.address for host in hosts] + [layout.GATEWAY],
    ):
        assert len(set(seen)) == len(seen)
    assert max(len(host.link.encode()) for host in hosts) <= 15  # IFNAMSIZ less its zero
    assert max(len(host.machine) for host in hosts) <= 63
    for host in hosts:
        assert all("wslab" in name for name in (host.link, host.machine, str(host.namespace), str(host.root)))

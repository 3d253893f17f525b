"""At what a run may aim: chosen by name, looked up once, never where an admin has not allowed it."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.labs import aim
from portal.labs.aim import AimError, aim_at, choose, look_up, own_server, refused
from portal.labs.lab import Lab, Target
from tests.portal.conftest import LAB

TOKEN = "wslab-0123456789abcdef"
SHOP = {"name": "shop", "scheme": "wss", "host": "shop.example.org", "ports": "8443-8450", "path": "/live"}
NEAR = {"name": "near", "scheme": "ws", "host": "127.0.0.1", "ports": "4000", "consent": False, "runs_on": "server"}
SIX = {"name": "six.v-6", "scheme": "ws", "host": "2001:db8::7", "ports": "80"}


def a_lab(*targets: dict[str, Any]) -> Lab:
    return Lab.model_validate_json(json.dumps({**LAB, "targets": targets, "consent_token": TOKEN}))


ALL = a_lab(SHOP, NEAR, SIX)


def test_a_run_without_a_target_goes_to_the_labs_own_server() -> None:
    aimed = own_server(ALL, "echo")
    assert (aimed.url, aimed.address, aimed.consent, aimed.watched, aimed.own) == (
        "ws://127.0.0.1:13000/echo", None, None, True, True,
    )  # fmt: skip
    assert aimed.port == 13000


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("shop", "wss://shop.example.org:8443/live"),
        ("shop:8450", "wss://shop.example.org:8450/live"),
        ("near", "ws://127.0.0.1:4000/echo"),
        ("near:4000", "ws://127.0.0.1:4000/echo"),
        ("six.v-6", "ws://[2001:db8::7]:80/echo"),
    ],
)
def test_a_target_is_chosen_by_name_and_maybe_one_of_its_ports(text: str, url: str) -> None:
    assert choose(ALL, text).url("echo") == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("store", "target: 'store' is none of this lab's; known: shop, near, six.v-6"),
        ("wss://shop.example.org:8443/live", "is none of this lab's"),
        ("shop:8451", "target: port 8451 of shop is refused (allowed: 8443-8450)"),
        ("shop:22", "target: port 22 of shop is refused (allowed: 8443-8450)"),
        ("shop:8443/../admin", "is none of this lab's"),
        ("shop:8443@evil.example.org", "is none of this lab's"),
        ("shop\r\nX-Injected: 1", "is none of this lab's"),
        ("shop;reboot", "is none of this lab's"),
        ("$(reboot)", "is none of this lab's"),
        ("shop:", "is none of this lab's"),
        ("shop:8443:8444", "is none of this lab's"),
        ("shop:٨٤٤٣", "is none of this lab's"),
        ("Shop", "is none of this lab's"),
    ],
)
def test_what_is_no_target_is_refused(text: str, words: str) -> None:
    with pytest.raises(AimError) as error:
        choose(ALL, text)
    assert words in str(error.value)


@given(st.text())
def test_whatever_is_typed_a_url_is_made_of_the_admins_words_only(text: str) -> None:
    try:
        choice = choose(ALL, text)
    except AimError:
        return
    assert choice.target in ALL.targets
    assert choice.port in choice.target.port_range


def test_a_lab_without_targets_says_who_allows_them() -> None:
    with pytest.raises(AimError, match="known: none; an admin allows them in the inventory"):
        choose(a_lab(), "shop")


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """The resolver says these; what it is asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_is_looked_up_once_and_its_first_address_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, "203.0.113.7", "203.0.113.8")
    aimed = aim_at(ALL, "shop:8444", "echo")
    assert asked == ["shop.example.org"]
    assert aimed.model_dump() == {
        "url": "wss://shop.example.org:8444/live",
        "address": "203.0.113.7",
        "consent": TOKEN,
        "watched": False,
        "own": False,
    }


def test_a_target_on_the_labs_host_is_watched_and_one_without_consent_is_asked_for_none() -> None:
    aimed = aim_at(ALL, "near", "echo")
    assert (aimed.address, aimed.consent, aimed.watched, aimed.own) == ("127.0.0.1", None, True, False)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("224.0.0.1", "a multicast address"),
        ("0.0.0.0", "no host's address"),
        ("255.255.255.255", "no host's address"),
        ("203.0.113.7", None),
        ("10.1.2.3", None),
        ("2001:db8::7", None),
    ],
)
def test_a_name_must_not_come_to_mean_this_machine_or_nobody(address: str, why: str | None) -> None:
    found = refused(Target.model_validate(SHOP), address)
    assert found == (None if why is None else f"{why}; say in its networks if that is meant")


def test_networks_of_an_admin_are_the_only_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = a_lab({**SHOP, "networks": ["203.0.113.0/24", "127.0.0.0/8"]})
    target = lab.targets[0]
    assert refused(target, "203.0.113.255") is None
    assert refused(target, "127.0.0.9") is None
    assert refused(target, "203.0.114.1") == "not within 203.0.113.0/24, 127.0.0.0/8"
    resolving(monkeypatch, "10.0.0.1")
    with pytest.raises(AimError, match=r"target: shop is at 10\.0\.0\.1, which is refused: not within 203\.0\.113\.0"):
        aim_at(lab, "shop", "echo")


def test_a_name_without_an_address_and_a_resolver_without_an_end_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AimError, match=r"target: no-such-host\.invalid has no address: "):
        look_up("no-such-host.invalid", 80)
    monkeypatch.setattr(aim, "RESOLVE_S", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(0.5))
    begun = time.monotonic()
    with pytest.raises(AimError, match=r"target: shop\.example\.org could not be resolved within 0\.05 s"):
        look_up("shop.example.org", 80)
    assert time.monotonic() - begun < 0.4

import socket
import threading
import time

import pytest

from stack import ports
from stack.errors import StackError
from tests.stack.conftest import free_ports


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_free_ports_are_taken_as_wanted() -> None:
    first, second = free_ports(2)
    assert ports.choose({"a": first, "b": second}) == {"a": first, "b": second}


def test_for_a_taken_port_the_next_free_one_is_chosen(taken: int) -> None:
    chosen = ports.choose({"a": taken})["a"]
    assert taken < chosen < taken + 200
    assert ports.is_free(chosen)


def test_a_replacement_is_never_a_port_that_another_process_wants(taken: int) -> None:
    wanted = {"a": taken} | {f"b{n}": taken + n for n in range(1, 4)}
    chosen = ports.choose(wanted)
    assert len(set(chosen.values())) == len(wanted)
    assert chosen["a"] > taken + 3


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_on_all_addresses_takes_the_port_too(host: str) -> None:
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server:
        assert not ports.is_free(server.getsockname()[1])


def test_a_server_that_shares_its_port_by_so_reuseport_takes_it_all_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        assert not ports.is_free(server.getsockname()[1])


def test_when_nothing_is_free_the_error_names_the_process_and_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(StackError, match="no free port for portal: 8000"):
        ports.choose({"portal": 8000})


def test_two_stacks_choose_their_ports_one_after_the_other() -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with ports.allocation():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with ports.allocation():
        inside.set()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_wait_for_another_stack_is_bounded() -> None:
    with ports.allocation():
        begun = time.monotonic()
        waited: list[bool] = []
        with ports.allocation(lambda: waited.append(True), wait_s=0.3):
            assert 0.25 < time.monotonic() - begun < 3
        assert waited == [True]

"""Which ports the stack listens on: the inventory's where they are free, else the next free ones."""

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator, Mapping

from stack.errors import StackError

HOST = "127.0.0.1"
_SPAN = 200  # how far to look upward for a free one


def is_free(port: int) -> bool:
    """Whether a server could listen there now, on 127.0.0.1.

    SO_REUSEADDR, as servers set it: a port in TIME_WAIT is free. No SO_REUSEPORT: `wsnode serve` sets that, and two
    stacks would share a port without noticing.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def choose(wanted: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name: the wanted one, else the next free one above that nobody else here wants.

    Raises:
        StackError: none of the next 200 is free.
    """
    chosen: dict[str, int] = {}
    reserved = set(wanted.values())
    for name, first in wanted.items():
        if is_free(first):
            chosen[name] = first
            continue
        for port in range(first + 1, min(first + _SPAN, 65536)):
            if port not in reserved and is_free(port):
                chosen[name] = port
                reserved.add(port)
                break
        else:
            raise StackError(
                f"no free port for {name}: {first} and the next {_SPAN} are taken",
                "see who listens with `ss -ltnp`, or change inventory/local/group_vars/all.yml",
            )
    return chosen


@contextlib.contextmanager
def allocation(waiting: Callable[[], None] = lambda: None, wait_s: float = 60.0) -> Iterator[None]:
    """Held from choosing ports until they are listened on, so that two stacks starting at once choose apart.

    An abstract Unix socket: per network namespace, as ports are, and gone with its process. After `wait_s` seconds it
    goes on without: a taken port then shows as a process that cannot start. `waiting` is called if there is a wait.
    """
    gate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + wait_s
    said = False
    try:
        while True:
            try:
                gate.bind("\0wslab-port-allocation")
                break
            except OSError:
                if not said:
                    waiting()
                    said = True
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.1)
        yield
    finally:
        gate.close()

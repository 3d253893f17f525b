"""`wsnode agent connect`: standard input and output joined to the agent's socket, and nothing else.

It ends when the agent closes, when nobody reads its output any more, or soon after its input has ended: what was asked
before is still answered, so that `echo REQUEST | wsnode agent connect` works.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

CHUNK = 1 << 16
PATIENCE_S = 5.0
"""How long after the end of the input answers are waited for."""


def connect(path: str) -> int:
    """Pass bytes until either side ends. 0: it did, 2: no agent there (said in one line)."""
    try:
        agent = reach(path)
    except OSError as error:
        sys.stderr.write(f"wsnode agent connect: {error}\n")
        return 2
    threading.Thread(target=_to_agent, args=(agent,), daemon=True).start()
    try:
        while data := agent.recv(CHUNK):
            while data:
                data = data[os.write(1, data) :]
    except OSError:  # either side went away, or took too long after the input's end
        pass
    # The other thread may be waiting for input that never comes: nothing of it is worth a clean end.
    os._exit(0)


def reach(path: str) -> socket.socket:
    """A connection to the agent. Raises OSError whose text says what is wrong and how to fix it."""
    agent = socket.socket(socket.AF_UNIX)
    try:
        agent.connect(path)
    except FileNotFoundError:
        raise OSError(f"no agent at {path}: the socket does not exist; is the agent service running?") from None
    except ConnectionRefusedError:
        raise OSError(f"no agent at {path}: nobody answers there; start the agent service again") from None
    except PermissionError:
        raise OSError(f"not allowed to use {path}: this user must be in the socket's group") from None
    except OSError as error:
        raise OSError(f"cannot reach an agent at {path}: {error.strerror or error}") from None
    return agent


def _to_agent(agent: socket.socket) -> None:
    try:
        while data := os.read(0, CHUNK):
            agent.sendall(data)
        agent.settimeout(PATIENCE_S)
        agent.shutdown(socket.SHUT_WR)
    except OSError:
        os._exit(0)

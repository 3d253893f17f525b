"""Is this container's service well? Exit code 0: yes. Standard library only, and little of it: it runs every few
seconds beside what is measured.

    healthy.py http PORT PATH     answers 200
    healthy.py agent SOCKET       says hello
    healthy.py fresh FILE S       was touched within S seconds
"""

import os
import socket
import sys
import time

TIMEOUT_S = 4.0


def http(port: str, path: str) -> bool:
    """Whether 127.0.0.1 answers a GET with 200."""
    with socket.create_connection(("127.0.0.1", int(port)), TIMEOUT_S) as way:
        way.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        return way.makefile("rb").readline().split()[1:2] == [b"200"]


def agent(path: str) -> bool:
    """Whether an agent speaks first, as its protocol wants."""
    with socket.socket(socket.AF_UNIX) as way:
        way.settimeout(TIMEOUT_S)
        way.connect(path)
        return b'"hello"' in way.makefile("rb").readline()


def fresh(file: str, seconds: str) -> bool:
    """Whether something has touched a file lately."""
    return time.time() - os.stat(file).st_mtime < float(seconds)


def main(arguments: list[str]) -> int:
    """0: well, 1: not, and why in one line that `docker inspect` shows."""
    kind, *rest = arguments
    try:
        well = {"http": http, "agent": agent, "fresh": fresh}[kind](*rest)
    except OSError as error:
        sys.stdout.write(f"{' '.join(arguments)}: {error}\n")
        return 1
    if not well:
        sys.stdout.write(f"{' '.join(arguments)}: not as it should be\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The way to a host's agent over SSH, by asyncssh.

Who answers is checked against `lab.json`'s keys and nothing else: no known_hosts file, no configuration and no agent of
the user's is looked at. What is run there is the host's choice (a forced command); the one that is asked for serves
hosts whose key is not bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import asyncssh

from portal.conductor.job import JobHost, SshLogin
from portal.conductor.transport import LAST_WORDS, LineTooLong, Pipe, Unreachable, Untrusted
from wsnode.core.protocol import MAX_LINE_BYTES

COMMAND = "wsnode agent connect"
KEEPALIVE_S = 2.0
KEEPALIVES = 3
"""So many unanswered keepalives end a connection: a silent cut is seen within 8 s."""
CONNECT_S = 5.0
"""For TCP and the key exchange, of each leg."""
LOGIN_S = 10.0
LOGINS = 32
"""So many at once: the key exchanges of hundreds of hosts, all begun at the same moment, would outlast their time."""
CLOSE_S = 1.0
HOST_KEY_ALGORITHMS = (
    *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)
"""Asked for after those of the known keys: a host that has none of these shows one, and can be told by it."""
CIPHERS = (
    *("aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"),
    *("aes256-ctr", "aes192-ctr", "aes128-ctr"),
)
"""Those that a host may choose. In asyncssh AES-GCM takes a fifth of the time of its first choice, ChaCha20."""


class SshTransport:
    """Logs in with one key, the conductor's own. A connection carries one pipe, and ends with it."""

    def __init__(self, key: Path) -> None:
        """`key`: file of the private key, made for the conductor and without a passphrase. Read at each login."""
        self._key = key
        self._logins = asyncio.Semaphore(LOGINS)

    async def open(self, host: JobHost) -> Pipe:
        """A new way to the host's agent.

        Raises:
            Unreachable: no connection, no login, or no command there.
            Untrusted: who answers has another key than `lab.json` says, or there is none to compare with.
        """
        if host.login is None:
            raise Untrusted("lab.json gives no SSH login for it; export the inventory again (playbooks/export_lab.yml)")
        opened = contextlib.AsyncExitStack()
        pipe = SshPipe(opened)
        try:
            connection = await self._connect(host.login, opened)
            channel, _ = await connection.create_session(lambda: pipe, COMMAND, encoding=None, env=(), send_env=())
        except BaseException as error:
            await _close(opened)
            if isinstance(error, (asyncssh.Error, OSError)):
                raise Unreachable(f"the agent could not be asked for: {_words(error)}") from error
            raise
        pipe.follow(channel)
        return pipe

    async def _connect(self, login: SshLogin, opened: contextlib.AsyncExitStack) -> asyncssh.SSHClientConnection:
        """A connection to the login's host, through the one it jumps over."""
        tunnel = await self._connect(login.jump, opened) if login.jump is not None else None
        where = f"{login.user}@{login.address}:{login.port}"
        if not login.host_keys:
            raise Untrusted(f"{where}: lab.json has no host key of it; enroll it (playbooks/enroll.yml)")
        try:
            known = [asyncssh.import_public_key(text) for text in login.host_keys]
        except asyncssh.KeyImportError as error:
            raise Untrusted(f"{where}: a host key in lab.json cannot be read: {error}") from error
        try:
            key = asyncssh.read_private_key(self._key)
        except OSError as error:
            raise Unreachable(f"the conductor's key {self._key} cannot be read: {error.strerror}") from error
        except asyncssh.KeyImportError as error:
            raise Unreachable(f"the conductor's key {self._key} is of no use: {error}") from error
        peer = _Peer()
        algorithms = [algorithm.decode() for one in known for algorithm in one.sig_algorithms]
        try:
            async with self._logins, asyncio.timeout(CONNECT_S + LOGIN_S):
                connection = await asyncssh.connect(
                    login.address,
                    login.port,
                    tunnel=tunnel,
                    username=login.user,
                    client_keys=[key],
                    client_factory=lambda: peer,
                    known_hosts=(known, [], []),
                    server_host_key_algs=list(dict.fromkeys([*algorithms, *HOST_KEY_ALGORITHMS])),
                    config=None,
                    agent_path=None,
                    agent_forwarding=False,
                    x11_forwarding=False,
                    preferred_auth="publickey",
                    gss_host=None,
                    encryption_algs=CIPHERS,
                    compression_algs="none",
                    keepalive_interval=KEEPALIVE_S,
                    keepalive_count_max=KEEPALIVES,
                    connect_timeout=CONNECT_S,
                    login_timeout=LOGIN_S,
                )
        except TimeoutError as error:
            raise Unreachable(f"{where} does not answer within {CONNECT_S + LOGIN_S:g} s") from error
        except asyncssh.HostKeyNotVerifiable as error:
            raise Untrusted(_other_key(where, known, peer.found)) from error
        except asyncssh.PermissionDenied as error:
            fingerprint = key.get_fingerprint()
            raise Unreachable(f"{where} does not let the conductor's key in ({fingerprint}): provision it") from error
        except (asyncssh.Error, OSError) as error:
            raise Unreachable(f"{where}: {_words(error)}") from error
        opened.push_async_callback(_end, connection)
        return connection


class _Peer(asyncssh.SSHClient):
    """Keeps the host key that was shown and is not known."""

    found: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.found = key
        return False


class SshPipe(asyncssh.SSHClientSession[bytes]):
    """An SSH session's standard input and output."""

    def __init__(self, opened: contextlib.AsyncExitStack) -> None:
        self._opened = opened
        self._lines = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        self._words = b""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._gone: Exception | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    def follow(self, channel: asyncssh.SSHClientChannel[bytes]) -> None:
        """What is written goes there; reading more than is taken pauses it."""
        self._channel = channel
        # A stream reader asks of its transport only pause_reading and resume_reading, which a channel has.
        transport: Any = channel
        self._lines.set_transport(transport)

    async def read_line(self) -> bytes:
        try:
            return await self._lines.readline()
        except ValueError as error:
            raise LineTooLong(f"a line of more than {MAX_LINE_BYTES:,} bytes") from error

    async def write(self, data: bytes) -> None:
        if self._gone is not None or self._channel is None or self._channel.is_closing():
            raise ConnectionResetError("the SSH session has ended")
        self._channel.write(data)
        await self._flowing.wait()
        if self._gone is not None:
            raise ConnectionResetError(str(self._gone))

    async def close(self) -> str:
        if self._channel is not None:
            self._channel.close()
        await _close(self._opened)
        return self._words.decode(errors="replace").strip() or (_words(self._gone) if self._gone else "")

    # --- asyncssh's calls ---

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._words = (self._words + data)[-LAST_WORDS:]
        else:
            self._lines.feed_data(data)

    def eof_received(self) -> bool:
        self._lines.feed_eof()
        return False

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = exc
        self._flowing.set()
        if not self._lines.at_eof():
            self._lines.feed_eof()


async def _end(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        async with asyncio.timeout(CLOSE_S):
            await connection.wait_closed()
    except TimeoutError:  # nobody at the other end to say goodbye to
        connection.abort()


async def _close(opened: contextlib.AsyncExitStack) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        await opened.aclose()


def _other_key(where: str, known: list[asyncssh.SSHKey], found: asyncssh.SSHKey | None) -> str:
    shown = "a certificate" if found is None else f"{found.get_algorithm()} {found.get_fingerprint()}"
    return (
        f"{where} is not who lab.json says: wanted {_fingerprints(known)}, found {shown}. Where the host was made "
        "anew, enroll it again and export the inventory; otherwise somebody is in between"
    )


def _fingerprints(keys: list[asyncssh.SSHKey]) -> str:
    return " or ".join(f"{key.get_algorithm()} {key.get_fingerprint()}" for key in keys)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = " ".join(str(error).split())
    return text or type(error).__name__

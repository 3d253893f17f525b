"""Where things lie: the clone, the state folder, the socket folder."""

import os
import tempfile
from pathlib import Path

from stack.errors import StackError

ROOT = Path(__file__).resolve().parent.parent
SOCKET_PATH_LIMIT = 107  # bytes of sun_path without its closing zero
_STATE_MARKS = ("logs", "stack.lock", "stack.json", "secret_key", "portal.sqlite3")
_SOCKET_NAME_ROOM = 32  # "/wslab-xxxxxxxx/agent-load-1.sock", rounded up


def user_path(text: str) -> Path:
    """A path as the user typed it: relative to the folder in which `./wslab` was called, not to the clone."""
    return Path(os.environ.get("WSLAB_CWD") or Path.cwd()) / Path(text).expanduser()


def owner(path: Path) -> str:
    """The name (or number) of a path's owner, for messages."""
    import pwd

    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def state_dir() -> Path:
    """$WSLAB_STATE (relative to the clone), or `.wslab` in the clone. It need not exist."""
    given = os.environ.get("WSLAB_STATE")
    return ROOT / given if given else ROOT / ".wslab"


def make_state_dir() -> Path:
    """Make the state folder, private to its owner.

    Raises:
        StackError: it cannot be made or written, with its owner and the way out; or it is a folder of other things,
            which closing it to everybody else would break (`WSLAB_STATE=/tmp`).
    """
    state = state_dir()
    try:
        if state.is_dir() and any(state.iterdir()) and not any((state / mark).exists() for mark in _STATE_MARKS):
            raise StackError(
                f"the state folder {state} holds other things than a lab's state",
                f"WSLAB_STATE={state / 'wslab'} ./wslab …",
            )
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if state.stat().st_uid == os.geteuid():
            state.chmod(0o700)
        (state / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StackError(
            f"the state folder {state} cannot be used: {error.strerror}"
            + (f" ({owner(state)} owns it)" if state.exists() else ""),
            "run as its owner, or WSLAB_STATE=/a/folder/of/yours ./wslab …",
        ) from None
    if not os.access(state / "logs", os.W_OK | os.X_OK):
        raise StackError(
            f"the state folder {state} belongs to {owner(state)} and cannot be written",
            "run as its owner, or WSLAB_STATE=/a/folder/of/yours ./wslab …",
        )
    return state


def make_socket_dir() -> Path:
    """A new private folder with a path short enough for Unix sockets, whatever $TMPDIR says."""
    for base in (tempfile.gettempdir(), "/tmp", f"/run/user/{os.getuid()}"):  # noqa: S108  (mkdtemp makes it 0700)
        if len(os.fsencode(base)) + _SOCKET_NAME_ROOM <= SOCKET_PATH_LIMIT and os.access(base, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="wslab-", dir=base))
    raise StackError(
        f"no writable folder with a path short enough for Unix sockets (tried {tempfile.gettempdir()} and /tmp)",
        "TMPDIR=/a/short/path ./wslab …",
    )

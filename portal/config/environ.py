"""Settings from environment variables. A bad value names the variable, the value and what was wanted."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from django.core.exceptions import ImproperlyConfigured


def bad(name: str, value: object, wanted: str) -> ImproperlyConfigured:
    """The one form of complaint about a setting."""
    return ImproperlyConfigured(f"{name}={value!r}: wanted {wanted}")


def text(name: str) -> str | None:
    """A variable's value; None where it is unset or empty."""
    return os.environ.get(name, "").strip() or None


def flag(name: str) -> bool:
    """1, true, yes, on or 0, false, no, off; unset is off."""
    value = (text(name) or "0").lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise bad(name, value, "1 or 0")


def url(name: str, schemes: Sequence[str], default: str | None = None) -> str | None:
    """An absolute URL of one of the schemes, without a trailing slash."""
    value = text(name)
    if value is None:
        return default
    return checked_url(name, value, schemes)


def checked_url(name: str, value: str, schemes: Sequence[str]) -> str:
    """`value` without a trailing slash.

    Raises:
        ImproperlyConfigured: it is not an absolute URL of one of the schemes.
    """
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise bad(name, _without_password(value), f"a URL ({error})") from error
    if parts.scheme not in schemes or not (parts.netloc or (parts.scheme.endswith("socket") and parts.path)):
        example = f"{schemes[0]}://127.0.0.1:8000"
        raise bad(
            name,
            _without_password(value),
            f"a URL that begins with {' or '.join(f'{s}://' for s in schemes)}, such as {example}",
        )
    return value.rstrip("/")


def _without_password(url: str) -> str:
    """What may be shown of a URL."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('//')[0]}//…@{after}" if at else url


def hosts(name: str) -> list[str]:
    """Host names, separated by commas; none where unset."""
    value = text(name)
    if value is None:
        return []
    names = [part.strip() for part in value.split(",")]
    for host in names:
        if not host or "/" in host or " " in host:
            raise bad(name, value, "host names separated by commas, such as lab.example.org,127.0.0.1")
    return names


def state_folder(name: str, default: Path) -> Path:
    """The folder of all state, made 0700 where it is missing.

    Raises:
        ImproperlyConfigured: it is not a folder, or cannot be made.
    """
    folder = Path(text(name) or default)
    if not folder.is_absolute():
        raise bad(name, str(folder), "an absolute path")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise bad(name, str(folder), f"a folder that this user can make and write to ({error.strerror})") from error
    return folder


def secret_key(name: str, file: Path) -> str:
    """The variable's value, else the file's, which is made on first use, readable by its owner only."""
    value = text(name)
    if value is not None:
        if len(value) < 32:
            raise bad(name, f"{value[:2]}… ({len(value)} characters)", "at least 32 random characters")
        return value
    try:
        if not file.exists():
            _write_once(file, secrets.token_urlsafe(48))
        key = file.read_text().strip()
    except OSError as error:
        raise bad("WSLAB_STATE", str(file.parent), f"a folder with a readable secret_key ({error.strerror})") from error
    if len(key) < 32:
        raise ImproperlyConfigured(f"{file} holds {len(key)} characters, wanted at least 32: remove it for a new one")
    return key


def _write_once(file: Path, content: str) -> None:
    """Whole or not at all, and never over an existing file: several processes start at the same time."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(content)
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def database_url(name: str, default: Path) -> str:
    """A database's URL; SQLite in the file `default` where unset."""
    value = text(name)
    if value is None:
        return f"sqlite:///{quote(str(default))}"
    if value.partition(":")[0] not in ("sqlite", "postgres", "postgresql"):
        raise bad(name, value.partition("@")[2] or value, "postgres://USER:PASSWORD@HOST/NAME or sqlite:///FILE")
    return value

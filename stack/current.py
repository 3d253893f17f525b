"""`inventory/current`: which inventory `ansible-playbook` takes when none is named. A symbolic link, not committed."""

import os
from pathlib import Path

from stack import paths
from stack.errors import StackError

_HOSTS = ("hosts", "hosts.yml", "hosts.yaml", "hosts.ini", "inventory.yml", "inventory.yaml")


def link() -> Path:
    """Where the choice is kept."""
    return paths.ROOT / "inventory" / "current"


def choices() -> list[str]:
    """The inventories of this clone, as `use` takes them."""
    return sorted(f"inventory/{path.name}" for path in link().parent.iterdir() if is_inventory(path) and path != link())


def is_inventory(folder: Path) -> bool:
    """Whether Ansible finds hosts and their variables there."""
    return any((folder / name).is_file() for name in _HOSTS) and (folder / "group_vars").is_dir()


def show() -> str:
    """The choice, or that there is none.

    Raises:
        StackError: none is made, or it is gone.
    """
    if not link().is_symlink() and not link().exists():
        raise StackError("no inventory is chosen", f"./wslab inventory use PATH: {', '.join(choices())}, or your own")
    if not is_inventory(link()):
        raise StackError(f"{target()} is no inventory any more", f"./wslab inventory use PATH: {', '.join(choices())}")
    return str(target())


def target() -> Path:
    """What the link names, as a path that can be opened."""
    return Path(os.path.normpath(link().parent / os.readlink(link()))) if link().is_symlink() else link()


def use(text: str) -> Path:
    """Choose an inventory: a folder, relative to where the user is or to the clone.

    Raises:
        StackError: it is no inventory; with the choices.
    """
    for folder in (paths.user_path(text), paths.ROOT / text, paths.ROOT / "inventory" / text):
        if is_inventory(folder) and os.path.normpath(folder) != str(link()):
            return _set(Path(os.path.normpath(folder.absolute())))
    raise StackError(
        f"{text} is no inventory: wanted a folder with hosts or hosts.yml, and group_vars",
        f"./wslab inventory use PATH: {', '.join(choices())}, or your own",
    )


def use_virtual() -> str:
    """Choose the virtual inventory unless the user has chosen another; a line that says how it is."""
    virtual = paths.ROOT / "inventory" / "virtual"
    if link().is_symlink() and link().exists() and target() != virtual:
        return f"inventory/current stays {target()}; for this lab: ansible-playbook -i inventory/virtual …"
    _set(virtual)
    return "ansible-playbook site.yml takes inventory/virtual now"


def _set(folder: Path) -> Path:
    where = link()
    if where.exists() and not where.is_symlink():
        raise StackError(f"{where} is no symbolic link", "move it away")
    inside = folder.is_relative_to(where.parent)
    temporary = where.with_name(f".current.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.relative_to(where.parent) if inside else folder)
    os.replace(temporary, where)
    return folder

"""A host's file system: an overlay over its release's image, with what makes it this host. Gone with `down`."""

import shutil
import subprocess
from pathlib import Path

from stack.errors import StackError
from stack.lab.keys import Keys
from stack.lab.layout import Host


def mount(host: Host, hosts: list[Host], image: Path, store: Path, keys: Keys) -> None:
    """Make the file system of a bare host and mount it at `host.root`.

    Args:
        host: whose it is.
        hosts: the whole lab, for /etc/hosts.
        image: what it is an overlay over.
        store: folder for what the host writes; must not be there yet.
        keys: the lab's.

    Raises:
        StackError: the kernel refuses the mount.
    """
    for name in ("upper", "work"):
        (store / name).mkdir(mode=0o755, parents=True)
    host.root.mkdir(parents=True, exist_ok=True)
    # mount(8) splits options at commas, and overlayfs lower folders at colons: it gets paths that have none.
    for name, path in (("image", image), ("upper", store / "upper"), ("work", store / "work")):
        link = host.run / name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    options = f"lowerdir={host.run}/image,upperdir={host.run}/upper,workdir={host.run}/work"
    # volatile: fsync costs nothing, since nothing of a host is meant to outlive the machine.
    done = subprocess.run(
        ["mount", "-t", "overlay", "-o", f"{options},volatile", host.machine, str(host.root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StackError(
            f"{host.name}: the overlay cannot be mounted: {done.stderr.strip()}",
            f"WSLAB_STATE=/a/folder on ext4, xfs or btrfs, which {store} may not be (an overlay itself does not do)",
        )
    _make_it_this_host(host, hosts, keys)


def _make_it_this_host(host: Host, hosts: list[Host], keys: Keys) -> None:
    etc = host.root / "etc"
    (etc / "hostname").write_text(f"{host.name}\n", encoding="ascii")
    lines = [f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n::1 localhost ip6-localhost\n"]
    lines += [f"{other.address} {other.name}\n" for other in hosts if other != host]
    (etc / "hosts").write_text("".join(lines), encoding="ascii")
    own = keys.host_key(host)
    for source, name, mode in (
        (own, "ssh_host_ed25519_key", 0o600),
        (own.with_suffix(".pub"), "ssh_host_ed25519_key.pub", 0o644),
    ):
        target = etc / "ssh" / name
        shutil.copyfile(source, target)
        target.chmod(mode)
    login = host.root / "root" / ".ssh"
    login.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(keys.private.with_suffix(".pub"), login / "authorized_keys")
    (login / "authorized_keys").chmod(0o600)

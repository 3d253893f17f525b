"""What hosts are made of: an image per release and a package repository per release, cached by what goes into them."""

import hashlib
import json
import platform
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from stack import hoard
from stack.errors import StackError
from stack.lab.layout import BRIDGE, GATEWAY, GUARD_METRIC, NETWORK, Host
from stack.paths import ROOT

ROLE = ROOT / "roles" / "virtual_host"


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _defaults(role: Path) -> dict[str, Any]:
    import yaml

    path = role / "defaults" / "main.yml"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise StackError(f"{path} cannot be read: {error}", f"git checkout {path}") from None


def package_names() -> list[str]:
    """Every Debian package that a role installs: each `*_packages` of roles/*/defaults/main.yml, except the image's."""
    names: set[str] = set()
    for role in sorted((ROOT / "roles").iterdir()):
        if role == ROLE:
            continue
        for variable, value in _defaults(role).items():
            if variable.endswith("_packages") and isinstance(value, list):
                names |= {name for name in value if isinstance(name, str) and "{" not in name}
    return sorted(names)


def architecture() -> str:
    """This machine's, as Debian names it: amd64, arm64."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def cache() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/wslab`."""
    return hoard.root().parent


class Source(NamedTuple):
    """What a release's hosts are made of, whether made yet or not. `repository` None: roles install nothing."""

    image: Path
    repository: Path | None


def source(release: str) -> Source:
    """By what goes into it now: take it once per lab, since roles may change while one is up."""
    script = (ROLE / "files" / "image.sh").read_text(encoding="utf-8")
    packages = _defaults(ROLE)["virtual_host_image_packages"]
    mirror = _defaults(ROLE)["virtual_host_mirror"]
    image = cache() / "images" / f"{release}-{_key(script, packages, mirror, release, architecture())}"
    names = package_names()
    repository = cache() / "repositories" / f"{release}-{_key(names, image.name)}"
    return Source(image, repository if names else None)


def sources(hosts: list[Host]) -> dict[str, Source]:
    """For each release that the hosts have."""
    return {release: source(release) for release in sorted({host.release for host in hosts})}


def variables(hosts: list[Host], made_of: dict[str, Source]) -> dict[str, Any]:
    """What role virtual_host is told; see its meta/argument_specs.yml."""
    return {
        "virtual_host_images": [
            {"release": release, "image": str(image), "repository": str(repository or "")}
            for release, (image, repository) in made_of.items()
        ],
        "virtual_host_architecture": architecture(),
        "virtual_host_supplied_packages": package_names(),
        "virtual_host_bridge": BRIDGE,
        "virtual_host_network": NETWORK,
        "virtual_host_gateway": GATEWAY,
        "virtual_host_guard_metric": GUARD_METRIC,
        "virtual_host_hosts": [
            {"name": host.name, "machine": host.machine, "link": host.link, "address": host.address} for host in hosts
        ],
    }


def prune(made_of: dict[str, Source]) -> None:
    """Drop older images and repositories of these releases. The caller holds the machine's lock: nobody mounts them."""
    for release, folders in made_of.items():
        for current in folders:
            if current is not None and current.is_dir():
                for folder in current.parent.glob(f"{release}-*"):
                    if folder != current:
                        shutil.rmtree(folder, ignore_errors=True)

"""What role packages' module decides, apart from dpkg and apt: what is missing, what was done, the record."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stack.paths import ROOT


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "wslab_packages", ROOT / "roles" / "packages" / "library" / "wslab_packages.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


packages = load()
NEW, LEFTOVER, GONE, USER = packages.NEW, packages.LEFTOVER, packages.GONE, packages.USER


def dpkg(*lines: str) -> list:
    """Packages as `name arch status version`."""
    return [packages.Package(line.replace(" ", "\t")) for line in lines]


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        (["chrony", "kmod"], ["kmod"]),
        (["chrony=4.3-2", "chrony:amd64"], []),
        (["chrony=4.3-1", "chrony:arm64"], ["chrony=4.3-1", "chrony:arm64"]),
        (["nftables", "broken", "nftables"], ["nftables", "broken"]),
        ([], []),
    ],
)
def test_missing_is_what_is_not_installed_in_the_wanted_version(wanted: list[str], missing: list[str]) -> None:
    here = dpkg(
        "chrony amd64 installed 4.3-2", "nftables amd64 config-files 1.0", "broken amd64 half-configured 1"
    )  # fmt: skip
    assert packages.missing(wanted, here) == missing


def test_an_installation_is_told_from_what_dpkg_said_before_and_after() -> None:
    before = dpkg(
        "stays all installed 1", "upgraded all installed 1", "goes all installed 1", "rc all config-files 1",
        "torn all unpacked 1",
    )  # fmt: skip
    after = dpkg(
        "stays all installed 1", "upgraded all installed 2", "goes all config-files 1", "rc all installed 2",
        "torn all installed 1", "fresh all installed 1", "dependency amd64 installed 1",
    )  # fmt: skip
    assert packages.changes(before, after) == {
        "goes:all": GONE, "rc:all": LEFTOVER, "torn:all": NEW, "fresh:all": NEW, "dependency:amd64": NEW,
    }  # fmt: skip


def test_the_record_keeps_what_was_first_and_forgets_what_is_as_it_was() -> None:
    record = {"ours:all": NEW, "theirs:all": GONE, "rc:all": LEFTOVER, "_ours": USER}
    fates = {"ours:all": GONE, "theirs:all": NEW, "rc:all": NEW, "more:all": NEW, "other:all": GONE}
    assert packages.merged(record, fates) == {"rc:all": LEFTOVER, "_ours": USER, "more:all": NEW, "other:all": GONE}


names = st.from_regex(r"[a-z][a-z0-9.+-]{1,10}:(all|amd64)", fullmatch=True)
records = st.dictionaries(names, st.sampled_from([NEW, LEFTOVER, GONE]), max_size=8)


@settings(deadline=None, max_examples=40)
@given(records)
def test_a_record_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, record: dict[str, str]) -> None:
    file = tmp_path_factory.mktemp("host") / "wslab" / "packages"
    packages.write_record(file, record)
    assert packages.read_record(file) == record
    assert file.exists() == bool(record)


def test_the_record_is_roots_alone_and_an_empty_one_is_no_file(tmp_path: Path) -> None:
    file = tmp_path / "wslab" / "packages"
    packages.write_record(file, {"chrony:amd64": NEW})
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert oct(file.parent.stat().st_mode & 0o777) == "0o700"
    packages.write_record(file, {})
    assert list(file.parent.iterdir()) == []


def test_a_flat_repository_is_a_trusted_source_of_its_own() -> None:
    assert packages.source_text("file:/srv/wslab/apt/").splitlines()[1:] == [
        "Types: deb", "URIs: file:/srv/wslab/apt/", "Suites: ./", "Trusted: yes",
    ]  # fmt: skip
    assert packages.source_text("") == ""


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packages, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(packages, "POLICY_ASIDE", tmp_path / "policy-rc.d.before-wslab")
    return tmp_path / "policy-rc.d"


def test_nothing_starts_meanwhile_and_no_policy_stays(policy: Path) -> None:
    with packages.nothing_starts():
        assert policy.read_text().endswith("exit 101\n")
        assert oct(policy.stat().st_mode & 0o777) == "0o755"
    assert list(policy.parent.iterdir()) == []


def test_the_hosts_own_policy_comes_back_also_after_a_failure(policy: Path) -> None:
    policy.write_text("# mine\n")
    with pytest.raises(FileNotFoundError), packages.nothing_starts():
        (policy.parent / "dpkg").read_text()
    assert policy.read_text() == "# mine\n"
    assert [path.name for path in policy.parent.iterdir()] == ["policy-rc.d"]


def test_a_policy_that_a_killed_run_left_is_taken_away_and_the_hosts_own_is_put_back(policy: Path) -> None:
    policy.write_text("# mine\n")
    killed = packages.nothing_starts()
    killed.__enter__()
    with packages.nothing_starts():
        assert policy.read_text().endswith("exit 101\n")
    assert policy.read_text() == "# mine\n"
    killed.gen.close()

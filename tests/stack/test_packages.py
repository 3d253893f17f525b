"""Where Prometheus is looked for. Fetching it is what the first `up` of CI does."""

from pathlib import Path

import pytest

from stack import broker, packages


@pytest.fixture
def nothing(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH and an empty cache; returns the cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "wslab" / "packages"


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_without_path_cache_and_apt_the_reason_is_one_line_with_the_fix(nothing: Path) -> None:
    path, reason = packages.prometheus()
    assert path is None
    assert reason == ("prometheus: not on PATH, and there is no apt-get to fetch it with; fix: apt install prometheus")


def test_path_comes_before_the_cache(nothing: Path, tmp_path: Path) -> None:
    cached = program(nothing / "prometheus_2.42.0+ds-5_amd64" / "usr" / "bin" / "prometheus")
    assert packages.prometheus() == (cached, None)
    own = program(tmp_path / "bin" / "prometheus")
    assert packages.prometheus() == (own, None)


def test_of_several_cached_versions_the_newest_is_taken(nothing: Path) -> None:
    program(nothing / "prometheus_2.9.0_amd64" / "usr" / "bin" / "promtool")
    newest = program(nothing / "prometheus_2.42.0_amd64" / "usr" / "bin" / "promtool")
    assert packages.promtool() == (newest, None)


def test_the_node_exporter_is_known_by_debians_name_and_by_its_own(nothing: Path, tmp_path: Path) -> None:
    own = program(tmp_path / "bin" / "node_exporter")
    assert packages.lookup("node_exporter") == own
    debians = program(tmp_path / "bin" / "prometheus-node-exporter")
    assert packages.lookup("node_exporter") == debians


def test_a_half_fetched_package_in_the_cache_is_not_taken(nothing: Path) -> None:
    program(nothing / ".fetch-abc" / "prometheus_2.42.0_amd64" / "usr" / "bin" / "prometheus")
    assert packages.lookup("prometheus") is None


def test_the_broker_is_redis_from_path_else_the_packaged_valkey(nothing: Path, tmp_path: Path) -> None:
    packaged, reason = broker.binary()
    assert reason is None
    assert packaged is not None
    assert packaged.name == "valkey-server"
    redis = program(tmp_path / "bin" / "redis-server")
    assert broker.binary() == (redis, None)

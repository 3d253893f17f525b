"""`./wslab compose`: what it leaves on this machine for `docker compose up`."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from portal.config import environ
from portal.labs.lab import load_lab
from portal.runs import machine
from stack import compose, dotenv, labfile
from stack.errors import StackError


def test_the_lab_is_the_one_of_the_containers_on_this_machine(tmp_path: Path) -> None:
    compose.render(tmp_path, "0123456789abcdef")
    lab = load_lab(tmp_path / "lab.json")
    assert (lab.lab, lab.machine) == ("compose", "0123456789abcdef")
    assert [host.name for host in lab.load_generators] == ["load-1", "load-2"]
    assert {host.transport for host in lab.hosts} == {"local"}
    assert lab.grafana_url is None, "GRAFANA_URL says whether there is one"


def test_prometheus_scrapes_every_port_that_lab_json_names(tmp_path: Path) -> None:
    compose.render(tmp_path, "m")
    found = set()
    for file in (tmp_path / "prometheus" / "targets").glob("*.json"):
        for group in json.loads(file.read_text()):
            found |= {(group["labels"]["job"], group["labels"]["host"], target) for target in group["targets"]}
    assert found == {
        ("wsnode-server", "server", "server:9091"),
        ("node", "server", "server:9100"),
        ("wsnode-agent", "server", "server:9092"),
        ("wsnode-agent", "load-1", "load-1:9092"),
        ("wsnode-agent", "load-2", "load-2:9092"),
    }
    assert (tmp_path / "prometheus" / "prometheus.yml").exists()
    assert list((tmp_path / "prometheus" / "rules").glob("*.yml"))


def test_containers_can_read_it_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        compose.render(tmp_path / "rendered", "m")
    finally:
        os.umask(before)
    made = [tmp_path / "rendered", *(tmp_path / "rendered").rglob("*")]
    assert any("dashboards" in str(path) for path in made)
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_a_second_time_writes_only_what_has_changed_into_the_same_folders(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.txt").write_text("a")
    (source / "b.whl").write_text("b")
    (source / "own-1.whl").write_text("left out")
    compose.mirror(source, target, leave=("own-*.whl",))
    kept, folder = (target / "deep" / "a.txt").stat(), target.stat().st_ino
    (source / "b.whl").write_text("c")
    (source / "gone").mkdir()
    (target / "gone2").mkdir()
    (target / "gone2" / "x").write_text("x")
    compose.mirror(source, target, leave=("own-*.whl",))
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == [
        "b.whl",
        "deep",
        "deep/a.txt",
        "gone",
    ]
    assert (target / "b.whl").read_text() == "c"
    assert (target / "deep" / "a.txt").stat().st_mtime_ns == kept.st_mtime_ns
    assert target.stat().st_ino == folder, "a container has it mounted"


def test_secrets_are_long_different_each_time_and_fit_where_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = compose.settings(grafana=True), compose.settings(grafana=True)
    for name in first:
        if "KEY" in name or "PASSWORD" in name:
            assert first[name] != second[name]
            assert len(first[name]) >= 20
    monkeypatch.setenv("X", first["WSLAB_DOCKER_SECRET_KEY"])
    assert environ.secret_key("X", Path("/nonexistent")) == first["WSLAB_DOCKER_SECRET_KEY"]
    assert first["WSLAB_DOCKER_DATABASE_PASSWORD"].isalnum(), "it becomes a part of a URL"
    assert "$" not in "".join(first.values()), "compose would take it for a variable"


def test_env_is_completed_and_nothing_in_it_is_changed(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("#hello\nWSLAB_DOCKER_ADMIN_PASSWORD=my own\nDATABASE_URL='x'")
    file.chmod(0o644)
    added = compose.complete(file, compose.settings(grafana=False))
    assert "WSLAB_DOCKER_ADMIN_PASSWORD" not in added
    text = file.read_text()
    assert text.startswith("#hello\nWSLAB_DOCKER_ADMIN_PASSWORD=my own\nDATABASE_URL='x'\n")
    values = dotenv.parse(text)
    assert values["WSLAB_DOCKER_ADMIN_PASSWORD"] == "my own"
    assert values["COMPOSE_PROFILES"] == ""
    assert values.keys() == {*compose.settings(grafana=False), "DATABASE_URL"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert compose.complete(file, compose.settings(grafana=True)) == []
    assert file.read_text() == text


def test_a_new_env_is_closed_to_others_and_chooses_grafana(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    added = compose.complete(file, compose.settings(grafana=True))
    assert added == list(compose.settings(grafana=True))
    assert dotenv.parse(file.read_text())["COMPOSE_PROFILES"] == "grafana"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_empty_secret_is_made_like_a_missing_one_and_an_empty_choice_stays(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("WSLAB_DOCKER_SECRET_KEY=\nCOMPOSE_PROFILES=\n")
    assert "COMPOSE_PROFILES" not in compose.complete(file, compose.settings(grafana=True))
    assert len(dotenv.parse(file.read_text())["WSLAB_DOCKER_SECRET_KEY"]) >= 32


def test_the_other_lab_is_not_given_what_is_for_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    compose.complete(tmp_path / ".env", compose.settings(grafana=True))
    dotenv.load(tmp_path / ".env")
    assert os.environ == {}


def test_a_broken_env_is_left_as_it_is_and_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\nno sense\n")
    with pytest.raises(StackError, match=r"\.env, line 2 is not NAME=value"):
        compose.complete(file, compose.settings(grafana=True))
    assert file.read_text() == "A=1\nno sense\n"


def test_the_lock_that_the_worker_gets_is_where_every_portal_of_this_machine_looks() -> None:
    assert machine.PLACES == compose.LOCK_PLACES
    assert compose.locks() == machine.shared_folder()
    assert compose.lab(labfile.machine())["machine"] == labfile.machine()


def test_open_files_are_no_more_than_a_container_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    ceiling = int(Path("/proc/sys/fs/nr_open").read_text())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(compose, "_may_raise_limits", lambda: True)
    assert compose.open_files() == min(1 << 20, ceiling)
    monkeypatch.setattr(compose, "_may_raise_limits", lambda: False)
    monkeypatch.setattr(compose.resource, "getrlimit", lambda _: (512, 4096))
    assert compose.open_files() == 4096
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert compose.open_files() == min(1 << 20, ceiling), "the daemon is root, whoever asks it"

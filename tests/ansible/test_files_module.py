"""What the module wslab_files does to a folder: all of it or, where the check objects, nothing."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from stack.paths import ROOT


def load() -> ModuleType:
    path = ROOT / "roles/prometheus/library/wslab_files.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


files_module = load()


class Told(Exception):
    """What the module answered."""

    def __init__(self, failed: bool, answer: dict[str, Any]) -> None:
        super().__init__(answer)
        self.failed, self.answer = failed, answer


class Ansible:
    """Stands in for AnsibleModule: arguments without a process, the answer as an exception."""

    given: dict[str, Any] = {}
    check_mode = False

    def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool) -> None:
        assert supports_check_mode
        assert self.given.keys() <= argument_spec.keys()
        self.params = {name: self.given.get(name, option["default"]) for name, option in argument_spec.items()}

    def exit_json(self, **answer: Any) -> NoReturn:
        raise Told(False, answer)

    def fail_json(self, **answer: Any) -> NoReturn:
        raise Told(True, answer)


@pytest.fixture(autouse=True)
def _ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "AnsibleModule", Ansible)


def ask(*, check_mode: bool = False, **given: Any) -> Told:
    Ansible.given, Ansible.check_mode = given, check_mode
    with pytest.raises(Told) as raised:
        files_module.main()
    return raised.value


def put(**given: Any) -> dict[str, Any]:
    """The answer of a run that must succeed."""
    told = ask(**given)
    assert not told.failed, told.answer
    return told.answer


def refused(**given: Any) -> str:
    """The message of a run that must fail."""
    told = ask(**given)
    assert told.failed, told.answer
    message: str = told.answer["msg"]
    return message


def tree(folder: Path) -> dict[str, str]:
    """All plain files below a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_files_come_with_their_folders_once(tmp_path: Path) -> None:
    files = {f"{tmp_path}/a/b/one.yml": "1\n", f"{tmp_path}/two": "ü\n"}
    answer = put(files=files, mode="0640")
    assert answer["changed"]
    assert answer["written"] == list(files)
    assert tree(tmp_path) == {"a/b/one.yml": "1\n", "two": "ü\n"}
    assert (tmp_path / "two").stat().st_mode & 0o7777 == 0o640
    assert (tmp_path / "a/b").stat().st_mode & 0o022 == 0
    again = put(files=files, mode="0640")
    assert (again["changed"], again["written"], again["diff"]) == (False, [], [])


def test_check_mode_says_the_same_and_does_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    put(files={f"{folder}/kept": "old\n", f"{folder}/gone": "x\n"})
    before = tree(tmp_path)
    given = {"files": {f"{folder}/kept": "new\n"}, "folders": [str(folder)]}
    dry = put(check_mode=True, **given)
    assert tree(tmp_path) == before
    wet = put(**given)
    assert dry == wet
    assert {(one["before_header"], one["before"], one["after"]) for one in dry["diff"]} == {
        (f"{folder}/kept", "old\n", "new\n"),
        (f"{folder}/gone", "x\n", ""),
    }
    assert tree(folder) == {"kept": "new\n"}


OBJECTS = [sys.executable, "-c", "import sys; print('line 3 of', sys.argv[1], open(sys.argv[1]).read()); sys.exit(1)"]


def test_an_objection_leaves_everything_as_it_was(tmp_path: Path) -> None:
    good = {f"{tmp_path}/f/rule": "good\n"}
    put(files=good)
    said = refused(
        files={f"{tmp_path}/f/rule": "bad\n", f"{tmp_path}/f/other": "new\n"}, folders=[f"{tmp_path}/f"],
        check=[*OBJECTS, "{stage}" + f"{tmp_path}/f/rule"],
    )  # fmt: skip
    assert f"line 3 of {tmp_path}/f/rule bad" in said  # the file's own path, not that of a folder that is gone
    assert "nothing was changed" in said
    assert tree(tmp_path) == {"f/rule": "good\n"}
    assert "line 3" in refused(
        files={f"{tmp_path}/f/rule": "bad\n"}, check=[*OBJECTS, "{stage}" + f"{tmp_path}/f/rule"]
    )
    assert not put(files=good, check=[*OBJECTS, "{stage}" + f"{tmp_path}/f/rule"])["changed"]  # nothing new to look at


def test_what_a_check_sees_is_all_files_together(tmp_path: Path) -> None:
    both = "import pathlib, sys; sys.exit(len(list(pathlib.Path(sys.argv[1]).rglob('*.yml'))) != 2)"
    files = {f"{tmp_path}/a.yml": "1\n", f"{tmp_path}/rules/b.yml": "2\n"}
    put(files=files)
    assert put(files={**files, f"{tmp_path}/a.yml": "3\n"}, check=[sys.executable, "-c", both, "{stage}"])["changed"]


def test_a_check_that_is_not_installed_stops_a_run_but_not_check_mode(tmp_path: Path) -> None:
    given = {"files": {f"{tmp_path}/a": "1\n"}, "check": ["no-such-program", "{stage}"]}
    assert "no-such-program is not on this host" in refused(**given)
    assert tree(tmp_path) == {}
    assert put(check_mode=True, **given)["written"] == [f"{tmp_path}/a"]


def test_a_folder_holds_what_is_wanted_and_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(files={f"{outside}/precious": "p\n"})
    ours = tmp_path / "ours"
    put(files={f"{ours}/sub/kept": "1\n", f"{ours}/sub/stray": "2\n", f"{ours}/old/deep/stray": "3\n"})
    (ours / "link").symlink_to(outside)
    (ours / "sub/kept.link").symlink_to("kept")
    answer = put(files={f"{ours}/sub/kept": "1\n"}, folders=[str(ours)])
    assert answer["removed"] == [f"{ours}/{name}" for name in ("link", "old", "sub/kept.link", "sub/stray")]
    assert answer["written"] == []
    assert tree(tmp_path) == {"outside/precious": "p\n", "ours/sub/kept": "1\n"}
    assert put(files={}, folders=[str(ours)])["removed"] == [str(ours)]
    assert tree(tmp_path) == {"outside/precious": "p\n"}


def test_a_file_takes_the_place_of_a_link_or_folder(tmp_path: Path) -> None:
    put(files={f"{tmp_path}/target": "t\n", f"{tmp_path}/folder/x": "x\n"})
    (tmp_path / "link").symlink_to("target")
    put(files={f"{tmp_path}/link": "mine\n", f"{tmp_path}/folder": "mine\n"})
    assert tree(tmp_path) == {"target": "t\n", "link": "mine\n", "folder": "mine\n"}
    assert not (tmp_path / "link").is_symlink()


def test_a_mode_that_somebody_changed_is_set_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(files={str(path): "1\n"})
    path.chmod(0o666)
    answer = put(files={str(path): "1\n"})
    assert answer["written"] == [str(path)]
    assert path.stat().st_mode & 0o7777 == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_have_the_group_but_systemds_are_everybodys_to_read(tmp_path: Path) -> None:
    put(files={f"{tmp_path}/a": "1\n"}, group="daemon", mode="0640")
    assert (tmp_path / "a").group() == "daemon"
    wanted = files_module.attributes(Path("/etc/systemd/system/x.service.d/y.conf"), 0o600, 1)
    assert wanted == (0o644, 0)


def test_a_group_that_is_still_to_come_stops_a_run_but_not_check_mode(tmp_path: Path) -> None:
    given = {"files": {f"{tmp_path}/a": "1\n"}, "group": "no-such-group"}
    assert "'no-such-group'" in refused(**given)
    assert put(check_mode=True, **given)["changed"]


def test_an_emptied_folder_of_drop_ins_goes_too(tmp_path: Path) -> None:
    files = {f"{tmp_path}/x.service.d/ours.conf": "", f"{tmp_path}/y.service.d/ours.conf": "", f"{tmp_path}/z/a": ""}
    put(files={**files, f"{tmp_path}/y.service.d/theirs.conf": "t\n"})
    absent = [*files, f"{tmp_path}/never-there"]
    dry = put(check_mode=True, absent=absent)
    assert dry["removed"] == list(files)
    assert put(absent=absent)["removed"] == list(files)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "y.service.d", "y.service.d/theirs.conf", "z",
    ]  # fmt: skip
    assert not put(absent=absent)["changed"]


@pytest.mark.parametrize("path", ["relative/file", "/etc/../root/file"])
def test_only_plain_absolute_paths_are_taken(path: str) -> None:
    assert path in refused(files={path: "x\n"})


def test_a_long_text_is_not_shown_whole(tmp_path: Path) -> None:
    answer = put(check_mode=True, files={f"{tmp_path}/long": "x" * 20_001, f"{tmp_path}/short": "x" * 20_000})
    assert [one["after"] for one in answer["diff"]] == ["(20001 characters)\n", "x" * 20_000]

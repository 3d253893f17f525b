"""When .venv is made, completed or left alone. Making is replaced by a link to this Python; a real build takes a minute
and is the first thing that CI does."""

import fcntl
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from stack import paths, record, venv
from stack.errors import StackError


class Clone:
    """A clone with locks and a pyproject.toml; records what is built."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[str] = []
        (root / "requirements").mkdir(parents=True)
        self.write("requirements/portal.txt", "a==1\n")
        self.write("requirements/dev.txt", "a==1\nb==2\n")
        self.write("pyproject.toml", '[project]\nname = "wsnode"\n')

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def ensure(self, kind: str) -> list[str]:
        """The steps that were taken."""
        self.steps.clear()
        venv.ensure(kind)
        return list(self.steps)

    @property
    def stamp(self) -> Path:
        return self.root / ".venv" / "wslab.json"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Path) -> Clone:
    made = Clone(tmp_path / "clone")
    monkeypatch.setattr(venv, "ROOT", made.root)
    monkeypatch.setattr(paths, "ROOT", made.root)
    monkeypatch.setattr(venv, "VENV", made.root / ".venv")
    monkeypatch.setattr(venv, "STAMP", made.stamp)

    def create(self: object) -> None:
        made.steps.append("create")
        (made.root / ".venv" / "bin").mkdir(parents=True)
        (made.root / ".venv" / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(venv._Builder, "create", create)
    monkeypatch.setattr(venv._Builder, "install", lambda self, kind: made.steps.append(kind))
    monkeypatch.setattr(venv._Builder, "install_project", lambda self: made.steps.append("project"))
    return made


def test_it_is_made_once_and_then_left_alone(clone: Clone) -> None:
    assert clone.ensure("portal") == ["create", "portal", "project"]
    assert clone.ensure("portal") == []


def test_the_developers_lock_is_added_to_what_is_there_and_serves_the_portal_too(clone: Clone) -> None:
    clone.ensure("portal")
    assert clone.ensure("dev") == ["dev"]
    assert clone.ensure("portal") == []
    assert clone.ensure("dev") == []


def test_a_changed_lock_makes_it_anew_and_says_why(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.ensure("portal")
    clone.write("requirements/portal.txt", "changed\n")
    assert clone.ensure("portal") == ["create", "portal", "project"]
    assert ".venv is made anew: requirements/portal.txt changed" in capsys.readouterr().err


def test_a_changed_project_is_installed_again_without_a_new_environment(clone: Clone) -> None:
    clone.ensure("portal")
    clone.write("pyproject.toml", '[project]\nname = "other"\n')
    assert clone.ensure("portal") == ["project"]
    assert clone.ensure("portal") == []


def test_a_changed_linter_setting_changes_nothing(clone: Clone) -> None:
    clone.ensure("portal")
    clone.write("pyproject.toml", '[project]\nname = "wsnode"\n\n[tool.ruff]\nline-length = 90\n')
    assert clone.ensure("portal") == []


def test_a_developers_environment_stays_one_when_it_is_made_anew(clone: Clone) -> None:
    clone.ensure("dev")
    clone.write("requirements/portal.txt", "changed\n")
    assert clone.ensure("portal") == ["create", "dev", "project"]
    assert clone.ensure("dev") == []


def test_a_changed_developers_lock_does_not_concern_the_portal(clone: Clone) -> None:
    clone.ensure("dev")
    clone.write("requirements/dev.txt", "changed\n")
    assert clone.ensure("portal") == []
    assert clone.ensure("dev") == ["create", "dev", "project"]


def test_one_that_was_moved_is_made_anew(clone: Clone) -> None:
    clone.ensure("portal")
    stamp = json.loads(clone.stamp.read_text())
    clone.stamp.write_text(json.dumps({**stamp, "root": "/elsewhere"}))
    assert clone.ensure("portal") == ["create", "portal", "project"]


def test_another_python_makes_it_anew(clone: Clone) -> None:
    clone.ensure("portal")
    stamp = json.loads(clone.stamp.read_text())
    clone.stamp.write_text(json.dumps({**stamp, "python": "3.12.0"}))
    assert clone.ensure("portal") == ["create", "portal", "project"]


def test_one_whose_interpreter_has_gone_is_made_anew(clone: Clone) -> None:
    clone.ensure("portal")
    link = clone.root / ".venv" / "bin" / "python"
    link.unlink()
    link.symlink_to("/nowhere/python")
    assert clone.ensure("portal") == ["create", "portal", "project"]


def test_one_that_somebody_else_made_is_made_anew(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.ensure("portal")
    clone.stamp.unlink()
    assert clone.ensure("portal") == ["create", "portal", "project"]
    assert "was not made, or not finished, by ./wslab" in capsys.readouterr().err


def test_an_interrupted_build_is_begun_again(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.ensure("portal")
    clone.write("requirements/portal.txt", "changed\n")
    with monkeypatch.context() as patched:
        patched.setattr(venv._Builder, "install", lambda self, kind: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            venv.ensure("portal")
    assert not clone.stamp.exists()
    assert clone.ensure("portal") == ["create", "portal", "project"]


def test_of_two_at_once_the_second_waits_and_builds_nothing(clone: Clone) -> None:
    lock = os.open(clone.root, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    second = threading.Thread(target=clone.ensure, args=("portal",))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    venv._Builder.create(object())  # type: ignore[arg-type]  # the first one finishes
    clone.steps.clear()
    record.write_json(clone.stamp, venv.wanted("portal", venv._version()))
    os.close(lock)
    second.join(10)
    assert not second.is_alive()
    assert clone.steps == []


def test_it_is_not_pulled_from_under_a_running_lab(clone: Clone, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.ensure("portal")
    clone.write("requirements/portal.txt", "changed\n")

    class Running:
        supervised = True

    monkeypatch.setattr(record, "read", lambda _: Running())
    with pytest.raises(StackError, match=r"a lab runs from \.venv") as caught:
        venv.ensure("portal")
    assert caught.value.fix == "./wslab down first"
    assert clone.stamp.exists()


def test_a_clone_that_cannot_be_written_is_one_clear_line(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != clone.root)  # CI is root, who may write anywhere
    with pytest.raises(StackError, match=r"cannot be written, so no \.venv can be made in it") as caught:
        venv.ensure("portal")
    assert "clone it into a folder of your own" in caught.value.fix
    assert clone.steps == []


def test_a_failed_step_shows_the_end_of_its_output_and_the_way_out(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = state / "logs" / "setup.log"
    with log.open("w") as output:
        builder = venv._Builder(venv.Progress(), output, log, os.open(tmp_path, os.O_RDONLY))
        script = "print('Collecting a'); print('ERROR: No matching distribution found for a'); raise SystemExit(1)"
        with pytest.raises(StackError, match="installing 1 packages failed") as caught:
            builder._run("installing 1 packages", [sys.executable, "-c", script], 1)
        os.close(builder.lock)
    assert "ERROR: No matching distribution found for a" in str(caught.value)
    assert "PIP_INDEX_URL" in caught.value.fix
    assert log.read_text().splitlines()[0] == "Collecting a"


def test_the_developers_lock_pins_all_that_the_portals_pins_and_alike() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (Path(__file__).parents[2] / "requirements" / f"{name}.txt").read_text()
        return dict(re.findall(r"(?m)^([a-z0-9][\w.-]*)(?:\[[\w,-]+\])?==(\S+)", text))

    portal, dev = pins("portal"), pins("dev")
    assert len(portal) > 40
    assert {name: dev.get(name) for name in portal} == portal


def test_a_wrong_command_line_is_refused_before_anything_is_built(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        venv.main(["run"])
    assert left.value.code == 2
    assert "SCENARIO" in capsys.readouterr().err
    assert venv.main(["dmeo"]) == 2
    assert "./wslab demo" in capsys.readouterr().err
    assert clone.steps == []

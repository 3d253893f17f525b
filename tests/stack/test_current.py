"""`./wslab inventory`: which inventory ansible-playbook takes when none is named."""

import os
from pathlib import Path

import pytest

from stack import cli, current, paths
from stack.errors import StackError


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with two inventories, and the user elsewhere with one of their own."""
    for folder in ("clone/inventory/virtual", "clone/inventory/local", "home/ours"):
        (tmp_path / folder / "group_vars").mkdir(parents=True)
        (tmp_path / folder / "hosts.yml").touch()
    (tmp_path / "home" / "other things").mkdir()
    monkeypatch.setattr(paths, "ROOT", tmp_path / "clone")
    monkeypatch.setenv("WSLAB_CWD", str(tmp_path / "home"))
    return tmp_path / "clone"


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("inventory/local", "local"),
        ("virtual", "virtual"),
        ("inventory/local/", "local"),
        ("../clone/inventory/local", "local"),
    ],
)
def test_an_inventory_of_the_clone_is_linked_so_that_the_clone_can_move(clone: Path, text: str, link: str) -> None:
    assert current.use(text) == clone / "inventory" / link
    assert os.readlink(clone / "inventory" / "current") == link
    assert current.show() == str(clone / "inventory" / link)


def test_the_users_own_is_found_from_where_they_are(clone: Path) -> None:
    current.use("ours")
    assert os.readlink(clone / "inventory" / "current") == str(clone.parent / "home" / "ours")


@pytest.mark.parametrize("text", ["other things", "nowhere", "inventory/current"])
def test_what_is_no_inventory_is_refused_with_the_choices(clone: Path, text: str) -> None:
    with pytest.raises(StackError, match=f"{text} is no inventory") as caught:
        current.use(text)
    assert "inventory/local, inventory/virtual, or your own" in caught.value.fix
    assert not (clone / "inventory" / "current").is_symlink()


def test_without_a_choice_the_choices_are_named(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inventory", "show"]) == 2
    choices = "inventory/local, inventory/virtual, or your own"
    said = f"wslab: no inventory is chosen\n  fix: ./wslab inventory use PATH: {choices}\n"
    assert capsys.readouterr().err == said


def test_a_choice_that_is_gone_is_said(clone: Path) -> None:
    (clone / "inventory" / "current").symlink_to("gone")
    with pytest.raises(StackError, match=r"inventory/gone is no inventory any more"):
        current.show()


def test_lab_up_chooses_the_virtual_one_but_not_over_the_users_own(clone: Path) -> None:
    assert current.use_virtual() == "ansible-playbook site.yml takes inventory/virtual now"
    assert os.readlink(clone / "inventory" / "current") == "virtual"
    assert current.use_virtual() == "ansible-playbook site.yml takes inventory/virtual now"
    current.use("ours")
    said = current.use_virtual()
    assert said.startswith("inventory/current stays ")
    assert said.endswith("for this lab: ansible-playbook -i inventory/virtual …")
    assert current.show() == str(clone.parent / "home" / "ours")
    current.link().unlink()
    current.link().symlink_to("gone")
    current.use_virtual()
    assert current.show() == str(clone / "inventory" / "virtual")

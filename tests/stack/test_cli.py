"""What is typed: understood, or refused with a way out, before anything is started."""

import json
import os
from pathlib import Path

import pytest

from stack import cli, dotenv, paths, runs
from stack.errors import StackError


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    try:
        code = cli.main(argv)
    except SystemExit as left:
        code = int(left.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["dmeo"], "there is no command 'dmeo'\n  fix: ./wslab demo"),
        (["frobnicate"], "there is no command 'frobnicate'\n  fix: see ./wslab --help"),
        (["run"], "the following arguments are required: SCENARIO\n  fix: see ./wslab run --help"),
        (["run", "smoke", "--sett", "a=1"], "unrecognized arguments: --sett a=1"),
        (["open", "graphs"], "invalid choice: 'graphs'"),
        (["run", "smoke", "--set", "clients"], "--set 'clients': wanted FIELD=VALUE"),
        (["run", "smoke", "--set", "clients=[1"], "--set 'clients=[1': the value is not YAML"),
        (["run", "smoke", "--subject", "echo@"], "--subject 'echo@': wanted NAME@VERSION"),
        (["run", "smoke", "--alternate", "clients"], "--alternate 'clients': wanted FIELD=VALUE, subject=NAME@"),
        (["run", "smoke", "--repeat", "1"], "--repeat '1': wanted 2 to 50"),
        (["run", "./no-such.yaml"], "no-such.yaml: No such file or directory"),
        (["run", "smoke", "--json", "/nowhere/result.json"], "--json /nowhere/result.json cannot be written"),
        (["demo", "--json", "/nowhere/result.json"], "--json /nowhere/result.json cannot be written"),
        (["run", "smoke"], "the stack is down\n  fix: ./wslab up"),
        (["open"], "the stack is down\n  fix: ./wslab up"),
    ],
)
def test_what_cannot_be_done_is_exit_code_2_with_the_way_out(
    argv: list[str], said: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = refused(argv, capsys)
    assert code == 2
    assert said in text


def test_a_lab_that_is_down_is_said_by_status_and_down(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status"]) == 3
    assert capsys.readouterr().out == "the stack is down\n"
    assert cli.main(["status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["phase"] == "down"
    assert cli.main(["down"]) == 0
    assert capsys.readouterr().out == "the lab was not up\n"


def test_every_command_has_help_with_examples_and_stands_in_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    overview = (paths.ROOT / "stack" / "help.txt").read_text()
    for command in cli.NEEDS:
        assert f"\n  {command} " in overview
        with pytest.raises(SystemExit) as left:
            cli.main([command, "--help"])
        assert left.value.code == 0
        assert f"examples:\n  ./wslab {command}" in capsys.readouterr().out


def test_values_of_set_are_read_as_yaml() -> None:
    given = ["clients=500", "duration_s=1.5", "behaviour=echo", "thresholds=[response_time.p99 < 5ms]", "x=a=b", "y="]
    assert runs.read_changes(given) == {
        "clients": 500,
        "duration_s": 1.5,
        "behaviour": "echo",
        "thresholds": ["response_time.p99 < 5ms"],
        "x": "a=b",
        "y": None,
    }


def test_a_subjects_version_follows_the_last_at_sign() -> None:
    assert runs.read_subject("team@example/echo@1.2") == {"name": "team@example/echo", "version": "1.2"}
    assert runs.read_subject(None) is None


def test_a_scenario_is_a_name_or_a_file_relative_to_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nclients: 3\n")
    monkeypatch.setenv("WSLAB_CWD", str(tmp_path))
    assert runs.read_scenario("smoke") == "smoke"
    assert runs.read_scenario("mine.yaml") == {"name": "mine", "clients": 3}
    assert runs.read_scenario("./mine.yaml") == {"name": "mine", "clients": 3}
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(StackError, match="holds no fields"):
        runs.read_scenario("./list.yaml")


@pytest.mark.parametrize(
    ("state", "verdict", "validity", "code", "strict_code"),
    [
        ("finished", "passed", "valid", 0, 0),
        ("finished", "none", "valid", 0, 0),
        ("finished", "failed", "valid", 1, 1),
        ("finished", "passed", "suspect", 0, 3),
        ("finished", "failed", "suspect", 1, 3),
        ("finished", "passed", "invalid", 3, 3),
        ("finished", "failed", "invalid", 3, 3),
        ("failed", "none", "invalid", 2, 2),
        ("cancelled", "none", "valid", 2, 2),
        ("lost", "none", "suspect", 2, 2),
    ],
)
def test_exit_codes_of_a_run(state: str, verdict: str, validity: str, code: int, strict_code: int) -> None:
    result = {"state": state, "verdict": verdict, "validity": validity}
    assert runs.exit_code(result) == code
    assert runs.exit_code(result, strict=True) == strict_code


def test_a_dotenv_file_gives_what_the_environment_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("# a comment\n\nexport WSLAB_A='one two'\nWSLAB_B = \"x=y\"\nWSLAB_C=#1\n")
    monkeypatch.setenv("WSLAB_A", "")  # restored after the test
    monkeypatch.delenv("WSLAB_A")
    monkeypatch.setenv("WSLAB_B", "environment")
    monkeypatch.setenv("WSLAB_C", "")
    monkeypatch.delenv("WSLAB_C")
    dotenv.load(file)
    assert (os.environ["WSLAB_A"], os.environ["WSLAB_B"], os.environ["WSLAB_C"]) == ("one two", "environment", "#1")


def test_a_line_of_a_dotenv_file_that_is_none_is_named_and_not_shown() -> None:
    with pytest.raises(StackError, match=r"\.env, line 2 is not NAME=value$"):
        dotenv.parse("A=1\nWSLAB_SECRET_KEY: hunter2\n")


def test_a_folder_of_other_things_is_not_taken_for_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "somebodys").touch()
    monkeypatch.setenv("WSLAB_STATE", str(tmp_path))
    with pytest.raises(StackError, match="holds other things than a lab's state"):
        paths.make_state_dir()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    (tmp_path / "somebodys").unlink()
    assert paths.make_state_dir() == tmp_path
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert paths.make_state_dir() == tmp_path


def test_the_example_of_a_dotenv_file_can_be_used_as_it_is_and_uncommented() -> None:
    text = (paths.ROOT / ".env.example").read_text()
    assert dotenv.parse(text) == {}
    uncommented = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#WSLAB"))
    assert set(dotenv.parse(uncommented)) == {
        "WSLAB_STATE",
        "WSLAB_ALLOWED_HOSTS",
        "WSLAB_BEHIND_PROXY",
        "WSLAB_SECRETS",
        "WSLAB_INVENTORY",
    }

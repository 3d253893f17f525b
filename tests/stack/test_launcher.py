"""Which Python `./wslab` takes: a real sh, a PATH of stand-ins that say a version, nothing else on it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "cat", "dirname", "readlink", "uname", "grep", "sed", "tail")


class Place:
    """A clone with the launcher alone, and folders for PATH."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.clone = base / "clone"
        (self.clone / "stack").mkdir(parents=True)
        shutil.copy(ROOT / "wslab", self.clone / "wslab")
        shutil.copy(ROOT / "stack" / "help.txt", self.clone / "stack" / "help.txt")
        self.tools = base / "tools"
        self.tools.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found
            (self.tools / tool).symlink_to(found)
        self.environment = {"HOME": str(base / "home"), "PATH": ""}

    def python(self, path: str, version: str, wrong: str = "") -> Path:
        """A stand-in that answers the launcher's question, and tells when it is chosen."""
        major, minor, patch = (int(part) for part in version.split("."))
        return self.program(
            path,
            'case "$*" in\n'
            '  *stack.venv*) echo "chosen $0"; shift 2; for given; do echo "<$given>"; done ;;\n'
            f"  *version_info\\ \\<*) exit {int((major, minor) < (3, 12))} ;;\n"
            f"  *) printf %s '{major:03}{minor:03}{patch:03} {version} {wrong}' ;;\n"
            "esac",
        )

    def program(self, path: str, body: str) -> Path:
        file = self.base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
        return file

    def run(self, *arguments: str, folders: tuple[str, ...] = (), launcher: Path | None = None, **environment: str):
        path = ":".join([*(str(self.base / folder) for folder in folders), str(self.tools)])
        return subprocess.run(
            [launcher or self.clone / "wslab", *arguments],
            env={**self.environment, "PATH": path, **environment},
            cwd=self.base,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "a path with spaces")


def chosen(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("chosen ")
    return first.removeprefix("chosen ")


def test_the_newest_named_python_on_path_is_taken_before_plain_python3(place: Place) -> None:
    place.python("a/python3", "3.12.4")
    place.python("a/python3.12", "3.12.4")
    newest = place.python("b/python3.13", "3.13.1")
    assert chosen(place.run("up", folders=("a", "b"))) == str(newest)


def test_a_dead_pyenv_shim_does_not_hide_a_good_python_behind_it(place: Place) -> None:
    place.program("shims/python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    place.program("shims/python3", "exit 1")
    good = place.python("usr/python3.13", "3.13.5")
    assert chosen(place.run("up", folders=("shims", "usr"))) == str(good)


@pytest.mark.parametrize("where", ["home", "PYENV_ROOT"])
def test_without_one_on_path_the_newest_fitting_pyenv_version_is_taken(place: Place, where: str) -> None:
    place.python("bin/python3", "3.11.7", "too old")
    base = "home/.pyenv" if where == "home" else "pyenv root"
    place.python(f"{base}/versions/3.12.9/bin/python", "3.12.9")
    newest = place.python(f"{base}/versions/3.12.10/bin/python", "3.12.10")
    place.python(f"{base}/versions/3.15.0a1/bin/python", "3.15.0", "a pre-release")
    given = {} if where == "home" else {"PYENV_ROOT": str(place.base / base)}
    assert chosen(place.run("up", folders=("bin",), **given)) == str(newest)


def test_uv_is_asked_last(place: Place) -> None:
    brought = place.python("uv pythons/bin/python3.13", "3.13.3")
    place.program("bin/uv", f'case "$*" in "python find"*) echo "{brought}" ;; *) exit 1 ;; esac')
    assert chosen(place.run("up", folders=("bin",))) == str(brought)


def test_uv_fetches_an_interpreter_when_it_knows_none(place: Place) -> None:
    brought = place.base / "uv pythons" / "bin" / "python3.13"
    place.python("spare", "3.13.3")
    place.program(
        "bin/uv",
        f"""case "$*" in
          "python find"*) [ -x "{brought}" ] && echo "{brought}" ;;
          "python install 3.13") {shutil.which("mkdir")} -p "{brought.parent}"
             {shutil.which("cp")} "{place.base}/spare" "{brought}" ;;
          *) exit 1 ;;
        esac""",
    )
    done = place.run("up", folders=("bin",))
    assert chosen(done) == str(brought)
    assert "fetching 3.13 with uv" in done.stderr


def test_without_any_fitting_python_one_error_names_what_was_found_and_the_way_out(place: Place) -> None:
    old = place.python("bin/python3", "3.11.7", "too old")
    bare = place.python("usr/python3.12", "3.12.3", "lacks venv or ensurepip: apt install python3.12-venv")
    place.program("bin/uv", "echo 'error: no network' >&2; exit 2")
    done = place.run("demo", folders=("bin", "usr"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{old} (3.11.7: too old)" in done.stderr
    assert f"{bare} (3.12.3: lacks venv or ensurepip: apt install python3.12-venv)" in done.stderr
    assert "error: no network" in done.stderr
    assert "WSLAB_PYTHON=/path/to/python3.13 ./wslab" in done.stderr


def test_a_given_python_is_used_even_where_others_would_do(place: Place) -> None:
    place.python("bin/python3.14", "3.14.0")
    place.python("clone/.venv/bin/python", "3.14.0")
    given = place.python("mine/python", "3.12.0")
    assert chosen(place.run("up", folders=("bin",), WSLAB_PYTHON=str(given))) == str(given)


def test_a_given_python_that_is_too_old_is_refused_by_name_and_version(place: Place) -> None:
    place.python("bin/python3.13", "3.13.0")
    given = place.python("mine/python", "3.9.1", "too old")
    done = place.run("up", folders=("bin",), WSLAB_PYTHON=str(given))
    assert done.returncode == 2
    assert f"WSLAB_PYTHON={given} is Python 3.9.1: too old" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"), [("/nowhere/python", "is no program"), ("broken", "does not run as a Python: no libpython")]
)
def test_a_given_python_that_is_none_is_refused(place: Place, given: str, said: str) -> None:
    place.program("bin/broken", "echo 'no libpython' >&2; exit 1")
    place.python("bin/python3.13", "3.13.0")
    done = place.run("up", folders=("bin",), WSLAB_PYTHON=given)
    assert done.returncode == 2
    assert f"WSLAB_PYTHON={given} {said}" in done.stderr


def test_the_environments_own_python_is_taken_without_a_search(place: Place) -> None:
    own = place.python("clone/.venv/bin/python", "3.12.0")
    place.python("bin/python3.14", "3.14.0")
    assert chosen(place.run("up", folders=("bin",))) == str(own)


def test_an_environment_whose_interpreter_has_gone_is_passed_over(place: Place) -> None:
    (place.clone / ".venv" / "bin").mkdir(parents=True)
    (place.clone / ".venv" / "bin" / "python").symlink_to(place.base / "gone")
    good = place.python("bin/python3.13", "3.13.0")
    assert chosen(place.run("up", folders=("bin",))) == str(good)


def test_arguments_arrive_unchanged_also_through_a_link_from_elsewhere(place: Place) -> None:
    place.python("bin/python3.13", "3.13.0")
    link = place.base / "elsewhere" / "lab"
    link.parent.mkdir()
    link.symlink_to(Path("..") / "clone" / "wslab")
    done = place.run("run", "a b", "--set", "x=$HOME *", "", folders=("bin",), launcher=link)
    assert done.stdout.splitlines()[1:] == ["<run>", "<a b>", "<--set>", "<x=$HOME *>", "<>"]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_needs_no_python(place: Place, arguments: tuple[str, ...]) -> None:
    done = place.run(*arguments)
    assert done.returncode == 0
    assert done.stdout == (ROOT / "stack" / "help.txt").read_text()


def test_the_real_probe_accepts_the_python_that_runs_this(place: Place) -> None:
    probe = (ROOT / "wslab").read_text().split("probe='")[1].split("\n'\n")[0]
    done = subprocess.run([sys.executable, "-E", "-s", "-c", probe], capture_output=True, text=True, check=True)
    major, minor, patch = sys.version_info[:3]
    assert done.stdout == f"{major:03}{minor:03}{patch:03} {major}.{minor}.{patch} "

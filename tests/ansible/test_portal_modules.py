"""What role portal's modules decide and do, on folders of their own: whether a host is fit, a release that is whole or
not there, what is read back, what is taken away. The upgrade is in `test_portal_activation.py`."""

from __future__ import annotations

import ensurepip
import importlib.util
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack.paths import ROOT


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "roles" / "portal" / "library" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gone, looking, releases, state = (load(f"portal_{name}") for name in ("gone", "look", "release", "state"))


# --- is a host fit? -----------------------------------------------------------------------------
def certificate(folder: Path, *names: str, days: int = 30) -> tuple[Path, Path]:
    """PEM files of a certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    until = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(until - timedelta(days=90))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    private.chmod(0o600)
    return chain, private


def complaint(chain: Path, key: Path, name: str) -> str:
    with pytest.raises(looking.Unfit) as error:
        looking.check_tls(str(chain), str(key), name)
    return str(error.value)


@pytest.mark.parametrize("name", ["lab.example.org", "LAB.example.org", "a.lab.test"])
def test_a_certificate_serves_the_names_that_it_is_for(tmp_path: Path, name: str) -> None:
    chain, key = certificate(tmp_path, "lab.example.org", "*.lab.test")
    assert len(looking.check_tls(str(chain), str(key), name)) == 64


@pytest.mark.parametrize("name", ["lab.test", "a.b.lab.test", "example.org", "xlab.example.org"])
def test_a_name_that_it_is_not_for_is_refused_with_those_that_it_is_for(tmp_path: Path, name: str) -> None:
    chain, key = certificate(tmp_path, "lab.example.org", "*.lab.test")
    assert complaint(chain, key, name) == (
        f"portal_server_name is {name}, but {chain} is for lab.example.org, *.lab.test; wanted a name that it is for"
    )


def test_a_certificate_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, "lab", days=-1)
    assert "chain.pem, which has expired on " in complaint(chain, key, "lab")
    (tmp_path / "other").mkdir()
    other_chain, _ = certificate(tmp_path / "other", "lab")
    assert "which is not the key of" in complaint(other_chain, key, "lab")
    key.chmod(0o644)
    assert complaint(other_chain, key, "lab").endswith(f"with mode 0644, open to others; fix: chmod 0600 {key}")
    key.chmod(0o600)
    assert "holds no certificate" in complaint(key, key, "lab")
    key.unlink()
    assert "portal_tls_key is" in complaint(chain, key, "lab")
    assert "portal_tls_certificate is /nowhere: No such file" in complaint(Path("/nowhere"), key, "lab")


@pytest.fixture
def listener() -> Iterator[subprocess.Popen[str]]:
    """A process that listens on a port of the loopback address, which it has said."""
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    yield process
    process.communicate("\n", timeout=10)


def test_a_port_that_another_process_has_is_told_with_its_name(listener: subprocess.Popen[str]) -> None:
    assert listener.stdout is not None
    port = int(listener.stdout.readline())
    name = Path(f"/proc/{listener.pid}/comm").read_text().strip()
    assert looking.holder(port, "wslab-portal.service") == f"{name} (pid {listener.pid})"
    own = Path(f"/proc/{listener.pid}/cgroup").read_text().strip().rpartition("/")[2] or ":"
    assert looking.holder(port, own) == ""


def test_a_python_that_is_too_old_or_none_is_refused(tmp_path: Path) -> None:
    assert looking.python_version(sys.executable) == sys.version_info[:2]
    old, none = tmp_path / "old", tmp_path / "none"
    old.write_text("#!/bin/sh\necho 3 11\n")
    none.write_text("#!/bin/sh\necho I am a shell >&2\nexit 1\n")
    for file in (old, none):
        file.chmod(0o755)
    with pytest.raises(looking.Unfit, match=r"Python 3\.11, wanted 3\.12 or newer"):
        looking.python_version(str(old))
    with pytest.raises(looking.Unfit, match="does not say its version: I am a shell"):
        looking.python_version(str(none))
    with pytest.raises(looking.Unfit, match=r"cannot be run \(No such file or directory\)"):
        looking.python_version("/nowhere")


# --- a release is whole or not there --------------------------------------------------------------
def archives(folder: Path, code: dict[str, str]) -> tuple[str, str]:
    """Code, and wheels that are pip's alone."""
    pip = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    (folder / "requirements.txt").write_text("")
    with tarfile.open(folder / "wheels.tar", "w") as tar:
        tar.add(pip, pip.name)
        tar.add(folder / "requirements.txt", "requirements.txt")
    with tarfile.open(folder / "code.tar.gz", "w:gz") as tar:
        for name, text in code.items():
            file = folder / "one"
            file.write_text(text)
            tar.add(file, name)
    return str(folder / "code.tar.gz"), str(folder / "wheels.tar")


def test_a_release_has_its_code_compiled_and_an_environment_of_its_own(tmp_path: Path) -> None:
    code, wheels = archives(tmp_path, {"portal/a.py": "A = 1\n", "wsnode/b.py": "B = 2\n"})
    root = tmp_path / "root"
    environment, release = root / "venvs" / "e1", root / "releases" / "r1"
    releases.make_environment(environment, wheels, sys.executable)
    releases.make_release(release, code, environment)
    ask = "import os, portal.a, sys; print(portal.a.A, os.path.realpath(sys.prefix))"
    said = subprocess.run(
        [release / "venv" / "bin" / "python", "-c", ask],
        cwd=release, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == f"1 {environment}\n"
    assert list(release.glob("portal/__pycache__/a.*.pyc"))
    assert looking.complete(root / "releases") == ["r1"]
    assert looking.complete(root / "venvs") == ["e1"]
    before = (environment / ".complete").stat().st_mtime_ns
    releases.make_environment(environment, "/nowhere", sys.executable)
    assert (environment / ".complete").stat().st_mtime_ns == before


def test_what_breaks_on_the_way_is_not_complete_and_is_made_anew(tmp_path: Path) -> None:
    code, wheels = archives(tmp_path, {"portal/a.py": "A = (\n", "wsnode/b.py": ""})
    root = tmp_path / "root"
    environment, release = root / "venvs" / "e1", root / "releases" / "r1"
    environment.mkdir(parents=True)
    (environment / "half").touch()
    releases.make_environment(environment, wheels, sys.executable)
    assert not (environment / "half").exists()
    with pytest.raises(releases.Failed, match="compiling the code failed"):
        releases.make_release(release, code, environment)
    assert not release.exists()
    assert looking.complete(root / "releases") == []
    archives(tmp_path, {"portal/a.py": "A = 1\n", "wsnode/b.py": ""})
    releases.make_release(release, code, environment)
    assert looking.complete(root / "releases") == ["r1"]


def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path) -> None:
    code, _ = archives(tmp_path, {"../outside": "x"})
    (tmp_path / "in").mkdir()
    with pytest.raises(releases.Failed, match="cannot be unpacked"):
        releases.unpack(code, tmp_path / "in")
    assert not (tmp_path / "outside").exists()


# --- reading back ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "is_error"),
    [
        ("2026-11-24T09:24:52.056Z ERROR celery.worker.consumer.consumer: consumer: Cannot connect", True),
        ("2026-11-24T09:24:52.056Z CRITICAL portal.runs: x", True),
        ("[2026-11-24 09:33:18 +0000] [4645] [ERROR] Can't connect to ('127.0.0.1', 8000)", True),
        ("Traceback (most recent call last):", True),
        ("2026-11-24T09:24:23.707Z WARNING portal.runs: run r-x: load-1 said ERRORS", False),
        ("2026-11-24T09:24:19.290Z INFO portal.runs: run r-error: epoch 1", False),
        ("[2026-11-24 09:33:21 +0000] [4652] [INFO] Starting gunicorn 27.0.1", False),
    ],
)
def test_errors_are_told_from_other_lines(line: str, is_error: bool) -> None:
    assert bool(state.ERROR.search(line)) == is_error


def test_the_first_certificate_of_a_chain_is_the_one_that_is_shown(tmp_path: Path) -> None:
    first, _ = certificate(tmp_path, "lab")
    text = first.read_text()
    (tmp_path / "second").mkdir()
    second, _ = certificate(tmp_path / "second", "ca")
    first.write_text(f"subject=lab\n{text}{second.read_text()}")
    assert ssl.PEM_cert_to_DER_cert(state.first_certificate(str(first))) == ssl.PEM_cert_to_DER_cert(text)


def test_a_portal_that_is_not_there_is_not_healthy() -> None:
    assert "does not answer" in state.asked_for_health(1)


def test_taking_away_is_for_files_links_folders_and_nothing(tmp_path: Path) -> None:
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    (folder / "in").mkdir(parents=True)
    kept = tmp_path / "kept"
    kept.mkdir()
    file.touch()
    link.symlink_to(kept)
    for path in (folder, file, link, tmp_path / "nothing"):
        gone.remove(path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]

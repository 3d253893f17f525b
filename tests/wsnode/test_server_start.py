"""Options, the configuration file, and what stands in a start's way."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys

import pytest

from tests.wsnode.serving import ROOT, eventually, serving
from wsnode import __version__
from wsnode.cli import main
from wsnode.server.listener import hold_port, join_port
from wsnode.server.options import OptionError, ServeOptions, add_options


def wsnode(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wsnode", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )


def test_the_start_is_one_line_with_addresses_engine_workers_and_limits():
    with serving("--workers", "2", "--max-connections", "500", "--max-message-bytes", "2048") as server:
        assert server.line.startswith(
            f"wsnode serve {__version__}: ws://127.0.0.1:{server.port}/echo, metrics http://127.0.0.1:"
        )
        assert "engine lean, 2 workers, limits: 500 connections, 2048 bytes a message," in server.line
        assert server.metrics().value("websocket_connections_limit") == 500
        assert server.stderr() == ""


def test_a_taken_port_is_refused_though_both_servers_would_share_it():
    with serving("--workers", "2") as server:
        second = wsnode("serve", "--port", str(server.port), "--metrics-port", "0")
    assert second.returncode == 2
    assert second.stderr == (
        f"wsnode serve: port {server.port} on 127.0.0.1 is taken:"
        " stop what listens there, or choose another by --port\n"
    )
    assert second.stdout == ""


def test_a_taken_metrics_port_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = wsnode("serve", "--port", "0", "--metrics-port", str(port))
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr
    assert "--metrics-port" in done.stderr


def test_an_address_of_another_machine_is_refused():
    done = wsnode("serve", "--host", "192.0.2.1", "--port", "0", "--metrics-port", "0")
    assert done.returncode == 2
    assert "192.0.2.1 is not an address of this machine" in done.stderr


def test_more_connections_than_descriptors_allow_is_a_warning_with_the_remedy():
    with serving("--workers", "1", "--max-connections", "1000", descriptors=164) as server:
        assert "limits: 100 connections" in server.line
        warning = eventually(server.stderr, bool)
    assert "--max-connections 1000 is more than 1 workers can hold with 164 open files each" in warning
    assert "100 are accepted" in warning
    assert "--workers 12" in warning


def test_a_held_port_is_nobody_else_s_but_its_workers():
    with hold_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            hold_port("127.0.0.1", port)
        with join_port("127.0.0.1", port) as one, join_port("127.0.0.1", port) as two:
            one.listen()
            two.listen()
            with pytest.raises(OSError, match="in use"):
                hold_port("127.0.0.1", port)


def test_a_port_with_connections_of_the_last_run_in_time_wait_can_be_held_again():
    with hold_port("127.0.0.1", 0) as holder, join_port("127.0.0.1", holder.getsockname()[1]) as listener:
        port = holder.getsockname()[1]
        listener.listen()
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = listener.accept()
        served.close()  # the server closes first, so TIME_WAIT is its
        assert client.recv(1) == b""
        client.close()
    hold_port("127.0.0.1", port).close()


def test_pinned_workers_are_each_on_one_core_in_turn_and_say_so():
    allowed = sorted(os.sched_getaffinity(0))
    with serving("--workers", "3", "--pin") as server:
        assert [server.metrics().value("node_worker_cores", worker=n) for n in "012"] == [1, 1, 1]
        on = [core for worker in server.workers() for core in worker.cpu_affinity()]
        assert sorted(on) == sorted(allowed[number % len(allowed)] for number in range(3))
        assert "\npin True\n" in server.get("/healthz")[1]
    with serving("--workers", "1") as server:
        assert server.metrics().value("node_worker_cores", worker="0") == len(allowed)
        assert "\npin False\n" in server.get("/healthz")[1]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--port", "70000"], "--port 70000: wanted a whole number from 0 to 65535"),
        (["--workers", "0"], "--workers 0: wanted a whole number from 1 to 256"),
        (["--max-connections", "many"], "--max-connections many: wanted a whole number from 1 to 10000000"),
        (["--drain-timeout", "-1"], "--drain-timeout -1: wanted a number from 0 to 3600"),
        (["--engine", "fast"], "--engine fast: wanted lean or websockets"),
        (["--coalesce-ms", "1001"], "--coalesce-ms 1001: wanted a number from 0 to 1000"),
        (
            ["--coalesce-ms", "2", "--engine", "websockets"],
            "--coalesce-ms 2: the engine websockets writes each message by itself: use --engine lean, or leave it at 0",
        ),
    ],
)
def test_a_bad_value_is_named_with_its_range_and_exits_with_2(words, complaint, capsys):
    assert main(["serve", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path):
    config = tmp_path / "serve.toml"
    config.write_text("port = 4000\nworkers = 3\ncompression = true\ndrain_timeout_s = 2.5\n")
    options = ServeOptions.read({"workers": "5"}, config)
    assert (options.port, options.workers, options.compression, options.drain_timeout_s) == (4000, 5, True, 2.5)
    assert options.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 1\n", "unknown key 'prot'; known are host, port,"),
        ("port = 70000\n", "port = 70000: wanted a whole number from 0 to 65535"),
        ('compression = "perhaps"\n', "compression = 'perhaps': wanted true or false"),
        ("port = \n", "not TOML"),
    ],
)
def test_a_bad_file_is_refused_by_key_and_value(tmp_path, text, complaint):
    config = tmp_path / "serve.toml"
    config.write_text(text)
    with pytest.raises(OptionError) as refused:
        ServeOptions.read({}, config)
    assert complaint in str(refused.value)
    assert str(config) in str(refused.value)


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["serve", "--config", str(tmp_path / "nothing.toml")]) == 2
    assert "nothing.toml: No such file or directory" in capsys.readouterr().err


def test_every_option_of_the_model_is_on_the_command_line_with_help():
    parser = argparse.ArgumentParser()
    add_options(parser)
    shown = {action.dest: action.help for action in parser._actions}
    for name, field in ServeOptions.model_fields.items():
        assert field.description in shown[name]


# --- the command line around it ---


def exit_code(*words: str) -> object:
    with pytest.raises(SystemExit) as exited:
        main(words)
    return exited.value.code


def test_help_lists_every_command_and_shows_examples(capsys):
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out
    for word in ("serve", "load", "agent", "preflight", "report", "examples:"):
        assert word in shown


@pytest.mark.parametrize("words", [[], ["fly"], ["serve", "--nothing"]])
def test_a_usage_error_exits_with_2(words):
    assert exit_code(*words) == 2


def test_the_version_is_the_package_s():
    assert wsnode("--version").stdout == f"wsnode {__version__}\n"


def test_a_command_imports_no_other():
    code = (
        "import sys; from wsnode.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'pydantic', 'uvloop', 'websockets', 'prometheus_client', 'wsnode.server.serve'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.endswith("set()\n")

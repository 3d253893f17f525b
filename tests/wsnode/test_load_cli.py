"""`wsnode load` and `wsnode report` as a person types them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.wsnode.peers import ROOT, peer
from wsnode.core.histogram import Histogram
from wsnode.core.protocol import Counters, Second
from wsnode.core.result import read_result
from wsnode.load.cli import Kept

SMALL = ["--clients", "10", "--interval", "50", "--ramp-up", "0", "--duration", "2", "--rate", "1000"]


def wsnode(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wsnode", *words], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )


def test_a_load_prints_a_summary_and_writes_the_result(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with peer("echo") as server:
        done = wsnode(
            "load", server.url, *SMALL, "--json", str(path), "--subject", "peer@1.0", "--threshold", "error_ratio<1%"
        )
    assert done.returncode in (0, 3), done.stderr
    result = read_result(json.loads(path.read_text()))
    assert result.counters.messages_received == result.counters.messages_sent > 350
    assert result.subject is not None
    assert (result.subject.name, result.subject.version, result.subject.source) == ("peer", "1.0", "given")
    assert result.thresholds[0].expr == "error_ratio < 1%"
    assert result.thresholds[0].passed is True
    assert result.hosts[0].environment["stable"]["kernel"]
    assert re.search(r"Response time +~?[\d.]+ (µs|ms)", done.stdout)
    assert "error_ratio < 1%   (was " in done.stdout
    shown = wsnode("report", str(path))
    assert shown.stdout == done.stdout
    assert json.loads(wsnode("report", "--json", str(path)).stdout) == json.loads(path.read_text())


def test_a_result_that_cannot_be_written_is_still_shown(tmp_path: Path) -> None:
    with peer("echo") as server:
        done = wsnode("load", server.url, *SMALL, "--json", str(tmp_path))
    assert done.returncode == 2
    assert "Response time" in done.stdout
    assert done.stderr.splitlines()[-1] == f"wsnode load: --json {tmp_path}: Is a directory; the result is shown only"


def test_the_seeds_spellings_and_a_scenario_file_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nclients: 500\nduration_s: 2\n")
    with peer("echo") as server:
        done = wsnode(
            "load", server.url, "--scenario", str(file), "--clients=5", "--message-interval=100", "--rampUp=0.5",
            "--rate=100", "--json", "-",
        )  # fmt: skip
    scenario = json.loads(done.stdout)["scenario"]
    assert (scenario["name"], scenario["clients"], scenario["interval_ms"]) == ("mine", 5, 100)
    assert (scenario["ramp_up_s"], scenario["duration_s"]) == (0.5, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--clients", "0"],
            "clients: 0 is refused: Input should be greater than or equal to 1 (allowed: 1 to 1,000,000",
        ),
        (["--set", "fase=random"], "fase: no such field; known: name, "),
        (["--threshold", "p99 < 3"], "threshold 'p99 < 3': no metric 'p99'; known: response_time.p99"),
        (["--duration", "5", "--rate", "1"], "no measured window: 1,000 clients"),
        (["--subject", "x"], "--subject 'x': expected NAME@VERSION"),
        (["--scenario", "/nowhere.yaml"], "--scenario /nowhere.yaml: No such file or directory"),
        (["--workers", "0"], "--workers 0: expected 1 to 256"),
        (["--workers", "257"], "--workers 257: expected 1 to 256"),
        (["--clients", "many"], "'many' is not a whole number"),
    ],
)
def test_what_cannot_be_run_exits_with_2_and_says_why(words: list[str], message: str) -> None:
    done = wsnode("load", "ws://127.0.0.1:9/", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_threshold_exits_with_1() -> None:
    with peer("silent") as server:
        done = wsnode(
            "load", server.url, *SMALL, "--set", "reply_timeout_s=0.5", "--set", "drain_s=1", "--threshold",
            "response_time.p50 < 1s",
        )  # fmt: skip
    assert done.returncode in (1, 3)  # 3 where this machine stole too much time to believe anything
    assert "FAILED" in done.stdout
    assert "more than 50 % unanswered" in done.stdout


def test_without_a_duration_it_runs_until_ctrl_c_and_metrics_are_served_meanwhile() -> None:
    with peer("echo") as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "wsnode", "load", server.url, "--clients", "5", "--interval", "50", "--rampUp", "0",
             "--rate", "1000", "--metrics-port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert process.stderr is not None
        url = process.stderr.readline().split()[1]
        for line in process.stderr:  # progress comes every ten seconds where there is no terminal
            if line.startswith("10 s"):
                break
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    sent = re.search(r"^ws_simulator_messages_sent_total (\S+)$", text, re.MULTILINE)
    assert sent is not None
    assert float(sent[1]) > 900
    assert re.search(r'^ws_simulator_connections\{worker="0"\} ', text, re.MULTILINE)
    ports = re.search(r"^ws_simulator_source_ports_ratio (\S+)$", text, re.MULTILINE)
    assert ports is not None
    assert float(ports[1]) >= 5 / 65536
    assert process.returncode in (0, 3)
    assert "stopping: awaiting replies" in err
    assert "finished" in out
    assert "until stopped" in out


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"schema_version": 99}')
    done = wsnode("report", str(path))
    assert done.returncode == 2
    assert "schema_version 99" in done.stderr


def test_a_reader_that_goes_away_neither_stops_a_load_nor_shows_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with peer("echo") as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "wsnode", "load", server.url, *SMALL[:-4], "--duration", "60", "--json", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("10/60 s")
            process.stdout.close()
            process.send_signal(signal.SIGTERM)  # which it says, to nobody
            assert process.wait(20) == 141
        finally:
            process.kill()
    assert read_result(json.loads(path.read_text())).counters.messages_received > 1000


def test_only_the_edges_of_window_and_holds_keep_their_histograms() -> None:
    kept = Kept({2, 4})
    for number in range(1, 7):
        kept.append(Second(second=number, counters=Counters(), histograms={"handshake": Histogram.of([number])}))
    assert [line.second for line in kept.lines if line.histograms] == [2, 4, 6]
    assert [line.second for line in kept.lines] == [1, 2, 3, 4, 5, 6]


def test_a_load_is_ended_by_its_own_rule_with_everything_until_then(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    words = ["--clients", "10", "--interval", "50", "--ramp-up", "0", "--duration", "60", "--rate", "1000"]
    with peer("silent") as server:
        done = wsnode(
            "load", server.url, *words, "--set", "reply_timeout_s=0.3",
            "--abort-on", "error_ratio > 50% for 3s after 1s", "--abort-on", "connect_error_ratio > 20%",
            "--json", str(path),
        )  # fmt: skip
    assert done.returncode in (1, 3), done.stderr
    result = read_result(json.loads(path.read_text()))
    assert (result.state, result.verdict) == ("finished", "failed")
    assert result.aborted is not None
    assert (result.aborted.expr, result.aborted.second) == ("error_ratio > 50% for 3s after 1s", 4)
    assert result.aborted.value == 1
    assert result.window is not None
    assert 4 <= result.window.to_s <= 8
    assert result.error_ratio == 1
    assert result.counters.messages_lost == result.counters.messages_sent
    assert "ABORTED     error_ratio > 50% for 3s after 1s   (was 100 % in second 4)" in done.stdout
    assert "abort_on error_ratio > 50% for 3s after 1s: it was so at second 4" in done.stderr

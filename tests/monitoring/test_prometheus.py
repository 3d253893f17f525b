"""Whatever answers at Prometheus' address, it costs figures and never more: one kind of exception, in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from portal.monitoring.prometheus import Prometheus, PrometheusError


class Answering(ThreadingHTTPServer):
    """A server that says whatever it is told to, whole or byte by byte."""

    daemon_threads = True
    text = b""
    trickle_s = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        try:
            if not self.server.trickle_s:
                self.wfile.write(self.server.text)
            while self.server.trickle_s:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(self.server.trickle_s)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering(("127.0.0.1", 0), _Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.trickle_s = 0.0
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'"x"',
        b"[" * 100_000,
        b'{"status": "success"}',
        b'{"status": "success", "data": null}',
        b'{"status": "success", "data": {"resultType": "vector", "result": {}}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "x"]}]}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": [7]}}',
        b'{"message": "Not found"}',
    ],
)
def test_what_is_no_answer_of_prometheus_is_one_kind_of_error(server: Answering, text: bytes) -> None:
    server.text = text
    with Prometheus(server.url) as prometheus, pytest.raises(PrometheusError):
        prometheus.values("up", 0)


def test_series_without_plain_samples_are_that_error_too(server: Answering) -> None:
    server.text = (
        b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "histograms": []}]}}'
    )
    with Prometheus(server.url) as prometheus, pytest.raises(PrometheusError, match="unlike a Prometheus: KeyError"):
        prometheus.series("up", 0, 10)


def test_a_trickle_does_not_hold_a_run_for_ever(server: Answering) -> None:
    server.trickle_s = 0.02
    begun = time.monotonic()
    with (
        Prometheus(server.url, timeout_s=0.1) as prometheus,
        pytest.raises(PrometheusError, match="does not come to an end"),
    ):
        prometheus.values("up", 0)
    assert 0.6 <= time.monotonic() - begun < 3


@pytest.mark.parametrize("url", ["http://[bad", "http://127.0.0.1:99999999", "http://" + "a" * 300])
def test_an_address_that_is_none_is_that_error_too(url: str) -> None:
    with pytest.raises(PrometheusError), Prometheus(url) as prometheus:
        prometheus.values("up", 0)

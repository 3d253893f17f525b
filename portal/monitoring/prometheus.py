"""Prometheus' HTTP API, as much of it as a run needs: raw samples of a stretch of time, and instant values."""

from __future__ import annotations

import json
import math
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx


class PrometheusError(Exception):
    """Prometheus does not answer, or refuses a query. The message says which of the two, and where."""


class Series(NamedTuple):
    """One time series; samples are (s since the epoch, value), in order of time."""

    labels: dict[str, str]
    samples: tuple[tuple[float, float], ...]

    def between(self, start: float, end: float) -> Series:
        """The same with the samples of start <= t <= end only."""
        return Series(self.labels, tuple(sample for sample in self.samples if start <= sample[0] <= end))


MOST_BYTES = 256 << 20
"""Of one answer: a week of a query's samples takes less."""


class Prometheus:
    """A client; use it as a context manager. It waits `timeout_s` for each part of an answer, and six times as long for
    all of it.

    Raises:
        PrometheusError: `url` is none.
    """

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        try:
            # No proxy, whatever the environment says: the lab is near.
            self._client = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)
        except httpx.InvalidURL as error:
            raise PrometheusError(f"Prometheus cannot be asked: {self.url!r} is no URL: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def series(self, selector: str, start: float, end: float) -> list[Series]:
        """All raw samples of `selector` (no functions) with start <= t <= end (s since the epoch).

        Raises:
            PrometheusError: see there.
        """
        # Prometheus 3 leaves out the left edge of a range, 2 has it: ask for more, cut here.
        span_ms = max(1, math.ceil((end - start) * 1000) + 10)
        expression = f"{selector}[{span_ms}ms]"
        data = self._query(expression, end, "matrix")
        try:
            series = [Series(item["metric"], tuple((float(t), float(v)) for t, v in item["values"])) for item in data]
        except (LookupError, TypeError, ValueError) as error:
            raise self._strange(expression, error) from error
        return [one for whole in series if (one := whole.between(start, end)).samples]

    def over_time(self, expression: str, start: float, end: float, step_s: float) -> list[Series]:
        """What an expression was at each multiple of `step_s` with start < t <= end (s since the epoch).

        Raises:
            PrometheusError: see there.
        """
        expression = f"({expression})[{max(1, math.ceil(end - start))}s:{step_s:g}s]"
        data = self._query(expression, end, "matrix")
        try:
            return [
                Series(item["metric"], tuple((float(t), float(v)) for t, v in item["values"] if float(t) > start))
                for item in data
            ]
        except (LookupError, TypeError, ValueError) as error:
            raise self._strange(expression, error) from error

    def values(self, expression: str, at: float) -> list[tuple[dict[str, str], float]]:
        """The instant vector of an expression.

        Raises:
            PrometheusError: see there.
        """
        data = self._query(expression, at, "vector")
        try:
            return [(item["metric"], float(item["value"][1])) for item in data]
        except (LookupError, TypeError, ValueError) as error:
            raise self._strange(expression, error) from error

    def _query(self, expression: str, at: float, kind: str) -> list[Any]:
        status, text = self._post(expression, at)
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PrometheusError(f"{self.url} is no Prometheus: HTTP {status}, no JSON") from error
        if not isinstance(body, dict) or body.get("status") != "success":
            said = body.get("error", status) if isinstance(body, dict) else f"HTTP {status}, no Prometheus"
            raise PrometheusError(f"Prometheus refuses {expression}: {said}")
        try:
            found, result = body["data"]["resultType"], body["data"]["result"]
        except (LookupError, TypeError) as error:
            raise self._strange(expression, error) from error
        if found != kind or not isinstance(result, list):
            raise PrometheusError(f"Prometheus answers {expression} with a {found}, wanted a {kind}")
        return result

    def _post(self, expression: str, at: float) -> tuple[int, bytes]:
        """(status, body). httpx' own timeout begins anew with each byte, so that a trickle would never end."""
        deadline, text = time.monotonic() + 6 * self._timeout_s, bytearray()
        form = {"query": expression, "time": f"{at:.3f}"}
        try:
            with self._client.stream("POST", "/api/v1/query", data=form) as answer:
                for chunk in answer.iter_bytes():
                    text += chunk
                    if time.monotonic() > deadline:
                        raise PrometheusError(f"Prometheus at {self.url} does not come to an end of its answer")
                    if len(text) > MOST_BYTES:
                        raise PrometheusError(f"Prometheus answers {expression} with more than {MOST_BYTES:,} bytes")
                return answer.status_code, bytes(text)
        except (httpx.HTTPError, ValueError, OverflowError) as error:  # the last two: a host or port that is none
            raise PrometheusError(
                f"Prometheus at {self.url} does not answer: {error or type(error).__name__}"
            ) from error

    def _strange(self, expression: str, error: Exception) -> PrometheusError:
        return PrometheusError(f"{self.url} answers {expression} unlike a Prometheus: {type(error).__name__}: {error}")

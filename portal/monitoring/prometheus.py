"""Prometheus' HTTP API, as much of it as a run needs: raw samples of a stretch of time, and instant values."""

from __future__ import annotations

import math
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


class Prometheus:
    """A client; use it as a context manager."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self.url = url.rstrip("/")
        # No proxy, whatever the environment says: the lab is near.
        self._client = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

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
        data = self._query(f"{selector}[{span_ms}ms]", end, "matrix")
        series = [Series(item["metric"], tuple((float(t), float(v)) for t, v in item["values"])) for item in data]
        return [one for whole in series if (one := whole.between(start, end)).samples]

    def values(self, expression: str, at: float) -> list[tuple[dict[str, str], float]]:
        """The instant vector of an expression.

        Raises:
            PrometheusError: see there.
        """
        return [(item["metric"], float(item["value"][1])) for item in self._query(expression, at, "vector")]

    def _query(self, expression: str, at: float, kind: str) -> list[Any]:
        try:
            answer = self._client.post("/api/v1/query", data={"query": expression, "time": f"{at:.3f}"})
            body = answer.json()
        except httpx.HTTPError as error:
            raise PrometheusError(
                f"Prometheus at {self.url} does not answer: {error or type(error).__name__}"
            ) from error
        except ValueError as error:
            raise PrometheusError(f"{self.url} is no Prometheus: HTTP {answer.status_code}, no JSON") from error
        if body.get("status") != "success":
            raise PrometheusError(f"Prometheus refuses {expression}: {body.get('error', answer.status_code)}")
        data = body["data"]
        if data["resultType"] != kind:
            raise PrometheusError(f"Prometheus answers {expression} with a {data['resultType']}, wanted a {kind}")
        result: list[Any] = data["result"]
        return result

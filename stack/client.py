"""The portal's HTTP API, as the stack uses it."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from stack import record
from stack.errors import StackError

ENDED = ("finished", "failed", "cancelled", "lost")
_TIMEOUT_S = 10.0
_no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the portal is on 127.0.0.1


class PortalError(StackError):
    """The portal refused, or did not answer. `status` is the HTTP status; None without an answer."""

    def __init__(self, problem: str, fix: str = "", status: int | None = None) -> None:
        super().__init__(problem, fix)
        self.status = status


class Portal:
    """The API under `url`, with the bearer token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token

    @classmethod
    def of(cls, found: record.Record, state: Path) -> "Portal":
        """The portal of a running stack, with the stack's own token."""
        try:
            token = (state / "token").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise StackError(
                f"{state / 'token'} cannot be read: {error.strerror}", "./wslab down && ./wslab up"
            ) from None
        url = found.urls["portal"]
        assert url is not None
        return cls(url, token)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(  # noqa: S310  (http, our own address)
            f"{self.url}/api/v1{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with _no_proxy.open(request, timeout=_TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise PortalError(_refusal(error.code, error.read()), status=error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise PortalError(f"the portal at {self.url} does not answer: {reason}", "./wslab status") from None

    def queue(
        self,
        scenario: str | dict[str, Any],
        changes: dict[str, Any],
        subject: dict[str, str] | None,
        accept_partial: bool,
        **more: Any,
    ) -> dict[str, Any]:
        """Queue a run of a known or a given scenario, with some of its fields changed; `more` as the API has it.

        Raises:
            PortalError: refused, with each field, value and allowed range.
        """
        return self.queue_one(
            {"scenario": scenario, "set": changes, "subject": subject, "accept_partial": accept_partial, **more}
        )

    def queue_one(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Queue a run, as the API takes it.

        Raises:
            PortalError: refused, with each field, value and allowed range.
        """
        answer: dict[str, Any] = self._call("POST", "/runs", wanted)
        return answer

    def queue_series(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Queue `times` runs as a group, or with `alternate` two groups; the first one."""
        answer: dict[str, Any] = self._call("POST", "/groups", wanted)
        return answer

    def plan(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """What would come of a run or of groups; nothing is queued."""
        answer: dict[str, Any] = self._call("POST", "/plan", wanted)
        return answer

    def group(self, group_id: str) -> dict[str, Any]:
        """A group with its runs."""
        answer: dict[str, Any] = self._call("GET", f"/groups/{urllib.parse.quote(group_id)}")
        return answer

    def cancel_group(self, group_id: str) -> None:
        """Ask for the end of all runs of a group, and of its partner. Without effect where all are over."""
        self._ask(f"/groups/{urllib.parse.quote(group_id)}/cancel")

    def run(self, run_id: str) -> dict[str, Any]:
        """{run_id, state, state_reason, progress (the latest live line), url, result, …}."""
        answer: dict[str, Any] = self._call("GET", f"/runs/{urllib.parse.quote(run_id)}")
        return answer

    def result(self, run_id: str) -> dict[str, Any]:
        """The machine-readable result."""
        answer: dict[str, Any] = self._call("GET", f"/runs/{urllib.parse.quote(run_id)}/result")
        return answer

    def compare(self, base: str, contenders: list[str]) -> dict[str, Any]:
        """Runs or groups against a base."""
        query = urllib.parse.urlencode([("base", base), *(("contender", one) for one in contenders)])
        answer: dict[str, Any] = self._call("GET", f"/compare?{query}")
        return answer

    def cancel(self, run_id: str) -> None:
        """Ask for a cancel; the run's state tells when it has come about. A run that is over stays as it is."""
        self._ask(f"/runs/{urllib.parse.quote(run_id)}/cancel")

    def _ask(self, path: str) -> None:
        try:
            self._call("POST", path)
        except PortalError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise

    def runs(self, limit: int = 50, state: str | None = None) -> list[dict[str, Any]]:
        """The newest runs, newest first."""
        query = {"limit": str(limit)} | ({"state": state} if state else {})
        rows: list[dict[str, Any]] = self._call("GET", f"/runs?{urllib.parse.urlencode(query)}")
        return rows

    def active_run(self) -> dict[str, Any] | None:
        """The run that is being carried out now, if any."""
        return next((row for row in self.runs() if row["state"] not in (*ENDED, "queued")), None)


def _refusal(status: int, body: bytes) -> str:
    """The portal's own words, `{"detail": [lines]}`: one line, or one under the other."""
    text = body.decode(errors="replace").strip()
    try:
        lines = json.loads(text)["detail"]
    except (ValueError, KeyError, TypeError):
        return f"the portal answers {status}: {text.splitlines()[0][:200] if text else 'nothing'}"
    if not isinstance(lines, list):
        lines = [lines]
    return str(lines[0]) if len(lines) == 1 else "refused:" + "".join(f"\n  {line}" for line in lines)

"""`/api/v1/`: runs for machines, with a Bearer token. Errors are `{"detail": [lines]}`, whatever their status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.cache import cache
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern, URLResolver
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django.views.defaults import page_not_found
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.responses import Status
from ninja.security import HttpBearer, SessionAuth
from ninja.throttling import BaseThrottle
from pydantic import Field

from portal.accounts import roles
from portal.accounts.audit import record
from portal.accounts.models import ApiToken, User
from portal.accounts.roles import operator, viewer
from portal.runs.create import create_run, find_declared
from portal.runs.draft import GivenSubject, Refused, shortened
from portal.runs.models import DeclaredSubject, NamedScenario, Run
from portal.runs.purpose import USUAL
from portal.runs.states import State
from wsnode.core.result import Result
from wsnode.core.scenario import Scenario

log = logging.getLogger("portal.api")

PER_MINUTE = 600
"""Requests of one token in a minute of the clock, per web process."""
MOST_RUNS = 500


class Bearer(HttpBearer):
    """`Authorization: Bearer wslab_…`; the request's user is then the token's."""

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        found = ApiToken.objects.authenticate(token)
        if found is not None:
            found.user.came_with = found
            request.user = found.user
            _permit(request, found.user)
        return found


class Session(SessionAuth):
    """Whoever is signed in in the browser."""

    def authenticate(self, request: HttpRequest, key: str | None) -> User | None:
        user: User | None = super().authenticate(request, key)
        if user is not None:
            _permit(request, user)
        return user


def _permit(request: HttpRequest, user: User) -> None:
    """Hold whoever was let in against the operation's rule, which `_spoken` put on the request."""
    rule: roles.Rule | None = request.rule  # type: ignore[attr-defined]
    if reason := roles.refusal(rule, request.method, user.standing):
        if rule is not None and user.came_with is not None:
            reason += f" (the token's scope is {user.came_with.scope}, the role of {user.username} is {user.role})"
        raise HttpError(403, reason)


class PerToken(BaseThrottle):
    """So many requests per token and minute of the clock."""

    def allow_request(self, request: HttpRequest) -> bool:
        # Set by the authentication: a token, or the user of a session.
        who = request.auth  # type: ignore[attr-defined]
        key = f"api-{type(who).__name__}-{who.pk}-{int(time.time() // 60)}"
        cache.add(key, 0, timeout=120)
        return cache.incr(key) <= PER_MINUTE

    def wait(self) -> float:
        return 60 - time.time() % 60


api = NinjaAPI(
    title="wslab",
    version="1",
    description="Queue WebSocket load runs, watch them, read their results.",
    auth=Bearer(),
    throttle=PerToken(),
    docs_url=None,
    openapi_url=None,
    urls_namespace="api",
)


class SubjectIn(Schema):
    """What is measured; left out, our own server with its version."""

    name: str
    version: str


class RunIn(Schema):
    """A run to queue."""

    scenario: str | dict[str, Any] = Field(description="A scenario's name, or its fields.")
    set: dict[str, Any] = Field({}, description="Fields to set differently.")
    subject: SubjectIn | None = None
    subject_declared: str = Field("", description="A declared subject instead, whose version is read at the begin.")
    reason: str = Field("", description="Why it is made, in a line.")
    tags: list[str] = Field([], description="Words that it is found by.")
    baseline: str | None = Field(
        None, description="The run that it is held against; `none`: none. Left out: the scenario's own."
    )
    target: str = Field(
        "", description="One of the lab's targets, `NAME` or `NAME:PORT`. Left out: the lab's own server."
    )
    accept_partial: bool = Field(False, description="Also without a measured window; there is no verdict then.")

    model_config = {"extra": "forbid"}

    @property
    def measured(self) -> GivenSubject | DeclaredSubject | None:
        """The subject.

        Raises:
            Refused: two are named, or one that is not declared.
        """
        if self.subject_declared:
            if self.subject is not None:
                raise Refused(["subject: wanted either subject or subject_declared"])
            return find_declared(self.subject_declared)
        return GivenSubject(self.subject.name, self.subject.version) if self.subject else None

    @property
    def wanted(self) -> dict[str, Any]:
        """All but scenario and its changes, as `create_run` takes it."""
        return {
            "accept_partial": self.accept_partial,
            "subject": self.measured,
            "reason": self.reason,
            "tags": self.tags,
            "baseline": USUAL if self.baseline is None else self.baseline,
            "target": self.target,
        }


class RunOut(Schema):
    """A run as it stands."""

    run_id: str
    state: str
    state_reason: str | None
    verdict: str | None
    validity: str | None
    scenario: str
    scenario_version: int | None = Field(description="The version that it is; null: fields were set differently.")
    subject: dict[str, str]
    reason: str
    tags: list[str]
    baseline: str | None
    group: str | None
    group_place: int | None
    origin: str
    target: str = Field(description="Empty: the lab's own server.")
    created_at: str
    created_by: str
    cancel_requested: bool
    start_at_ns: int | None
    progress: dict[str, Any] | None = Field(description="The latest live line, while the run is active.")
    url: str


class RunWithResult(RunOut):
    """A run, and its result once it is over."""

    result: Result | None


class Refusal(Schema):
    """Why not, a line each."""

    detail: list[str]


REFUSALS: dict[Any, Any] = {401: Refusal, 403: Refusal, 404: Refusal, 409: Refusal, 422: Refusal, 429: Refusal}


def facts_of(run: Run) -> dict[str, Any]:
    """A run as `RunOut` has it."""
    return {
        "run_id": run.pk,
        "state": run.state,
        "state_reason": run.state_reason or None,
        "verdict": run.verdict,
        "validity": run.validity,
        "scenario": run.scenario_name,
        "scenario_version": run.scenario_version.number if run.scenario_version else None,
        "reason": run.reason,
        "tags": [tag.name for tag in run.tags.all()],
        "baseline": run.baseline_id,
        "group": run.group_id,
        "group_place": run.group_place,
        "origin": run.origin,
        "target": run.target,
        "subject": {"name": run.subject_name, "version": run.subject_version, "source": run.subject_source},
        "created_at": run.created_at.isoformat(),
        "created_by": run.created_by.username,
        "cancel_requested": run.cancel_requested_at is not None,
        "start_at_ns": run.start_at_ns,
        "progress": run.live,
        "url": run.url,
    }


def user_of(request: HttpRequest) -> User:
    """Who asks."""
    assert isinstance(request.user, User)
    return request.user


def _run(run_id: str) -> Run:
    run = None
    if run_id.isprintable():
        run = Run.objects.select_related("created_by", "summary", "scenario_version").filter(pk=run_id).first()
    if run is None:
        raise HttpError(404, f"no run {shortened(run_id)}")
    return run


def _json(content: str) -> HttpResponse:
    """A result as pydantic writes it: the same text as in files and archives."""
    return HttpResponse(content, "application/json")


@api.post("/runs", response={201: RunOut, **REFUSALS}, summary="Queue a run")
@operator
def post_run(request: HttpRequest, body: RunIn) -> Status[dict[str, Any]]:
    """Queue a run. Refused with every line that is wrong."""
    run = create_run(user_of(request), body.scenario, body.set, origin="api", **body.wanted)
    return Status(201, facts_of(run))


@api.get("/runs", response={200: list[RunOut], **REFUSALS}, summary="Runs, newest first")
@viewer
def list_runs(request: HttpRequest, limit: int = 50, state: str | None = None) -> list[dict[str, Any]]:
    """The newest runs, at most `limit`, of one state if given."""
    lines = []
    if not 1 <= limit <= MOST_RUNS:
        lines.append(f"limit: {limit} is refused (allowed: 1 to {MOST_RUNS})")
    if state is not None and state not in State.values:
        lines.append(f"state: {state!r} is refused: wanted one of {', '.join(State.values)}")
    if lines:
        raise Refused(lines)
    runs = Run.objects.select_related("created_by", "scenario_version").prefetch_related("tags")
    if state is not None:
        runs = runs.filter(state=state)
    return [facts_of(run) for run in runs[:limit]]


@api.get("/runs/{run_id}", response={200: RunWithResult, **REFUSALS}, summary="A run, with its result once it is over")
@viewer
def get_run(request: HttpRequest, run_id: str) -> HttpResponse:
    """How a run stands."""
    run = _run(run_id)
    result = run.summary.content if hasattr(run, "summary") else None
    return _json(RunWithResult(**facts_of(run), result=result).model_dump_json())


@api.post("/runs/{run_id}/cancel", response={202: RunOut, **REFUSALS}, summary="Ask for a run's end")
@operator
def cancel_run(request: HttpRequest, run_id: str) -> Status[dict[str, Any]]:
    """A queued run is cancelled at once; an active one when every host has said so."""
    run = _run(run_id)
    if not run.request_cancel(user_of(request)):
        raise HttpError(409, f"run {run.pk} is over: it is {run.state}")
    record(user_of(request), "cancelled", run)
    return Status(202, facts_of(run))


@api.get("/runs/{run_id}/result", response={200: Result, **REFUSALS}, summary="The machine-readable result")
@viewer
def get_result(request: HttpRequest, run_id: str) -> HttpResponse:
    """The result of a run that is over."""
    run = _run(run_id)
    if hasattr(run, "summary"):
        return _json(run.summary.content.model_dump_json())
    if run.is_over:
        raise HttpError(404, f"run {run.pk} has no result: it is {run.state}: {run.state_reason}")
    raise HttpError(409, f"run {run.pk} has no result yet: it is {run.state}")


@api.get("/scenarios", response={200: list[Scenario], **REFUSALS}, summary="Scenarios that can be called by name")
@viewer
def list_scenarios(request: HttpRequest) -> list[Scenario]:
    """All of them, by name."""
    return [row.scenario_model for row in NamedScenario.objects.offered()]


@api.get("/openapi.json", auth=[Bearer(), Session(csrf=False)], include_in_schema=False)
@viewer
def openapi(request: HttpRequest) -> HttpResponse:
    """This API's description."""
    return api.create_response(request, api.get_openapi_schema(), status=200)


def _say(request: HttpRequest, lines: list[str], status: int) -> HttpResponse:
    return api.create_response(request, {"detail": lines}, status=status)


@api.exception_handler(Refused)
def _refused(request: HttpRequest, error: Refused) -> HttpResponse:
    return _say(request, error.lines, 422)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    # The first two parts of a place are ninja's: `body`, and the name of the parameter.
    lines = [f"{'.'.join(map(str, item['loc'][2:] or item['loc'][1:]))}: {item['msg']}" for item in error.errors]
    return _say(request, lines, 422)


@api.exception_handler(AuthenticationError)
def _unknown(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    line = "no valid token: send `Authorization: Bearer TOKEN`; `manage issue_token` makes one"
    response = _say(request, [line], 401)
    response["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(HttpError)
def _said(request: HttpRequest, error: HttpError) -> HttpResponse:
    return _say(request, [error.message], error.status_code)


@api.exception_handler(Http404)
def _absent(request: HttpRequest, error: Http404) -> HttpResponse:
    return _say(request, ["there is no such thing"], 404)


@api.exception_handler(RequestDataTooBig)
def _too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    return _say(request, [f"the request is refused: more than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE:,} bytes"], 413)


@api.exception_handler(Exception)
def _broken(request: HttpRequest, error: Exception) -> HttpResponse:
    log.error("%s %s broke down", request.method, request.path, exc_info=error)
    return _say(request, ["the portal broke down over this; its log says where"], 500)


def absent(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What is said of an address that there is not: of the API's in its own form, of others by the page."""
    if request.path.startswith("/api/"):
        return _say(request, [f"there is nothing at {shortened(request.path)}: see /api/v1/openapi.json"], 404)
    return page_not_found(request, exception)


def _spoken(view: Callable[..., HttpResponse], rules: dict[str, roles.Rule | None]) -> Callable[..., HttpResponse]:
    """A view that knows the rule of each of its methods, and whose refusal of a method has the form of all others."""

    @login_not_required
    @csrf_exempt
    def spoken(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        request.rule = rules.get(request.method or "")  # type: ignore[attr-defined]
        response = view(request, *args, **kwargs)
        if not isinstance(response, HttpResponseNotAllowed):
            return response
        said = _say(request, [f"{request.method} is not for this address: only {response['Allow']}"], 405)
        said["Allow"] = response["Allow"]
        return said

    spoken.rules = rules  # type: ignore[attr-defined]
    return spoken


def api_urls() -> tuple[list[URLPattern | URLResolver], str, str]:
    """The API for the URLconf. Its own token check stands in for the session's login, and for its CSRF token."""
    from portal.runs.api_compare import router as comparisons
    from portal.runs.api_plans import router as plans
    from portal.schedules.api import router as schedules

    api.add_router("", plans)
    api.add_router("", comparisons)
    api.add_router("/schedules", schedules)
    patterns, app_name, namespace = api.urls
    # One pattern per operation, each with the view of all operations of its path.
    views = [view for router in api._get_bound_routers() for view in router.path_operations.values()]
    paths = [view for view in views for _ in view.operations]
    operations = [pattern for pattern in patterns if isinstance(pattern, URLPattern) and pattern.name != "api-root"]
    for pattern, view in zip(operations, paths, strict=True):
        rules = {method: getattr(one.view_func, "rule", None) for one in view.operations for method in one.methods}
        pattern.callback = _spoken(pattern.callback, rules)
    for root in patterns:
        if isinstance(root, URLPattern) and root not in operations:
            root.callback = viewer(require_safe(root.callback))
    return patterns, app_name, namespace

"""A run and the lab as the conductor's `Job`, and as Prometheus' targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import SecretStr, ValidationError

from portal.conductor.job import Job, JobHost, SshLogin
from portal.labs.aim import Aim, AimError, choose, own_server
from portal.labs.lab import Lab, LabHost
from portal.monitoring.evidence import Target
from portal.runs.models import Run
from portal.runs.secret import MissingSecret, secrets
from portal.runs.states import State
from wsnode.core.protocol import RESTART_SERVER
from wsnode.core.scenario import Plan, Scenario, error_lines


class NoJob(ValueError):
    """A run that this lab cannot carry out, or not go on with. The message says why."""


SSH_PORT = 22
_STAGES: dict[str, Literal["preflight", "preparing", "running", "collecting"]] = {
    State.PREFLIGHT: "preflight",
    State.PREPARING: "preparing",
    State.RUNNING: "running",
    State.COLLECTING: "collecting",
    # The hosts keep their results until they are told that all is stored: collect them again.
    State.JUDGING: "collecting",
}


def job_of(run: Run, lab: Lab) -> Job:
    """What the conductor is to do, from where the run stands. Its generators and weights say who has which clients.

    Raises:
        NoJob: a load generator of the run is no longer in the lab, or its scenario is one of another version's.
    """
    by_name = {host.name: host for host in lab.load_generators}
    gone = [name for name in run.generators if name not in by_name]
    if gone:
        raise NoJob(f"the lab no longer has the load generators {', '.join(gone)} that this run began with")
    try:
        scenario = run.scenario_model
    except ValidationError as error:
        raise NoJob(f"this version cannot carry out its scenario: {'; '.join(error_lines(error))}") from error
    aim = aim_of(run, lab)
    plans = [
        plan.model_copy(update={"address": aim.address, "consent": aim.consent})
        for plan in Plan.divide(scenario, aim.url, run.weights or len(run.generators))
    ]
    # Of a target's host only this lab's own connections to it are counted: others may well have theirs.
    hosts = [_host(lab, lab.server, None, aim.port if aim.own else None)] if aim.watched else []
    hosts += [_host(lab, by_name[name], plan, aim.port) for name, plan in zip(run.generators, plans, strict=True)]
    return Job(
        run_id=run.pk,
        epoch=run.epoch,
        scenario=scenario,
        hosts=tuple(hosts),
        stage=_STAGES[run.state],
        start_at_ns=run.start_at_ns,
        from_second=run.last_second + 1,
        hook=_hook(run, lab, scenario),
        secrets=_secrets(run, scenario),
        notes=tuple(_notes(run, aim)),
    )


def aim_of(run: Run, lab: Lab) -> Aim:
    """Where a run goes: as it was when it was first claimed, or, of one that has no target, the lab's own server."""
    if run.aim is not None:
        return Aim.model_validate(run.aim)
    return own_server(lab, run.scenario_model.behaviour)


def why_not_before(lab: Lab, before: str, target: str) -> str | None:
    """Why a lab cannot do what a run wants before it; None: it can. `target`: at which the run aims, '' for none."""
    hook = hook_of(before)
    if hook is None:
        return None
    offered = ", ".join(f"{'' if name == RESTART_SERVER else 'hook:'}{name}" for name in lab.server.hooks) or "none"
    if target:
        if hook == RESTART_SERVER:
            return f"before: {before} would restart the lab's own server, and the run aims at {target}: choose another"
        if not choose(lab, target).target.runs_on:
            return f"before: {before} is refused: {target} does not run on this lab's server host (runs_on)"
    if hook not in lab.server.hooks:
        return f"before: {before} is refused: {lab.server.name} does not offer it; it offers: {offered}"
    return None


def hook_of(before: str) -> str | None:
    """The hook of a scenario's `before`."""
    return None if before == "none" else before.removeprefix("hook:")


def _hook(run: Run, lab: Lab, scenario: Scenario) -> str | None:
    try:
        if run.state == State.PREFLIGHT and (why := why_not_before(lab, scenario.before, run.target)):
            raise NoJob(why)
    except AimError as error:
        raise NoJob(str(error)) from error
    return hook_of(scenario.before)


def _secrets(run: Run, scenario: Scenario) -> dict[str, SecretStr]:
    if run.state not in (State.PREFLIGHT, State.PREPARING):
        return {}  # its hosts have them already
    try:
        return secrets(scenario.secrets)
    except MissingSecret as error:
        raise NoJob(str(error)) from error


def _notes(run: Run, aim: Aim) -> Iterator[str]:
    if aim.own:
        return
    yield f"the run aimed at {run.target}: {aim.url}, at {aim.address}{', with its consent' if aim.consent else ''}"
    if not aim.watched:
        yield f"{run.target} is not of this lab: nothing is known of its host"


def _host(lab: Lab, host: LabHost, plan: Plan | None, port: int | None) -> JobHost:
    return JobHost(host.name, host.role, host.transport, host.socket, plan, _login(lab, host), port)


def _login(lab: Lab, host: LabHost) -> SshLogin | None:
    if host.transport != "ssh":
        return None
    assert host.user is not None
    jump = None
    if host.proxy_jump is not None:
        over = lab.jump_host(host.proxy_jump)
        jump = SshLogin(over.address, over.user, over.port, over.host_keys)
    return SshLogin(host.address, host.user, host.port or SSH_PORT, host.host_keys, jump)


def targets_of(run: Run, lab: Lab) -> list[Target]:
    """What Prometheus scrapes of the run's hosts."""
    aim = aim_of(run, lab)
    hosts = [host for host in lab.hosts if (host.role == "server" and aim.watched) or host.name in run.generators]
    return [
        Target(job, host.name, host.role)
        for host in hosts
        for job in host.metrics_ports
        # wsnode's own server may run beside a target, and is not what is measured.
        if aim.own or job != "wsnode-server"
    ]

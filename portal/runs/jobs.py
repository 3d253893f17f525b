"""A run and the lab as the conductor's `Job`, and as Prometheus' targets."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError

from portal.conductor.job import Job, JobHost, SshLogin
from portal.labs.lab import Lab, LabHost
from portal.monitoring.evidence import Target
from portal.runs.models import Run
from portal.runs.states import State
from wsnode.core.scenario import Plan, error_lines


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
    plans = Plan.divide(scenario, lab.run_url(scenario.behaviour), run.weights or len(run.generators))
    hosts = [_host(lab, lab.server, None)]
    hosts += [_host(lab, by_name[name], plan) for name, plan in zip(run.generators, plans, strict=True)]
    return Job(
        run_id=run.pk,
        epoch=run.epoch,
        scenario=scenario,
        hosts=tuple(hosts),
        stage=_STAGES[run.state],
        start_at_ns=run.start_at_ns,
        from_second=run.last_second + 1,
    )


def _host(lab: Lab, host: LabHost, plan: Plan | None) -> JobHost:
    return JobHost(host.name, host.role, host.transport, host.socket, plan, _login(lab, host))


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
    hosts = [host for host in lab.hosts if host.role == "server" or host.name in run.generators]
    return [Target(job, host.name, host.role) for host in hosts for job in host.metrics_ports]

"""Which processes make the lab, what each waits for, and in which order they stop. Data; the supervisor acts on it."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stack import broker, probes
from stack.inventory import Host, Inventory
from stack.paths import ROOT
from stack.ports import HOST

# node_exporter's collectors: the list of the role `node_exporter`
COLLECTORS = (
    *("cpu", "meminfo", "sockstat", "netstat", "netdev", "filefd", "loadavg", "conntrack", "softnet"),
    *("pressure", "timex", "filesystem", "stat", "vmstat", "uname"),
)


@dataclass
class Lab:
    """The facts that the command lines are made of; `programs` is filled while starting."""

    state: Path
    sockets: Path
    inventory: Inventory
    ports: dict[str, int]
    programs: dict[str, Path | None] = field(default_factory=dict)
    grafana: Path | None = None

    def url(self, name: str) -> str:
        """http://127.0.0.1:PORT of a process."""
        return f"http://{HOST}:{self.ports[name]}"

    @property
    def server_url(self) -> str:
        """Where the load goes; a behaviour's path is appended."""
        return f"ws://{HOST}:{self.ports['server']}"

    @property
    def broker_socket(self) -> Path:
        return self.sockets / "broker.sock"

    def agent_socket(self, host: str) -> Path:
        return self.sockets / f"agent-{host}.sock"

    @property
    def hooks(self) -> Path:
        """Folder of the sockets of what can be done before a run (`stack.hooks`)."""
        return self.sockets / "hooks"

    def log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"


HOUSEKEEPING = 10
"""Niceness of portal, queue and monitoring: what serves and generates the load goes first."""

SECRETS = ("WSLAB_SECRET_KEY", "DATABASE_URL")
"""Variables that only the portal's processes are given."""


@dataclass(frozen=True)
class Service:
    """One process that is kept running.

    Attributes:
        argv: made when it starts; None: what it needs is not here (only for an optional one).
        probe: made at each start from the lab and the log's size then.
        after: names of services or steps that must be ready before.
        stage: lower ones stop first, those of one stage together.
        stop_s: seconds from SIGTERM to SIGKILL.
        optional: the lab is whole without it.
        hook: name under which the server's agent may ask for its restart before a run.
        secrets: it is a part of the portal, which needs `SECRETS`.
        niceness: above 0 for what must not take the CPU from server and load generators, which share this machine.
    """

    name: str
    argv: Callable[[Lab], list[str] | None]
    probe: Callable[[Lab, int], probes.Probe]
    stage: int
    after: tuple[str, ...] = ()
    stop_s: float = 5.0
    optional: bool = False
    port: str | None = None
    niceness: int = 0
    hook: str | None = None
    environment: Callable[[Lab], dict[str, str]] = lambda _: {}
    secrets: bool = False

    def surroundings(self, lab: Lab, common: Mapping[str, str]) -> dict[str, str]:
        """Its environment, made from what all have."""
        kept = {name: value for name, value in common.items() if self.secrets or name not in SECRETS}
        return {**kept, **self.environment(lab)}


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _worker(name: str, *options: str) -> list[str]:
    """A queue's worker. Django's checks would load every page and form, a third of its start; the tests run them."""
    return _python(
        "celery", "-A", "portal.config", "--skip-checks", "worker", "-Q", name, "-n", f"{name}@%h",
        "--loglevel", "INFO", "--without-mingle", "--without-gossip", *options,
    )  # fmt: skip


def _prometheus(lab: Lab) -> list[str] | None:
    program = lab.programs.get("prometheus")
    folder = lab.state / "prometheus"
    if program is None:
        return None
    return [
        str(program),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=15d",
        f"--web.listen-address={HOST}:{lab.ports['prometheus']}",
        "--log.level=warn",
    ]


def _node_exporter(lab: Lab) -> list[str] | None:
    program = lab.programs.get("node_exporter")
    if program is None:
        return None
    return [
        str(program),
        f"--web.listen-address={HOST}:{lab.ports['node-exporter']}",
        "--web.disable-exporter-metrics",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in COLLECTORS),
        "--log.level=warn",
    ]


def _grafana_home(program: Path) -> Path | None:
    beside = program.resolve().parent.parent
    homes = (beside, beside / "share" / "grafana", Path("/usr/share/grafana"))
    return next((home for home in homes if (home / "conf" / "defaults.ini").exists()), None)


def _grafana(lab: Lab) -> list[str] | None:
    home = lab.grafana and _grafana_home(lab.grafana)
    return [str(lab.grafana), "--homepath", str(home)] if home else None


def _grafana_environment(lab: Lab) -> dict[str, str]:
    folder = lab.state / "grafana"
    settings = {
        "SERVER_HTTP_ADDR": HOST,
        "SERVER_HTTP_PORT": str(lab.ports["grafana"]),
        "PATHS_DATA": str(folder / "data"),
        "PATHS_LOGS": str(folder / "logs"),
        "PATHS_PLUGINS": str(folder / "plugins"),
        "AUTH_ANONYMOUS_ENABLED": "true",
        "AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "AUTH_DISABLE_LOGIN_FORM": "true",
        "AUTH_BASIC_ENABLED": "false",  # the other users of this machine know admin's first password, too
        "ANALYTICS_REPORTING_ENABLED": "false",
        "ANALYTICS_CHECK_FOR_UPDATES": "false",
    }
    if (ROOT / "grafana" / "provisioning").is_dir():
        settings["PATHS_PROVISIONING"] = str(ROOT / "grafana" / "provisioning")
    return {f"GF_{name}": value for name, value in settings.items()} | {
        "PROMETHEUS_URL": lab.url("prometheus"),
        "DASHBOARDS": str(ROOT / "grafana" / "dashboards"),
    }


def _agent(host: Host) -> Service:
    name = f"agent-{host.name}"
    return Service(
        name,
        lambda lab: _python(
            "wsnode", "agent", "service",
            "--socket", str(lab.agent_socket(host.name)),
            "--data", str(lab.state / "agents" / host.name),
            "--name", host.name,
            "--role", host.role,
            "--metrics-host", HOST,
            "--metrics-port", str(lab.ports[name]),
            "--cores", "1",  # the server and the other agents are on this machine, too
            *(
                ("--hooks", str(lab.hooks), "--health", f"{lab.url('server')}/healthz")
                if host.role == "server"
                else ("--hooks", str(lab.sockets / "no-hooks"))
            ),
        ),
        lambda lab, _: probes.agent_hello(lab.agent_socket(host.name)),
        stage=2,
        port=name,
    )  # fmt: skip


def services(inventory: Inventory) -> list[Service]:
    """All of them, in the order in which `status` shows them.

    Steps that are no processes, named in `after`: `packages` (what can be had is here, lab.json and Prometheus' files
    say so), `bootstrap` (database, scenarios, admin, token).
    """
    return [
        Service(
            "portal",
            lambda lab: _python(
                "gunicorn", "portal.config.wsgi:application", "-b", f"{HOST}:{lab.ports['portal']}",
                "--workers", "1", "--threads", "8", "--graceful-timeout", "5", "--no-control-socket",
            ),
            lambda lab, _: probes.http_ok(lab.ports["portal"], "/healthz"),
            stage=1,
            after=("bootstrap", "broker"),
            stop_s=8,
            port="portal",
            niceness=HOUSEKEEPING,
            secrets=True,
        ),
        Service(
            "worker-conduct",
            lambda _: _worker("conduct", "--concurrency", "2", "-P", "prefork"),
            lambda lab, offset: probes.log_says(lab.log("worker-conduct"), "ready.", offset),
            stage=1,
            after=("bootstrap", "broker"),
            stop_s=10,
            niceness=HOUSEKEEPING,
            secrets=True,
        ),
        Service(
            "worker-tick",
            lambda lab: _worker("tick", "--concurrency", "1", "-B", "-s", str(lab.state / "celerybeat-schedule")),
            lambda lab, offset: probes.log_says(lab.log("worker-tick"), "ready.", offset),
            stage=1,
            after=("bootstrap", "broker"),
            stop_s=10,
            niceness=HOUSEKEEPING,
            secrets=True,
        ),
        Service(
            "broker",
            lambda lab: broker.argv(lab.broker_socket, lab.state / "broker"),
            lambda lab, _: probes.broker_pong(lab.broker_socket),
            stage=3,
            niceness=HOUSEKEEPING,
        ),
        Service(
            "wsnode-server",
            lambda lab: _python(
                "wsnode", "serve", "--host", HOST, "--port", str(lab.ports["server"]),
                "--metrics-port", str(lab.ports["server-metrics"]), "--workers", "1",
                "--drain-timeout", "3",
            ),
            lambda lab, _: probes.http_ok(lab.ports["server"], "/healthz"),
            stage=2,
            port="server",
            hook="restart_server",
        ),
        *(_agent(host) for host in inventory.hosts),
        Service(
            "prometheus",
            _prometheus,
            lambda lab, _: probes.http_ok(lab.ports["prometheus"], "/-/ready"),
            stage=2,
            after=("packages",),
            optional=True,
            port="prometheus",
            niceness=HOUSEKEEPING,
        ),
        Service(
            "node-exporter",
            _node_exporter,
            lambda lab, _: probes.http_ok(lab.ports["node-exporter"], "/metrics"),
            stage=2,
            after=("packages",),
            optional=True,
            port="node-exporter",
            niceness=HOUSEKEEPING,
        ),
        Service(
            "grafana",
            _grafana,
            lambda lab, _: probes.http_ok(lab.ports["grafana"], "/api/health"),
            stage=2,
            after=("packages",),
            optional=True,
            port="grafana",
            environment=_grafana_environment,
            niceness=HOUSEKEEPING,
        ),
    ]  # fmt: skip


def environment(lab: Lab) -> dict[str, str]:
    """What the portal, its workers and its management commands find the lab by."""
    return {
        **os.environ,
        "WSLAB_STATE": str(lab.state),
        "WSLAB_BROKER_URL": broker.url(lab.broker_socket),
        "WSLAB_LAB": str(lab.state / "lab.json"),
        "WSLAB_PORTAL_URL": lab.url("portal"),
        "DJANGO_SETTINGS_MODULE": "portal.config.settings",  # whatever the caller's shell is set up for
        "PYTHONUNBUFFERED": "1",
    }

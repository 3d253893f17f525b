"""What is declared about the processes: addresses, order, what a missing program means."""

import sys
from pathlib import Path

import pytest

from stack import inventory
from stack.services import Lab, environment, services


@pytest.fixture
def lab(tmp_path: Path, state: Path, own_ports: Path) -> Lab:
    known = inventory.read()
    programs = {name: Path("/usr/bin") / name for name in ("prometheus", "node_exporter")}
    return Lab(state, tmp_path / "sockets", known, known.ports, dict(programs))


def commands(lab: Lab) -> dict[str, list[str] | None]:
    return {service.name: service.argv(lab) for service in services(lab.inventory)}


def test_every_listening_process_listens_on_127_0_0_1_at_its_own_port(lab: Lab) -> None:
    for service in services(lab.inventory):
        argv = service.argv(lab)
        if service.port is None or argv is None:
            continue
        text = " ".join(argv)
        assert str(lab.ports[service.port]) in text, service.name
        assert "127.0.0.1" in text, service.name
        assert "0.0.0.0" not in text, service.name


def test_the_broker_has_no_port_at_all(lab: Lab) -> None:
    argv = commands(lab)["broker"]
    assert argv is not None
    assert argv[argv.index("--port") + 1] == "0"
    assert argv[argv.index("--unixsocket") + 1] == str(lab.broker_socket)


def test_our_own_programs_are_modules_and_never_scripts_whose_first_line_may_be_too_long(lab: Lab) -> None:
    for name in ("portal", "worker-conduct", "worker-tick", "wsnode-server", "agent-server", "agent-load-1"):
        argv = commands(lab)[name]
        assert argv is not None
        assert argv[:2] == [sys.executable, "-m"], name


def test_whoever_takes_work_from_the_queue_stops_first_and_the_broker_last(lab: Lab) -> None:
    stage = {service.name: service.stage for service in services(lab.inventory)}
    assert max(stage["portal"], stage["worker-conduct"], stage["worker-tick"]) < stage["agent-load-1"]
    assert all(stage["broker"] > other for name, other in stage.items() if name != "broker")


def test_without_its_program_an_optional_service_has_no_command(lab: Lab) -> None:
    lab.programs.clear()
    absent = {name for name, argv in commands(lab).items() if argv is None}
    assert absent == {"prometheus", "node-exporter", "grafana"}
    assert absent == {service.name for service in services(lab.inventory) if service.optional}


def test_grafana_is_run_from_where_it_is_installed_with_this_labs_prometheus(lab: Lab, tmp_path: Path) -> None:
    home = tmp_path / "grafana"
    (home / "conf").mkdir(parents=True)
    (home / "conf" / "defaults.ini").touch()
    lab.grafana = home / "bin" / "grafana-server"
    assert commands(lab)["grafana"] == [str(lab.grafana), "--homepath", str(home)]
    grafana = next(service for service in services(lab.inventory) if service.name == "grafana")
    given = grafana.environment(lab)
    assert given["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert given["GF_SERVER_HTTP_PORT"] == str(lab.ports["grafana"])
    assert given["GF_PATHS_DATA"].startswith(str(lab.state))
    assert given["PROMETHEUS_URL"] == f"http://127.0.0.1:{lab.ports['prometheus']}"


def test_the_portal_is_told_where_this_lab_is(lab: Lab) -> None:
    given = environment(lab)
    assert given["WSLAB_STATE"] == str(lab.state)
    assert given["WSLAB_LAB"] == str(lab.state / "lab.json")
    assert given["WSLAB_BROKER_URL"] == f"redis+socket://{lab.broker_socket}"
    assert given["WSLAB_PORTAL_URL"] == f"http://127.0.0.1:{lab.ports['portal']}"


def test_only_the_portals_processes_are_given_its_secrets(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSLAB_SECRET_KEY", "k" * 50)
    monkeypatch.setenv("DATABASE_URL", "postgres://u:pw@db/x")
    common = environment(lab)
    trusted = {s.name for s in services(lab.inventory) if "WSLAB_SECRET_KEY" in s.surroundings(lab, common)}
    assert trusted == {"portal", "worker-conduct", "worker-tick"}
    assert trusted == {s.name for s in services(lab.inventory) if "DATABASE_URL" in s.surroundings(lab, common)}


def test_another_projects_django_settings_are_not_the_portals(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
    assert environment(lab)["DJANGO_SETTINGS_MODULE"] == "portal.config.settings"

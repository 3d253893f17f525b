"""The page of the lab: every host with what it is and whether it answers, and a way out where there is no lab."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from portal.monitoring.hosts import Machine, Scrape, Sight
from tests.portal.conftest import LAB
from tests.portal.factories import make_user
from tests.portal.pages import Element, Page, page

pytestmark = pytest.mark.django_db

FACTS: dict[str, Any] = {
    "distribution": "Debian 13.1",
    "kernel": "6.12.41+deb13-amd64",
    "architecture": "x86_64",
    "cpu_count": 16,
    "memory_bytes": 32 << 30,
    "python": "3.13.5",
    "virtualization": "kvm",
    "wsnode": "0.1.0",
    "open_files": 1_000_000,
    "tuning_profile": "tuned",
    "tuned": {"net.core.somaxconn": "65535", "net.ipv4.tcp_rmem": "4096 131072 6291456"},
    "provisioned_at": "2026-11-24T08:20:00Z",
}


def deployed() -> dict[str, Any]:
    """A lab over SSH: the server and the first load generator exported, the second not."""
    lab = copy.deepcopy(LAB)
    lab |= {"lab": "virtual", "prometheus_url": "http://127.0.0.1:9090", "grafana_url": "http://127.0.0.1:3001"}
    lab["targets"] = [{"name": "shop", "scheme": "wss", "host": "shop.example.org", "ports": "8443", "path": "/live"}]
    lab["consent_token"] = "wslab-0123456789abcdef"
    lab["hosts"][0] |= {"hooks": ["restart_server", "warm_cache"]}
    for n, host in enumerate(lab["hosts"]):
        host |= {"transport": "ssh", "address": f"198.18.0.{20 + n}", "port": 22, "user": "wslab"}
        host["metrics_ports"]["node"] = 9100
    lab["hosts"][0]["facts"] = FACTS
    lab["hosts"][1]["facts"] = FACTS | {"cpu_count": 1, "tuned": {"net.core.somaxconn": "4096"}}
    return lab


SIGHT = Sight(
    scrapes={
        ("server", "wsnode-server"): Scrape(True, 0.4),
        ("server", "wsnode-agent"): Scrape(True, 0.9),
        ("server", "node"): Scrape(True, 0.7),
        ("load-1", "wsnode-agent"): Scrape(False, 1.2),
        ("load-1", "node"): Scrape(True, 2.0),
    },
    machines={
        "server": Machine("6.12.43+deb13-amd64", "x86_64", 16, (32 << 30) - 4096),
        "load-2": Machine("6.8.0-45-generic", "aarch64", 4, 8 << 30),
    },
)


@pytest.fixture
def browser(client: Client) -> Client:
    client.force_login(make_user("ada"))
    return client


def shown(browser: Client, monkeypatch: pytest.MonkeyPatch, file: Path, lab: dict[str, Any], sight: Sight) -> Page:
    """The page of a lab that Prometheus sees so."""
    asked: list[str | None] = []

    def look(url: str | None) -> Sight:
        asked.append(url)
        return sight

    file.write_text(json.dumps(lab))
    monkeypatch.setattr("portal.labs.views.look", look)
    found = page(browser.get("/lab/"))
    assert asked == [lab["prometheus_url"]]
    return found


def texts(row: Element) -> list[str]:
    return [cell.text for cell in row.all("th, td")]


def facts(found: Page) -> dict[str, list[str]]:
    """{fact: text of each host}."""
    return {name: values for name, *values in (texts(row) for row in found.all("[aria-labelledby=facts-title] tr"))}


def test_each_host_says_where_it_is_and_whether_prometheus_reaches_it(
    browser: Client, monkeypatch: pytest.MonkeyPatch, lab_file: Path
) -> None:
    found = shown(browser, monkeypatch, lab_file, deployed(), SIGHT)
    assert texts(found.one("#host-server")) == [
        "server server",
        "reachable",
        "198.18.0.20 ssh as wslab, port 22",
        "server: up agent: up node_exporter: up",
        "0.4 s ago",
    ]
    assert texts(found.one("#host-load-1")) == [
        "load-1 load generator",
        "partly reachable",
        "198.18.0.21 ssh as wslab, port 22",
        "agent: down node_exporter: up",
        "1.2 s ago",
    ]
    assert texts(found.one("#host-load-2")) == [
        "load-2 load generator",
        "not scraped",
        "198.18.0.22 ssh as wslab, port 22",
        "agent: no data node_exporter: no data",
        "no data",
    ]


def test_a_host_none_of_whose_services_answer_is_unreachable(
    browser: Client, monkeypatch: pytest.MonkeyPatch, lab_file: Path
) -> None:
    gone = Sight(scrapes={("load-2", job): Scrape(False, 0.1) for job in ("wsnode-agent", "node")})
    found = shown(browser, monkeypatch, lab_file, deployed(), gone)
    assert found.one("#host-load-2 .badge").text == "unreachable"
    assert found.one("#host-load-2 .badge").classes == {"badge", "bad"}


def test_the_lab_says_its_name_its_machine_and_where_its_monitoring_is(
    browser: Client, monkeypatch: pytest.MonkeyPatch, lab_file: Path
) -> None:
    found = shown(browser, monkeypatch, lab_file, deployed(), SIGHT)
    assert found.one("h1").text == "Lab virtual"
    head = found.one(".page-head .meta").text
    assert "Machine this-machine: one run at a time" in head
    assert "3 hosts" in head
    assert str(lab_file) in head
    links = [link.attributes["href"] for link in found.all("[aria-labelledby=monitoring-title] a")]
    assert links == ["http://127.0.0.1:9090", "http://127.0.0.1:3001"]
    monitoring = found.one(".pairs").text
    assert "Target shop wss://shop.example.org:8443/live, with its consent" in monitoring
    assert "A target shows wslab-0123456789abcdef at /.well-known/wslab-consent where its owner" in monitoring
    assert "server offers restart_server, warm_cache." in monitoring
    assert [link.text for link in found.all("nav [aria-current=page]")] == ["Lab"]


def test_what_was_exported_of_each_host_is_there(
    browser: Client, monkeypatch: pytest.MonkeyPatch, lab_file: Path
) -> None:
    lab = deployed()
    lab["hosts"][2]["facts"] = FACTS | {"tuned": {}}
    found = shown(browser, monkeypatch, lab_file, lab, Sight())
    assert facts(found) == {
        "Fact": ["server", "load-1", "load-2"],
        "Distribution": ["Debian 13.1"] * 3,
        "Kernel": ["6.12.41+deb13-amd64"] * 3,
        "Architecture": ["x86_64"] * 3,
        "Cores": ["16", "1", "16"],
        "Memory": ["32 GiB"] * 3,
        "Virtualization": ["kvm"] * 3,
        "Python": ["3.13.5"] * 3,
        "wsnode": ["0.1.0"] * 3,
        "Open-file limit": ["1,000,000"] * 3,
        "Tuning profile": ["tuned"] * 3,
        "Provisioned (UTC)": ["24 Nov 2026 08:20"] * 3,
        # and within the fold
        "Setting": ["server", "load-1", "load-2"],
        "net.core.somaxconn": ["65535", "4096", "–"],
        "net.ipv4.tcp_rmem": ["4096 131072 6291456", "–", "–"],
    }
    assert found.one("details summary").text == "Kernel settings in force, 2"
    assert not found.all("#unknown")


def test_what_was_not_exported_is_read_from_prometheus_or_said_to_be_missing(
    browser: Client, monkeypatch: pytest.MonkeyPatch, lab_file: Path
) -> None:
    found = facts(shown(browser, monkeypatch, lab_file, deployed(), SIGHT))
    third = {name: values[2] for name, values in found.items() if len(values) == 3}
    assert third["Kernel"] == "6.8.0-45-generic by Prometheus"
    assert third["Architecture"] == "aarch64 by Prometheus"
    assert third["Cores"] == "4 by Prometheus"
    assert third["Memory"] == "8 GiB by Prometheus"
    for name in ("Distribution", "Virtualization", "Python", "wsnode", "Tuning profile", "Provisioned (UTC)"):
        assert third[name] == "not exported"


def test_a_kernel_that_is_another_one_by_now_is_named(
    browser: Client, monkeypatch: pytest.MonkeyPatch, lab_file: Path
) -> None:
    found = facts(shown(browser, monkeypatch, lab_file, deployed(), SIGHT))
    assert found["Kernel"][0] == "6.12.41+deb13-amd64 now 6.12.43+deb13-amd64"
    assert (found["Cores"][0], found["Memory"][0]) == ("16", "32 GiB")


def test_the_embedded_labs_hosts_are_what_its_one_node_exporter_sees(
    browser: Client, monkeypatch: pytest.MonkeyPatch, lab_file: Path
) -> None:
    seen = Sight(machines={"server": Machine("6.8.0-45", "x86_64", 2, 4 << 30)})
    found = shown(browser, monkeypatch, lab_file, LAB, seen)
    assert facts(found)["Cores"] == ["2 by Prometheus"] * 3
    assert texts(found.one("#host-load-1"))[2] == "127.0.0.1 local, on the portal's machine"
    assert list(facts(found)) == ["Fact", "Kernel", "Architecture", "Cores", "Memory"]
    assert found.one("#unknown").text == (
        "Not exported of any host: Distribution, Virtualization, Python, wsnode, Open-file limit, Tuning profile, "
        "Provisioned (UTC), Kernel settings."
    )


def test_without_prometheus_and_grafana_the_page_says_so(browser: Client) -> None:
    found = page(browser.get("/lab/"))
    assert found.one("#hosts .panel-note").text == "no data: the lab has no Prometheus"
    assert [badge.text for badge in found.all("#hosts .badge")] == ["no data"] * 3
    assert found.one(".pairs").text == (
        "Prometheus none: what hosts do in a run is “no data” Grafana none: runs link to no dashboards"
    )
    assert facts(found) == {}
    assert "Not exported of any host: Distribution, Kernel," in found.one("#unknown").text


def test_the_table_of_hosts_is_looked_at_again_every_5_s(browser: Client, lab_file: Path) -> None:
    table = page(browser.get("/lab/")).one("#hosts").attributes
    assert (table["hx-get"], table["hx-trigger"]) == ("/lab/", "every 5s")
    partial = page(browser.get("/lab/", headers={"HX-Request": "true"}))
    assert [row.attributes["id"] for row in partial.all("tbody tr")] == ["host-server", "host-load-1", "host-load-2"]
    assert not partial.all("html, main")
    lab_file.unlink()
    assert browser.get("/lab/", headers={"HX-Request": "true"})["HX-Refresh"] == "true"


def test_a_changed_lab_is_seen_without_a_restart(browser: Client, lab_file: Path) -> None:
    assert page(browser.get("/lab/")).one("h1").text == "Lab local"
    lab_file.write_text(json.dumps(LAB | {"lab": "other"}))
    assert page(browser.get("/lab/")).one("h1").text == "Lab other"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "lab.json: No such file or directory"),
        ("", "lab.json is not JSON"),
        (json.dumps(LAB | {"schema_version": 1}), "schema_version is 1, wanted 3"),
        (json.dumps(LAB | {"machine": "<script>"}), "machine: String should match pattern"),
    ],
)
def test_a_lab_that_is_missing_or_wrong_says_what_to_do(
    browser: Client, lab_file: Path, content: str | None, complaint: str
) -> None:
    lab_file.unlink()
    if content is not None:
        lab_file.write_text(content)
    response = browser.get("/lab/")
    found = page(response)
    assert response.status_code == 200
    assert complaint in found.one("[role=alert]").text
    assert [code.text for code in found.all("main code")] == ["ansible-playbook playbooks/export_lab.yml", "./wslab up"]
    assert found.one("main a.button").attributes["href"] == "/lab/"
    assert [link.text for link in found.all("nav [aria-current=page]")] == ["Lab"]


def test_a_stranger_sees_no_host(client: Client) -> None:
    assert client.get("/lab/")["Location"] == "/accounts/login/?next=/lab/"

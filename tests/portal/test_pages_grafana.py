"""Links from a run's page into Grafana."""

from __future__ import annotations

import pytest
from django.test import Client

from portal.monitoring.links import Page, panel_link
from portal.runs.models import EvidenceRow
from tests.portal.factories import make_finished, make_user
from tests.portal.pages import page

pytestmark = pytest.mark.django_db
WHOLE = "The whole run in Grafana"


def links(client: Client, grafana_url: str | None) -> dict[str, str]:
    user = make_user("ada")
    client.force_login(user)
    run = make_finished(user)
    EvidenceRow.objects.filter(run=run).update(grafana_url=grafana_url)
    shown = page(client.get(run.get_absolute_url()))
    return {link.text: link.attributes["href"] for link in shown.all("a") if "rafana" in link.text}


def test_a_run_links_to_each_panel_and_to_the_dashboard_of_all_of_it(client: Client) -> None:
    panel = panel_link(Page("http://g:3001", "http://p", "r-a"), "wslab-system", 11, ["server"], 10, 12, 20)
    assert links(client, panel) == {
        "Grafana": panel,
        WHOLE: "http://g:3001/d/wslab-run/wslab-run?from=-5000&to=35000&var-run=r-a&var-portal=http://p"
        "&var-begin=10000&var-ramp_end=12000&var-end=20000",
    }


def test_a_run_without_grafana_links_to_none(client: Client) -> None:
    assert links(client, None) == {}

"""The pages of scenarios: what there is, editing with a history, YAML in and out, what a file says otherwise."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from portal.accounts.audit import AuditEntry
from portal.accounts.models import User
from portal.runs.forms import ScenarioForm
from portal.runs.models import NamedScenario
from portal.runs.seed import outdated, read_scenarios, seed_scenarios
from tests.portal.factories import SMOKE, make_finished, make_run, make_user
from tests.portal.pages import Page, page
from wsnode.core.scenario import Scenario

pytestmark = pytest.mark.django_db
LIST, NEW, FROM_YAML = (reverse(f"scenarios:{name}") for name in ("list", "new", "from_yaml"))


@pytest.fixture
def ada() -> User:
    return make_user("ada", role="operator")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    NamedScenario.write(SMOKE, ada, "first")
    return client


@pytest.fixture
def files(tmp_path: Path, settings: Any) -> Path:
    """The folder of scenario files of this test."""
    settings.SCENARIOS = tmp_path / "scenarios"
    settings.SCENARIOS.mkdir()
    return tmp_path / "scenarios"


def of(name: str, act: str = "scenario") -> str:
    return reverse(f"scenarios:{act}", args=[name])


def filled(scenario: Scenario, **changes: str) -> dict[str, str]:
    """What a browser sends of the form."""
    form = ScenarioForm.of(scenario.name, scenario)
    texts = {name: text for name, text in form.texts.items() if text != "false"}
    return {**texts, "made_from": "1", "message": "", **changes}


def rows(found: Page, caption: str) -> list[list[str]]:
    table = next(one for one in found.all("caption") if one.whole_text == caption).ancestor("table")
    return [[cell.text for cell in row.all("th, td")] for row in table.all("tbody tr")]


def test_the_list_shows_each_scenario_with_its_version_runs_and_baseline(
    browser: Client, ada: User, files: Path
) -> None:
    base = make_finished(ada, subject_name="echo", subject_version="1.2", subject_source="given")
    make_run(ada)
    NamedScenario.objects.filter(name="smoke").update(baseline=base)
    NamedScenario.write(SMOKE.model_copy(update={"name": "calm", "interval_ms": 0, "duration_s": 90}), None)
    found = page(browser.get(LIST))
    calm, smoke = ([cell.text for cell in row.all("th, td")] for row in found.all("main tbody tr"))
    assert calm[0] == "calm Does everything work?"
    assert calm[1:4] == ["100", "idle", "1 min 30 s"]
    assert calm[4].endswith("from its file")
    assert calm[5:7] == ["none", "none"]
    assert smoke[4].startswith("v1, ")
    assert smoke[4].endswith("by ada")
    assert smoke[5] == "echo 1.2"
    assert smoke[6].startswith("2 last 20 Nov")


def test_the_lists_queries_do_not_grow_with_its_rows(
    browser: Client, ada: User, django_assert_num_queries: Any
) -> None:
    browser.get(LIST)
    for n in range(6):
        NamedScenario.write(SMOKE.model_copy(update={"name": f"s-{n}"}), ada)
        make_run(ada, scenario_name=f"s-{n}")
    with django_assert_num_queries(3):
        browser.get(LIST)


def test_an_edit_is_a_version_with_who_when_and_what_it_changed(browser: Client, ada: User) -> None:
    response = browser.post(
        of("smoke", "edit"), filled(SMOKE, clients="250", thresholds="response_time.p99 < 90ms", message="more of them")
    )
    assert response["Location"] == "/scenarios/smoke/"
    found = page(browser.get(of("smoke")))
    second, first = found.all(".versions > li")
    assert second.text.startswith("Version 2 ")
    assert "UTC, by ada more of them" in second.text
    assert rows(found, "What it changed") == [
        ["Clients connections", "100", "250"],
        ["Thresholds", "response_time.p99 < 250ms error_ratio < 0.1%", "response_time.p99 < 90ms"],
    ]
    assert first.text.endswith("The first one.")
    entry = AuditEntry.objects.get(verb="edited")
    assert (entry.user, entry.label, entry.detail) == (ada, "smoke", "version 2: more of them")


def test_saving_what_is_there_already_makes_no_version(browser: Client) -> None:
    browser.post(of("smoke", "edit"), filled(SMOKE))
    assert NamedScenario.objects.get(name="smoke").versions.count() == 1


def test_a_wrong_field_is_refused_beside_it_and_nothing_is_saved(browser: Client) -> None:
    response = browser.post(of("smoke", "edit"), filled(SMOKE, clients="0", name="other"))
    found = page(response)
    assert response.status_code == 422
    assert found.one("#e-clients").text.startswith("clients: 0 is refused")
    assert found.one("#f-clients").attributes["value"] == "0"
    response = browser.post(of("smoke", "edit"), filled(SMOKE, name="other"))
    assert page(response).one("#e-name").text.startswith("the name stays smoke")
    assert NamedScenario.objects.names() == ["smoke"]
    assert NamedScenario.objects.get().versions.count() == 1


def test_two_who_edit_at_once_do_not_overwrite_each_other(browser: Client) -> None:
    bo = make_user("bo")
    NamedScenario.write(SMOKE.model_copy(update={"clients": 7}), bo)
    response = browser.post(of("smoke", "edit"), filled(SMOKE, clients="250"))
    found = page(response)
    assert response.status_code == 422
    assert found.one("#refused li").text.startswith("version 2 was written meanwhile, by bo")
    assert found.one("#f-clients").attributes["value"] == "250"
    assert NamedScenario.objects.get().content["clients"] == 7
    # It stays refused however often it is sent.
    assert found.one("[name=made_from]").attributes["value"] == "1"


def test_a_new_one_is_made_and_a_name_that_is_taken_is_refused(browser: Client) -> None:
    sent = filled(SMOKE.model_copy(update={"name": "mine"}), made_from="0")
    assert browser.post(NEW, sent)["Location"] == "/scenarios/mine/"
    response = browser.post(NEW, filled(SMOKE, made_from="0"))
    assert page(response).one("#e-name").text.startswith("there is a scenario smoke already")


def test_a_duplicate_begins_with_all_fields_and_a_free_name(browser: Client, ada: User) -> None:
    NamedScenario.write(SMOKE.model_copy(update={"name": "smoke-copy"}), ada)
    found = page(browser.get(NEW, {"from": "smoke"}))
    assert found.one("#f-name").attributes["value"] == "smoke-copy-2"
    assert found.one("#f-clients").attributes["value"] == "100"
    assert found.one("#f-message").attributes["value"] == "a duplicate of smoke"


def test_yaml_goes_out_as_it_can_come_in(browser: Client, ada: User) -> None:
    NamedScenario.write(SMOKE.model_copy(update={"clients": 250, "ramp_up_s": 2.5}), ada)
    response = browser.get(of("smoke", "yaml"))
    assert response["Content-Disposition"] == 'attachment; filename="smoke.yaml"'
    assert yaml.safe_load(response.content)["clients"] == 250
    first = browser.get(of("smoke", "yaml"), {"version": "1"})
    assert Scenario.model_validate(yaml.safe_load(first.content)) == SMOKE
    assert browser.get(of("smoke", "yaml"), {"version": "9"}).status_code == 404
    found = page(browser.post(FROM_YAML, {"yaml": response.content.decode()}))
    assert found.one("#f-ramp_up_s").attributes["value"] == "2.5"
    uploaded = SimpleUploadedFile("mine.yaml", b"name: mine\nclients: 12\n")
    found = page(browser.post(FROM_YAML, {"yaml": "", "file": uploaded}))
    assert (found.one("#f-name").attributes["value"], found.one("#f-clients").attributes["value"]) == ("mine", "12")
    assert NamedScenario.objects.count() == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("clients: [", "no YAML: while parsing"),
        ("- a", "wanted fields with values, such as `clients: 100`; got list"),
        ("clients: 0\ncolour: red", "clients: 0 is refused"),
        ("1: 2", "1: wanted names of fields"),
        ("a: &a [x, x]\nb: *a", "no YAML: aliases are not taken here"),
        ("[" * 5000, "no YAML: "),
        ("x" * 70_000, "70,000 characters are refused: wanted at most 65,536"),
    ],
)
def test_yaml_that_is_none_is_refused_beside_it(browser: Client, text: str, line: str) -> None:
    response = browser.post(FROM_YAML, {"yaml": text, "into": "smoke"})
    found = page(response)
    assert response.status_code == 422
    assert found.one("#e-yaml").text.startswith(line)
    assert found.one("#f-yaml").whole_text == " ".join(text.split())
    assert found.one("h1").text == "Edit smoke"


def test_an_earlier_version_can_be_brought_back(browser: Client, ada: User) -> None:
    NamedScenario.write(SMOKE.model_copy(update={"clients": 250}), ada)
    browser.post(of("smoke", "bring_back"), {"version": "1"})
    row = NamedScenario.objects.get()
    assert row.scenario_model == SMOKE
    assert [(v.number, v.message) for v in row.versions.order_by("number")][2] == (3, "as version 1 was")
    assert browser.post(of("smoke", "bring_back"), {"version": "77"}).status_code == 404


def test_an_update_leaves_what_was_edited_here_and_says_so(browser: Client, ada: User, files: Path) -> None:
    (files / "smoke.yaml").write_text("name: smoke\nclients: 40\n")
    (files / "calm.yaml").write_text("name: calm\n")
    assert seed_scenarios(files) == (["calm", "smoke"], ["smoke"])
    assert NamedScenario.objects.get(name="smoke").content["clients"] == 100
    assert outdated(read_scenarios(files)) == []
    found = page(browser.get(of("smoke")))
    assert found.one("#filed-title").text == "Edited here, the file's differs"
    assert ["Clients connections", "100", "40"] in rows(found, "What the file has differently")
    assert "the file's differs" in page(browser.get(LIST)).one("main").text

    browser.post(of("smoke", "bring_back"), {"version": "file"})
    assert NamedScenario.objects.get(name="smoke").content["clients"] == 40
    assert not page(browser.get(of("smoke"))).all("#filed-title")
    # From now on the file is followed again.
    (files / "smoke.yaml").write_text("name: smoke\nclients: 41\n")
    assert outdated(read_scenarios(files)) == ["smoke"]
    assert seed_scenarios(files).kept == []
    assert NamedScenario.objects.get(name="smoke").content["clients"] == 41


def test_an_archived_one_is_offered_nowhere_stays_away_and_comes_back(browser: Client, ada: User, files: Path) -> None:
    (files / "smoke.yaml").write_text("name: smoke\nclients: 40\n")
    browser.post(of("smoke", "archive"))
    seed_scenarios(files)
    assert NamedScenario.objects.names() == []
    assert browser.get(reverse("runs:new"), {"scenario": "smoke"}).status_code == 404
    assert "Archived: 1" in page(browser.get(LIST)).one("details").text
    browser.post(of("smoke", "archive"), {"back": "1"})
    assert NamedScenario.objects.names() == ["smoke"]
    assert [e.verb for e in AuditEntry.objects.order_by("id")] == ["archived", "brought back"]


def test_the_baseline_is_a_finished_run(browser: Client, ada: User) -> None:
    run, waits = make_finished(ada, subject_name="echo", subject_version="1"), make_run(ada)
    browser.post(of("smoke", "baseline"), {"baseline": run.pk})
    assert NamedScenario.objects.get().baseline == run
    assert page(browser.get(of("smoke"))).one("#f-baseline option[selected]").attributes["value"] == run.pk
    refused = browser.post(of("smoke", "baseline"), {"baseline": waits.pk}, follow=True)
    assert f"run {waits.pk} is queued: wanted a finished one" in page(refused).one(".notices").text
    assert NamedScenario.objects.get().baseline == run
    browser.post(of("smoke", "baseline"), {"baseline": ""})
    assert NamedScenario.objects.get().baseline is None


def test_the_plan_follows_what_is_typed_into_a_scenario(browser: Client) -> None:
    found = page(browser.post(reverse("scenarios:plan"), filled(SMOKE, clients="200")))
    assert "1,000 messages/s over 200 connections" in found.text
    assert found.one("#e-clients").attributes["hx-swap-oob"] == "true"


def test_a_viewer_reads_and_does_not_write(client: Client, ada: User) -> None:
    NamedScenario.write(SMOKE, ada)
    client.force_login(make_user("vi", role="viewer"))
    assert client.get(LIST).status_code == client.get(of("smoke")).status_code == 200
    assert client.get(of("smoke", "yaml")).status_code == 200
    assert client.get(of("smoke", "edit")).status_code == 403
    for act in ("edit", "bring_back", "baseline", "archive"):
        assert client.post(of("smoke", act)).status_code == 403


def test_a_runs_page_says_which_version_it_is_or_what_was_set_differently(browser: Client, ada: User) -> None:
    same = make_finished(ada, scenario_version=NamedScenario.objects.get().newest)
    NamedScenario.objects.get().versions.update(created_at=same.created_at - timedelta(hours=1))
    other = make_finished(ada, SMOKE.model_copy(update={"clients": 40}))
    NamedScenario.write(SMOKE.model_copy(update={"clients": 7}), ada)
    said = page(browser.get(same.get_absolute_url())).one("[aria-labelledby=scenario-title]")
    assert "This is smoke, version 1 ." in said.text
    assert said.one("p a").attributes["href"] == "/scenarios/smoke/#v1"
    changed = page(browser.get(other.get_absolute_url()))
    assert "For this run 1 field of smoke, version 1 was set differently:" in changed.one("main").text
    assert rows(changed, "Set differently for this run") == [["Clients connections", "100", "40"]]
    alone = make_finished(ada, SMOKE.model_copy(update={"name": "custom"}))
    assert "No scenario of this name was stored" in page(browser.get(alone.get_absolute_url())).one("main").text

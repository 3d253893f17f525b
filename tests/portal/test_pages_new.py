"""The form of a new run and its plan."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from portal.accounts.models import User
from portal.runs.draft import form_fields
from portal.runs.forms import ASKED, GROUPS, MAIN, RunForm
from portal.runs.models import Environment, Run
from tests.portal.factories import SMOKE, make_finished, make_run, make_scenario, make_user
from tests.portal.pages import Page, page
from wsnode.core.scenario import Scenario

pytestmark = pytest.mark.django_db
NEW, PLAN = reverse("runs:new"), reverse("runs:plan")
STRESS = Scenario(name="stress", clients=100_000, interval_ms=10, ramp_up_s=60, duration_s=300, rate_per_s=100)


@pytest.fixture
def ada() -> User:
    make_scenario()
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


def filled(scenario: Scenario = SMOKE, **changes: str) -> dict[str, str]:
    """What a browser sends of the form: boxes that are not ticked are missing."""
    form = RunForm.of(scenario.name, scenario)
    texts = {name: text for name, text in form.texts.items() if name != "reconnect" or text == "true"}
    return {"scenario": scenario.name, "subject_name": "", "subject_version": "", **texts} | changes


def values(found: Page) -> dict[str, str]:
    """The form's inputs as they stand."""
    inputs = {
        i.attributes["name"]: i.attributes.get("value", "") for i in found.all("main input") if "name" in i.attributes
    }
    areas = {area.attributes["name"]: area.whole_text for area in found.all("textarea")}
    choices = {
        select.attributes["name"]: select.one("option[selected]").attributes["value"]
        for select in found.all("main select")
    }
    return inputs | areas | choices


def test_the_form_has_every_field_of_a_scenario_once_the_seeds_five_first(browser: Client) -> None:
    found = page(browser.get(NEW))
    names = [
        field.attributes["name"]
        for field in found.all("main .field input, main .field select, main .field textarea")
        if field.attributes["name"] not in ASKED
    ]
    assert names[:5] == list(MAIN) == ["clients", "interval_ms", "ramp_up_s", "duration_s", "rate_per_s"]
    assert sorted(names) == sorted(Scenario.model_fields)
    assert {name for _, group in GROUPS for name in group} <= Scenario.model_fields.keys()


def test_limits_units_and_help_are_those_of_the_scenarios_definition(browser: Client) -> None:
    found = page(browser.get(NEW))
    for field in form_fields():
        shown = found.one(f"#f-{field.name}")
        around = shown.ancestor("div")
        if field.kind in ("integer", "number"):
            assert float(shown.attributes["min"]) == field.minimum
            assert float(shown.attributes["max"]) == field.maximum
            assert around.all(".suffix")[0].text == field.unit if field.unit else not around.all(".suffix")
        assert found.one(f"#h-{field.name}").text.startswith(field.help)
    assert found.one("#h-clients").text.endswith("Allowed: 1 to 1,000,000 connections.")
    assert found.one("#h-rate_per_s").text.endswith("Allowed: above 0 to 100,000 1/s.")


def test_a_scenario_fills_the_form_and_smoke_is_the_first(browser: Client) -> None:
    make_scenario(STRESS)
    assert values(page(browser.get(NEW)))["clients"] == "100"
    found = page(browser.get(NEW, {"scenario": "stress"}))
    assert values(found)["clients"] == "100000"
    assert found.one("[aria-current=true] strong").text == "stress"
    assert browser.get(NEW, {"scenario": "nope"}).status_code == 404


def test_without_scenarios_the_page_says_how_to_get_them(client: Client) -> None:
    client.force_login(make_user("bo"))
    assert "seed_scenarios" in page(client.get(NEW)).one(".empty").text


def test_a_good_form_queues_a_run_and_leads_to_its_page(browser: Client, ada: User) -> None:
    response = browser.post(NEW, filled(clients="40", subject_name="echo", subject_version="1.4.2"))
    run = Run.objects.get()
    assert response.status_code == 302
    assert response["Location"] == f"/runs/{run.pk}/"
    assert (run.state, run.created_by, run.machine, run.accept_partial) == ("queued", ada, "this-machine", False)
    assert (run.subject_name, run.subject_version, run.subject_source) == ("echo", "1.4.2", "given")
    assert run.scenario_model == SMOKE.model_copy(update={"clients": 40})


def test_what_was_chosen_is_what_runs_when_nothing_was_changed(browser: Client) -> None:
    browser.post(NEW, filled())
    assert Run.objects.get().scenario_model == SMOKE
    assert Run.objects.get().subject_source == "own"


def test_a_box_that_is_not_ticked_is_off(browser: Client) -> None:
    sent = filled()
    del sent["reconnect"]
    browser.post(NEW, sent)
    assert Run.objects.get().scenario_model.reconnect is False


@pytest.mark.parametrize(
    ("field", "typed", "line"),
    [
        (
            "clients",
            "0",
            "clients: 0 is refused: Input should be greater than or equal to 1 (allowed: 1 to 1,000,000 connections)",
        ),
        (
            "ramp_up_s",
            "soon",
            "ramp_up_s: 'soon' is refused: Input should be a valid number, unable to parse string as a number "
            "(allowed: 0 to 86,400 s)",
        ),
        (
            "duration_s",
            "12.5",
            "duration_s: 12.5 is refused: Input should be a valid integer, got a number with a fractional part "
            "(allowed: 1 to 604,800 s)",
        ),
        (
            "thresholds",
            "response_time.p99 < 5",
            "thresholds: threshold 'response_time.p99 < 5': unit ''; response_time takes 'ns' or 'us' or 'µs' or 'ms' "
            "or 's'",
        ),
        (
            "drain_s",
            "2",
            "drain_s is 2 s but reply_timeout_s is 5 s: the drain must be at least as long, so that every reply can "
            "still be awaited (drain_s >= 5, or reply_timeout_s <= 2)",
        ),
        (
            "subject_name",
            "echo",
            "subject.version: '' is refused: wanted 1 to 200 visible characters (NAME@VERSION)",
        ),
    ],
)
def test_a_bad_value_is_refused_in_cores_words_beside_its_field(
    browser: Client, field: str, typed: str, line: str
) -> None:
    response = browser.post(NEW, filled(**{field: typed}))
    found = page(response)
    place = "subject_version" if field == "subject_name" else field

    assert response.status_code == 422
    assert Run.objects.count() == 0
    assert found.one(f"#e-{place}").text == line
    assert [a.text for a in found.all("#refused a")] == [line]
    assert found.one("#refused a").attributes["href"] == f"#f-{place}"
    assert found.one(f"#f-{place}").attributes["aria-invalid"] == "true"
    assert f"e-{place}" in found.one(f"#f-{place}").attributes["aria-describedby"]
    assert values(found)[field] == typed


def test_refusals_in_the_folded_part_unfold_it(browser: Client) -> None:
    assert "open" not in page(browser.get(NEW)).one("main details").attributes
    assert "open" in page(browser.post(NEW, filled(size_bytes="0"))).one("main details").attributes


def test_a_load_without_a_window_is_refused_with_its_repairs(browser: Client) -> None:
    make_scenario(STRESS)
    found = page(browser.post(NEW, filled(STRESS)))
    text = found.one("#refused li").text
    assert text.startswith("no measured window: 100,000 clients (ramp-up 60 s, at most 100/s)")
    assert "Repairs: duration_s >= 1001, or rate_per_s >= 335, or clients <= 29900" in text
    assert [button.attributes["data-set"] for button in found.all("#plan [data-set]")] == [
        "duration_s=1001",
        "rate_per_s=335",
        "clients=29900",
    ]
    assert Run.objects.count() == 0


def test_an_accepted_partial_run_is_queued_as_typed(browser: Client) -> None:
    browser.post(NEW, filled(STRESS, accept_partial="on"))
    assert Run.objects.get().accept_partial is True
    assert Run.objects.get().scenario_model == STRESS


def test_the_plan_follows_what_is_typed(browser: Client) -> None:
    found = page(browser.post(PLAN, filled(clients="200", interval_ms="100")))
    parts = [line.text for line in found.all(".tight li")]
    assert parts[0].startswith("load-1 opens 100 connections, 50/s, in 2 s. Each sends 64 bytes of text every 100 ms:")
    assert "2,000 messages/s over 200 connections" in found.text
    assert found.one(".timeline").attributes["aria-label"].replace("\u00a0", " ") == (
        "Ramp-up from 0 s to 2 s. Measured window from 2 s to 12 s. Drain from 12 s to 17 s. "
    )
    assert {element.text for element in found.all(".field-error")} == {""}


def test_the_plan_of_a_bad_value_names_it_in_place(browser: Client) -> None:
    found = page(browser.post(PLAN, filled(clients="-3")))
    line = "clients: -3 is refused: Input should be greater than or equal to 1 (allowed: 1 to 1,000,000 connections)"
    assert found.one("#e-clients").text == line
    assert found.one("#e-clients").attributes["hx-swap-oob"] == "true"
    assert found.one("#e-duration_s").text == ""
    assert found.one(".notice li").text == line


def test_without_a_lab_the_plan_says_how_to_get_one(browser: Client, lab_file: object) -> None:
    lab_file.unlink()  # type: ignore[attr-defined]
    assert "./wslab up" in page(browser.get(NEW)).one("#plan .notice").text
    found = page(browser.post(NEW, filled()))
    assert "./wslab up" in found.one("#refused li").text
    assert Run.objects.count() == 0


def test_a_run_can_be_repeated_with_its_own_values(browser: Client, ada: User) -> None:
    changed = SMOKE.model_copy(update={"clients": 77, "max_in_flight": 3})
    run = make_finished(ada, changed, subject_name="echo", subject_version="1", subject_source="given")
    found = values(page(browser.get(NEW, {"from": run.pk})))
    assert (found["clients"], found["max_in_flight"], found["subject_name"]) == ("77", "3", "echo")
    own = make_run(ada, subject_name="wsnode", subject_version="0.1.0", subject_source="own")
    assert values(page(browser.get(NEW, {"from": own.pk})))["subject_name"] == ""


def test_the_plan_is_asked_for_by_post_only(browser: Client) -> None:
    assert browser.get(PLAN).status_code == 405


def test_the_labs_own_server_is_what_its_host_told_last(browser: Client, ada: User) -> None:
    run = make_run(ada, "finished", subject_source="own", subject_version="0.1.0", engine="lean")
    told = {"server.engine": "lean", "server.max_connections": "50", "server.compression": False, "kernel": "6.8"}
    Environment.objects.create(run=run, host="server", role="server", begin={"stable": told, "volatile": {}})
    found = page(browser.get(NEW))
    text = next(note.text for note in found.all("main p.small") if "own server" in note.text)
    assert text.startswith(f"The lab's own server is wsnode 0.1.0, engine lean, as its host told in {run.pk}")
    assert "Its options: compression no, max_connections 50." in text
    assert "The server takes 50 connections at once" in found.one("#plan").text
    other = page(browser.post(PLAN, filled(subject_name="echo", subject_version="1")))
    assert "The server takes" not in other.text

"""A run's page: while it waits, while it goes on, and once it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.accounts.models import User
from portal.runs import series
from portal.runs import watching as watching_module
from portal.runs.archive import Opened
from portal.runs.charts import CHARTS
from portal.runs.models import Environment, EvidenceRow, Run
from portal.runs.states import State
from tests.portal.factories import (
    SMOKE,
    STABLE,
    VOLATILE,
    add_seconds,
    host_runs,
    keep,
    make_finished,
    make_result,
    make_run,
    make_user,
    say,
)
from tests.portal.pages import Element, Page, page
from wsnode.core.judge import Surroundings
from wsnode.core.result import read_result
from wsnode.core.scenario import Scenario
from wsnode.core.summary import summarise

pytestmark = pytest.mark.django_db
LIVE = {
    "type": "live",
    "second": 8,
    "connections_open": 100,
    "sent": 3750,
    "received": 3741,
    "outstanding": 9,
    "errors": 2,
    "recent": {"p50_ns": 2_010_000, "p95_ns": 4_100_000, "p99_ns": None},
}


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


@pytest.fixture
def running(ada: User) -> Run:
    run = make_run(ada, State.RUNNING, subject_name="echo", start_at_ns=time.time_ns() - 7_000_000_000, live=LIVE)
    found = summarise(SMOKE, host_runs(lose_every=100))
    assert found is not None
    add_seconds(run, found.series[:7])
    say(run, "load-2 is slow", "warning")
    return run


def show(browser: Client, run: Run) -> Page:
    return page(browser.get(f"/runs/{run.pk}/"))


def panel(found: Page, name: str) -> Element:
    """The panel with this heading."""
    for heading in found.all("h2"):
        if heading.text == name:
            return heading.ancestor("section")
    raise AssertionError(f"no panel {name!r}: {[h.text for h in found.all('h2')]}")


def table(within: Element) -> list[list[str]]:
    """The body's cells."""
    return [[cell.text for cell in row.all("td, th")] for row in within.all("tbody tr")]


def stats(within: Element) -> dict[str, str]:
    """Key figures by name."""
    return {item.one("dt").text: item.one("dd").text for item in within.all(".stat")}


# --- before and during the load -------------------------------------------------------------------
def test_a_queued_run_says_what_it_waits_for(browser: Client, ada: User) -> None:
    first = make_run(ada, State.RUNNING)
    waiting = make_run(ada, machine="this-machine")
    found = show(browser, waiting)
    assert found.one("#live h2").text == "queued"
    assert "One run at a time on this machine: smoke is running." in found.one("#live").text
    assert found.one("#live p a").attributes["href"] == f"/runs/{first.pk}/"
    assert "It is the next in line." in found.text
    assert "hidden" in found.one("[data-charts]").attributes

    waiting.wait_for("waits for the machine's lock")
    assert "waits for the machine's lock" in show(browser, waiting).one("#live").text


def test_a_running_run_is_polled_and_shows_where_it_is(browser: Client, running: Run) -> None:
    found = show(browser, running)
    live = found.one("#live")

    assert (live.attributes["hx-get"], live.attributes["hx-trigger"]) == (f"/runs/{running.pk}/live", "every 1s")
    assert [(s.classes.pop(), s.text.split()[0]) for s in live.all(".stages li")] == [
        ("past", "preflight"),
        ("past", "preparing"),
        ("now", "running"),
        ("next", "collecting"),
        ("next", "judging"),
    ]
    bar = live.one("progress").attributes
    assert bar["max"] == "17"
    assert 7 <= float(bar["value"]) < 12
    assert "Measured window, closes in" in live.text
    assert stats(live) == {
        "Connections open": "100",
        "Offered": "500/s",
        "Achieved": "494/s",
        "Response time p50": "2.01 ms",
        "p95": "4.10 ms",
        "p99": "–",
        "Scheduler lag p99": "–",
        "Outstanding": "9",
        "Errors": "2",
    }
    assert table(panel(found, "Errors so far")) == [["messages lost", "32", "6"]]
    log = found.one("#live-log .log")
    assert "load-2 is slow" in log.text
    assert "warning" in log.whole_text
    charts = found.one("[data-charts]").attributes
    assert (charts["data-charts"], "data-live" in charts) == (f"/runs/{running.pk}/series.json", True)


def test_the_live_part_is_a_part_only(browser: Client, running: Run) -> None:
    response = browser.get(f"/runs/{running.pk}/live", headers={"HX-Request": "true"})
    assert response.content.strip().startswith(b'<div id="live"')
    assert page(response).one("#live").attributes["hx-get"] == f"/runs/{running.pk}/live"


def test_before_its_first_second_a_run_has_dashes_and_no_zeros(browser: Client, ada: User) -> None:
    found = show(browser, make_run(ada, State.PREFLIGHT))
    assert set(stats(found.one("#live")).values()) == {"–"}
    assert not found.all("progress")


def test_when_it_is_over_the_live_part_has_the_page_loaded_again(browser: Client, ada: User) -> None:
    response = browser.get(f"/runs/{make_finished(ada).pk}/live")
    assert response.headers["HX-Refresh"] == "true"
    assert response.content == b""


def test_the_series_come_in_parts_that_join(browser: Client, running: Run) -> None:
    address = f"/runs/{running.pk}/series.json"
    whole = browser.get(address).json()
    parts = [browser.get(address, {"after": n}).json()["tables"]["run"] for n in (3, 7)]
    assert whole["tables"]["run"]["second"] == [1, 2, 3, 4, 5, 6, 7]
    assert parts[0] == {key: column[3:] for key, column in whole["tables"]["run"].items()}
    assert set(map(len, parts[1].values())) == {0}
    assert (whole["window"], whole["until"], whole["over"]) == ([2, 12], 12, False)
    assert browser.get(address, {"after": "soon"}).status_code == 404


def test_a_long_stretch_comes_in_longer_points_of_the_same_sum(
    browser: Client, running: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"/runs/{running.pk}/series.json"
    whole = browser.get(address).json()["tables"]["run"]
    monkeypatch.setattr(series, "MOST_POINTS", 3)
    watching_module.forget(running.pk)
    long = browser.get(address).json()["tables"]["run"]
    assert long["second"] == [3, 6]
    assert long["answered"][1] == pytest.approx(sum(whole["answered"][3:6]) / 3)
    assert long["open"] == [whole["open"][2], whole["open"][5]]
    rest = browser.get(address, {"after": 6}).json()["tables"]["run"]
    assert rest == {key: column[6:] for key, column in whole.items()}


def test_a_cancel_is_asked_for_once_and_shown(browser: Client, running: Run) -> None:
    found = show(browser, running)
    dialog = found.one("#cancel")
    assert "popover" in dialog.attributes
    assert dialog.one("form").attributes["action"] == f"/runs/{running.pk}/cancel"
    assert found.one("#live [popovertarget=cancel]").text == "Cancel…"

    assert browser.get(f"/runs/{running.pk}/cancel").status_code == 405
    assert browser.post(f"/runs/{running.pk}/cancel")["Location"] == f"/runs/{running.pk}/"
    found = show(browser, running)
    assert "Cancel requested by ada" in found.one(".notice").text
    assert not found.all("#live [popovertarget=cancel]")


def test_cancelling_what_is_over_says_so(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    browser.post(f"/runs/{run.pk}/cancel")
    assert show(browser, run).one(".notices").text == "The run was over already: there was nothing to cancel."


# --- once it is over ------------------------------------------------------------------------------
def test_a_finished_run_answers_its_questions_in_order(browser: Client, ada: User) -> None:
    found = show(browser, make_finished(ada, subject_name="echo", subject_version="2"))
    assert found.one("h1").text == "smoke on echo 2"
    assert [heading.text for heading in found.all("main h2")] == [
        "Did it pass?",
        "Can it be trusted?",
        "What was reached",
        "Where did it hurt?",
        "Errors explained",
        "Phases",
        "Any stretch, exactly",
        "Response time",
        "Messages",
        "Connections",
        "Errors by kind",
        "Scheduler lag",
        "CPU by host",
        "Event-loop lag by host",
        "Percentile curve",
        "On what?",
        "Evidence",
        "Environment",
        "Scenario",
        "Take it with you",
        "Notes",
    ]
    assert found.one("title").whole_text.startswith("Passed, valid · smoke")
    assert not found.all("#live")


def test_each_threshold_stands_beside_what_was_measured(browser: Client, ada: User) -> None:
    passed = panel(show(browser, make_finished(ada)), "Did it pass?")
    assert passed.one(".panel-head .badge").text == "passed"
    assert [row[0] for row in table(passed)] == ["response_time.p99 < 250ms", "error_ratio < 0.1%"]
    assert [row[2] for row in table(passed)] == ["passed", "passed"]
    assert table(passed)[1][1] == "0 %"

    failed = panel(show(browser, make_finished(ada, load={"lose_every": 50})), "Did it pass?")
    assert failed.one(".panel-head .badge").text == "failed"
    assert table(failed) == [
        ["response_time.p99 < 250ms", "–", "failed"],
        ["error_ratio < 0.1%", "2 %", "failed"],
    ]


def test_every_kind_of_threshold_shows_its_value_in_its_unit(browser: Client, ada: User) -> None:
    demands = ("handshake.mean < 1s", "received_per_s > 100/s", "connections_peak >= 100", "handshake.p999 < 1s")
    scenario = SMOKE.model_copy(update={"thresholds": demands})
    rows = table(panel(show(browser, make_finished(ada, scenario)), "Did it pass?"))
    assert rows[0][1].endswith(" ms")
    assert [row[1:] for row in rows[1:]] == [["500/s", "passed"], ["100", "passed"], ["–", "not judged"]]


def test_without_thresholds_there_is_no_verdict_and_the_page_says_why(browser: Client, ada: User) -> None:
    found = panel(show(browser, make_finished(ada, SMOKE.model_copy(update={"thresholds": ()}))), "Did it pass?")
    assert found.one(".badge").text == "no verdict"
    assert "demands nothing" in found.text


def test_validity_gives_its_reasons_and_notes(browser: Client, ada: User) -> None:
    judged = {"surroundings": Surroundings(environment_changed=["server: kernel 1 → 2"])}
    trusted = panel(show(browser, make_finished(ada, judged=judged)), "Can it be trusted?")
    assert trusted.one(".badge").text == "suspect"
    assert [line.text for line in trusted.all("li")] == [
        "suspect: the environment changed during the run: server: kernel 1 → 2",
        "Note: the server shares a kernel with the load generators",
    ]
    late = panel(show(browser, make_finished(ada, load={"lag_ms": 60})), "Can it be trusted?")
    assert late.one(".badge").text == "invalid"
    assert late.one("li").text.startswith("invalid: scheduler lag p99 ")


def test_what_was_reached_has_units_and_definitions(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    reached = panel(show(browser, run), "What was reached")
    result = run.summary.content
    p99, lag = result.latency_s.response_time.p99, result.latency_s.scheduler_lag.p99
    assert p99 is not None
    assert lag is not None
    assert stats(reached) == {
        "Throughput": "500/s",
        "Response time p50": f"{(result.latency_s.response_time.p50 or 0) * 1e3:.2f} ms",
        "Response time p95": f"{(result.latency_s.response_time.p95 or 0) * 1e3:.2f} ms",
        "Response time p99": f"{p99 * 1e3:.2f} ms",
        "Error ratio": "0 %",
        "Connections, peak": "100",
        "Connect rate": "50/s",
        "Scheduler lag p99": f"{lag * 1e6:.0f} µs",
    }
    assert "second 2 to 12 of the load" in reached.text
    term = reached.one(".term")
    definition = reached.one(f"#{term.attributes['popovertarget']}")
    assert definition.whole_text == "Messages due in the measured window and answered, per second."


def test_every_latency_has_every_statistic_and_a_null_tells_its_reason(browser: Client, ada: User) -> None:
    found = show(browser, make_finished(ada, load={"lose_every": 50}))
    latencies = panel(found, "What was reached")
    rows = table(latencies)
    assert [row[0] for row in rows] == ["Response time", "Service time", "Scheduler lag", "Write wait", "Handshake"]
    assert all(len(row) == 11 for row in rows)
    assert rows[0][1:3] == ["5,000", "4,900"]
    assert rows[0][8:10] == ["–", "–"]

    reasons = {}
    for null in latencies.all("tbody tr")[0].all(".null"):
        assert null.tag == "button", "reachable by keyboard"
        reasons[null.ancestor("td").one("span.tip").whole_text] = null.attributes["title"]
    assert reasons == {
        "more than 1 % unanswered": "more than 1 % unanswered",
        "more than 0.1 % unanswered": "more than 0.1 % unanswered",
    }


def test_each_hold_of_the_stages_has_a_row_of_its_own(browser: Client, ada: User) -> None:
    stages = ("up to 50 in 2s", "hold 4s", "step to 100", "hold 4s")
    scenario = Scenario(name="steps", stages=stages, interval_ms=200)
    run = make_finished(ada, scenario, load={"lose_every": 10})
    rows = table(panel(show(browser, run), "Holds"))
    assert [row[:2] for row in rows] == [["2 s to 6 s", "50"], ["7 s to 11 s", "100"]]
    held = make_result(run.pk, scenario, runs=host_runs(scenario, lose_every=10)).stages
    assert [row[2] for row in rows] == [f"{one.messages_due:,}" for one in held]
    assert {row[5] for row in rows} == {"10 %"}
    assert "Holds" not in [heading.text for heading in show(browser, make_finished(ada)).all("h2")]


def test_phases_show_what_became_of_what_was_due(browser: Client, ada: User) -> None:
    rows = table(panel(show(browser, make_finished(ada, load={"lose_every": 100})), "Phases"))
    assert [row[0] for row in rows] == ["Ramp-up 0 s to 2 s", "Measured window 2 s to 12 s", "Drain from 12 s"]
    assert [row[1:5] for row in rows] == [
        ["750", "744", "6", "0"],
        ["5,000", "4,950", "50", "0"],
        ["0", "0", "0", "0"],
    ]
    assert rows[2][5:] == ["–", "–"]


def test_hosts_show_their_part_and_how_well_their_clocks_are_known(browser: Client, ada: User) -> None:
    run = make_finished(ada, load={"cpu": 0.3})
    rows = table(panel(show(browser, run), "On what?"))
    assert rows == [
        ["server server", "observed only", "–", "–", "0 s ± 50.0 µs"],
        *(
            [
                f"load-{n} load generator",
                "50",
                "0",
                "50",
                "2,875",
                "2,875",
                "0",
                "0",
                "0.300",
                "800 µs",
                "+10.0 µs ± 50.0 µs",
            ]
            for n in (1, 2)
        ),
    ]


def test_evidence_shows_value_query_and_link_or_why_there_is_none(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    evidence = panel(show(browser, run), "Evidence")
    rows = table(evidence)
    assert rows[0][:5] == ["Host CPU server", "0.734 cores", "10 s", "1 s", "10"]
    assert rows[1][:5] == ["Server loop lag server", "– no data: 0 samples in 10 s", "10 s", "1 s", "0"]
    query = EvidenceRow.objects.get(run=run, order=0).promql
    assert evidence.one("code").whole_text == query
    assert evidence.one("[data-copy]").attributes["data-copy"] == query
    assert [a.attributes["href"] for a in evidence.all("a")] == ["http://127.0.0.1:3001/d/wslab?viewPanel=panel-3"]


def test_accounts_show_each_identity_with_its_terms(browser: Client, ada: User) -> None:
    trusted = panel(show(browser, make_finished(ada, load={"lose_every": 100})), "Can it be trusted?")
    assert table(trusted.one("details")) == [
        ["messages due 5,750", "5,750 sent + 0 unsent", "yes"],
        ["messages sent 5,750", "5,694 received + 56 lost + 0 in flight + 0 no reply", "yes"],
        ["connections attempted 100", "100 opened + 0 failed + 0 pending", "yes"],
        ["connections opened 100", "100 closed + 0 open", "yes"],
    ]


def test_errors_are_explained_kind_by_kind(browser: Client, ada: User) -> None:
    run = make_run(ada, State.FINISHED)
    result = make_result(run.pk, lose_every=100)
    counters = result.counters.model_copy(
        update={
            "errors": {"reset": 2, "connect_refused": 7, "novel": 1},
            "unsent": {"not_open": 3, "generator_late": 0},
        }
    )
    keep(run, result.model_copy(update={"counters": counters}))
    explained = panel(show(browser, run), "Errors explained")
    rows = table(explained)
    assert [row[:2] for row in rows] == [
        ["messages lost", "56"],
        ["connect refused", "7"],
        ["reset", "2"],
        ["novel", "1"],
        ["unsent, not open", "3"],
    ]
    assert rows[1][2].startswith("Nobody listens at that address and port. See that the server is up")
    assert [a.attributes["href"] for a in explained.all("a")][:2] == [
        "/runs/tuning#find-the-limit",
        "/runs/tuning#kinds-of-connection-errors",
    ]
    assert "no reply is missing" in panel(show(browser, make_finished(ada)), "Errors explained").text


def test_environment_shows_facts_host_beside_host_and_what_changed(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    unchanged = panel(show(browser, run), "Environment")
    assert "No stable fact of any host changed during the run." in unchanged.text
    facts = table(unchanged.all("details")[0])
    assert ["kernel", "6.8.0-45", "6.8.0-45", "6.8.0-45"] in facts

    Environment.objects.filter(run=run, host="server").update(
        end={"stable": STABLE | {"net.core.somaxconn": "1024"}, "volatile": VOLATILE | {"tcp_in_use": 114}}
    )
    changed = panel(show(browser, run), "Environment")
    assert changed.one(".lines li").text == "server: net.core.somaxconn changed during the run, 4096 → 1024"
    assert table(changed.all("details")[1]) == [["server", "tcp_in_use", "14", "114"]]


def test_the_scenario_is_shown_as_it_would_be_written(browser: Client, ada: User) -> None:
    found = panel(show(browser, make_finished(ada)), "Scenario")
    text = found.one("pre").whole_text
    assert "clients: 100" in text
    assert "ramp_up_s: 2 duration_s: 12" in text
    assert "max_in_flight" not in text
    assert found.one("[data-copy]").attributes["data-copy"].startswith("name: smoke\n")


def test_the_charts_of_a_finished_run_come_whole_with_their_summaries(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    found = show(browser, run)
    assert "data-live" not in found.one("[data-charts]").attributes
    keys = [c.attributes["data-chart"] for c in found.all("[data-chart]")]
    assert keys == [*(chart.key for chart in CHARTS), "curve"]
    response = browser.get(found.one("[data-charts]").attributes["data-charts"])
    data = response.json()
    assert data["tables"]["run"]["offered"] == [250.0] + [500.0] * 11
    assert data["tables"]["hosts"]["worker:load-1"] == [0.2] * 12
    assert data["tables"]["curve"]["nines"][:2] == [0.0, 0.1]
    assert (data["window"], data["windows"], data["over"]) == ([2, 12], [], True)
    said = {key: found.one(f"[data-chart={key}] [data-summary]").text for key in keys}
    assert said["connections"] == data["charts"]["connections"]["summary"] == "At most 100 open."
    assert said["curve"].startswith("Response time: p90 ")
    assert all(said.values())


def test_every_chart_can_be_had_as_comma_separated_values(browser: Client, ada: User, running: Run) -> None:
    run = make_finished(ada, load={"lose_every": 100})
    for link in show(browser, run).all("[data-chart] a"):
        response = browser.get(link.attributes["href"])
        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert response["Content-Disposition"].startswith(f'attachment; filename="wslab-{run.pk}-')
    lines = browser.get(f"/runs/{run.pk}/series/messages.csv").content.decode().splitlines()
    assert lines[:3] == ["second,answered_per_s,offered_per_s", "1,248,250", "2,496,500"]
    assert len(lines) == 13
    curve = browser.get(f"/runs/{run.pk}/series/curve.csv").content.decode().splitlines()
    assert curve[0] == "percentile,response_time_s,service_time_s,write_wait_s,scheduler_lag_s"
    assert curve[11].startswith("90,0.00")
    live = browser.get(f"/runs/{running.pk}/series/connections.csv").content.decode().splitlines()
    assert live == ["second,open", "1,50", *(f"{n},100" for n in range(2, 8))]
    assert browser.get(f"/runs/{run.pk}/series/nothing.csv").status_code == 404


def test_result_and_archive_can_be_taken_along(browser: Client, ada: User) -> None:
    run = make_finished(ada)
    result = browser.get(f"/runs/{run.pk}/result.json")
    assert result["Content-Type"] == "application/json"
    assert read_result(result.json()) == run.summary.content
    archive = browser.get(f"/runs/{run.pk}/archive")
    assert archive["Content-Disposition"] == f'attachment; filename="wslab-{run.pk}.tar.zst"'
    assert Opened(archive.content).head["run_id"] == run.pk

    bare = make_run(ada, State.FAILED)
    assert browser.get(f"/runs/{bare.pk}/result.json").status_code == 404
    assert browser.get(f"/runs/{bare.pk}/archive").status_code == 404


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("failed", "Failed. preflight: too few open files"),
        ("lost", "Lost: nobody can say what the load did. preflight: too few open files"),
        ("cancelled", "Cancelled by ada. preflight: too few open files"),
    ],
)
def test_a_run_that_did_not_finish_says_why_at_once(browser: Client, ada: User, state: str, words: str) -> None:
    asked = {"cancel_requested_by": ada} if state == "cancelled" else {}
    run = make_run(ada, state, state_reason="preflight: too few open files", **asked)
    say(run, "load-1 refuses", "error")
    found = show(browser, run)
    assert found.one("main .notice").text == words
    assert found.one(".empty h2").text == "Nothing was measured"
    assert "load-1 refuses" in panel(found, "Conductor's log").text
    assert found.one("title").whole_text.startswith(f"{state.capitalize()} · smoke")


def test_a_cancelled_run_shows_what_was_measured_until_then(browser: Client, ada: User) -> None:
    run = make_run(ada, State.CANCELLED, state_reason="asked for by ada")
    result = make_result(run.pk)
    keep(run, result.model_copy(update={"state": "cancelled", "verdict": "none"}))
    Run.objects.filter(pk=run.pk).update(verdict=None, validity=None)
    found = show(browser, run)
    assert found.one("main .notice").text == "Cancelled. asked for by ada"
    assert panel(found, "Did it pass?").one(".badge").text == "no verdict"
    assert stats(panel(found, "What was reached"))["Throughput"] == "500/s"
    assert panel(found, "Phases").text.endswith("There is no archive of this run.")
    assert "hx-get" not in found.one("#phases").attributes


def test_a_run_without_a_window_says_that_its_figures_are_of_the_whole(browser: Client, ada: User) -> None:
    run = make_finished(ada, SMOKE.model_copy(update={"ramp_up_s": 20.0}), accept_partial=True)
    found = show(browser, run)
    assert "no measured window: figures are of the whole run" in panel(found, "What was reached").text
    assert stats(panel(found, "What was reached"))["Throughput"] == "–"
    assert [row[0] for row in table(panel(show(browser, run), "Phases"))] == [
        "Ramp-up 0 s to 12 s",
        "Drain from 12 s",
    ]


def test_an_unknown_run_is_not_found(browser: Client) -> None:
    response = browser.get("/runs/r-nothere00/")
    assert response.status_code == 404
    assert page(response).one("h1").text == "Not found"


def test_the_number_of_queries_does_not_grow(
    browser: Client,
    ada: User,
    running: Run,
    django_assert_num_queries: Callable[[int], Any],
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    done = make_finished(ada)
    show(browser, done)
    browser.get(f"/runs/{running.pk}/live")
    for _ in range(2):
        with django_assert_num_queries(14):
            browser.get(f"/runs/{done.pk}/")
        with django_assert_max_num_queries(5):  # 4 where the same second was drawn before
            browser.get(f"/runs/{running.pk}/live")
        for n in range(20):
            say(running, f"line {n}")
            say(done, f"line {n}")


def test_what_people_typed_is_text_and_not_markup(browser: Client, ada: User) -> None:
    hostile = "\"'><script>alert(1)</script>"
    scenario = SMOKE.model_copy(update={"description": hostile})
    run = make_finished(ada, scenario, subject_name=hostile, subject_version=hostile, state_reason=hostile)
    say(run, hostile)
    EvidenceRow.objects.filter(run=run).update(promql=hostile, name=hostile)
    Environment.objects.filter(run=run).update(begin={"stable": {hostile: hostile}, "volatile": {}})
    failed = make_run(ada, State.FAILED, state_reason=hostile, subject_name=hostile)
    for one in (run, failed):
        content = browser.get(f"/runs/{one.pk}/").content.decode()
        assert "<script>alert" not in content
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content


@pytest.mark.parametrize("after", ["-1", "1e3", "²", "9" * 5000])
def test_series_after_what_is_no_second_are_not_found(browser: Client, running: Run, after: str) -> None:
    assert browser.get(f"/runs/{running.pk}/series.json", {"after": after}).status_code == 404

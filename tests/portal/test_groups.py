"""Runs that are queued together: repeated as a group, two groups that alternate; their page."""

from __future__ import annotations

from datetime import timedelta
from itertools import accumulate
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from portal.accounts.audit import AuditEntry
from portal.accounts.models import User
from portal.runs.create import Order, create_run, make_order, queue_series, tell_apart
from portal.runs.draft import GivenSubject, Refused
from portal.runs.expected import USUAL_OVERHEAD_S, expected, outlook, overhead_s
from portal.runs.forms import RunForm, second_order
from portal.runs.groups import MOST_TIMES, alternating
from portal.runs.models import NamedScenario, Run, RunGroup
from portal.runs.spread import spread
from portal.runs.states import State
from tests.portal.factories import NOW, SMOKE, keep, make_finished, make_result, make_run, make_scenario, make_user
from tests.portal.pages import page

NEW, PLAN = reverse("runs:new"), reverse("runs:plan")
ECHO = GivenSubject("echo", "1.2")


@given(st.integers(1, MOST_TIMES))
def test_alternating_is_fair_to_both_sides(times: int) -> None:
    letters = alternating(times)
    assert letters.count("a") == letters.count("b") == times
    lead = list(accumulate(1 if letter == "a" else -1 for letter in letters))
    assert max(map(abs, lead)) == 1
    if times % 2 == 0:
        # What grows steadily from run to run weighs as much on one side as on the other.
        assert sum(n for n, letter in enumerate(letters) if letter == "a") == sum(
            n for n, letter in enumerate(letters) if letter == "b"
        )
    assert "".join(letters).startswith("abbaabba"[: 2 * times])


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20))
def test_a_spread_lies_within_its_values_and_of_one_value_has_no_deviation(values: list[float]) -> None:
    found = spread("response_time.p99", [{"response_time.p99": value} for value in values] + [{}])
    assert found is not None
    assert (found.n, found.low, found.high) == (len(values), min(values), max(values))
    assert found.low <= found.median <= found.high
    assert (found.deviation is None) == (len(values) == 1)
    assert (found.title, found.unit) == ("Response time p99", "s")


def test_a_figure_that_no_run_has_is_no_row() -> None:
    assert spread("response_time.p99", [{"response_time.p99": None}, {}]) is None


def test_what_tells_two_groups_apart_is_what_they_are_called() -> None:
    first = Order(SMOKE, subject=ECHO)
    assert tell_apart(first, first) == ("A: the same as B (smoke)", "B: the same as A (smoke)")
    assert tell_apart(first, second_order(first, subject=("", "1.3"))) == ("A: echo 1.2 (smoke)", "B: echo 1.3 (smoke)")
    assert tell_apart(first, second_order(first, changes={"size_bytes": "1024", "clients": 50})) == (
        "A: clients=100, size_bytes=64 (smoke)",
        "B: clients=50, size_bytes=1024 (smoke)",
    )


def test_runs_are_expected_one_after_the_other_and_an_overdue_one_at_any_moment() -> None:
    waiting = [Run(scenario={"duration_s": 12}), Run(scenario={"duration_s": 20})]
    under_way = Run(scenario={"duration_s": 12}, preflight_at=NOW - timedelta(seconds=7))
    moments = [moment for _, moment in expected([under_way, *waiting], 5, NOW)]
    assert [tuple(moment) for moment in moments] == [(-7, 10), (10, 27), (27, 52)]
    overdue = Run(scenario={"duration_s": 12}, preflight_at=NOW - timedelta(seconds=70))
    assert expected([overdue, *waiting], 5, NOW)[1][1].begins_s == 0


@pytest.mark.django_db
class TestQueueing:
    @pytest.fixture(autouse=True)
    def _scenario(self) -> None:
        NamedScenario.write(SMOKE, None)

    def test_repeated_runs_are_one_group_with_places(self) -> None:
        ada = make_user()
        group = queue_series(ada, make_order("smoke", reason="noise", tags=["a, b"]), 3)
        runs = list(group.runs.order_by("created_at"))
        assert (group.kind, group.title, group.partner) == ("repeat", "smoke on the lab's own server", None)
        assert [run.group_place for run in runs] == [1, 2, 3]
        assert {(run.reason, run.state, run.scenario_version.number) for run in runs if run.scenario_version} == {
            ("noise", "queued", 1)
        }
        assert [[tag.name for tag in run.tags.all()] for run in runs] == [["a", "b"]] * 3
        assert AuditEntry.objects.get().detail == "3 runs"

    def test_two_groups_alternate_and_name_each_other(self) -> None:
        order = make_order("smoke", subject=ECHO)
        group = queue_series(make_user(), order, 3, other=second_order(order, subject=("", "1.3")), title="parser")
        assert group.partner is not None
        assert group.partner.partner == group
        assert (group.title, group.partner.title) == ("parser: A: echo 1.2 (smoke)", "parser: B: echo 1.3 (smoke)")
        runs = Run.objects.order_by("created_at")
        assert [run.subject_version for run in runs] == ["1.2", "1.3", "1.3", "1.2", "1.2", "1.3"]
        assert [run.group_place for run in runs] == [1, 1, 2, 2, 3, 3]

    def test_their_order_stays_whatever_else_is_queued(self) -> None:
        """Other people's runs come between, before and after; whose turn it is goes by the line alone."""
        ada, bo = make_user(), make_user("bo")
        create_run(bo, "smoke", reason="before")
        order = make_order("smoke")
        queue_series(ada, order, 2, other=second_order(order, changes={"clients": 50}))
        create_run(bo, "smoke", reason="after")
        middle = Run.objects.filter(created_by=ada).order_by("created_at")[2]
        Run.objects.filter(reason="after").update(created_at=middle.created_at)
        begun = []
        while (run := Run.objects.next_in_line().first()) is not None:
            begun.append(run)
            assert run.claim("test", timedelta(seconds=60))
            assert run.step(State.FAILED)
        mine = [run.scenario["clients"] for run in begun if run.created_by == ada]
        assert mine == [100, 50, 50, 100]
        assert begun[0].reason == "before"
        assert len(begun) == 6

    @pytest.mark.parametrize(
        ("times", "title", "line"),
        [
            (1, "", "times: 1 is refused (allowed: 2 to 50)"),
            (51, "", "times: 51 is refused (allowed: 2 to 50)"),
            (2, "a\nb", "title: 'a\\nb' is refused: wanted one line of at most 200 characters"),
        ],
    )
    def test_what_is_out_of_range_queues_nothing(self, times: int, title: str, line: str) -> None:
        with pytest.raises(Refused) as refused:
            queue_series(make_user(), make_order("smoke"), times, title=title)
        assert refused.value.lines == [line]
        assert (Run.objects.count(), RunGroup.objects.count()) == (0, 0)

    def test_a_run_knows_its_version_unless_a_field_was_set_differently(self) -> None:
        NamedScenario.write(SMOKE.model_copy(update={"clients": 7}), None)
        ada = make_user()
        same, as_before, other = (create_run(ada, "smoke", {"clients": n}) for n in (7, 100, 8))
        assert same.scenario_version is not None
        assert same.scenario_version.number == 2
        assert as_before.scenario_version is not None
        assert as_before.scenario_version.number == 1
        assert other.scenario_version is None

    def test_a_run_takes_the_scenarios_baseline_unless_another_or_none_is_chosen(self) -> None:
        ada = make_user()
        base, chosen, waits = make_finished(ada), make_finished(ada), make_run(ada)
        NamedScenario.objects.update(baseline=base)
        assert create_run(ada, "smoke").baseline == base
        assert create_run(ada, "smoke", {"clients": 9}).baseline == base
        assert create_run(ada, "smoke", baseline=chosen.pk).baseline == chosen
        assert create_run(ada, "smoke", baseline="none").baseline is None
        for wrong in (waits.pk, "r-nobody", "\ud800"):
            with pytest.raises(Refused, match="baseline: "):
                create_run(ada, "smoke", baseline=wrong)

    @pytest.mark.parametrize(
        ("wanted", "line"),
        [
            ({"reason": "x" * 501}, "reason: 'xxxx"),
            ({"reason": "two\nlines"}, "reason: 'two\\nlines' is refused: wanted one line of at most 500 characters"),
            ({"tags": ["y" * 51]}, "tags: 'yyyy"),
            ({"tags": ["\x00"]}, "tags: '\\x00' is refused"),
            ({"tags": [f"t{n}" for n in range(21)]}, "tags: 21 are refused: wanted at most 20"),
        ],
    )
    def test_a_purpose_out_of_bounds_is_refused(self, wanted: dict[str, Any], line: str) -> None:
        with pytest.raises(Refused) as refused:
            create_run(make_user(), "smoke", **wanted)
        assert refused.value.lines[0].startswith(line)

    def test_the_overhead_is_that_of_the_last_runs(self) -> None:
        assert overhead_s("this-machine") == USUAL_OVERHEAD_S
        ada = make_user()
        for took_s in (15, 17, 40):
            begun = NOW + timedelta(seconds=1)
            make_run(ada, State.FINISHED, preflight_at=begun, finished_at=begun + timedelta(seconds=took_s))
        assert overhead_s("this-machine") == 5
        make_run(ada)
        found = outlook("this-machine", [{"duration_s": 12}, {"duration_s": 30}], NOW)
        assert (found.runs, found.each_s, found.total_s, found.ahead, found.begins_s) == (2, 35, 52, 1, 17)
        assert found.ends_at == NOW + timedelta(seconds=69)


@pytest.mark.django_db
class TestPages:
    @pytest.fixture
    def ada(self) -> User:
        make_scenario()
        return make_user("ada", role="operator")

    @pytest.fixture
    def browser(self, client: Client, ada: User) -> Client:
        client.force_login(ada)
        return client

    def filled(self, **changes: str) -> dict[str, str]:
        form = RunForm.of("smoke", SMOKE)
        texts = {name: text for name, text in form.texts.items() if text != "false"}
        return {"scenario": "smoke", **texts, **changes}

    def test_a_form_queues_a_group_and_leads_to_its_page(self, browser: Client) -> None:
        response = browser.post(NEW, self.filled(series="repeat", times="3", reason="how far apart?"))
        group = RunGroup.objects.get()
        assert response["Location"] == f"/runs/groups/{group.pk}/"
        found = page(browser.get(response["Location"]))
        assert found.one("#progress-title").text == "0 of 3 runs are over"
        assert [link.text for link in found.all(".order a")] == ["1", "2", "3"]
        waits = [row.all("td")[-1].text.replace("\u00a0", " ") for row in found.all(".table tbody tr")]
        assert waits == ["in about 0 s", "in about 22 s", "in about 44 s"]
        assert found.one(".panel-body .small").text.replace("\u00a0", " ") == "3 wait. About 1 min 6 s left."

    def test_a_form_alternates_two_groups_and_tells_both_before(self, browser: Client) -> None:
        sent = self.filled(
            series="alternate", times="5", subject_name="echo", subject_version="1.2", b_subject_version="1.3"
        )
        plan = page(browser.post(PLAN, sent))
        assert "10 runs: A B B A A B B A …" in plan.text
        assert [line.text for line in plan.all(".lines.tight li") if line.text[:2] in ("A:", "B:")] == [
            "A: echo 1.2 (smoke)",
            "B: echo 1.3 (smoke)",
        ]
        assert "About 3 min 40 s in all, 22 s each at most." in plan.text.replace("\u00a0", " ")
        assert plan.one("#start-label").text == "Start 5 + 5 runs"
        browser.post(NEW, sent)
        assert [run.subject_version for run in Run.objects.order_by("created_at")][:4] == ["1.2", "1.3", "1.3", "1.2"]

    def test_two_groups_that_differ_in_nothing_are_told_to_be_a_look_at_the_noise(self, browser: Client) -> None:
        plan = page(browser.post(PLAN, self.filled(series="alternate", times="5")))
        assert "An A/A check" in plan.text

    @pytest.mark.parametrize(
        ("typed", "place", "line"),
        [
            ({"series": "repeat", "times": "1"}, "times", "times: '1' is refused: wanted 2 to 50"),
            ({"series": "repeat", "times": "many"}, "times", "times: 'many' is refused: wanted 2 to 50"),
            ({"series": "alternate", "b_set": "clients"}, "b_set", "'clients' is refused: wanted FIELD=VALUE"),
            ({"series": "alternate", "b_set": "clients=0"}, "b_set", "clients: 0 is refused"),
            ({"series": "alternate", "b_set": "colour=red"}, "b_set", "colour: no such field"),
            ({"series": "alternate", "b_scenario": "nope"}, "b_scenario", "scenario: 'nope' is not known"),
            ({"series": "alternate", "b_subject_name": "x"}, "b_subject_version", "subject.version: '' is refused"),
            ({"reason": "x" * 501}, "reason", "reason: 'xxx"),
            ({"tags": "y" * 51}, "tags", "tags: 'yyy"),
            ({"baseline": "r-nobody"}, "baseline", "baseline: no run 'r-nobody'"),
            ({"subject_declared": "chat"}, "subject_declared", "subject.declared: 'chat' is not declared"),
        ],
    )
    def test_what_is_wrong_stands_beside_its_field(
        self, browser: Client, typed: dict[str, str], place: str, line: str
    ) -> None:
        response = browser.post(NEW, self.filled(times="5") | typed)
        found = page(response)
        assert response.status_code == 422
        assert Run.objects.count() == 0
        live = page(browser.post(PLAN, self.filled(times="5") | typed))
        assert live.one(f"#e-{place}").text.startswith(line)
        if place != "subject_declared":  # nothing is declared: there is no such field
            assert found.one(f"#e-{place}").text.startswith(line)

    def test_the_same_again_with_another_version_is_held_against_the_first(self, browser: Client, ada: User) -> None:
        run = make_finished(ada, subject_name="echo", subject_version="1.2", subject_source="given", reason="why")
        found = page(browser.get(NEW, {"from": run.pk, "other": "1"}))
        assert found.one("#f-subject_name").attributes["value"] == "echo"
        version = found.one("#f-subject_version")
        assert (version.attributes["value"], "data-focus" in version.attributes) == ("", True)
        assert found.one("#e-subject_version").text == ""
        assert found.one("#f-reason").attributes["value"] == "why"
        assert found.one("#f-baseline option[selected]").attributes["value"] == run.pk
        Run.objects.filter(pk=run.pk).update(validity="invalid", subject_source="own")
        own = page(browser.get(NEW, {"from": run.pk, "other": "1"}))
        assert own.one("#f-baseline option[selected]").attributes["value"] == ""
        assert "data-focus" in own.one("#f-reason").attributes
        Run.objects.filter(pk=run.pk).update(validity="valid", subject_source="given")
        again = page(browser.get(NEW, {"from": run.pk}))
        assert again.one("#f-subject_version").attributes["value"] == "1.2"
        assert again.one("#f-baseline option[selected]").attributes["value"] == ""

    def test_the_rest_is_cancelled_from_the_last_on(self, browser: Client, ada: User) -> None:
        order = make_order("smoke")
        group = queue_series(ada, order, 2, other=order)
        Run.objects.filter(pk=Run.objects.order_by("created_at")[0].pk).update(state=State.RUNNING, epoch=1)
        assert group.partner is not None
        browser.post(reverse("runs:group_cancel", args=[group.partner.pk]))
        assert sorted(Run.objects.values_list("state", flat=True)) == ["cancelled"] * 3 + ["running"]
        assert Run.objects.get(state="running").cancel_requested_by == ada
        assert AuditEntry.objects.get(verb="cancelled the rest of").detail == "4 runs"
        said = page(browser.post(reverse("runs:group_cancel", args=[group.pk]), follow=True))
        assert "asked to end" in said.one(".notices").text

    def test_a_groups_page_shows_the_spread_of_what_can_be_believed(self, browser: Client, ada: User) -> None:
        group = RunGroup.objects.create(title="smoke", kind="repeat", created_by=ada)
        values = []
        for n, median_ms in enumerate((2.0, 2.2, 9.0)):
            run = make_run(ada, State.FINISHED, group=group, group_place=n + 1)
            keep(run, make_result(run.pk, median_ms=median_ms))
            values.append(run.summary.figures["response_time.p50"])
        Run.objects.filter(group_place=3).update(validity="invalid")
        found = page(browser.get(group.get_absolute_url()))
        row = next(row for row in found.all(".table")[0].all("tbody tr") if row.one("th").text == "Response time p50")
        cells = [cell.text.replace("\u00a0", " ") for cell in row.all("td")]
        assert cells[0] == "2"
        assert cells[2] == f"{min(values[:2]) * 1e3:.2f} ms"
        assert cells[3] == f"{max(values[:2]) * 1e3:.2f} ms"
        assert found.one("#progress-title").text == "All 3 runs are over"
        assert not found.all("[hx-get]")

    def test_its_queries_do_not_grow_with_its_runs(self, browser: Client, ada: User) -> None:
        counts = []
        for times in (2, 9):
            group = queue_series(ada, make_order("smoke"), times)
            with CaptureQueriesContext(
                connection,
            ) as queries:
                browser.get(group.get_absolute_url())
            counts.append(len(queries))
        assert counts[0] == counts[1]

"""Which runs expire, and that nothing goes that was not shown."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from portal.accounts.models import AuditEntry, User
from portal.retention.expiry import Changed, expire, preview
from portal.retention.models import RetentionRule
from portal.runs.models import Archive, NamedScenario, Note, Run
from portal.runs.states import State
from tests.portal.factories import make_finished, make_run, make_scenario, make_user
from tests.portal.pages import page

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def root() -> User:
    return make_user("root", role="admin", is_superuser=True)


def aged(user: User, days: float, pk: str, state: State = State.FINISHED, **fields: Any) -> Run:
    return make_run(user, state, pk=pk, created_at=NOW - timedelta(days=days), **fields)


def test_without_a_rule_no_run_expires(root: User) -> None:
    aged(root, 5000, "r-old")
    assert preview(NOW).run_ids == []


def test_days_count_from_a_runs_end_and_the_newest_from_its_beginning(root: User) -> None:
    for days in (1, 20, 40):
        aged(root, days, f"r-{days}")
        aged(root, days, f"r-b{days}", scenario_name="basic")
    RetentionRule.objects.create(scenario_name="smoke", keep_days=30)
    assert preview(NOW).run_ids == ["r-40"]
    RetentionRule.objects.create(scenario_name="", keep_runs=1)
    found = preview(NOW)
    assert (found.run_ids, found.by_scenario) == (["r-40", "r-b40", "r-b20"], {"basic": 2, "smoke": 1})
    RetentionRule.objects.filter(scenario_name="smoke").update(keep_runs=1)
    assert preview(NOW).by_scenario == {"basic": 2, "smoke": 2}


def test_the_rule_for_every_other_counts_the_newest_of_each(root: User) -> None:
    aged(root, 2, "r-a2")
    aged(root, 1, "r-a1")
    aged(root, 3, "r-b3", scenario_name="basic")
    RetentionRule.objects.create(scenario_name="", keep_runs=1)
    assert preview(NOW).run_ids == ["r-a2"]


def test_starred_runs_and_baselines_never_expire(root: User) -> None:
    for name in ("starred", "usual", "base", "plain"):
        aged(root, 100, f"r-{name}", starred=name == "starred")
    make_scenario()
    NamedScenario.objects.update(baseline="r-usual")
    aged(root, 1, "r-new", baseline_id="r-base")
    RetentionRule.objects.create(keep_days=30)
    found = preview(NOW)
    assert (found.run_ids, found.kept) == (["r-plain"], 3)


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_a_run_that_is_not_over_stays(root: User, state: State) -> None:
    aged(root, 100, "r-on", state)
    RetentionRule.objects.create(keep_days=1, keep_runs=1)
    aged(root, 0, "r-newer", machine="two")
    assert preview(NOW).run_ids == []


def test_what_was_shown_goes_whole_with_an_entry_each(root: User) -> None:
    run = make_finished(root, pk="r-old", created_at=NOW - timedelta(days=100))
    Note.objects.create(run=run, author=root, text="gone with it")
    aged(root, 1, "r-new")
    RetentionRule.objects.create(keep_days=30)
    found = preview(NOW)
    assert found.archive_bytes == len(Archive.objects.get().content)
    assert expire(root, found.digest, NOW) == 1
    assert list(Run.objects.values_list("pk", flat=True)) == ["r-new"]
    assert not Archive.objects.exists()
    assert not Note.objects.exists()
    entry = AuditEntry.objects.get()
    assert (entry.user, entry.verb, entry.key, entry.detail) == (root, "deleted", "r-old", "it had expired")


def test_nothing_goes_that_was_not_shown(root: User) -> None:
    aged(root, 100, "r-old")
    RetentionRule.objects.create(keep_days=30)
    shown = preview(NOW).digest
    aged(root, 50, "r-older")
    with pytest.raises(Changed):
        expire(root, shown, NOW)
    assert Run.objects.count() == 2


def test_many_runs_go_in_pieces(root: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.retention.expiry.AT_ONCE", 2)
    for n in range(5):
        aged(root, 100 + n, f"r-{n}")
    RetentionRule.objects.create(keep_days=30)
    assert expire(root, preview(NOW).digest, NOW) == 5
    assert not Run.objects.exists()


# --- page and command -----------------------------------------------------------------------------
def test_an_admin_sets_a_rule_sees_what_goes_and_lets_it_go(root: User, client: Client) -> None:
    client.force_login(root)
    make_finished(root, pk="r-old", created_at=NOW - timedelta(days=500))
    assert "There are none: every run is kept." in page(client.get("/team/retention")).text
    client.post("/team/retention/rule", {"scenario": "smoke", "keep_days": "30", "keep_runs": ""})
    assert str(RetentionRule.objects.get()) == "smoke: 30 days"
    found = page(client.get("/team/retention"))
    assert found.one("[aria-labelledby=preview-title] strong").text == "1 run"
    shown = found.one("input[name=shown]").attributes["value"]
    refused = client.post("/team/retention/expire", {"shown": "old"}, follow=True)
    assert "Nothing was deleted: other runs have expired meanwhile." in page(refused).text
    done = client.post("/team/retention/expire", {"shown": shown}, follow=True)
    assert "1 run was deleted." in page(done).text
    assert not Run.objects.exists()
    assert list(AuditEntry.objects.order_by("id").values_list("verb", "kind")) == [
        ("edited", "retention rule"),
        ("deleted", "run"),
    ]


def test_a_rule_without_limits_is_taken_away(root: User, client: Client) -> None:
    client.force_login(root)
    first = RetentionRule.objects.create(scenario_name="smoke", keep_days=1)
    RetentionRule.objects.create(scenario_name="", keep_days=1)
    client.post(f"/team/retention/rule/{first.pk}/remove")
    client.post("/team/retention/rule", {"scenario": "", "keep_days": "", "keep_runs": ""})
    assert not RetentionRule.objects.exists()
    assert client.post("/team/retention/rule", {"scenario": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("sent", "field"),
    [({"keep_days": "0"}, "keep_days"), ({"keep_runs": "-1"}, "keep_runs"), ({"keep_days": "many"}, "keep_days")],
)
def test_a_wrong_limit_is_refused_beside_its_field(
    root: User, client: Client, sent: dict[str, str], field: str
) -> None:
    client.force_login(root)
    response = client.post("/team/retention/rule", {"scenario": ""} | sent)
    assert response.status_code == 422
    assert page(response).one(f"#e-{field}").text.endswith("is refused: wanted 1 to 100,000, or nothing")
    assert not RetentionRule.objects.exists()


def test_the_command_shows_first_and_deletes_what_it_showed(root: User) -> None:
    aged(root, 500, "r-old")
    RetentionRule.objects.create(keep_days=30)

    def said(*options: str) -> str:
        out = io.StringIO()
        call_command("expire_runs", *options, stdout=out)
        return out.getvalue()

    shown = json.loads(said("--json"))
    assert shown["runs"] == ["r-old"]
    assert f"manage expire_runs --delete {shown['shown']}" in said()
    with pytest.raises(CommandError, match="nothing was deleted"):
        said("--delete", "abc")
    assert said("--delete", shown["shown"]) == "1 runs deleted\n"
    assert AuditEntry.objects.get().user is None

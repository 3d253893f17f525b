"""The made-up history: its numbers agree as a real run's do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.accounts.models import User
from portal.runs import digest
from portal.runs.archive import Opened, unpack
from portal.runs.demo.keep import keep
from portal.runs.demo.load import Recipe, archive_of, make
from portal.runs.demo.story import LINES, Line, environment, tell
from portal.runs.models import Archive, Environment, NamedScenario, Run, RunGroup, Summary
from portal.runs.states import State
from tests.portal.factories import make_run, make_user
from wsnode.core.merge import broken_identities
from wsnode.core.protocol import HostResult, Second
from wsnode.core.summary import HostRun

UNTIL = datetime(2026, 11, 20, 12, tzinfo=UTC)


# --- the story ------------------------------------------------------------------------------------
@given(st.integers(1, 400), st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_a_story_has_as_many_runs_as_asked_for_one_after_the_other(runs: int, seed: int) -> None:
    story = tell(runs, UNTIL, seed)
    assert len(story.runs) == runs
    assert all(later.at > earlier.at for earlier, later in pairwise(story.runs))
    assert story.runs[-1].at <= UNTIL
    assert {told.group for told in story.runs if told.group} <= story.series.keys()


def test_the_same_seed_tells_the_same_story_and_another_one_another() -> None:
    assert tell(300, UNTIL, 1).runs == tell(300, UNTIL, 1).runs
    assert tell(300, UNTIL, 1).runs != tell(300, UNTIL, 2).runs


def test_a_long_story_has_all_that_one_wants_to_see() -> None:
    story = tell(3000, UNTIL, 1)
    assert {told.trouble for told in story.runs} == {"", "late", "very late", "failed", "cancelled", "lost"}
    assert {told.line.scenario.name for told in story.runs} == {line.scenario.name for line in LINES}
    assert {series.kind for series in story.series.values()} == {"repeat", "alternate", "schedule"}
    kernels = {told.recipe.environment["kernel"] for told in story.runs if told.recipe}
    backlogs = {told.recipe.environment["net.core.somaxconn"] for told in story.runs if told.recipe}
    assert (len(kernels), len(backlogs)) == (2, 2)
    assert {told.engine for told in story.runs if told.line.subject == "wsnode"} == {"websockets", "lean"}
    assert len({told.version for told in story.runs if told.line.subject == "chat-gateway"}) == 16

    def median_ms(subject: str, begin: float, end: float) -> float:
        found = [
            told.recipe.condition.median_ms / told.line.condition.median_ms
            for told in story.runs
            if told.recipe and told.line.subject == subject and begin <= told.share < end
        ]
        return sum(found) / len(found)

    # Slower and slower, then mended; and a jump that stays.
    assert median_ms("chat-gateway", 0.42, 0.5) < median_ms("chat-gateway", 0.6, 0.64)
    assert median_ms("chat-gateway", 0.6, 0.64) > 1.2 * median_ms("chat-gateway", 0.7, 0.8)
    assert median_ms("edge-proxy", 0.8, 1) > 1.3 * median_ms("edge-proxy", 0.6, 0.7)


# --- a load -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.scenario.name)
def test_what_a_load_counts_adds_up_and_its_archive_comes_to_the_same_counts(line: Line) -> None:
    condition = line.condition._replace(lost=0.01, refused=0.05)
    made = make(Recipe(line.scenario, line.generators, condition, environment(0.2), "", "seed"))
    assert made.result.verdict in ("passed", "failed")
    assert broken_identities(made.result.counters) == []
    assert (made.result.counters.messages_lost > 0) == (line.scenario.interval_ms > 0)
    data = unpack(archive_of(made, "r-aaaaaaaaaa", 1_700_000_000_123_456_789))
    assert (data["run_id"], data["start_at_ns"]) == ("r-aaaaaaaaaa", 1_700_000_000_123_456_789)
    assert len(data["seconds"]) == line.scenario.duration_s
    last = Second.model_validate(data["seconds"][-1])
    assert last.counters.messages_due == made.result.counters.messages_due
    hosts = [
        HostRun(host["name"], [last], HostResult.model_validate(host["result"]))
        for host in data["hosts"]
        if host["result"]
    ]
    assert [host.result.run_id for host in hosts] == ["r-aaaaaaaaaa"] * len(line.generators)
    total = sum(host.total.counters.messages_received for host in hosts if host.total)
    assert total == made.result.counters.messages_received


@pytest.mark.parametrize(("lag_ms", "word"), [(0.06, "valid"), (2.4, "suspect"), (22.0, "invalid")])
def test_a_late_generator_makes_a_load_that_is_not_believed(lag_ms: float, word: str) -> None:
    line = next(line for line in LINES if line.scenario.name == "nightly-echo")
    condition = line.condition._replace(lag_ms=lag_ms)
    made = make(Recipe(line.scenario, line.generators, condition, environment(0.2), "", "seed"))
    assert made.result.validity == word


# --- the rows ---------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_a_demo_is_written_with_all_that_is_kept_of_a_run() -> None:
    say = StringIO()
    call_command("seed_demo", "--runs", "30", "--seed", "3", stdout=say)
    assert "30 runs in" in say.getvalue()
    assert Run.objects.count() == 30
    finished = Run.objects.finished()
    assert set(finished.values_list("pk", flat=True)) == set(Summary.objects.values_list("run", flat=True))
    assert Archive.objects.count() == finished.count()
    run = finished.filter(scenario_name="release-gate").first() or finished.first()
    assert run is not None
    result = run.summary.content
    assert (result.run_id, result.verdict, result.validity) == (run.pk, run.verdict, run.validity)
    assert result.subject is not None
    assert result.subject.version == run.subject_version
    assert result.window is not None
    assert result.window.start >= run.created_at
    assert run.archive.data["run_id"] == run.pk
    drawn = (result.window.from_s, result.window.to_s)
    assert bytes(run.archive.digest or b"") == digest.make(Opened(bytes(run.archive.content)), drawn)
    hosts = set(Environment.objects.filter(run=run).values_list("host", flat=True))
    assert hosts == {"server", *run.generators}
    assert len(run.environment_digest) == 64
    assert {row.value is not None for row in run.evidence.all()} == {True}
    assert NamedScenario.objects.filter(name="release-gate", versions__number=1).exists()
    assert RunGroup.objects.filter(kind="schedule").count() == 1
    assert not User.objects.get(username="ada").has_usable_password()
    assert not Run.objects.active().exists() | Run.objects.queued().exists()


@pytest.mark.django_db
def test_a_demo_is_not_mixed_with_runs_that_are_there_unless_one_says_so() -> None:
    make_run(make_user("somebody"), State.FAILED)
    with pytest.raises(CommandError, match="there are runs already"):
        call_command("seed_demo", "--runs", "1")
    call_command("seed_demo", "--runs", "1", "--among-others", stdout=StringIO())
    assert Run.objects.count() == 2


@pytest.mark.parametrize("runs", ["0", "-1", "1000001"])
def test_a_number_of_runs_that_makes_no_sense_is_refused(runs: str) -> None:
    with pytest.raises(CommandError, match=r"--runs: .* is refused \(allowed: 1 to 1,000,000\)"):
        call_command("seed_demo", "--runs", runs)


@pytest.mark.django_db
def test_the_runs_of_a_demo_end_before_now() -> None:
    now = datetime.now(UTC)
    keep(12, now, 1)
    newest = Run.objects.order_by("-created_at")[0]
    assert now - timedelta(days=1) < newest.created_at < now

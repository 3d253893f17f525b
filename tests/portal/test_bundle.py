"""Runs out of one portal and into another; tables of their figures."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client

from portal.accounts.models import AuditEntry, User
from portal.runs import bundle
from portal.runs.bundle import BadBundle, pack, read
from portal.runs.importing import import_run
from portal.runs.models import Archive, EvidenceRow, Note, OtherWindow, Run, Summary, Tag
from portal.runs.states import State
from portal.runs.table import FACTS, FIGURES
from tests.portal.factories import make_finished, make_run, make_user, say
from tests.portal.pages import page

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def run(ada: User) -> Run:
    """A finished run with everything that a run can have."""
    one = make_finished(ada, reason="is it the disk?", subject_name="shop", subject_version="2.1", engine="lean")
    one.tags.set([Tag.objects.create(name="nightly")])
    Note.objects.create(run=one, author=ada, text="*slow*")
    say(one, "load-1 is ready")
    OtherWindow.objects.create(run=one, label="the end", from_s=4, to_s=8, result=one.summary.result, created_by=ada)
    return one


def kept(run_id: str) -> dict[str, Any]:
    """All that is stored of a run, but for what import may not take over."""
    run = Run.objects.select_related("summary", "archive").get(pk=run_id)
    leave = {"id", "run_id", "created_by_id"}

    def rows(found: Any) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k not in leave} for row in found.values()]

    row = Run.objects.filter(pk=run_id).values().get()
    for name in ("origin", "created_by_id", "epoch", "conductor", "scenario_version_id"):
        row.pop(name)
    return {
        "run": row,
        "summary": Summary.objects.filter(run=run).values().get(),
        "archive": bytes(run.archive.content),
        "evidence": rows(run.evidence.order_by("order")),
        "environments": rows(run.environments.order_by("id")),
        "windows": rows(run.other_windows),
        "tags": list(run.tags.values_list("name", flat=True)),
    }


def changed(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads(zstandard.decompress(content, max_output_size=1 << 28))
    change(data)
    return zstandard.compress(json.dumps(data).encode())


def test_a_run_comes_back_as_it_was_in_a_portal_that_has_none(run: Run) -> None:
    content, before = pack(run), kept(run.pk)
    Run.objects.all().delete()
    root = make_user("root", role="admin")
    again = import_run(root, content)
    assert kept(again.pk) == before
    assert (again.pk, again.origin, again.created_by) == (run.pk, "import", root)
    assert again.notes.get().text == "*ada* wrote:\n\n*slow*"
    told = list(again.events.values_list("text", flat=True))
    assert told == ["load-1 is ready", "imported by root; made by ada at http://127.0.0.1:8000"]
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.key, entry.detail) == ("imported", run.pk, "made by ada at http://127.0.0.1:8000")


def test_the_imported_run_has_its_page(run: Run, client: Client, ada: User) -> None:
    content = pack(run)
    Run.objects.all().delete()
    import_run(ada, content)
    client.force_login(ada)
    assert client.get(f"/runs/{run.pk}/").status_code == 200


def test_one_that_is_here_is_never_overwritten(run: Run, ada: User) -> None:
    content, before = pack(run), kept(run.pk)
    with pytest.raises(BadBundle, match=f"run.id: {run.pk} is here already: nothing was changed"):
        import_run(ada, changed(content, lambda data: data["run"].update(reason="forged")))
    assert kept(run.pk) == before
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.LOST])
def test_a_run_without_a_result_is_taken_too(ada: User, state: State) -> None:
    one = make_run(ada, state, state_reason="load-1 is unfit")
    content = pack(one)
    one.delete()
    again = import_run(ada, content)
    assert (again.state, again.state_reason, hasattr(again, "summary")) == (state, "load-1 is unfit", False)


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_a_run_that_goes_on_is_not_exported(ada: User, state: State, client: Client) -> None:
    one = make_run(ada, state)
    with pytest.raises(ValueError, match="only a run that is over"):
        pack(one)
    client.force_login(ada)
    assert client.get(f"/runs/{one.pk}/export").status_code == 404


def test_its_baseline_is_linked_where_it_is_here(ada: User) -> None:
    base = make_run(ada, State.FINISHED)
    one = make_run(ada, State.FAILED, baseline=base)
    content = pack(one)
    one.delete()
    assert import_run(ada, content).baseline == base
    Run.objects.all().delete()
    assert import_run(ada, content).baseline is None


def _archive_of_another(data: dict[str, Any]) -> None:
    archive = zstandard.compress(json.dumps({"format": 1, "run_id": "r-other", "hosts": [], "seconds": []}).encode())
    data["archive"] = base64.b64encode(archive).decode()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda d: d.update(kind="other"), "the file is no exported run"),
        (lambda d: d.update(version=2), "version: 2 is refused: this portal reads 1"),
        (lambda d: d.update(colour="red"), "colour: Extra inputs are not permitted"),
        (lambda d: d["run"].update(id="r-x'; DROP"), "run.id: String should match pattern"),
        (lambda d: d["run"].update(state="queued"), "run.state: Input should be 'finished'"),
        (lambda d: d["run"].update(created_at="yesterday"), "run.created_at:"),
        (lambda d: d["run"].update(id="r-aaaaaaaaaa"), "Value error, the result is of run"),
        (lambda d: d["run"].update(verdict="failed"), "verdict or validity of the run are not its result's"),
        (lambda d: d["run"]["scenario"].update(clients=0), "run.scenario.clients:"),
        (lambda d: d.update(result=None), "Value error, a finished run without a result"),
        (lambda d: d["result"].update(schema_version=99), "the file is refused: "),
        (lambda d: d["evidence"].append(d["evidence"][0]), "evidence: one stands there twice"),
        (lambda d: d["evidence"][0].update(grafana_url="javascript:alert(1)"), "wanted an address of http or https"),
        (lambda d: d["notes"][0].update(text="x" * 20_001), "notes.0.text:"),
        (lambda d: d.update(tags=["two words"]), "tags.0: String should match pattern"),
        (lambda d: d.update(archive="%%%"), "the file is refused: "),
        (lambda d: d.update(archive=base64.b64encode(b"no zstd").decode()), "archive: "),
        (_archive_of_another, "archive: it is of run r-other"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_and_nothing_is_kept(
    run: Run, ada: User, change: Callable[[dict[str, Any]], object], line: str
) -> None:
    content = changed(pack(run), change)
    Run.objects.all().delete()
    with pytest.raises(BadBundle) as refusal:
        import_run(ada, content)
    assert line in str(refusal.value)
    for model in (Run, Summary, Archive, EvidenceRow, Note):
        assert not model.objects.exists()  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", [b"", b"hello", zstandard.compress(b"{"), zstandard.compress(b"[]")])
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(BadBundle, match="the file is no exported run"):
        read(content)


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    bomb = zstandard.compress(b" " * (8 << 20))
    assert len(bomb) < 2000
    monkeypatch.setattr(bundle, "MOST_UNPACKED", 1 << 20)
    with pytest.raises(BadBundle, match="more than 1,048,576 bytes when it is unpacked"):
        read(bomb)
    monkeypatch.undo()
    inner = changed(pack(run), lambda data: data.update(archive=base64.b64encode(bomb).decode()))
    monkeypatch.setattr(bundle, "MOST_UNPACKED", 4 << 20)
    with pytest.raises(BadBundle, match="archive: more than 4,194,304 bytes"):
        read(inner)


def test_a_file_that_is_too_big_is_refused(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(bundle, "MOST_BYTES", 100)
    with pytest.raises(BadBundle, match="wanted at most 100"):
        read(pack(run))


# --- page and command -----------------------------------------------------------------------------
def test_a_file_goes_out_by_one_page_and_in_by_another(run: Run, ada: User, client: Client) -> None:
    client.force_login(ada)
    out = client.get(f"/runs/{run.pk}/export")
    assert out["Content-Disposition"] == f'attachment; filename="wslab-{run.pk}.wslab.zst"'
    Run.objects.all().delete()
    response = client.post("/runs/import", {"file": SimpleUploadedFile("x", out.content)})
    assert (response.status_code, response["Location"]) == (302, f"/runs/{run.pk}/")
    again = client.post("/runs/import", {"file": SimpleUploadedFile("x", out.content)})
    assert again.status_code == 422
    assert f"run.id: {run.pk} is here already" in page(again).one("#refused").text
    assert "nothing was chosen" in page(client.post("/runs/import")).one("#refused").text


def test_the_command_takes_files_and_says_which_it_did_not(run: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(pack(run))
    bad.write_bytes(b"no")
    Run.objects.all().delete()
    make_user("root", role="admin", is_superuser=True)
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError, match="1 of 2 not imported"):
        call_command("import_run", str(bad), str(good), stdout=out, stderr=err)
    assert out.getvalue() == f"{run.url}\n"
    assert f"{bad}: the file is no exported run" in err.getvalue()
    assert Run.objects.get().created_by.username == "root"
    with pytest.raises(CommandError, match="no active user 'nobody'"):
        call_command("import_run", str(good), username="nobody")


# --- tables ---------------------------------------------------------------------------------------
def csv_of(response: Any) -> list[dict[str, str]]:
    text = b"".join(response.streaming_content).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_all_figures_of_a_run_are_one_row(run: Run, ada: User, client: Client) -> None:
    client.force_login(ada)
    (row,) = csv_of(client.get(f"/runs/{run.pk}/figures.csv"))
    assert list(row) == [*FACTS, *FIGURES]
    assert (row["run_id"], row["tags"], row["verdict"]) == (run.pk, "nightly", run.verdict)
    for name, value in run.summary.figures.items():
        assert row[name] == ("" if value is None else str(value))


def test_a_filtered_list_is_exported_as_it_is_filtered(run: Run, ada: User, client: Client) -> None:
    make_run(ada, State.FAILED, scenario_name="basic")
    client.force_login(ada)
    assert {row["run_id"] for row in csv_of(client.get("/runs/export"))} == set(
        Run.objects.values_list("pk", flat=True)
    )
    assert [row["run_id"] for row in csv_of(client.get("/runs/export?scenario=smoke"))] == [run.pk]
    response = client.get("/runs/export?scenario=basic&format=json")
    (row,) = json.loads(b"".join(response.streaming_content))
    assert (row["scenario"], row["state"], row["response_time.p99"]) == ("basic", "failed", None)


def test_a_spreadsheet_takes_nothing_for_a_formula(ada: User, client: Client) -> None:
    make_run(ada, State.FAILED, subject_name='=HYPERLINK("https://evil.example")', reason="@SUM(A1)")
    client.force_login(ada)
    (row,) = csv_of(client.get("/runs/export"))
    assert row["subject"] == '\'=HYPERLINK("https://evil.example")'
    assert row["reason"] == "'@SUM(A1)"


def test_an_export_costs_by_the_piece_and_not_by_the_run(
    ada: User, client: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        make_run(ada, State.FAILED)
    client.force_login(ada)
    with django_assert_max_num_queries(6):
        assert len(csv_of(client.get("/runs/export"))) == 30

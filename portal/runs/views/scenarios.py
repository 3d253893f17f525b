"""Scenarios: what there is, how each came to be, and editing them."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import Count, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts.audit import record
from portal.accounts.models import User
from portal.accounts.roles import operator, viewer
from portal.runs.catalogue import Overtaken
from portal.runs.draft import Refused
from portal.runs.edits import Edit, edits
from portal.runs.foresight import foresee
from portal.runs.forms import ScenarioForm
from portal.runs.models import NamedScenario, Run, ScenarioVersion
from portal.runs.purpose import NO_BASELINE, find_baseline
from portal.runs.seed import FROM_FILE, of_file
from portal.runs.text import MOST_CHARS, read_yaml, write_yaml
from wsnode.core.scenario import Scenario

VERSIONS = 50
RUNS = 10
BASELINES = 50
MESSAGE_CHARS = 500


class Revision(NamedTuple):
    """A version with what it changed."""

    version: ScenarioVersion
    edits: list[Edit]
    is_first: bool


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _row(name: str) -> NamedScenario:
    return get_object_or_404(NamedScenario.objects.select_related("baseline"), name=name)


@viewer
@require_safe
def scenarios(request: HttpRequest) -> HttpResponse:
    """All scenarios."""
    newest = ScenarioVersion.objects.filter(scenario=OuterRef("pk")).order_by("-number")
    runs = Run.objects.filter(scenario_name=OuterRef("name")).order_by()
    rows = NamedScenario.objects.select_related("baseline").annotate(
        number=Subquery(newest.values("number")[:1]),
        author=Subquery(newest.values("author__username")[:1]),
        written_at=Subquery(newest.values("created_at")[:1]),
        run_count=Coalesce(
            Subquery(runs.values("scenario_name").annotate(n=Count("pk")).values("n"), output_field=IntegerField()), 0
        ),
        last_run=Subquery(runs.order_by("-created_at").values("created_at")[:1]),
    )
    shown = [(row, _differs(row, of_file(row.name, settings.SCENARIOS))) for row in rows.order_by("name")]
    return render(
        request,
        "scenarios/list.html",
        {
            "section": "scenarios",
            "offered": [pair for pair in shown if pair[0].archived_at is None],
            "archived": [pair[0] for pair in shown if pair[0].archived_at is not None],
        },
    )


def _differs(row: NamedScenario, filed: Scenario | None) -> list[Edit]:
    """What would change if the file's were taken."""
    return edits(row.content, filed.model_dump(mode="json")) if filed is not None else []


@viewer
@require_safe
def scenario(request: HttpRequest, name: str) -> HttpResponse:
    """One scenario: what it does, its versions, its runs."""
    row = _row(name)
    versions = list(row.versions.select_related("author").order_by("-number")[: VERSIONS + 1])
    older = [*versions[1:], None]
    history = [
        Revision(one, edits(before.content, one.content) if before else [], before is None)
        for one, before in zip(versions, older, strict=True)
    ][:VERSIONS]
    finished = Run.objects.finished().filter(scenario_name=name).defer("live", "scenario").order_by("-created_at")
    form = ScenarioForm.of(row.name, row.scenario_model)
    form.check()
    return render(
        request,
        "scenarios/scenario.html",
        {
            "section": "scenarios",
            "row": row,
            "newest": versions[0] if versions else None,
            "history": history,
            "more_versions": len(versions) > VERSIONS,
            "yaml": write_yaml(row.content),
            "filed": _differs(row, of_file(name, settings.SCENARIOS)),
            "runs": Run.objects.filter(scenario_name=name).for_list()[:RUNS],
            "finished": finished[:BASELINES],
            "form": form,
        }
        | _plan_of(form),
    )


@operator
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """A new scenario: from nothing, or as a duplicate of another."""
    if request.method == "POST":
        return _save(request, None)
    source = request.GET.get("from")
    base = _row(source).scenario_model if source else Scenario()
    form = ScenarioForm.of("", base.model_copy(update={"name": _free(f"{base.name}-copy")}) if source else base)
    return _edit_page(request, form, None, said=f"a duplicate of {source}" if source else "")


def _free(name: str) -> str:
    """The name, or one like it that is not taken."""
    taken = set(NamedScenario.objects.values_list("name", flat=True))
    names = [name[:60], *(f"{name[:57]}-{n}" for n in range(2, 100))]
    return next((one for one in names if one not in taken), name)


@operator
@require_POST
def from_yaml(request: HttpRequest) -> HttpResponse:
    """The form of a new scenario, or of the one named, filled by YAML that was pasted or uploaded. Nothing is saved."""
    row = NamedScenario.objects.filter(name=request.POST.get("into", "")).first()
    text = request.POST.get("yaml", "")
    uploaded = request.FILES.get("file")
    try:
        if uploaded is not None:
            text = _decoded(uploaded.read(4 * MOST_CHARS + 1))
        filled = read_yaml(text)
    except Refused as refused:
        form = ScenarioForm.of("", row.scenario_model if row else Scenario())
        return _edit_page(request, form, row, yaml=text, yaml_errors=refused.lines, status=422)
    form = ScenarioForm.of("", filled)
    form.check()
    return _edit_page(request, form, row, said="from YAML")


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Refused(["the file is refused: wanted YAML in UTF-8"]) from error


@operator
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    """The form of a scenario that there is."""
    row = _row(name)
    if request.method == "POST":
        return _save(request, row)
    return _edit_page(request, ScenarioForm.of(name, row.scenario_model), row)


def _save(request: HttpRequest, row: NamedScenario | None) -> HttpResponse:
    """Write a version, or show the form with what is wrong."""
    form = ScenarioForm.posted(request.POST.dict())
    said = request.POST.get("message", "").strip()
    seen = request.POST.get("made_from", "0")
    if form.check() and row is not None and form.texts["name"] != row.name:
        form.errors["name"] = f"the name stays {row.name}: 'Duplicate' makes a scenario of another name"
    if len(said) > MESSAGE_CHARS or not said.isprintable():
        form.errors["message"] = f"wanted one line of at most {MESSAGE_CHARS} characters"
    if not form.errors:
        assert form.scenario is not None
        number = int(seen) if seen.isdecimal() and len(seen) < 9 else 0
        try:
            with transaction.atomic():
                version = NamedScenario.write(form.scenario, _user(request), said, made_from=number)
                record(
                    _user(request), "edited" if row else "made", version.scenario, f"version {version.number}: {said}"
                )
        except Overtaken as error:
            _overtaken(form, row, error.newest)
        else:
            messages.success(request, f"Saved as version {version.number}.", extra_tags="good")
            return redirect(version.scenario)
    return _edit_page(request, form, row, said=said, seen=seen, status=422)


def _overtaken(form: ScenarioForm, row: NamedScenario | None, newest: ScenarioVersion | None) -> None:
    if row is None:
        form.errors["name"] = f"there is a scenario {form.texts['name']} already: take another name, or edit that one"
        return
    assert newest is not None
    who = newest.author.username if newest.author else "its file"
    form.errors[""] = (
        f"version {newest.number} was written meanwhile, by {who}: see its page for what it changes, "
        "then edit anew; what you typed still stands below"
    )


def _edit_page(
    request: HttpRequest,
    form: ScenarioForm,
    row: NamedScenario | None,
    *,
    said: str = "",
    seen: str | None = None,
    yaml: str = "",
    yaml_errors: list[str] | None = None,
    status: int = 200,
) -> HttpResponse:
    errors = form.errors
    form.check()
    form.errors |= errors
    newest = row.newest if row is not None else None
    context = {
        "section": "scenarios",
        "row": row,
        "form": form,
        "said": said,
        "seen": seen if seen is not None else newest.number if newest else 0,
        "yaml": yaml,
        "yaml_errors": yaml_errors or [],
        "posted": status != 200 and not yaml_errors,
    }
    return render(request, "scenarios/edit.html", context | _plan_of(form), status=status)


def _plan_of(form: ScenarioForm) -> dict[str, Any]:
    """The plan of a scenario that was checked."""
    if form.scenario is None:
        return {"plan": None}
    foreseen = foresee(form.scenario, times=0)
    return {"plan": foreseen.plan, "lab_error": foreseen.lab_error}


@operator
@require_POST
def plan(request: HttpRequest) -> HttpResponse:
    """The plan of what is typed so far, and each field's refusal."""
    form = ScenarioForm.posted(request.POST.dict())
    form.check()
    return render(request, "runs/plan_live.html", {"form": form} | _plan_of(form))


@viewer
@require_safe
def yaml(request: HttpRequest, name: str) -> HttpResponse:
    """A scenario as a file, as it is now or as a version had it."""
    row = _row(name)
    content, file = row.content, f"{name}.yaml"
    if number := request.GET.get("version"):
        found = row.versions.filter(number=int(number)) if number.isdecimal() and len(number) < 9 else None
        version = get_object_or_404(found if found is not None else row.versions.none())
        content, file = version.content, f"{name}-v{version.number}.yaml"
    return HttpResponse(
        write_yaml(content),
        content_type="application/yaml; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{file}"'},
    )


@operator
@require_POST
def bring_back(request: HttpRequest, name: str) -> HttpResponse:
    """Make an earlier version the newest one again, or the file's (`version=file`)."""
    row, wanted = _row(name), request.POST.get("version", "")
    user = _user(request)
    with transaction.atomic():
        if wanted == "file":
            filed = of_file(name, settings.SCENARIOS)
            if filed is None:
                messages.error(request, f"There is no usable file {name}.yaml.", extra_tags="bad")
                return redirect(row)
            # Without an author, as the file's versions are: from now on the file is followed again.
            version = NamedScenario.write(filed, None, f"{FROM_FILE}, taken by {user.username}")
        else:
            numbered = row.versions.filter(number=int(wanted)) if wanted.isdecimal() and len(wanted) < 9 else None
            old = get_object_or_404(numbered if numbered is not None else row.versions.none())
            version = NamedScenario.write(old.scenario_model, user, f"as version {old.number} was")
        record(user, "edited", row, f"version {version.number}: {version.message}")
    messages.success(request, f"Version {version.number} is the newest now.", extra_tags="good")
    return redirect(row)


@operator
@require_POST
def set_baseline(request: HttpRequest, name: str) -> HttpResponse:
    """What new runs of a scenario are held against."""
    row, chosen = _row(name), request.POST.get("baseline", "")
    try:
        run = find_baseline(name, chosen or NO_BASELINE)
    except Refused as refused:
        messages.error(request, "; ".join(refused.lines), extra_tags="bad")
        return redirect(row)
    with transaction.atomic():
        row.baseline = run
        row.save(update_fields=["baseline"])
        record(_user(request), "set the baseline of", row, run.pk if run else "none")
    messages.success(request, f"The baseline is {run.pk if run else 'none'} now.", extra_tags="good")
    return redirect(row)


@operator
@require_POST
def archive(request: HttpRequest, name: str) -> HttpResponse:
    """Offer a scenario no more, or again (`back=1`). Its versions and runs stay."""
    row, back = _row(name), bool(request.POST.get("back"))
    with transaction.atomic():
        row.archived_at = None if back else timezone.now()
        row.save(update_fields=["archived_at"])
        record(_user(request), "brought back" if back else "archived", row)
    said = "It is offered again." if back else "It is archived: no longer offered, its runs stay."
    messages.success(request, said, extra_tags="good")
    return redirect(row)

"""Pages of runs."""

from django.urls import path

from portal.runs.views import compare, drawn, export, group, guide, listing, marks, new, notes, reference, run, stretch

app_name = "runs"
urlpatterns = [
    path("", listing.runs, name="list"),
    path("new", new.new, name="new"),
    path("plan", new.plan, name="plan"),
    path("compare", compare.compare, name="compare"),
    path("api", reference.api, name="api"),
    path("tuning", guide.tuning, name="tuning"),
    path("groups/<str:group_id>/", group.group, name="group"),
    path("groups/<str:group_id>/cancel", group.cancel, name="group_cancel"),
    path("export", export.export, name="export"),
    path("import", export.take, name="import"),
    path("<str:run_id>/", run.run, name="run"),
    path("<str:run_id>/live", run.live, name="live"),
    path("<str:run_id>/series.json", drawn.series, name="series"),
    path("<str:run_id>/series/<slug:chart>.csv", drawn.table, name="csv"),
    path("<str:run_id>/stretch", stretch.stretch, name="stretch"),
    path("<str:run_id>/windows", stretch.add, name="windows"),
    path("<str:run_id>/windows/<int:number>/remove", stretch.remove, name="window_remove"),
    path("<str:run_id>/star", marks.star, name="star"),
    path("<str:run_id>/baseline", marks.baseline, name="baseline"),
    path("<str:run_id>/cancel", run.cancel, name="cancel"),
    path("<str:run_id>/notes", notes.add, name="note-add"),
    path("<str:run_id>/notes/<int:note_id>/edit", notes.edit, name="note-edit"),
    path("<str:run_id>/notes/<int:note_id>/delete", notes.delete, name="note-delete"),
    path("<str:run_id>/figures.csv", export.figures, name="figures"),
    path("<str:run_id>/export", export.whole, name="whole"),
    path("<str:run_id>/archive", run.archive, name="archive"),
    path("<str:run_id>/result.json", run.result_json, name="result"),
]

"""Pages of runs."""

from django.urls import path

from portal.runs.views import compare, group, listing, new, reference, run

app_name = "runs"
urlpatterns = [
    path("", listing.runs, name="list"),
    path("new", new.new, name="new"),
    path("plan", new.plan, name="plan"),
    path("compare", compare.compare, name="compare"),
    path("api", reference.api, name="api"),
    path("groups/<str:group_id>/", group.group, name="group"),
    path("groups/<str:group_id>/cancel", group.cancel, name="group_cancel"),
    path("<str:run_id>/", run.run, name="run"),
    path("<str:run_id>/live", run.live, name="live"),
    path("<str:run_id>/series.json", run.series_json, name="series"),
    path("<str:run_id>/phases", run.phases, name="phases"),
    path("<str:run_id>/cancel", run.cancel, name="cancel"),
    path("<str:run_id>/archive", run.archive, name="archive"),
    path("<str:run_id>/result.json", run.result_json, name="result"),
]

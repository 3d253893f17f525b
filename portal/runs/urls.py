"""Pages of runs."""

from django.urls import path

from portal.runs import views

app_name = "runs"
urlpatterns = [
    path("", views.runs, name="list"),
    path("new", views.new, name="new"),
    path("plan", views.plan, name="plan"),
    path("compare", views.compare, name="compare"),
    path("api", views.api, name="api"),
    path("<str:run_id>/", views.run, name="run"),
    path("<str:run_id>/live", views.live, name="live"),
    path("<str:run_id>/series.json", views.series_json, name="series"),
    path("<str:run_id>/phases", views.phases, name="phases"),
    path("<str:run_id>/cancel", views.cancel, name="cancel"),
    path("<str:run_id>/archive", views.archive, name="archive"),
    path("<str:run_id>/result.json", views.result_json, name="result"),
]

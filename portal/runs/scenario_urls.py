"""Pages of scenarios. An act stands without a slash, so that no scenario's name can be one."""

from django.urls import path

from portal.runs.views import scenarios, subjects

app_name = "scenarios"
urlpatterns = [
    path("", scenarios.scenarios, name="list"),
    path("new", scenarios.new, name="new"),
    path("from-yaml", scenarios.from_yaml, name="from_yaml"),
    path("plan", scenarios.plan, name="plan"),
    path("subjects", subjects.subjects, name="subjects"),
    path("subjects/declare", subjects.declare, name="declare"),
    path("subjects/<int:pk>/read", subjects.read, name="read"),
    path("subjects/<int:pk>/forget", subjects.forget, name="forget"),
    path("<str:name>/", scenarios.scenario, name="scenario"),
    path("<str:name>/edit", scenarios.edit, name="edit"),
    path("<str:name>/yaml", scenarios.yaml, name="yaml"),
    path("<str:name>/bring-back", scenarios.bring_back, name="bring_back"),
    path("<str:name>/baseline", scenarios.set_baseline, name="baseline"),
    path("<str:name>/archive", scenarios.archive, name="archive"),
]

"""Pages of schedules."""

from django.urls import path

from portal.schedules import views

app_name = "schedules"
urlpatterns = [
    path("", views.schedules, name="list"),
    path("new", views.new, name="new"),
    path("dates", views.dates, name="dates"),
    path("<str:schedule_id>/", views.schedule, name="schedule"),
    path("<str:schedule_id>/edit", views.edit, name="edit"),
    path("<str:schedule_id>/pause", views.pause, name="pause"),
    path("<str:schedule_id>/resume", views.resume, name="resume"),
    path("<str:schedule_id>/delete", views.delete, name="delete"),
]

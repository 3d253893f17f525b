"""Where history is."""

from django.urls import path

from portal.runs.views import history

app_name = "history"
urlpatterns = [path("", history.history, name="history")]

"""Where everything is."""

from django.contrib.auth import views as auth
from django.urls import include, path

from portal.accounts import roles
from portal.accounts.login import Login
from portal.config.health import healthz
from portal.labs.views import lab
from portal.runs.api import api_urls
from portal.runs.views.home import home

urlpatterns = [
    path("", home, name="home"),
    path("runs/", include("portal.runs.urls")),
    path("scenarios/", include("portal.runs.scenario_urls")),
    path("schedules/", include("portal.schedules.urls")),
    path("history/", include("portal.runs.history_urls")),
    path("lab/", lab, name="lab"),
    path("team/", include("portal.accounts.team_urls")),
    path("account/", include("portal.accounts.account_urls")),
    path("accounts/login/", roles.anyone(Login.as_view()), name="login"),
    path("accounts/logout/", roles.own(auth.LogoutView.as_view()), name="logout"),
    path("api/v1/", api_urls()),
    path("healthz", healthz, name="healthz"),
]

handler404 = "portal.runs.api.absent"

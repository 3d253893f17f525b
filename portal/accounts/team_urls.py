"""Pages of the team."""

from django.urls import path

from portal.accounts import views
from portal.retention import views as retention

app_name = "team"
urlpatterns = [
    path("", views.team, name="people"),
    path("invite", views.invite, name="invite"),
    *(
        path(f"<int:user_id>/{what}", views.act, {"what": what}, name=what)
        for what in ("role", "deactivate", "activate", "reset")
    ),
    path("audit", views.audit, name="audit"),
    path("retention", retention.retention, name="retention"),
    path("retention/rule", retention.rule, name="rule"),
    path("retention/rule/<int:rule_id>/remove", retention.remove, name="rule-remove"),
    path("retention/expire", retention.apply, name="expire"),
]

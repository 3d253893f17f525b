"""Pages of one's own account."""

from django.urls import path

from portal.accounts import account

app_name = "account"
urlpatterns = [
    path("", account.home, name="home"),
    path("password", account.password, name="password"),
    path("tokens", account.issue, name="issue"),
    path("tokens/<int:token_id>/revoke", account.revoke, name="revoke"),
]

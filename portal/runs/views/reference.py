"""How to use the API."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from portal.accounts.roles import viewer
from portal.runs.api import api as description


@viewer
@require_safe
def api(request: HttpRequest) -> HttpResponse:
    """How to use the API."""
    routes = [
        {"method": method.upper(), "path": path, "summary": route["summary"], "text": route.get("description", "")}
        for path, methods in description.get_openapi_schema()["paths"].items()
        for method, route in methods.items()
    ]
    return render(request, "runs/api.html", {"section": "api", "portal_url": settings.PORTAL_URL, "routes": routes})

"""The page of the lab."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from portal.accounts.roles import viewer
from portal.labs.lab import LabError, load_lab
from portal.labs.page import LabPage
from portal.monitoring.hosts import look


@viewer
@require_safe
@vary_on_headers("HX-Request")
def lab(request: HttpRequest) -> HttpResponse:
    """The hosts that runs are made on, what they are, and whether they answer; or why there are none to show."""
    asked_again = request.htmx  # type: ignore[attr-defined]  # django-htmx
    try:
        # Read each time: an export, or a stack that starts anew, replaces it while the portal runs.
        known = load_lab(settings.LAB_FILE)
    except LabError as error:
        if asked_again:
            return HttpResponse(headers={"HX-Refresh": "true"})
        return render(request, "labs/none.html", {"section": "lab", "error": str(error)})
    context = {
        "section": "lab",
        "page": LabPage(known, look(known.prometheus_url)),
        "lab_file": settings.LAB_FILE,
        "grafana_url": settings.GRAFANA_URL or known.grafana_url,
    }
    return render(request, "labs/hosts.html" if asked_again else "labs/lab.html", context)

"""Behind a reverse proxy on the same host (`WSLAB_BEHIND_PROXY`), whose `X-Real-IP` says who asks."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from django.http import HttpRequest, HttpResponse

NEAR = ("127.0.0.1", "::1")


def client_address(answer: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: `REMOTE_ADDR` is the client's and not the proxy's, lest failed sign-ins of one count against all."""

    def middleware(request: HttpRequest) -> HttpResponse:
        told = request.META.get("HTTP_X_REAL_IP", "")
        if request.META.get("REMOTE_ADDR") in NEAR and _is_address(told):
            request.META["REMOTE_ADDR"] = told
        return answer(request)

    return middleware


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True

"""The Content-Security-Policy of every page of the site: nothing from outside, nothing inline.

Owns the policy. Does not own exceptions: a view that needs more (the API's docs draw data: images) sets the header
itself, and what it set stands.
"""

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

HEADER = "Content-Security-Policy"

# connect-src falls back to default-src; 'self' covers the page's own ws: and wss: (CSP level 3). A browser that still
# reads it otherwise (Safari before 15.4) refuses the WebSocket, and client.js goes on over Server-Sent Events.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class ContentSecurityPolicyMiddleware:
    """Sync and async by itself, so that a stream under ASGI costs no thread."""

    sync_capable = async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._answer_async(request)
        return _with_policy(self.get_response(request))  # type: ignore[arg-type]

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        return _with_policy(await self.get_response(request))  # type: ignore[misc]


def _with_policy(response: HttpResponseBase) -> HttpResponseBase:
    response.headers.setdefault(HEADER, POLICY)
    return response

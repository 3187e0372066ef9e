"""What stands around every request: its id, its line in the log, and the shape of the errors that no view
made.

`RequestIdMiddleware` goes first in MIDDLEWARE, so that what the others refuse (a bad Host, an unknown
address, a crash) is answered under the API's prefix as the contract says, and carries the id. Pages outside
of the API keep Django's own errors.
"""

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import NoReverseMatch, reverse

from llmjobs.api.errors import answer, of_status, request_id

logger = logging.getLogger("llmjobs.api")

HEADER = "x-request-id"
ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # a proxy's own id is kept, if it can't forge a line of the log
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestIdMiddleware:
    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._answer_async(request)
        began_s = time.perf_counter()
        token = request_id.set(_id_of(request))
        try:
            return _finish(request, self.get_response(request), began_s)  # type: ignore[arg-type]
        finally:
            request_id.reset(token)

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        began_s = time.perf_counter()
        request_id.set(_id_of(request))  # the request has a task, and so a context, of its own
        return _finish(request, await self.get_response(request), began_s)  # type: ignore[misc]

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        """For views under the prefix that are not DRF's, such as the event streams."""
        return answer(error, request) if _is_api(request) else None


def _id_of(request: HttpRequest) -> str:
    given = request.headers.get(HEADER, "")
    return given if ACCEPTABLE_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _finish(request: HttpRequest, response: HttpResponseBase, began_s: float) -> HttpResponseBase:
    if _is_api(request):
        if response.status_code >= 400 and isinstance(response, HttpResponse) and not _is_json(response):
            _reshape(response)
        _log(request, response, time.perf_counter() - began_s)
    response[HEADER] = request_id.get()
    return response


def _is_api(request: HttpRequest) -> bool:
    prefix = _api_prefix(settings.ROOT_URLCONF)
    return prefix is not None and f"{request.path}/".startswith(prefix)


@lru_cache(maxsize=8)
def _api_prefix(urlconf: str) -> str | None:
    """Where the project mounted the API; None: nowhere."""
    try:
        return reverse("llmjobs-api:jobs", urlconf=urlconf).removesuffix("jobs")
    except NoReverseMatch:
        return None


def _is_json(response: HttpResponseBase) -> bool:
    return response.get("Content-Type", "").startswith("application/json")


def _reshape(response: HttpResponse) -> None:
    """Only the body changes: what others said in headers (Allow, Retry-After, security policies) stays."""
    problem = of_status(response.status_code).response()
    response.content = problem.content
    response["Content-Type"] = problem["Content-Type"]
    response["Content-Length"] = str(len(problem.content))


def _log(request: HttpRequest, response: HttpResponseBase, took_s: float) -> None:
    """The route, not the path or the query: what a caller sends is not written to the log."""
    level = logging.DEBUG if request.method in SAFE_METHODS and response.status_code < 400 else logging.INFO
    match = request.resolver_match
    logger.log(
        level,
        "event=request request_id=%s method=%s route=%s status=%d took_ms=%.1f caller=%s",
        request_id.get(),
        request.method if match else "-",
        match.route if match else "-",
        response.status_code,
        took_s * 1000,
        getattr(request, "llmjobs_caller", "-"),
    )

"""Every error of the API as one value, and that value in the OpenAI shape: {"error": {"code", "message",
"type", "param"}}.

Owns the mapping from exceptions (ours, Django's, DRF's, Postgres') to status, code and headers. Does not own
who raises them. Invariant: no exception's own text reaches a caller unless it was written for callers; what
is unexpected is logged, and answered with the id under which the log has it.
"""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import psycopg
from django.core import exceptions as django_errors
from django.core.signals import got_request_exception
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions as drf_errors

from llmjobs import errors

logger = logging.getLogger("llmjobs.api")

request_id: ContextVar[str] = ContextVar("llmjobs_request_id", default="-")

DATABASE_RETRY_AFTER_S = 2  # Postgres restarts in a second or two; who comes sooner only adds to the rush
IDEMPOTENCY_RETRY_AFTER_S = 1  # the first request commits within milliseconds, or its lock times out


@dataclass(frozen=True, slots=True)
class Problem:
    status: int
    code: str
    message: str
    param: str | None = None
    type: str = "invalid_request_error"
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> JsonResponse:
        error = {"code": self.code, "message": self.message, "type": self.type, "param": self.param}
        return JsonResponse({"error": error}, status=self.status, headers=dict(self.headers))


DATABASE_UNAVAILABLE = Problem(
    503,
    "database_unavailable",
    "The database can't be reached just now. Send the request again; with an Idempotency-Key no job is made twice.",
    type="server_error",
    headers={"Retry-After": str(DATABASE_RETRY_AFTER_S)},
)

# The code of a status, where nobody gave a better one.
CODES: dict[int, str] = {
    400: "bad_request",
    401: "invalid_api_key",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "request_too_large",
    415: "unsupported_media_type",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "unavailable",
}


def problem_of(error: Exception) -> Problem | None:
    """What a caller is told of `error`; None: it was not expected."""
    match error:
        case errors.InvalidRequest():
            return Problem(
                error.status,
                error.code,
                error.message,
                param=error.param,
                type=error.type,
                headers=_headers_of(error),
            )
        case errors.JobNotFound():
            return Problem(404, "job_not_found", str(error) or "There is no such job.", param="id")
        case errors.NotAllowed():
            return Problem(409, "not_allowed", str(error))
        case errors.DatabaseUnavailable() | OperationalError() | InterfaceError():
            return DATABASE_UNAVAILABLE
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return DATABASE_UNAVAILABLE
        case drf_errors.APIException():
            return _of_drf(error)
        case Http404():
            return of_status(404)
        case django_errors.PermissionDenied():
            return of_status(403)
        case django_errors.RequestDataTooBig():
            return of_status(413)
        case (
            django_errors.SuspiciousOperation()
            | django_errors.BadRequest()
            | MultiPartParserError()
            | UnreadablePostError()
        ):
            return of_status(400)
    return None


def of_status(status: int) -> Problem:
    """For an answer of which only the status is known, such as Django's own pages."""
    if status >= 500:
        return _unexpected(status)
    phrase = "There is nothing at this address" if status == 404 else HTTPStatus(status).phrase
    return Problem(status, CODES.get(status, "bad_request"), f"{phrase}.")


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponseBase:
    """DRF's hook: every exception of a view, authentication and permissions included. Never None, so nothing
    leaves as HTML.
    """
    return answer(error, getattr(context["request"], "_request", context["request"]))


def answer(error: Exception, request: HttpRequest) -> HttpResponseBase:
    """The response for `error`. One that was not expected is logged here, with its traceback."""
    problem = problem_of(error)
    if problem is None:
        got_request_exception.send(sender=None, request=request)
        logger.error("event=unexpected_error request_id=%s", request_id.get(), exc_info=error)
        return _unexpected(500).response()
    if problem is DATABASE_UNAVAILABLE:
        logger.warning(
            "event=database_unavailable request_id=%s error=%r",
            request_id.get(),
            str(error).strip().partition("\n")[0],  # Postgres' other lines may quote a row
        )
    return problem.response()


def _unexpected(status: int) -> Problem:
    return Problem(
        status,
        CODES.get(status, "internal_error"),
        f"The server had an error while it handled the request. Its log has it under {request_id.get()}.",
        type="server_error",
    )


def _headers_of(error: errors.InvalidRequest) -> dict[str, str]:
    if isinstance(error, errors.InsufficientQuota):
        return {"x-should-retry": "false"}  # as the SDKs know it: they would try any other 429 again
    retry_after_s = getattr(error, "retry_after_s", None)
    if isinstance(error, errors.IdempotencyInProgress):
        retry_after_s = IDEMPOTENCY_RETRY_AFTER_S
    return {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}


def _of_drf(error: drf_errors.APIException) -> Problem:
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait_s := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait_s))
    codes = error.get_codes()
    code = codes if isinstance(codes, str) and codes not in _DRF_CODES else CODES.get(error.status_code, "bad_request")
    return Problem(error.status_code, code, str(error.detail), headers=headers)


# DRF's names for what CODES names; a code that one of our own raises goes through.
_DRF_CODES = frozenset({
    "error", "invalid", "parse_error", "authentication_failed", "not_authenticated", "permission_denied",
    "not_found", "method_not_allowed", "not_acceptable", "unsupported_media_type", "throttled",
})  # fmt: skip

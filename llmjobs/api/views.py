"""The routes: each parses, calls one verb, renders.

Owns methods, scopes, status codes and headers. Does not own rules about jobs (`queue.py`, `submissions.py`)
nor the look of a job (`representation.py`). Independent of the host's REST_FRAMEWORK settings: what a view
needs, `ApiView` names itself.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast
from uuid import UUID

from django.db import transaction
from django.http import HttpResponse, JsonResponse, QueryDict
from django.utils import timezone
from django.utils.decorators import method_decorator
from rest_framework.exceptions import NotAcceptable, PermissionDenied
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from llmjobs import limit_headers, queue, representation, stats, submissions, tracing
from llmjobs.access import Caller
from llmjobs.api import listing
from llmjobs.api.authentication import ApiKeyAuthentication, HasScope, SessionAuthentication, chosen, client_of
from llmjobs.api.errors import exception_handler
from llmjobs.api.incoming import parameters, read_json_object
from llmjobs.api.schema import WrittenSchema, documented
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, JobNotFound
from llmjobs.models import Job, Model
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.models.tenants import Scope
from llmjobs.states import State
from llmjobs.submissions import IDEMPOTENCY_KEY_CHARS_MAX

RETRY_COUNT_DIGITS_MAX = 9
ANY = ("*",)  # the view reads the query string itself
RETRY_AFTER_MAX_S = 30  # jobs go faster than was thought, too


class JsonOnly(BaseContentNegotiation):
    """Everything here is JSON; who accepts none is told so (406)."""

    def select_parser(self, request: Request, parsers: Any) -> None:
        return None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        accept = request.META.get("HTTP_ACCEPT") or "*/*"
        if accept not in ("*/*", "application/json") and not request._request.accepts("application/json"):
            raise NotAcceptable("Expected an Accept header that application/json satisfies.")
        return renderers[0], renderers[0].media_type


class ApiView(APIView):
    """`scopes`: what a method needs; `query_parameters`: what a query string may hold, by method."""

    scopes: ClassVar[Mapping[str, str]] = {}
    query_parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    authentication_classes = [ApiKeyAuthentication, SessionAuthentication]
    permission_classes = [HasScope]
    renderer_classes = [JSONRenderer]
    parser_classes = []
    throttle_classes = []
    content_negotiation_class = JsonOnly
    versioning_class = None
    metadata_class = None
    schema = WrittenSchema()

    caller: Caller

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.caller = cast(Caller, request.auth)  # HasScope saw to it
        request._request.llmjobs_caller = self.caller.label  # type: ignore[attr-defined]
        if str(request.method).lower() not in self.http_method_names or not hasattr(self, str(request.method).lower()):
            self.http_method_not_allowed(request)  # before its query string is looked at
        self.caller = chosen(self.caller, request.headers)
        known = self.query_parameters.get(str(request.method), ())
        if request.META.get("QUERY_STRING") and known is not ANY:
            parameters(request.query_params, known)

    def get_exception_handler(self) -> Any:
        return exception_handler

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "no-store"
        caller = getattr(self, "caller", None)
        if caller is not None and caller.client is not None:
            for header, value in limit_headers.of(caller.client, can_ask=response.status_code < 500).items():
                response[header] = value
        return response

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return HttpResponse(status=204, headers={"Allow": ", ".join(self.allowed_methods)})


@method_decorator(transaction.non_atomic_requests, name="dispatch")  # a full queue may show at the commit alone
class JobsView(ApiView):
    scopes = {"POST": Scope.SUBMIT, "GET": Scope.READ, "HEAD": Scope.READ}
    query_parameters = {"GET": ANY, "HEAD": ANY}

    @documented("submit_job")
    def post(self, request: Request) -> HttpResponse:
        client = client_of(self.caller)
        submission = submissions.parse(read_json_object(request._request))
        job, is_replay = queue.submit_submission(
            client,
            submission,
            _idempotency_key(request),
            api_key_id=self.caller.api_key_id,
            retry_count=_retry_count(request),
            traceparent=tracing.parsed(request.headers.get("traceparent")),
        )
        if is_replay:
            return _answer(request, job, headers={"Idempotent-Replayed": "true"})
        location = f"{base_url(request)}{request.path}/{job.public_id}"
        return _answer(request, job, status=202, headers={"Location": location}, with_place=False)

    @documented("list_jobs")
    def get(self, request: Request) -> HttpResponse:
        query = listing.parse(request.query_params)
        page = listing.page(self.caller, query)
        data = representation.jobs_json(page.jobs, base_url=base_url(request))
        answer = {"object": "list", "data": data, "next": page.cursor}
        if query.search is not None:
            answer["searched_to"] = representation.time_json(page.searched_to)
        return JsonResponse(answer)


class JobView(ApiView):
    scopes = {"GET": Scope.READ, "HEAD": Scope.READ, "DELETE": Scope.CANCEL}
    query_parameters = {"GET": ("wait",), "HEAD": ("wait",)}

    @documented("get_job")
    def get(self, request: Request, job_id: str) -> HttpResponse:
        wait_s = _wait_s(request.query_params)
        job = find_job(self.caller, job_id)
        response = _answer(request, job)
        if wait_s and not job.is_terminal:
            response.waits_for = (job.pk, wait_s)  # type: ignore[attr-defined]  # waiting.py does
        return response

    @documented("erase_job")
    def delete(self, request: Request, job_id: str) -> HttpResponse:
        queue.erase(find_to_steer(self.caller, job_id).pk)
        return HttpResponse(status=204)


class CancelView(ApiView):
    scopes = {"POST": Scope.CANCEL}

    @documented("cancel_job")
    def post(self, request: Request, job_id: str) -> HttpResponse:
        job = find_to_steer(self.caller, job_id)
        queue.cancel([job.pk])
        return _answer(request, find_job(self.caller, job_id))


class StatsView(ApiView):
    scopes = {"GET": Scope.READ, "HEAD": Scope.READ}

    @documented("get_stats")
    def get(self, request: Request) -> HttpResponse:
        return JsonResponse(stats.queue_stats(None if self.caller.is_operator else self.caller.client_ids))


class ModelsView(ApiView):
    scopes = {"GET": Scope.READ, "HEAD": Scope.READ}

    @documented("list_models")
    def get(self, request: Request) -> HttpResponse:
        models = Model.objects.select_related("provider", "fallback")
        return JsonResponse({"object": "list", "data": [_model_json(model) for model in models]})


def base_url(request: Request) -> str:
    return f"{request.scheme}://{request.get_host()}"


def _answer(
    request: Request,
    job: Job,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    with_place: bool = True,
) -> HttpResponse:
    data = representation.job_json(job, base_url=base_url(request), with_place=with_place)
    response = JsonResponse(data, status=status, headers=headers)
    if not job.is_terminal:
        response["Retry-After"] = str(min(max(math.ceil(_starts_in_s(job, data["eta_s"])), 1), RETRY_AFTER_MAX_S))
    return response


def _starts_in_s(job: Job, eta_s: float | None) -> float:
    if job.state == State.SCHEDULED:
        return (job.available_at - timezone.now()).total_seconds()
    return eta_s or 0


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not (0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"expected 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters, got {key[:64]!a}",
            param="Idempotency-Key",
        )
    return key


def _retry_count(request: Request) -> int | None:
    """Which try of this post it is, as the SDKs count; None where nobody counts, or in no number."""
    count = request.headers.get("x-stainless-retry-count", "")
    return int(count) if count.isascii() and count.isdecimal() and len(count) <= RETRY_COUNT_DIGITS_MAX else None


def find_job(caller: Caller, job_id: str) -> Job:
    """Raises JobNotFound, for what is no id as for what is another's."""
    try:
        public_id = UUID(job_id)
    except ValueError:
        public_id = None
    job = None
    if public_id is not None and str(public_id) == job_id.lower():
        job = caller.jobs().select_related(*JOB_RELATED).filter(public_id=public_id).first()
    if job is None:
        raise JobNotFound("There is no such job.")
    return job


def find_to_steer(caller: Caller, job_id: str) -> Job:
    job = find_job(caller, job_id)
    if not caller.may_steer(job):
        raise PermissionDenied("This caller may see the job, and not change it.", code="insufficient_scope")
    return job


def _wait_s(query: QueryDict) -> float:
    """Longer waits than there may be are cut, not refused."""
    text = query.get("wait", "0")
    try:
        wait_s = float(text) if text.isascii() and "_" not in text else math.nan  # Python's float takes more
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s < math.inf:
        raise InvalidRequest(f"expected seconds, from 0 to {conf.wait_max_s:g}, got {text[:64]!r}", param="wait")
    return min(wait_s, conf.wait_max_s)


def _model_json(model: Model) -> dict[str, Any]:
    def price(value: Any) -> float | None:
        return None if value is None else float(value)

    return {
        "id": model.name,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": model.provider.name,
        "context_window": model.context_window,
        "limits": {
            "rpm": conf.default_rpm if model.rpm is None else model.rpm,
            "tpm": conf.default_tpm if model.tpm is None else model.tpm,
            "max_running": model.max_running,
        },
        "prices": {
            "input_usd_per_mtok": price(model.input_usd_per_mtok),
            "output_usd_per_mtok": price(model.output_usd_per_mtok),
        },
        "fallback": model.fallback.name if model.fallback else None,
        "is_paused": model.is_paused or model.provider.is_paused,
    }

"""The tables beside the jobs, read as they are: attempts, events, requests, results.

A job's own page shows its part of them; these lists are for looking across jobs. Their job may be gone: retention
removes it, and the ledger stays. Prompts and outputs need `view_job_content`: they are no column of a list, and no
filter asks for them.
"""

import json
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import Func, IntegerField, Model, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.safestring import SafeString

from llmjobs.admin import cells
from llmjobs.admin.cells import HIDDEN, NOTHING, TEXT_CHARS_MAX, badge, count, duration, moment, preformatted
from llmjobs.admin.filters import ChoiceFilter, DaysFilter, TextFilter, as_id, as_uuid
from llmjobs.admin.job_columns import usage_text
from llmjobs.admin.job_filters import ClientFilter, ModelFilter
from llmjobs.admin.pages import ViewOnlyPage, may_see_content
from llmjobs.models import Attempt, Job, JobEvent, JobRequest, JobResult
from llmjobs.outcomes import Kind
from llmjobs.states import EventType

BY_JOB = "A job's id."


def of_job(queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
    """The rows of the job that `text` names, by number or public id."""
    text = text.strip()
    if not text:
        return queryset
    if public_id := as_uuid(text):
        return queryset.filter(job_id__in=list(Job.objects.filter(public_id=public_id).values_list("pk", flat=True)))
    number = as_id(text)
    return queryset.none() if number is None else queryset.filter(job_id=number)


class OfJobPage(ViewOnlyPage):
    """Found by its job.

    `content` names the functions that show prompts or outputs; `plain` all that anybody may see.
    """

    search_fields = ("job",)  # Django shows the field only where there are some; `get_search_results` decides
    search_help_text = BY_JOB
    plain: tuple[Any, ...] = ()
    content: tuple[Any, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("job")  # a join would hide rows whose job is gone

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return of_job(queryset, search_term), False

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return (*self.plain, *(self.content if may_see_content(request) else (hidden,) if self.content else ()))


@admin.display(description="content")
def hidden(row: Any) -> str:
    return HIDDEN


@admin.display(description="job")
def job(row: Any) -> str | SafeString:
    return cells.job_link(row)


class OutcomeFilter(ChoiceFilter):
    title = "outcome"
    parameters = ("outcome",)
    column = "outcome"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [("open", "in flight", None), *((word, word, word) for word in [*(kind.value for kind in Kind), "lost"])]


class CodeFilter(TextFilter):
    title = "error code"
    parameters = ("error",)

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(error_code=value)


class ClaimedFilter(DaysFilter):
    title = "claimed"
    parameters = ("claimed_from", "claimed_to")
    column = "claimed_at"


@admin.display(description="outcome")
def outcome(attempt: Attempt) -> SafeString:
    return badge(attempt.outcome or "in flight")


@admin.display(description="claimed")
def claimed(attempt: Attempt) -> str | SafeString:
    return moment(attempt.claimed_at)


@admin.display(description="ran")
def ran(attempt: Attempt) -> str:
    return duration(attempt.ended_at - attempt.claimed_at) if attempt.ended_at else NOTHING


@admin.display(description="tokens")
def tokens(attempt: Attempt) -> str:
    return (
        f"{count(attempt.input_tokens)} + {count(attempt.output_tokens)}"
        if attempt.input_tokens is not None
        else NOTHING
    )


@admin.display(description="cost")
def cost(row: Any) -> str:
    return cells.usd(row.cost_usd)


@admin.register(Attempt)
class AttemptPage(OfJobPage):
    list_display = (
        "id", job, "number", "pool", "tier", outcome, "error_code", "provider_status", claimed, ran, tokens, cost,
    )  # fmt: skip
    list_filter = (OutcomeFilter, ModelFilter, CodeFilter, ClaimedFilter)
    list_select_related = ("pool", "tier")
    plain = (
        job, "number", "pool", "tier", "worker_id", outcome, "error_code", "provider_status", "provider_request_id",
        "claimed_at", "sent_at", "first_token_at", "ended_at", tokens, "cost_usd", "charged", "cost", "flow_weight",
        "tier_weight",
    )  # fmt: skip
    content = ("decision", "error_message")  # a provider's words may quote what it was asked


class TypeFilter(ChoiceFilter):
    title = "type"
    parameters = ("type",)
    column = "type"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(kind.value, kind.value, kind.value) for kind in EventType]


@admin.display(description="created")
def created(row: Any) -> str | SafeString:
    return moment(row.created_at)


@admin.display(description="data")
def data(event: JobEvent) -> str | SafeString:
    return preformatted(json.dumps(event.data, ensure_ascii=False), is_json=True)


@admin.register(JobEvent)
class JobEventPage(OfJobPage):
    list_display = ("id", job, "seq", "type", created)
    list_filter = (TypeFilter,)
    plain = (job, "seq", "type", created)
    content = (data,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobEvent]:
        return super().get_queryset(request).defer("data")


class OctetLength(Func):
    """Bytes of a text. Unlike LENGTH it does not have to unpack what is stored out of line."""

    function = "octet_length"
    output_field = IntegerField()


def text_of(row: Model, column: str) -> str | None:
    """One long column of `row`, cut in the database."""
    manager = type(row)._default_manager
    return manager.filter(pk=row.pk).values_list(Left(column, TEXT_CHARS_MAX + 1), flat=True).first()


@admin.display(description="size")
def size(row: Any) -> str:
    return f"{count(row.size)} bytes" if row.size is not None else NOTHING


@admin.display(description="body")
def body(row: JobRequest) -> str | SafeString:
    return preformatted(text_of(row, "body"), is_json=True)


@admin.register(JobRequest)
class JobRequestPage(OfJobPage):
    list_display = ("pk", job, "client", "user", "idempotency_key", "metadata", size)
    list_filter = (ClientFilter,)
    list_select_related = ("client",)
    plain = (job, "client", "user", "idempotency_key", "metadata", "max_cost_usd", "prompt_hash", "fingerprint", size)
    content = (body,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobRequest]:
        return super().get_queryset(request).defer("body").annotate(size=OctetLength("body"))


@admin.display(description="output text")
def output_text(row: JobResult) -> str | SafeString:
    return preformatted(text_of(row, "output_text"), is_json=False)


@admin.display(description="output")
def output(row: JobResult) -> str | SafeString:
    return preformatted(text_of(row, "output"), is_json=True)


@admin.display(description="tokens")
def usage(row: JobResult) -> str:
    return usage_text(row.usage) or NOTHING


@admin.register(JobResult)
class JobResultPage(OfJobPage):
    list_display = ("pk", job, "error_code", "provider_status", usage, cost, size)
    list_filter = (CodeFilter,)
    plain = (
        job, usage, cost, "error_code", "error_class", "provider_status", "error_attempt", size,
    )  # fmt: skip
    content = ("error_message", output_text, output)

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobResult]:
        return super().get_queryset(request).defer("output", "output_text").annotate(size=OctetLength("output"))

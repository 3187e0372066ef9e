"""The filters beside the list of jobs. Each stands in the URL, and all of them hold together.

Owns what each means and which index serves it; `filters.py` owns how a filter looks. One that no index serves (a
priority, a cost) is walked by `lists.py`, which says how far it looked: an index more would be written four times a
job. Read-only.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet

from llmjobs.admin.filters import SUGGESTIONS_MAX, ChoiceFilter, MomentsFilter, TextFilter, as_id, as_uuid
from llmjobs.admin.lists import LIST_TIMEOUT_S, TooSlow, time_limit
from llmjobs.models import Attempt, Client, Job, Model, OperationItem, Tier, Worker
from llmjobs.outcomes import ERROR_CLASS
from llmjobs.sql import load
from llmjobs.states import DEAD_LETTERS, WAITING, Endpoint, Priority, Size, State

ERROR_CODES_OF_LAST = 200  # dead and failed jobs
ERROR_CLASSES = tuple(dict.fromkeys(ERROR_CLASS.values()))
# An id is given at the insert, created_at says when its transaction began: so long may one have been open.
OPEN_MAX = timedelta(hours=1)
UNFINISHED = sorted(WAITING | {State.RUNNING})


class StatusFilter(ChoiceFilter):
    """One state, or several with commas between them, as links to this list have them: `?status=dead,failed`."""

    title = "status"
    parameters = ("status",)
    column = "state"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        together = [("dead,failed", "dead or failed", None), (",".join(UNFINISHED), "not over", None)]
        return [*((state.value, state.value, state.value) for state in State), *together]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if "," not in self.value:
            return super().queryset(request, queryset)
        words = {word.strip() for word in self.value.split(",")}
        return queryset.filter(state__in=sorted(words)) if words <= set(State) else queryset.none()


class PriorityFilter(ChoiceFilter):
    title = "priority"
    parameters = ("priority",)
    column = "priority"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(priority.word, priority.word, priority.value) for priority in Priority]


class SizeFilter(ChoiceFilter):
    title = "size"
    parameters = ("size",)
    column = "size"
    is_folded = True

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(size.word, size.word, size.value) for size in Size]


class TierFilter(ChoiceFilter):
    title = "tier"
    parameters = ("tier",)
    column = "tier_id"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(name, name, pk) for pk, name in Tier.objects.values_list("pk", "name")[:SUGGESTIONS_MAX]]


class NamedFilter(TextFilter):
    """By the exact name of a row that the list's rows refer to, which is looked up first."""

    placeholder = "exact name"
    named: Any
    column: str

    def suggestions(self) -> Iterable[tuple[str, str]]:
        names = self.named.objects.order_by("name").values_list("name", flat=True)
        return [(name, "") for name in names[:SUGGESTIONS_MAX]]

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        row = self.named.objects.filter(name=value).only("pk").first()
        return queryset.filter(**{self.column: row.pk}) if row else queryset.none()


class ClientFilter(NamedFilter):
    title = "client"
    parameters = ("client",)
    named = Client
    column = "client_id"


class ModelFilter(NamedFilter):
    title = "model"
    parameters = ("model",)
    named = Model
    column = "pool_id"


class AskedModelFilter(ModelFilter):
    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """The jobs that were asked of it, whoever serves them."""
        row = Model.objects.filter(name=value).only("pk").first()
        return queryset.filter(Q(home=row) | Q(home=None, pool=row)) if row else queryset.none()


class ServedByFilter(ModelFilter):
    title = "served by"
    parameters = ("served_by",)
    is_folded = True


class EndpointFilter(ChoiceFilter):
    title = "endpoint"
    parameters = ("endpoint",)
    column = "endpoint"
    is_folded = True

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(word, word, endpoint.value) for endpoint in Endpoint for word in [endpoint.value.rpartition("/")[2]]]


class ErrorFilter(TextFilter):
    title = "error code"
    parameters = ("error",)
    placeholder = "rate_limit_exceeded"

    def suggestions(self) -> Iterable[tuple[str, str]]:
        """Those of the newest dead and failed jobs: a short range of their index."""
        newest = Job.objects.filter(state__in=sorted(DEAD_LETTERS)).order_by("-pk").values("pk")[:ERROR_CODES_OF_LAST]
        codes = Job.objects.filter(pk__in=newest, result__error_code__isnull=False)
        found = codes.order_by("result__error_code").values_list("result__error_code", flat=True).distinct()
        try:
            with time_limit(LIST_TIMEOUT_S, using=codes.db):
                return [(str(code), "") for code in found]
        except TooSlow:
            return []

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(result__error_code=value)


class ErrorClassFilter(ChoiceFilter):
    title = "error class"
    parameters = ("error_class",)
    column = "result__error_class"
    is_folded = True

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(word, word, word) for word in ERROR_CLASSES]


class FailuresFilter(ChoiceFilter):
    """By the attempts that ended in error or a lost lease since the last requeue, which `max_attempts` bounds."""

    title = "failed attempts"
    parameters = ("failures",)
    column = "failures"
    is_folded = True

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [("0", "none", None), ("1", "1 or more", None), ("2", "2 or more", None), ("5", "5 or more", None)]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value:
            return queryset
        if (least := as_id(self.value)) is None or least > 2**31 - 1:
            return queryset.none()
        return queryset.filter(failures__gte=least) if least else queryset.filter(failures=0)


class WebhookFilter(ChoiceFilter):
    title = "webhook"
    parameters = ("webhook",)
    column = "has_webhook"
    is_folded = True

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [("yes", "has one", True), ("no", "has none", False)]


class CostFilter(TextFilter):
    """All attempts together; of jobs whose first attempt is not over, nothing is known yet."""

    title = "cost over, in $"
    parameters = ("cost_over",)
    placeholder = "0.50"
    is_folded = True

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        try:
            least = Decimal(value)
        except InvalidOperation:
            return queryset.none()
        is_amount = least.is_finite() and 0 <= least < 1_000_000
        return queryset.filter(result__cost_usd__gt=least) if is_amount else queryset.none()


class WorkerFilter(TextFilter):
    """Jobs that a worker has or had: its attempts say so, the job only while it runs."""

    title = "worker"
    parameters = ("worker",)
    placeholder = "id or host:pid"
    is_folded = True

    def suggestions(self) -> Iterable[tuple[str, str]]:
        workers = Worker.objects.filter(stopped_at=None)[:SUGGESTIONS_MAX]
        return [(f"{worker.host}:{worker.pid}", "") for worker in workers]

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        workers = self._workers(value)
        if not workers:
            return queryset.none()
        return queryset.filter(Exists(Attempt.objects.filter(job=OuterRef("pk"), worker_id__in=workers)))

    def _workers(self, value: str) -> list[UUID]:
        if worker_id := as_uuid(value):
            return [worker_id]
        host, _, pid = value.rpartition(":")
        if (number := as_id(pid)) is None or number > 2**31 - 1:
            return []
        return list(Worker.objects.filter(host=host, pid=number).values_list("pk", flat=True)[:SUGGESTIONS_MAX])


class CreatedFilter(MomentsFilter):
    """By created_at, which has no index; the ids have, and rise with it."""

    title = "created"
    parameters = ("created_within", "created_from", "created_to")
    column = "created_at"

    def between(self, queryset: QuerySet[Any], since: datetime | None, before: datetime | None) -> QuerySet[Any]:
        queryset = super().between(queryset, since, before)
        if since:
            queryset = queryset.filter(pk__gte=first_created(since - OPEN_MAX))
        if before:
            queryset = queryset.filter(pk__lt=first_created(before + OPEN_MAX))
        return queryset


class FinishedFilter(MomentsFilter):
    title = "finished"
    parameters = ("finished_within", "finished_from", "finished_to")
    column = "finished_at"
    is_folded = True

    def between(self, queryset: QuerySet[Any], since: datetime | None, before: datetime | None) -> QuerySet[Any]:
        """What ended before a time was created before it."""
        queryset = super().between(queryset, since, before)
        return queryset.filter(pk__lt=first_created(before + OPEN_MAX)) if before else queryset


class OperationFilter(TextFilter):
    """What an operation changed; shown where its page has led here."""

    title = "operation"
    parameters = ("operation",)
    placeholder = "number"

    def has_output(self) -> bool:
        return bool(self.value)

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        if (number := as_id(value)) is None:
            return queryset.none()
        changed = OperationItem.objects.filter(operation_id=number, did="changed")
        return queryset.filter(pk__in=changed.values("job_id"))


def first_created(at: datetime) -> int:
    """The least id of those made at `at` or later, or one above all; found by halving."""
    with connection.cursor() as cursor:
        cursor.execute(load("first_created"), {"at": at})
        return int(cursor.fetchone()[0])


JOB_FILTERS = (
    StatusFilter, TierFilter, ClientFilter, AskedModelFilter, ErrorFilter, CreatedFilter, PriorityFilter,
    ServedByFilter, FinishedFilter, ErrorClassFilter, FailuresFilter, CostFilter, WorkerFilter, EndpointFilter,
    SizeFilter, WebhookFilter, OperationFilter,
)  # fmt: skip

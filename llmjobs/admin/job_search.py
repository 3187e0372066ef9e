"""Finding jobs: what may be typed into the search field, and the filters beside the list.

Owns what each finds and by which index; `filters.py` owns how a filter looks. Read-only.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from llmjobs.admin.filters import SUGGESTIONS_MAX, ChoiceFilter, DaysFilter, TextFilter, as_id, as_uuid
from llmjobs.admin.lists import LIST_TIMEOUT_S, TooSlow, time_limit
from llmjobs.models import Attempt, Client, Job, JobRequest, Model, Tier, Worker
from llmjobs.states import Priority, Size, State

HELP = "A job's id, a client's name, an idempotency key, or metadata as key=value; each exactly."
SAME_KEY_MAX = 100  # clients may use the same idempotency key
ERROR_CODES_OF_LAST = 200  # dead and failed jobs
CLOCKS_DIFFER = timedelta(days=1)  # a public id has the time of the submitter's clock, created_at of the database's


def search(queryset: QuerySet[Job], text: str) -> QuerySet[Job]:
    """The jobs that `text` names.

    One meaning is tried after the other, each by its index; metadata, which has none, last.
    """
    text = text.strip()
    if not text:
        return queryset
    if public_id := as_uuid(text):
        return queryset.filter(public_id=public_id)
    # Over all clients, so that the unique index of (client, key) serves it: a probe a client.
    with_key = JobRequest.objects.filter(client__in=Client.objects.values("pk"), idempotency_key=text[:255])
    ids = list(with_key.values_list("pk", flat=True)[:SAME_KEY_MAX])
    key, is_pair, value = text.partition("=")
    if is_pair and not ids:
        return queryset.filter(request__metadata__contains={key.strip(): value.strip()})
    if (number := as_id(text)) is not None:
        ids.append(number)
    client = Client.objects.filter(name=text).only("pk").first()
    return queryset.filter(Q(pk__in=ids) | Q(client=client) if client else Q(pk__in=ids))


class StatusFilter(ChoiceFilter):
    title = "status"
    parameters = ("status",)
    column = "state"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(state.value, state.value, state.value) for state in State]


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


class ErrorFilter(TextFilter):
    title = "error code"
    parameters = ("error",)
    placeholder = "rate_limit_exceeded"

    def suggestions(self) -> Iterable[tuple[str, str]]:
        """Those of the newest dead and failed jobs: a short range of their index."""
        newest = Job.objects.filter(state__in=["dead", "failed"]).order_by("-pk").values("pk")[:ERROR_CODES_OF_LAST]
        codes = Job.objects.filter(pk__in=newest, result__error_code__isnull=False)
        found = codes.order_by("result__error_code").values_list("result__error_code", flat=True).distinct()
        try:
            with time_limit(LIST_TIMEOUT_S, using=codes.db):
                return [(str(code), "") for code in found]
        except TooSlow:
            return []

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(result__error_code=value)


class WorkerFilter(TextFilter):
    """Jobs that a worker has or had: its attempts say so, the job only while it runs."""

    title = "worker"
    parameters = ("worker",)
    placeholder = "id or host:pid"

    def suggestions(self) -> Iterable[tuple[str, str]]:
        workers = Worker.objects.filter(stopped_at=None)[:SUGGESTIONS_MAX]
        return [(f"{worker.host}:{worker.pid}", "") for worker in workers]

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        workers = self._workers(value)
        if not workers:
            return queryset.none()
        return queryset.filter(pk__in=Attempt.objects.filter(worker_id__in=workers).values("job_id"))

    def _workers(self, value: str) -> list[UUID]:
        if worker_id := as_uuid(value):
            return [worker_id]
        host, _, pid = value.rpartition(":")
        if (number := as_id(pid)) is None or number > 2**31 - 1:
            return []
        return list(Worker.objects.filter(host=host, pid=number).values_list("pk", flat=True)[:SUGGESTIONS_MAX])


class CreatedFilter(DaysFilter):
    """By created_at, which has no index; the public ids do, and begin with the time at which they were made."""

    title = "created"
    parameters = ("created_from", "created_to")
    column = "created_at"

    def between(self, queryset: QuerySet[Any], since: datetime | None, before: datetime | None) -> QuerySet[Any]:
        queryset = super().between(queryset, since, before)
        if since:
            queryset = queryset.filter(public_id__gte=least_id(since, -CLOCKS_DIFFER))
        if before:
            queryset = queryset.filter(public_id__lte=least_id(before, CLOCKS_DIFFER))
        return queryset


def least_id(at: datetime, shift: timedelta) -> UUID:
    """The least UUIDv7 of that millisecond.

    A time past what 48 bits hold, or before 1970, is the last or first there is.
    """
    milliseconds = int((at.timestamp() + shift.total_seconds()) * 1000)
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


JOB_FILTERS = (
    StatusFilter, TierFilter, ClientFilter, AskedModelFilter, ServedByFilter, PriorityFilter, SizeFilter, ErrorFilter,
    WorkerFilter, CreatedFilter,
)  # fmt: skip

"""Webhooks on their way: what was told to whom, what came of it, and redelivery.

Owns the question and the history of "redeliver"; the verb is `webhooks.redeliver`, and a worker sends. A URL's query
may be a secret, and a receiver's own words may quote the job: both are shown to those who may see content, host and
status to all.
"""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from llmjobs import webhooks
from llmjobs.admin import confirm, ledger
from llmjobs.admin.cells import NOTHING, badge, moment
from llmjobs.admin.filters import ChoiceFilter, DaysFilter, TextFilter
from llmjobs.admin.job_filters import ClientFilter
from llmjobs.models import WebhookDelivery
from llmjobs.models.outbox import DeliveryState
from llmjobs.states import TERMINAL


class StateFilter(ChoiceFilter):
    title = "state"
    parameters = ("state",)
    column = "state"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(state.value, str(state.label), state.value) for state in DeliveryState]


class TypeFilter(ChoiceFilter):
    title = "type"
    parameters = ("type",)
    column = "type"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        types = [f"job.{state}" for state in sorted(TERMINAL)]
        return [(name, name, name) for name in types]


class ReceiverFilter(TextFilter):
    title = "receiver"
    parameters = ("receiver",)
    placeholder = "exact host"

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(receiver=value.lower())


class CreatedFilter(DaysFilter):
    title = "created"
    parameters = ("created_from", "created_to")
    column = "created_at"


@admin.display(description="state")
def state(delivery: WebhookDelivery) -> SafeString:
    return badge(delivery.state)


@admin.display(description="created")
def created(delivery: WebhookDelivery) -> str | SafeString:
    return moment(delivery.created_at)


@admin.display(description="last try")
def last_try(delivery: WebhookDelivery) -> str | SafeString:
    return moment(delivery.tried_at)


@admin.display(description="next try")
def next_try(delivery: WebhookDelivery) -> str | SafeString:
    return moment(delivery.next_at) if delivery.state == DeliveryState.PENDING else NOTHING


@admin.display(description="given up at")
def given_up_at(delivery: WebhookDelivery) -> str | SafeString:
    return moment(delivery.retry_until) if delivery.state == DeliveryState.PENDING else NOTHING


@admin.display(description="ended")
def ended(delivery: WebhookDelivery) -> str | SafeString:
    return moment(delivery.ended_at)


@admin.display(description="answer")
def answer(delivery: WebhookDelivery) -> str:
    if delivery.status is not None:
        return f"HTTP {delivery.status}"
    return delivery.error or NOTHING


@admin.display(description="error")
def error(delivery: WebhookDelivery) -> str:
    return delivery.error or NOTHING


@admin.display(description="URL")
def url(delivery: WebhookDelivery) -> str:
    return delivery.url


@admin.register(WebhookDelivery)
class WebhookDeliveryPage(ledger.OfJobPage):
    list_display = (
        "id", state, answer, "tries", "receiver", "type", ledger.job, "client", created, last_try, next_try, ended,
    )  # fmt: skip
    list_filter = (StateFilter, ClientFilter, ReceiverFilter, TypeFilter, CreatedFilter)
    list_select_related = ("client",)
    plain = (
        ledger.job, "client", "type", "receiver", state, "tries", answer, "epoch", created, last_try, next_try,
        given_up_at, ended,
    )  # fmt: skip
    content = (url, error)
    actions = ("redeliver",)

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("llmjobs.redeliver_webhookdelivery")

    def buttons(self, obj: WebhookDelivery) -> list[tuple[str, str]]:
        return [("redeliver", "Try now" if obj.state == DeliveryState.PENDING else "Redeliver")]

    @admin.action(description="Redeliver selected webhooks", permissions=["redeliver"])
    def redeliver(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> HttpResponse:
        selected = confirm.bounded(request, queryset).order_by("-pk")
        if not confirm.is_confirmed(request):
            return confirm.asked(self, request, _question(selected))
        chosen = list(selected.values_list("pk", flat=True)[: confirm.SELECTED_MAX])
        with transaction.atomic():
            done = webhooks.redeliver(chosen)
            rows = list(WebhookDelivery.objects.filter(pk__in=done).order_by("pk"))
            confirm.record(request, rows, "Redelivered", each=len(rows) <= confirm.LOG_EACH_MAX)
        number = f"{len(done):,} {'webhook' if len(done) == 1 else 'webhooks'}"
        self.message_user(request, f"Redelivering {number}.", messages.SUCCESS if done else messages.WARNING)
        return confirm.back(self, request)


def _question(selected: QuerySet[WebhookDelivery]) -> confirm.Question:
    states = list(selected.values_list("pk", "state")[: confirm.SELECTED_MAX])
    notes = [
        "A worker sends each within seconds, with the job as it is then and the same webhook-id as before: a receiver "
        "that has it can tell. The time to retry begins anew."
    ]
    if len(states) == confirm.SELECTED_MAX:
        notes.append(f"These are the newest {confirm.SELECTED_MAX:,}. Do it again for the rest.")
    found = [state for _, state in states]
    return confirm.Question(
        action="redeliver",
        title="Redeliver webhooks",
        button=f"Redeliver {len(states):,} {'webhook' if len(states) == 1 else 'webhooks'}",
        lines=[(str(state.label), found.count(state.value)) for state in DeliveryState],
        notes=notes,
        up_to=max((pk for pk, _ in states), default=None),
    )

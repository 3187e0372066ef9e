"""Calls of the host project's handlers: those that wait for another try, and those that were given up.

Owns the question and the history of "call again"; the verb is `handlers.revive`, and a worker makes the call. What an
exception said may quote what the handler was given, so it is shown to those who may see content; its class to all.
"""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from llmjobs import handlers
from llmjobs.admin import confirm, ledger
from llmjobs.admin.cells import NOTHING, badge, moment
from llmjobs.admin.filters import ChoiceFilter, TextFilter
from llmjobs.models import HandlerCall
from llmjobs.models.outbox import CallState


class StateFilter(ChoiceFilter):
    title = "state"
    parameters = ("state",)
    column = "state"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(state.value, str(state.label), state.value) for state in CallState]


class HandlerFilter(TextFilter):
    title = "handler"
    parameters = ("handler",)
    placeholder = "myapp.handlers.save"

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(handler=value)


@admin.display(description="state")
def state(call: HandlerCall) -> SafeString:
    return badge(call.state)


@admin.display(description="created")
def created(call: HandlerCall) -> str | SafeString:
    return moment(call.created_at)


@admin.display(description="next try")
def next_try(call: HandlerCall) -> str | SafeString:
    return moment(call.next_at) if call.state == CallState.PENDING else NOTHING


@admin.display(description="ended")
def ended(call: HandlerCall) -> str | SafeString:
    return moment(call.ended_at)


@admin.display(description="failed with")
def failed_with(call: HandlerCall) -> str:
    return (call.error or NOTHING).partition(":")[0]


@admin.display(description="error")
def error(call: HandlerCall) -> str:
    return call.error or NOTHING


@admin.register(HandlerCall)
class HandlerCallPage(ledger.OfJobPage):
    list_display = ("id", ledger.job, "handler", state, "tries", failed_with, created, next_try, ended)
    list_filter = (StateFilter, HandlerFilter)
    plain = (ledger.job, "handler", state, "tries", failed_with, "epoch", created, next_try, ended)
    content = (error,)
    actions = ("call_again",)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("llmjobs.retry_handlercall")

    def buttons(self, obj: HandlerCall) -> list[tuple[str, str]]:
        return [("call_again", "Call again")] if obj.state == CallState.DEAD else []

    @admin.action(description="Call selected handlers again", permissions=["retry"])
    def call_again(self, request: HttpRequest, queryset: QuerySet[HandlerCall]) -> HttpResponse:
        selected = confirm.bounded(request, queryset).order_by("-pk")
        if not confirm.is_confirmed(request):
            return confirm.asked(self, request, _question(selected))
        with transaction.atomic():
            chosen = list(selected.values_list("pk", flat=True)[: confirm.SELECTED_MAX])
            locked = HandlerCall.objects.select_for_update(no_key=True).order_by("pk")
            dead = list(locked.filter(pk__in=chosen, state=CallState.DEAD))
            handlers.revive([call.pk for call in dead])
            confirm.record(request, dead, "Called again", each=len(dead) <= confirm.LOG_EACH_MAX)
        note = f" Left alone: {len(chosen) - len(dead):,} not dead." if len(dead) < len(chosen) else ""
        level = messages.SUCCESS if dead else messages.WARNING
        self.message_user(request, f"Calling {len(dead):,} again.{note}", level)
        return confirm.back(self, request)


def _question(selected: QuerySet[HandlerCall]) -> confirm.Question:
    states = list(selected.values_list("pk", "state")[: confirm.SELECTED_MAX])
    dead = sum(state == CallState.DEAD for _, state in states)
    notes = ["A worker calls each within seconds, with the job as it is then, and counts its tries anew."]
    if len(states) == confirm.SELECTED_MAX:
        notes.append(f"These are the newest {confirm.SELECTED_MAX:,}. Do it again for the rest.")
    return confirm.Question(
        action="call_again",
        title="Call handlers again",
        button=f"Call {dead:,} of {len(states):,} again",
        lines=[("dead", dead), ("not dead", len(states) - dead)],
        notes=notes,
        up_to=max((pk for pk, _ in states), default=None),
    )

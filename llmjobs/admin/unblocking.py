"""Try again now: a provider or model whose breaker is open, or that said "not now", is asked at once.

Owns the question and the history; the verb is `queue.unblock`, and what comes of it the provider's answer decides: one
call is tried, and all others wait for how it ends.
"""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from llmjobs import queue
from llmjobs.admin import confirm
from llmjobs.admin.buckets import block_of, pools_to_try


@admin.action(description="Try selected %(verbose_name_plural)s again now", permissions=["pause"])
def try_again(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
    queryset = confirm.bounded(request, queryset).order_by("pk")
    chosen = list(queryset[: confirm.SELECTED_MAX])
    blocked = [row for row in chosen if block_of(row) is not None]
    if not confirm.is_confirmed(request):
        question = confirm.Question(
            action="try_again",
            title=f"Try {page.opts.verbose_name_plural} again now",
            button=f"Try {len(blocked)} of {len(chosen)} again now",
            lines=[("blocked", len(blocked)), ("not blocked", len(chosen) - len(blocked))],
            notes=["One call is tried; if it is answered, the waiting jobs go on."],
        )
        return confirm.asked(page, request, question)
    with transaction.atomic():
        queue.unblock(pools_to_try(blocked))
        confirm.record(request, blocked, "Tried again now", each=len(blocked) <= confirm.LOG_EACH_MAX)
    left = len(chosen) - len(blocked)
    note = f" Left alone: {left} not blocked." if left else ""
    page.message_user(request, f"Trying {len(blocked)} again.{note}", messages.SUCCESS if blocked else messages.WARNING)
    return confirm.back(page, request)


def buttons(row: Any) -> list[tuple[str, str]]:
    return [("try_again", "Try again now")] if block_of(row) is not None else []

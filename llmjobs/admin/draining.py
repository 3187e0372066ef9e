"""Drain workers: they claim nothing more, let end what runs, and stop.

A worker hears of it with its next heartbeat, and then can't be called back: a drain is how a process ends. The question
says so. Owns the question and the history; the worker's own row is the message, and the worker acts on it.
"""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from llmjobs.admin import confirm
from llmjobs.conf import conf
from llmjobs.models import Worker


@admin.action(description="Drain selected workers", permissions=["drain"])
def drain(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Worker]) -> HttpResponse:
    chosen = list(queryset.order_by("pk").values_list("pk", flat=True)[: confirm.SELECTED_MAX])
    if not confirm.is_confirmed(request):
        return confirm.asked(page, request, _question(chosen))
    with transaction.atomic():
        # no_key: its heartbeat waits for the commit, and nothing else does.
        asked = list(drainable(chosen).select_for_update(no_key=True).order_by("pk"))
        Worker.objects.filter(pk__in=[worker.pk for worker in asked]).update(is_draining=True)
        confirm.record(request, asked, "Drained", each=len(asked) <= confirm.LOG_EACH_MAX)
    left = len(chosen) - len(asked)
    note = f" Left alone: {left} stopped or draining already." if left else ""
    workers = "worker" if len(asked) == 1 else "workers"
    level = messages.SUCCESS if asked else messages.WARNING
    page.message_user(request, f"Draining {len(asked)} {workers}.{note}", level)
    return confirm.back(page, request)


def buttons(worker: Worker) -> list[tuple[str, str]]:
    return [] if worker.is_draining or worker.stopped_at is not None else [("drain", "Drain")]


def drainable(chosen: list[Any]) -> QuerySet[Worker]:
    return Worker.objects.filter(pk__in=chosen, stopped_at=None, is_draining=False)


def _question(chosen: list[Any]) -> confirm.Question:
    number = drainable(chosen).count()
    return confirm.Question(
        action="drain",
        title="Drain workers",
        button=f"Drain {number} of {len(chosen)}",
        lines=[("at work", number), ("stopped or draining already", len(chosen) - number)],
        notes=[
            f"A worker hears of it within {conf.heartbeat_s:g} s, claims nothing more, lets its calls end, and stops.",
            "This can't be undone: start a new worker for one that was drained.",
        ],
    )

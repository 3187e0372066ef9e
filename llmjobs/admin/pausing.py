"""Pause and resume, of clients, models and providers. What is paused waits; nothing is lost and nothing refused.

Invariant: only rows that change are written, in one transaction with their history. The claim learns of it through the
statement triggers on these tables, as of any other way to change them.
"""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from llmjobs.admin import confirm


@admin.action(description="Pause selected %(verbose_name_plural)s", permissions=["pause"])
def pause(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
    return _set_paused(page, request, queryset, True)


@admin.action(description="Resume selected %(verbose_name_plural)s", permissions=["pause"])
def resume(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
    return _set_paused(page, request, queryset, False)


def buttons(row: Any) -> list[tuple[str, str]]:
    return [("resume", "Resume")] if row.is_paused else [("pause", "Pause")]


def _set_paused(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Any], is_paused: bool) -> HttpResponse:
    verb, done = ("pause", "Paused") if is_paused else ("resume", "Resumed")
    queryset = confirm.bounded(request, queryset).order_by("pk")
    if not confirm.is_confirmed(request):
        return confirm.asked(page, request, _question(page, queryset, verb, is_paused))
    with transaction.atomic():
        chosen = list(queryset.values_list("pk", flat=True)[: confirm.SELECTED_MAX])
        # no_key: a submit that refers to the row does not wait.
        changed = list(
            page.model._default_manager.select_for_update(no_key=True).filter(pk__in=chosen, is_paused=not is_paused)
        )
        page.model._default_manager.filter(pk__in=[row.pk for row in changed]).update(is_paused=is_paused)
        confirm.record(request, changed, done, each=len(changed) <= confirm.LOG_EACH_MAX)
    left = len(chosen) - len(changed)
    note = f" Left alone: {left} that {'was' if left == 1 else 'were'} so already." if left else ""
    page.message_user(request, f"{done} {len(changed)}.{note}", messages.SUCCESS if changed else messages.WARNING)
    return confirm.back(page, request)


def _question(page: admin.ModelAdmin, queryset: QuerySet[Any], verb: str, is_paused: bool) -> confirm.Question:
    states = list(queryset.values_list("is_paused", flat=True)[: confirm.SELECTED_MAX])
    change = states.count(not is_paused)
    plural = page.opts.verbose_name_plural
    return confirm.Question(
        action=verb,
        title=f"{verb.capitalize()} {plural}",
        button=f"{verb.capitalize()} {change} of {len(states)}",
        lines=[("in service", states.count(False)), ("paused", states.count(True))],
        notes=["Waiting jobs stay queued; calls in flight end as they would."] if is_paused else [],
    )

"""What can be done to many jobs, from their list or a page of one: asked once, then an operation.

Owns the question: how many, in which states, what else there is to say (a priority, a model, a pace), and the token by
which one answer starts one operation, however often it is clicked. Does not own what is done (`operations.py`), nor
whom a verb acts on and why not (`operation_verbs.py`). Invariant: a question changes nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.html import format_html

from llmjobs import operations
from llmjobs.admin import confirm, exports
from llmjobs.admin.filters import as_id, as_uuid
from llmjobs.admin.lists import TooSlow, time_limit
from llmjobs.admin.operation_forms import OperationForm
from llmjobs.admin.pages import may_see_content
from llmjobs.errors import InvalidRequest
from llmjobs.models import Job, Operation, OperationItem
from llmjobs.operation_history import done_word
from llmjobs.operation_verbs import CANCEL, VERBS, Verb
from llmjobs.sql import load
from llmjobs.states import State

COUNTED_MAX = 200_000  # for the question; an index gives so many in a quarter of a second
COUNTED_S = 3.0
SELECTION_CHARS_MAX = 500
NOT_FILTERS = ("p", "o", "e", "_changelist_filters")

Action = Callable[[Any, HttpRequest, QuerySet[Job]], HttpResponseBase]


def _action(verb: Verb) -> Action:
    @admin.action(description=f"{verb.title} selected jobs", permissions=[verb.name])
    def action(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponseBase:
        return run(page, request, queryset, verb)

    action.__name__ = verb.name
    return action


ACTIONS = [_action(verb) for verb in VERBS.values()]


def may(verb_name: str) -> Callable[[Any, HttpRequest], bool]:
    """For a ModelAdmin's `has_<verb>_permission`."""
    return lambda page, request: request.user.has_perm(VERBS[verb_name].permission)


def run(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Job], verb: Verb) -> HttpResponseBase:
    queryset = confirm.bounded(request, queryset)
    is_answer = "confirmed" in request.POST
    form = OperationForm(
        verb,
        request.POST if is_answer else None,
        may_see_content=may_see_content(request),
        is_one=not confirm.is_across(request) and len(request.POST.getlist(ACTION_CHECKBOX_NAME)) == 1,
    )
    token = as_uuid(request.POST.get("token", ""))
    if is_answer and token and form.is_valid():
        try:
            operation = _started(request, queryset, verb, form, token)
        except InvalidRequest as error:
            form.add_error(error.param if error.param in form.fields else None, str(error))
        else:
            if operation.verb == verb.name and operation.user_id == request.user.pk:
                return answered(page, request, operation)
    return confirm.asked(page, request, question(request, queryset, verb), form=form)


def _started(request: HttpRequest, queryset: QuerySet[Job], verb: Verb, form: OperationForm, token: UUID) -> Operation:
    return operations.start(
        verb.name,
        queryset,
        user=request.user,
        reason=form.cleaned_data["reason"],
        params=form.params(),
        rate_per_s=form.cleaned_data.get("rate_per_s"),
        selection=selection(request),
        token=token,
    )


def answered(page: admin.ModelAdmin, request: HttpRequest, operation: Operation) -> HttpResponseBase:
    """An export is sent. What is done is told where they came from; what goes on has a page of its own."""
    if VERBS[operation.verb].kind == "stream" and operation.total:
        return exports.download(request, operation)
    if not operation.is_over:
        return HttpResponseRedirect(page_of(operation))
    text = report(operation)
    if operation.total:
        text = format_html('{} <a href="{}">Details</a>', text, page_of(operation))
    level = messages.SUCCESS if operation.changed else messages.WARNING
    page.message_user(request, text, level)
    return confirm.back(page, request)


def page_of(operation: Operation) -> str:
    return reverse("admin:llmjobs_operation_change", args=[operation.pk])


def report(operation: Operation) -> str:
    """What was done and what was left alone, by reason."""
    verb = VERBS[operation.verb]
    text = [f"{done_word(operation)} {_jobs(operation.changed)}."]
    if verb is CANCEL and operation.undoes_id is None:
        running = OperationItem.objects.filter(operation=operation, did="changed", was=State.RUNNING).count()
        if running:
            was = "was" if running == 1 else "were"
            text.append(f"Of these {running:,} {was} running: the call is being aborted.")
    if operation.skipped:
        left = sorted(operation.skipped.items(), key=lambda item: -item[1])
        text.append("Left alone: " + "; ".join(f"{number:,} {why}" for why, number in left) + ".")
    return " ".join(text)


# The question.


def question(request: HttpRequest, queryset: QuerySet[Job], verb: Verb) -> confirm.Question:
    found = counted(queryset)
    lines: list[tuple[str, int | str]] = [(state, f"{number:,}") for state, number in found or ()]
    total = sum(number for _, number in found or ())
    acts = sum(number for state, number in found or () if state in verb.acts_on)
    notes = [verb.note, verb.undo_note]
    how_many = _jobs(acts)
    if found is None:
        lines, how_many = [("jobs that match", "many")], "all that match"
        notes.append("Counting them took too long. They are counted when it starts, before the first is touched.")
    elif total >= COUNTED_MAX:
        how_many = f"more than {acts:,} jobs"
        notes.append(f"More than {COUNTED_MAX:,} jobs match. They are counted when it starts.")
    left = [(state, number) for state, number in found or () if state not in verb.acts_on]
    if left:
        why = [f"{number:,} {state} ({verb.reason(State(state))})" for state, number in left]
        notes.append("Left alone: " + "; ".join(why) + ".")
    if verb.kind == "steps" and (acts > operations.IN_REQUEST_MAX or found is None):
        notes.append("It goes on in the background, with a page that shows how far it is; it can be stopped there.")
    return confirm.Question(
        action=verb.name,
        title=f"{verb.title} jobs",
        button=f"{verb.title} {how_many}",
        lines=lines,
        notes=notes,
        up_to=_newest(request),
        hidden=[("token", str(uuid4()))],
        is_idle=found is not None and acts == 0 and total < COUNTED_MAX,
    )


def counted(queryset: QuerySet[Job]) -> Sequence[tuple[str, int]] | None:
    """(state, jobs), up to COUNTED_MAX in all; None where that takes too long."""
    try:
        statement, params = operations.unordered(queryset).values("state").query.sql_with_params()
        with time_limit(COUNTED_S, using=queryset.db), connection.cursor() as cursor:
            cursor.execute(load("operation_question").replace("/*selection*/", statement), [*params, COUNTED_MAX])
            return [(state, number) for state, number in cursor.fetchall()]
    except EmptyResultSet:  # a filter that can match nothing
        return []
    except TooSlow:
        return None


def _newest(request: HttpRequest) -> int | None:
    """The newest job of all, where a filter chooses: what comes to match after the question is not meant."""
    before = as_id(request.POST.get("up_to", ""))
    if before is not None:
        return before
    return Job.objects.order_by("-pk").values_list("pk", flat=True).first()


def selection(request: HttpRequest) -> str:
    """What was chosen, as people read it."""
    if not confirm.is_across(request):
        return f"{_jobs(len(request.POST.getlist(ACTION_CHECKBOX_NAME)))} ticked"
    asked = parse_qsl(request.META.get("QUERY_STRING", ""))
    filters = [("search" if name == "q" else name, value) for name, value in asked if name not in NOT_FILTERS]
    words = ", ".join(f"{name} {value}" for name, value in filters)
    return f"all with {words}"[:SELECTION_CHARS_MAX] if words else "all jobs"


def _jobs(number: int) -> str:
    return f"{number:,} {'job' if number == 1 else 'jobs'}"

"""Requeue and cancel of a selection: the verbs of `queue.py`, in batches, with a report and a history.

Invariant: a batch and its history commit together, so that nothing is done without a word of who did it. What a verb
leaves alone is counted by state: it is the verb that decides, the states read before only explain.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from llmjobs import queue
from llmjobs.admin import confirm
from llmjobs.admin.lists import LIST_TIMEOUT_S, TooSlow, time_limit
from llmjobs.models import Job
from llmjobs.states import REQUEUEABLE, TERMINAL, WAITING, State

BATCH = 500  # bounds the locks of one transaction, and what others wait for


@dataclass(frozen=True, slots=True)
class Verb:
    """`call` takes ids and returns those that it changed. `reasons` tells why a state is left alone."""

    name: str
    done: str
    acts_on: frozenset[State]
    reasons: dict[State, str]
    note: str
    call: Callable[[list[int]], list[int]]


REQUEUE = Verb(
    name="requeue",
    done="Requeued",
    acts_on=REQUEUEABLE,
    reasons={
        State.COMPLETED: "an answer stands",
        State.RUNNING: "not over",
        **dict.fromkeys(WAITING, "waiting already"),
    },
    note="A requeued job goes to the end of its lane, with no failures. What was paid for it stays in its attempts.",
    call=queue.requeue,
)
CANCEL = Verb(
    name="cancel",
    done="Cancelled",
    acts_on=WAITING | {State.RUNNING},
    reasons={State.RUNNING: "told to stop before", **dict.fromkeys(TERMINAL, "over")},
    note="A waiting job is cancelled at once. A running one has its call aborted, and keeps what it said and cost.",
    call=queue.cancel,
)


@dataclass(frozen=True, slots=True)
class Selection:
    """State by id, of at most `SELECTED_MAX` jobs, the newest first; `is_cut`: there are more."""

    states: dict[int, State]
    is_cut: bool

    def lines(self) -> list[tuple[str, int]]:
        return [(str(state), number) for state, number in Counter(self.states.values()).most_common()]

    def batches(self, verb: Verb) -> Iterator[list[int]]:
        """Oldest first: they keep their order at the end of their lane."""
        ids = sorted(pk for pk, state in self.states.items() if state in verb.acts_on)
        return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def run(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Job], verb: Verb) -> HttpResponse:
    try:
        selection = select(confirm.bounded(request, queryset))
    except TooSlow:
        page.message_user(request, "This filter walks through too many jobs: narrow it first.", messages.ERROR)
        return confirm.back(page, request)
    if not confirm.is_confirmed(request):
        return confirm.asked(page, request, question(selection, verb))
    changed = carry_out(request, selection, verb)
    report(page, request, selection, verb, changed)
    return confirm.back(page, request)


def select(queryset: QuerySet[Job]) -> Selection:
    with time_limit(LIST_TIMEOUT_S, using=queryset.db):
        rows = list(queryset.order_by("-pk").values_list("pk", "state")[: confirm.SELECTED_MAX + 1])
    kept = rows[: confirm.SELECTED_MAX]
    return Selection({pk: State(state) for pk, state in kept}, is_cut=len(rows) > len(kept))


def question(selection: Selection, verb: Verb) -> confirm.Question:
    left = Counter(state for state in selection.states.values() if state not in verb.acts_on)
    number = len(selection.states) - left.total()
    notes = [verb.note]
    if left:
        notes.append("Left alone: " + "; ".join(_why_left(left, verb)) + ".")
    if selection.is_cut:
        notes.append(f"More than {confirm.SELECTED_MAX:,} jobs match: these are the newest. Do it again for the rest.")
    return confirm.Question(
        action=verb.name,
        title=f"{verb.name.capitalize()} jobs",
        button=f"{verb.name.capitalize()} {number:,} {'job' if number == 1 else 'jobs'}",
        lines=selection.lines(),
        notes=notes,
        up_to=max(selection.states, default=None),
    )


def carry_out(request: HttpRequest, selection: Selection, verb: Verb) -> set[int]:
    """The ids that were changed. Each batch is a transaction of its own, so what is done stays done."""
    each = len(selection.states) <= confirm.LOG_EACH_MAX
    changed: set[int] = set()
    for ids in selection.batches(verb):
        with transaction.atomic():
            done = set(verb.call(ids))
            confirm.record(request, _rows(done), verb.done, each=each)
        changed |= done
    return changed


def _rows(ids: set[int]) -> Sequence[Job]:
    return list(Job.objects.filter(pk__in=ids).only("pk", "public_id").order_by("pk"))


def report(page: admin.ModelAdmin, request: HttpRequest, selection: Selection, verb: Verb, changed: set[int]) -> None:
    jobs = "job" if len(changed) == 1 else "jobs"
    text = [f"{verb.done} {len(changed):,} {jobs}."]
    if verb is CANCEL and (running := sum(selection.states[pk] == State.RUNNING for pk in changed)):
        text.append(f"Of these {running:,} {'was' if running == 1 else 'were'} running: the call is being aborted.")
    left = Counter(state for pk, state in selection.states.items() if pk not in changed)
    if left:
        text.append("Left alone: " + "; ".join(_why_left(left, verb)) + ".")
    page.message_user(request, " ".join(text), messages.SUCCESS if changed else messages.WARNING)


def _why_left(states: Counter[State], verb: Verb) -> list[str]:
    """ "3 completed (their answer stands)" a state; one that the verb acts on must have moved on meanwhile."""
    return [
        f"{number:,} {state} ({verb.reasons.get(state, 'no longer so when its turn came')})"
        for state, number in states.most_common()
    ]

"""What can be done to many jobs: each verb with whom it acts on, whom it leaves alone and why, and how it is undone.

Owns the words and the conditions; the verbs themselves are those of `queue.py`. A condition is asked of a job whose
row is locked, so that it still holds when the verb is called. An undo acts on the jobs that the operation changed and
that nobody touched since: what has gone on by itself is left alone, and told.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmjobs import queue
from llmjobs.errors import InvalidRequest
from llmjobs.models import Model
from llmjobs.states import DEAD_LETTERS, REQUEUEABLE, TERMINAL, WAITING, Priority, State

Params = Mapping[str, Any]
FORMATS = ("jsonl", "csv")
MOVED_ON = "moved on since"


@dataclass(frozen=True, slots=True)
class Found:
    """A job as it is, and what its item knows of it: of an undo's, as it was left and what it is to become."""

    job_id: int
    state: State
    priority: int
    pool_id: int
    epoch: int
    is_cancelling: bool
    is_away: bool  # a fallback took it from the model that it was asked of
    left_epoch: int | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """`refuses` says in a few words why a job is left alone, or "". `call` takes the ids of jobs that share a target,
    and returns those that it changed; the others are `missed`. `was` is what an undo has to know of a job.
    """

    refuses: Callable[[Found, Params], str]
    call: Callable[[list[int], Params, str | None], list[int]]
    missed: str = "no longer so when its turn came"
    was: Callable[[Found, Params], str] = lambda found, _: str(found.state)


@dataclass(frozen=True, slots=True)
class Verb:
    """`acts_on`: for the question, which knows states alone. `undo_note`: how it is undone, or why it can't be."""

    name: str
    title: str
    done: str
    permission: str
    acts_on: frozenset[State]
    reasons: Mapping[State, str]
    note: str
    undo_note: str
    does: Act
    undo: Act | None = None
    check: Callable[[Params], dict[str, Any]] = lambda _: {}
    kind: Literal["steps", "stream"] = "steps"
    is_gradual: bool = field(default=True)

    def reason(self, state: State) -> str:
        return self.reasons.get(state, "no longer so when its turn came")


def act_of(verb_name: str, *, is_undo: bool) -> Act:
    verb = VERBS[verb_name]
    act = verb.undo if is_undo else verb.does
    if act is None:
        raise InvalidRequest(f"expected a verb that can be undone, got {verb_name}", param="verb")
    return act


# Conditions.


def _only(acts_on: frozenset[State], reasons: Mapping[State, str]) -> Callable[[Found, Params], str]:
    return lambda found, _: "" if found.state in acts_on else reasons.get(found.state, "not for this verb")


def _cancel_refuses(found: Found, params: Params) -> str:
    if found.state == State.RUNNING:
        return "told to stop before" if found.is_cancelling else ""
    is_dead_letter = found.state in DEAD_LETTERS and bool(params.get("even_dead"))
    return "" if found.state in WAITING or is_dead_letter else "over"


def _reprioritize_refuses(found: Found, params: Params) -> str:
    if found.state in TERMINAL:
        return "over"
    return "has that priority already" if found.priority == params["priority"] else ""


def _move_refuses(found: Found, params: Params) -> str:
    if found.state not in WAITING:
        return WAITS_NOT[found.state]
    return "is there already" if found.pool_id == params["pool_id"] and not found.is_away else ""


def _untouched(states: frozenset[State]) -> Callable[[Found, Params], str]:
    """In one of `states`, and not a step further than the operation left it."""
    return lambda found, _: "" if found.state in states and found.epoch == found.left_epoch else MOVED_ON


def _cancel_undo_refuses(found: Found, _: Params) -> str:
    if found.target not in WAITING:
        return f"was {found.target}: a cancel of those can't be undone"
    return "" if found.state == State.CANCELLED and found.epoch == found.left_epoch else MOVED_ON


def _reprioritize_undo_refuses(found: Found, params: Params) -> str:
    return "" if found.state not in TERMINAL and found.priority == params["priority"] else MOVED_ON


def _move_undo_refuses(found: Found, params: Params) -> str:
    return "" if found.state in WAITING and found.pool_id == params["pool_id"] else MOVED_ON


# Parameters.


def _priority(params: Params) -> dict[str, Any]:
    """By name or by number."""
    asked = params.get("priority")
    for priority in Priority:
        if asked in (priority.word, priority.value, str(priority.value)):
            return {"priority": priority.value}
    words = ", ".join(priority.word for priority in Priority)
    raise InvalidRequest(f"expected a priority ({words}), got {asked!r}", param="priority")


def _model(params: Params) -> dict[str, Any]:
    name = params.get("model")
    row = Model.objects.filter(name=name).only("pk", "name").first()
    if row is None:
        raise InvalidRequest(f"expected a model's name, got {name!r}", param="model")
    return {"model": row.name, "pool_id": row.pk}


def _format(params: Params) -> dict[str, Any]:
    asked = params.get("format", FORMATS[0])
    if asked not in FORMATS:
        raise InvalidRequest(f"expected a format ({', '.join(FORMATS)}), got {asked!r}", param="format")
    return {"format": asked, "content": bool(params.get("content"))}


def _even_dead(params: Params) -> dict[str, Any]:
    return {"even_dead": True} if params.get("even_dead") else {}


def _maybe_model(params: Params) -> dict[str, Any]:
    return _model(params) if params.get("model") else {}


# Calls.


def _cancel(ids: list[int], params: Params, _: str | None) -> list[int]:
    """The handlers of many are the workers' to call: no batch waits for them, and none can end it."""
    return queue.cancel(ids, even_dead=bool(params.get("even_dead")), calls_handlers=bool(params.get("is_small")))


# The verbs.

WAITS_NOT = {State.RUNNING: "runs already", **dict.fromkeys(TERMINAL, "over")}
NOT_OVER = {State.RUNNING: "not over", **dict.fromkeys(WAITING, "not over")}
REQUEUE_REASONS = {
    State.COMPLETED: "an answer stands",
    State.RUNNING: "not over",
    **dict.fromkeys(WAITING, "waiting already"),
}
NO_LETTER = dict.fromkeys(set(State) - DEAD_LETTERS, "no dead letter")

REQUEUE = Verb(
    name="requeue",
    title="Requeue",
    done="Requeued",
    permission="llmjobs.requeue_job",
    acts_on=REQUEUEABLE,
    reasons=REQUEUE_REASONS,
    note="A requeued job goes to the end of its lane, with no failures. What was paid for it stays in its attempts.",
    undo_note="Can be undone for those that have not started: they are cancelled then.",
    check=_maybe_model,
    does=Act(
        _only(REQUEUEABLE, REQUEUE_REASONS),
        lambda ids, params, _: queue.requeue(ids, pool_id=params.get("pool_id")),
        missed="its request was erased, or does not fit that model",
    ),
    undo=Act(_untouched(frozenset({State.QUEUED})), _cancel),
)
CANCEL = Verb(
    name="cancel",
    title="Cancel",
    done="Cancelled",
    permission="llmjobs.cancel_job",
    acts_on=WAITING | {State.RUNNING},
    reasons={State.RUNNING: "told to stop before", **dict.fromkeys(TERMINAL, "over")},
    note="A waiting job is cancelled at once. A running one has its call aborted, and keeps what it said and cost.",
    undo_note="Can be undone for those that were waiting: they are requeued then, at the end of their lanes, and "
    "none before its time. Whoever was told of their end was told.",
    check=_even_dead,
    does=Act(_cancel_refuses, _cancel),
    undo=Act(
        _cancel_undo_refuses,
        lambda ids, params, _: queue.requeue(ids, keeps_time=True),
        missed="its request was erased",
    ),
)
REPRIORITIZE = Verb(
    name="reprioritize",
    title="Change the priority of",
    done="Changed the priority of",
    permission="llmjobs.reprioritize_job",
    acts_on=WAITING | {State.RUNNING},
    reasons=dict.fromkeys(TERMINAL, "over"),
    note="Waiting jobs take their place among those of the new priority, by their age. A running one goes on, and "
    "comes back there if it comes back. No job gets a priority that its client's tier does not allow.",
    undo_note="Can be undone for those that are not over by then.",
    check=_priority,
    does=Act(
        _reprioritize_refuses,
        lambda ids, params, _: queue.reprioritize(ids, params["priority"]),
        missed="its tier does not allow it",
        was=lambda found, _: str(found.priority),
    ),
    undo=Act(_reprioritize_undo_refuses, lambda ids, params, target: queue.reprioritize(ids, int(target or 0))),
)
MOVE = Verb(
    name="move",
    title="Move",
    done="Moved",
    permission="llmjobs.move_job",
    acts_on=WAITING,
    reasons=WAITS_NOT,
    note="Waiting jobs go to another model, and are estimated and charged by its prices.",
    undo_note="Can be undone for those that still wait.",
    check=_model,
    does=Act(
        _move_refuses,
        lambda ids, params, _: queue.move(ids, params["pool_id"]),
        missed="that model is gone, or its context too small",
        was=lambda found, _: str(found.pool_id),
    ),
    undo=Act(_move_undo_refuses, lambda ids, params, target: queue.move(ids, int(target or 0))),
)
DISCARD = Verb(
    name="discard",
    title="Discard",
    done="Discarded",
    permission="llmjobs.discard_job",
    acts_on=DEAD_LETTERS,
    reasons=NO_LETTER,
    note="They leave the dead letters and stay as they are. Nobody is told.",
    undo_note="Can be undone: they come back to the dead letters.",
    does=Act(_only(DEAD_LETTERS, NO_LETTER), lambda ids, params, _: queue.discard(ids), missed="discarded before"),
    undo=Act(_untouched(DEAD_LETTERS), lambda ids, params, _: queue.restore(ids)),
)
ERASE = Verb(
    name="erase",
    title="Erase",
    done="Erased",
    permission="llmjobs.erase_job",
    acts_on=TERMINAL,
    reasons=NOT_OVER,
    note="Of finished jobs the request, the output and the events are removed; state, times, tokens and cost stay.",
    undo_note="This can't be undone.",
    does=Act(_only(TERMINAL, NOT_OVER), lambda ids, params, _: queue.erase_many(ids), missed="erased before"),
    is_gradual=False,
)
EXPORT = Verb(
    name="export",
    title="Export",
    done="Exported",
    permission="llmjobs.export_job",
    acts_on=frozenset(State),
    reasons={},
    note="The download begins at once, while this page stays. The file is written as it is sent; none is kept here.",
    undo_note="Nothing is changed, so there is nothing to undo.",
    check=_format,
    does=Act(lambda found, _: "", lambda ids, params, _: ids),
    kind="stream",
    is_gradual=False,
)
VERBS = {verb.name: verb for verb in (REQUEUE, CANCEL, REPRIORITIZE, MOVE, DISCARD, ERASE, EXPORT)}

"""The state machine of a job: its states, its verbs, and which verb may take it from where to where.

Owns the words. The verbs are carried out by `queue.py` through the files in `sql/`, which repeat the states as
literals so that each query can be read and explained alone; a test tries every verb from every state and proves
that table and SQL agree.
"""

from enum import IntEnum, StrEnum
from typing import Any, NamedTuple


class State(StrEnum):
    SCHEDULED = "scheduled"  # waits for its time: a delayed submit or a backoff
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"  # the request itself can't succeed: never retried
    DEAD = "dead"  # dead-lettered: retries exhausted, or an error nobody recognises
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # not started before its deadline


WAITING = frozenset({State.SCHEDULED, State.QUEUED})
TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.DEAD, State.CANCELLED, State.EXPIRED})
REQUEUEABLE = TERMINAL - {State.COMPLETED}
DEAD_LETTERS = frozenset({State.FAILED, State.DEAD})  # what waits for an operator, until one discards it

# verb: {from: to, …}. Where several ends are possible the verb's outcome decides; None stands for "no row yet".
TRANSITIONS: dict[str, dict[State | None, frozenset[State]]] = {
    "submit": {None: frozenset({State.QUEUED, State.SCHEDULED})},
    "stage": {State.SCHEDULED: frozenset({State.QUEUED})},
    "claim": {State.QUEUED: frozenset({State.RUNNING, State.EXPIRED})},
    "settle": {State.RUNNING: frozenset({State.COMPLETED, State.FAILED, State.DEAD, State.SCHEDULED, State.CANCELLED})},
    "release": {State.RUNNING: frozenset({State.QUEUED, State.CANCELLED})},
    # Completed: from the log, whole or as `on_interrupt: keep` asks.
    "reclaim": {State.RUNNING: frozenset({State.SCHEDULED, State.DEAD, State.CANCELLED, State.COMPLETED})},
    "cancel": {
        State.SCHEDULED: frozenset({State.CANCELLED}),
        State.QUEUED: frozenset({State.CANCELLED}),
        State.RUNNING: frozenset({State.RUNNING}),  # asked for; the worker that holds it settles it
    },
    "expire": {
        State.SCHEDULED: frozenset({State.EXPIRED}),
        State.QUEUED: frozenset({State.EXPIRED}),
    },
    "requeue": {state: frozenset({State.QUEUED}) for state in REQUEUEABLE},
    # With another request, which may ask for a delay.
    "requeue_as": {state: frozenset({State.QUEUED, State.SCHEDULED}) for state in REQUEUEABLE},
    # By an operator, who gives dead letters up.
    "cancel_dead": {
        **{state: frozenset({State.CANCELLED}) for state in WAITING | DEAD_LETTERS},
        State.RUNNING: frozenset({State.RUNNING}),
    },
    # These leave the state as it is.
    "reprioritize": {state: frozenset({state}) for state in (State.SCHEDULED, State.QUEUED, State.RUNNING)},
    "move": {state: frozenset({state}) for state in WAITING},
    "discard": {state: frozenset({state}) for state in DEAD_LETTERS},
    "restore": {state: frozenset({state}) for state in DEAD_LETTERS},
}


class Priority(IntEnum):
    """The smaller goes first."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 5
    LOW = 8
    BACKGROUND = 10

    @property
    def word(self) -> str:
        return self.name.lower()


class Size(IntEnum):
    """What the estimate of the output says: up to `conf.short_output_tokens` is short."""

    SHORT = 0
    LONG = 1

    @property
    def word(self) -> str:
        return self.name.lower()


class Endpoint(StrEnum):
    CHAT = "/v1/chat/completions"
    RESPONSES = "/v1/responses"
    EMBEDDINGS = "/v1/embeddings"


class EventType(StrEnum):
    STATUS = "status"
    DELTA = "delta"
    RESET = "reset"  # a new attempt started over: drop the text
    DONE = "done"


class StreamEvent(NamedTuple):
    """An event of a job as its viewers get it, by whatever road; `data` of `done` is the job as the API shows it."""

    seq: int
    type: str  # one of EventType
    data: dict[str, Any]


# The number of an event is epoch * SEQ_EPOCH + n: the epoch rises with every change of a job's state, so that
# what a stale worker still writes can never take the number of what its successor writes.
SEQ_EPOCH = 1 << 20

"""What must be true after a scenario, whatever was killed: each law a function that yields what breaks it, in words.

Owns the judgement. Reads the database, and the evidence that was kept outside of it: what was acknowledged, the
provider's ledger, what viewers saw, what the receiver heard. Invariant: all workers have stopped when it is asked.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmjobs.conf import conf
from llmjobs.states import TERMINAL
from tests.chaos.receiver import Heard
from tests.chaos.viewers import View
from tests.hands import hands
from tests.postgres import counting
from tests.properties import ground
from tests.properties.ground import rows

EXAMPLES_MAX = 5  # of one law; the others are counted
SETTLED = ("completed", "interrupted")  # an attempt that gave the job its answer
# Why a call may be made again: what became of the one before, by the ledger.
CAUSES = ("lost", "unknown", "rejected", "released", "not_sent", "provider_refused")
# How an attempt may end that the provider never heard of.
UNHEARD = ("lost", "released", "not_sent", "cancelled")


@dataclass(frozen=True, slots=True)
class Evidence:
    """`accepted` are public ids; `calls` are entries of the simulator's ledger; `webhooks` None: nobody was told."""

    accepted: Collection[str]
    calls: Sequence[Mapping[str, Any]]
    views: Sequence[View] = ()
    heard: Heard | None = None
    may_repeat: bool = True  # False: nothing happened that explains a second call
    was_away: bool = False  # the provider: what was on its way there nobody read, and the worker can't know


@dataclass(frozen=True, slots=True)
class Verdict:
    lost: int  # accepted jobs that did not end
    repeats: int  # calls made again, each for a cause that the ledger names
    unexplained: int  # and those without one
    broken: list[str] = field(default_factory=list)


def judge(evidence: Evidence) -> Verdict:
    lost, unexplained = list(lost_jobs(evidence)), list(unexplained_repeats(evidence))
    broken = [*_some(lost), *_some(unexplained)]
    for law in LAWS:
        broken += _some(law(evidence))
    repeats = sum(len(attempts) for _, attempts in _repeats(evidence))
    return Verdict(len(lost), repeats, len(unexplained), broken)


def lost_jobs(evidence: Evidence) -> Iterator[str]:
    """Accepted is terminal."""
    found = {str(row["public_id"]): row["state"] for row in rows("select public_id, state from llmjobs_job")}
    for public_id in evidence.accepted:
        if public_id not in found:
            yield f"job {public_id} was accepted, and is gone"
        elif found[public_id] not in TERMINAL:
            yield f"job {public_id} was accepted, and is {found[public_id]}"
    accepted = set(evidence.accepted)
    for public_id, state in found.items():
        if public_id not in accepted and state not in TERMINAL:
            yield f"job {public_id}, whose acknowledgement was lost, is {state}"


def unexplained_repeats(evidence: Evidence) -> Iterator[str]:
    """A second call of a job is explained by what became of the one before."""
    for job, attempts in _repeats(evidence):
        for number, outcome in attempts:
            if outcome not in CAUSES or not evidence.may_repeat:
                yield f"job {job} was called again after attempt {number}, which is {outcome}"


def one_settled_attempt(evidence: Evidence) -> Iterator[str]:
    """A completed job has one attempt that completed it; any other job has none, and no attempt is left open."""
    query = """
        select j.public_id, j.state, j.attempt, count(a.id) as attempts,
            count(*) filter (where a.outcome = any(%s)) as settled
        from llmjobs_job j
        left join llmjobs_attempt a on a.job_id = j.id
        group by j.id
        having count(*) filter (where a.outcome = any(%s)) <> (j.state = 'completed')::int
            or count(a.id) <> j.attempt or (count(a.id) > 0 and bool_or(a.ended_at is null))
    """
    for row in rows(query, list(SETTLED), list(SETTLED)):
        yield "job {public_id} is {state} at attempt {attempt}: {attempts} attempts, {settled} settled it".format(**row)


def calls_are_attempts(evidence: Evidence) -> Iterator[str]:
    """Each call that the provider saw is an attempt in the ledger, and made once."""
    ledger = _ledger()
    for called, times in Counter(call["client_request_id"] for call in evidence.calls).items():
        if called not in ledger:
            yield f"the provider saw {called}, which is no attempt"
        if times > 1:
            yield f"the provider saw {called} {times} times"


def attempts_are_calls(evidence: Evidence) -> Iterator[str]:
    """An attempt without a call is one that died before its send."""
    seen = {call["client_request_id"] for call in evidence.calls}
    for attempt, row in _ledger().items():
        is_unread = evidence.was_away and row["error_code"] == "connection_lost"
        if attempt not in seen and row["outcome"] not in UNHEARD and not is_unread:
            yield f"attempt {attempt} is {row['outcome']}, and the provider never saw it"


def usage_is_the_providers(evidence: Evidence) -> Iterator[str]:
    """What a completed attempt used and cost is what the provider counted."""
    ledger = _ledger()
    for call in evidence.calls:
        row = ledger.get(call["client_request_id"])
        if row is None or row["outcome"] != "completed":
            continue
        told, counted = (row["input_tokens"], row["output_tokens"]), (call["input_tokens"], call["output_tokens"])
        if call["outcome"] != "completed" or told != counted:
            yield f"{call['client_request_id']} has {told} tokens, the provider's {call['outcome']} call {counted}"


def leases_are_alive(evidence: Evidence) -> Iterator[str]:
    """No running job without a live lease."""
    query = """
        select j.public_id, j.worker_id, w.heartbeat_at
        from llmjobs_job j
        left join llmjobs_worker w on w.id = j.worker_id
        where j.state = 'running'
            and (w.id is null or w.stopped_at is not null
                or w.heartbeat_at < statement_timestamp() - make_interval(secs => %s))
    """
    for row in rows(query, conf.lease_s + conf.reclaim_every_s):
        yield "job {public_id} runs at {worker_id}, last heard of at {heartbeat_at}".format(**row)


def sums_add_up(evidence: Evidence) -> Iterator[str]:
    """Counts, budgets, virtual times and buckets say what jobs and attempts say. Folds what is left in the inbox."""
    with hands(1) as [hand]:
        hand.fold()
    for difference in counting.differences():
        yield f"counts: {difference}"
    for difference in counting.spending_differences():
        yield f"money: {difference}"
    for check in (ground.check_identity, ground.check_floors, ground.check_turns, ground.check_counts):
        try:
            check()
        except AssertionError as error:
            yield f"{check.__name__}: {' '.join(str(error).split())[:300]}"


def buckets_add_up(evidence: Evidence) -> Iterator[str]:
    """A bucket holds what runs and waits now, and took one request for each claim."""
    query = """
        select b.of_id, b.queued, b.running, b.requests, a.attempts, j.jobs_queued, j.jobs_running
        from llmjobs_bucketturn b
        cross join lateral (select count(*) as attempts from llmjobs_attempt where pool_id = b.of_id) as a
        cross join lateral (
            select count(*) filter (where state = 'queued') as jobs_queued,
                count(*) filter (where state = 'running') as jobs_running
            from llmjobs_job where pool_id = b.of_id
        ) as j
        where b.kind = 0
            and (b.queued, b.running, b.requests) is distinct from (j.jobs_queued, j.jobs_running, a.attempts)
    """
    for row in rows(query):
        yield f"bucket: {row}"


def viewers_saw_the_log(evidence: Evidence) -> Iterator[str]:
    """Each viewer saw each event once, in order, to the end."""
    query = """
        select e.seq, e.type
        from llmjobs_jobevent e join llmjobs_job j on j.id = e.job_id
        where j.public_id = %s order by e.seq
    """
    for view in evidence.views:
        log = [(row["seq"], row["type"]) for row in rows(query, view.job)]
        if view.seen != log:
            missing, surplus = sorted(set(log) - set(view.seen)), sorted(set(view.seen) - set(log))
            yield (
                f"the {view.road} viewer of {view.job} saw {len(view.seen)} of {len(log)} events: "
                f"missing {missing[:3]}, not in the log {surplus[:3]}, cut off {len(view.away)} times"
            )


def ends_are_told(evidence: Evidence) -> Iterator[str]:
    """A job with a webhook has one outbox row for its end, which the receiver heard, signed, and at its address."""
    heard = evidence.heard
    if heard is None:
        return
    query = """
        select j.public_id, count(d.id) as deliveries, coalesce(min(d.state), 'none') as state, min(d.error) as error
        from llmjobs_job j
        left join llmjobs_webhookdelivery d on d.job_id = j.id
        where j.has_webhook and j.finished_at is not null
        group by j.id
    """
    told = Counter(heard.jobs.values())
    for row in rows(query):
        public_id = str(row["public_id"])
        if row["deliveries"] != 1:
            yield f"job {public_id} has {row['deliveries']} deliveries"
        elif row["state"] == "failed" or not told[public_id]:  # one that is still pending is told again: at least once
            yield f"the end of {public_id} is {row['state']} ({row['error']}), and was heard {told[public_id]} times"
        elif told[public_id] > 1:
            yield f"the end of {public_id} was told under {told[public_id]} ids"
    yield from heard.wrong
    if heard.trapped:
        yield f"{heard.trapped} deliveries followed a redirect"


LAWS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    one_settled_attempt, calls_are_attempts, attempts_are_calls, usage_is_the_providers, leases_are_alive, sums_add_up,
    buckets_add_up, viewers_saw_the_log, ends_are_told,
)  # fmt: skip


def _ledger() -> dict[str, dict[str, Any]]:
    """The attempts by what their call's X-Client-Request-Id is."""
    query = """
        select j.public_id, a.number, a.outcome, a.error_code, a.input_tokens, a.output_tokens
        from llmjobs_attempt a join llmjobs_job j on j.id = a.job_id
    """
    return {f"{row['public_id']}.{row['number']}": row for row in rows(query)}


def _repeats(evidence: Evidence) -> list[tuple[str, list[tuple[int, str | None]]]]:
    """Jobs that were called more than once, each with all the attempts but its last that the provider saw."""
    ledger = _ledger()
    called: dict[str, list[tuple[int, str | None]]] = {}
    for attempt in sorted({str(call["client_request_id"]) for call in evidence.calls}):
        job, _, number = attempt.rpartition(".")
        outcome = ledger[attempt]["outcome"] if attempt in ledger else None
        called.setdefault(job, []).append((int(number or 0), outcome))
    return [(job, sorted(attempts)[:-1]) for job, attempts in called.items() if len(attempts) > 1]


def _some(sentences: Iterator[str] | list[str]) -> list[str]:
    """A law that is broken is often broken a thousand times."""
    every = iter(sentences)
    shown = list(itertools.islice(every, EXAMPLES_MAX))
    more = sum(1 for _ in every)
    return [*shown, f"… and {more} more of these"] if more else shown

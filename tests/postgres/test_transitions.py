"""The state machine: every verb from every state, with a held and a stale lease, does what the table says."""

from contextlib import suppress
from datetime import timedelta

import pytest
from django.utils import timezone

from llmjobs import queue
from llmjobs.errors import JobNotFound, NotAllowed
from llmjobs.leases import Claimed
from llmjobs.models import Attempt, Client, Job, JobEvent, JobRequest, JobResult, Model, Worker
from llmjobs.states import DEAD_LETTERS, REQUEUEABLE, TERMINAL, TRANSITIONS, WAITING, Priority, State
from llmjobs.submissions import parse
from tests.factories import make_model
from tests.hands import Hand, claimed_job, settlement, submit

pytestmark = pytest.mark.django_db(transaction=True)

SETTLED = sorted(TRANSITIONS["settle"][State.RUNNING])


@pytest.fixture(autouse=True)
def short_lease(settings):
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    settings.LLMJOBS_BACKOFF_BASE_S = 0.01


def arrive(state: State, hand: Hand, client: Client) -> tuple[int, Model, Claimed | None]:
    """A job brought into a state by the verbs alone, in a pool of its own, and the last lease on it if it had one."""
    pool = make_model()
    if state == State.SCHEDULED:
        [job] = submit(client, pool, delay_s=3600)
        return job.id, pool, None
    if state in (State.QUEUED, State.EXPIRED):
        [job] = submit(client, pool, expires_in_s=1_000)
        if state == State.EXPIRED:
            Job.objects.filter(id=job.id).update(expires_at=timezone.now())
            hand.expire()
        return job.id, pool, None
    claimed = claimed_job(hand, client, pool)
    if state == State.CANCELLED:
        queue.cancel([claimed.id])
    if state != State.RUNNING:
        hand.settle(claimed, state=state)
    return claimed.id, pool, claimed


def test_every_state_is_arrived_at(hand, client):
    for state in State:
        job_id, _, _ = arrive(state, hand, client)
        assert Job.objects.get(id=job_id).state == state


def check(before: Job, allowed: frozenset[State], *, but: frozenset[str] = frozenset()) -> None:
    """What a verb left is allowed; where nothing is, nothing changed `but` what the test did itself."""
    after = Job.objects.get(id=before.id)
    if allowed:
        assert after.state in allowed, f"{before.state} became {after.state}, allowed: {sorted(allowed)}"
        is_told = after.state != before.state or (before.state in WAITING and where(after) != where(before))
        assert (after.epoch > before.epoch) == is_told, f"{before.state}: the epoch rises with what a viewer is told of"
    else:
        fields = {field.attname for field in Job._meta.concrete_fields} - but
        changes = {name for name in fields if getattr(before, name) != getattr(after, name)}
        assert changes == set(), f"{before.state} allows nothing, and these changed"


def where(job: Job) -> tuple[int, int]:
    return job.pool_id, job.priority


def carry_out(verb: str, hand: Hand, pool: Model, job_id: int) -> frozenset[str]:
    """Returns the columns that were set so that the verb has something to do."""
    match verb:
        case "claim":
            hand.claim(pool)
        case "stage":
            Job.objects.filter(id=job_id).update(available_at=timezone.now())
            hand.stage()
            return frozenset({"available_at"})
        case "expire":
            Job.objects.filter(id=job_id).update(expires_at=timezone.now())
            hand.expire()
            return frozenset({"expires_at"})
        case "cancel":
            queue.cancel([job_id])
        case "requeue":
            queue.requeue([job_id])
        case "requeue_as":
            with suppress(NotAllowed):
                queue.requeue_as(job_id, parse({"model": pool.name, "input": "Say it."}))
        case "cancel_dead":
            queue.cancel([job_id], even_dead=True)
        case "reprioritize":
            queue.reprioritize([job_id], Priority.LOW)
        case "move":
            queue.move([job_id], make_model().pk)
        case "reclaim":
            Worker.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
            hand.reclaim()
    return frozenset()


@pytest.mark.parametrize("verb", [
    "claim", "stage", "expire", "cancel", "requeue", "reclaim", "requeue_as", "cancel_dead", "reprioritize", "move",
])  # fmt: skip
def test_a_verb_takes_a_job_where_the_table_says_and_nowhere_else(hand, client, verb):
    for state in State:
        job_id, pool, _ = arrive(state, hand, client)
        before = Job.objects.get(id=job_id)
        touched = carry_out(verb, hand, pool, job_id)
        check(before, TRANSITIONS[verb].get(state, frozenset()), but=touched)


@pytest.mark.parametrize("end", [*SETTLED, State.QUEUED])
def test_a_settle_ends_a_running_job_and_no_other(hand, client, end):
    """With the lease that it had when it ran, which is stale in every other state."""
    verb = "release" if end == State.QUEUED else "settle"
    for state in State:
        job_id, _, lease = arrive(state, hand, client)
        before = Job.objects.get(id=job_id)
        hand.settle_all([settlement(lease or made_up(before), end)])
        check(before, frozenset({end}) & TRANSITIONS[verb].get(state, frozenset()))


@pytest.mark.parametrize("what", ["attempt", "worker"])
def test_with_a_stale_lease_a_running_job_is_left_alone(hand, other, client, what):
    for end in [*SETTLED, State.QUEUED]:
        job_id, _, lease = arrive(State.RUNNING, hand, client)
        assert lease is not None
        before = Job.objects.get(id=job_id)
        if what == "attempt":
            lease.attempt -= 1
        (other if what == "worker" else hand).settle_all([settlement(lease, end)])
        check(before, frozenset())
        assert Attempt.objects.get(job_id=job_id).outcome is None


def test_only_a_finished_job_can_be_erased(hand, client):
    for state in State:
        job_id, _, _ = arrive(state, hand, client)
        if state in TERMINAL:
            queue.erase(job_id)
            assert not JobEvent.objects.filter(job_id=job_id).exists()
            assert not JobRequest.objects.filter(job_id=job_id).exists()
            said = JobResult.objects.filter(job_id=job_id).values_list("output", "output_text", "error_message")
            assert set(said) <= {(None, "", None)}
            assert Job.objects.get(id=job_id).state == state
        else:
            with pytest.raises(NotAllowed, match=f"one that is {state}"):
                queue.erase(job_id)


def test_what_is_not_there_can_not_be_erased(client):
    with pytest.raises(JobNotFound):
        queue.erase(1)


def test_the_table_names_every_way_out_of_every_state():
    for state in State:
        leaves = {verb for verb, ways in TRANSITIONS.items() if state in ways}
        if state == State.COMPLETED:
            assert leaves == set(), "an answer stands"
        elif state in REQUEUEABLE:
            operators = {"cancel_dead", "discard", "restore"} if state in DEAD_LETTERS else set()
            assert leaves == {"requeue", "requeue_as"} | operators
        else:
            assert "cancel" in leaves


def test_no_verb_ends_a_job_without_saying_so_in_the_log(hand, client):
    for state in TERMINAL:
        job_id, _, _ = arrive(state, hand, client)
        last = JobEvent.objects.filter(job_id=job_id).latest("seq")
        job = Job.objects.get(id=job_id)
        assert (last.type, last.data["status"], last.seq) == ("done", state, job.epoch << 20)


def made_up(job: Job) -> Claimed:
    """A lease on a job that never ran."""
    lease = Claimed(**dict.fromkeys(Claimed.__dataclass_fields__))  # type: ignore[arg-type]
    lease.id, lease.attempt = job.id, job.attempt
    return lease


@pytest.mark.parametrize(
    ("asked", "is_cancelled", "end"),
    [
        ({}, False, State.SCHEDULED),
        ({"max_attempts": 1}, False, State.DEAD),
        ({}, True, State.CANCELLED),
        ({"on_interrupt": "keep"}, False, State.COMPLETED),
    ],
)
def test_a_lost_lease_ends_in_each_way_that_the_table_has_and_no_other(hand, client, asked, is_cancelled, end):
    claimed = claimed_job(hand, client, make_model(), **asked)
    hand.say(claimed, "Half of")
    if is_cancelled:
        queue.cancel([claimed.id])
    Worker.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    hand.reclaim()
    assert Job.objects.get().state == end
    assert end in TRANSITIONS["reclaim"][State.RUNNING] and len(TRANSITIONS["reclaim"][State.RUNNING]) == 4

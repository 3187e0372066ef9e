"""The state machine: every verb from every state, with a held and a stale lease, does what the table says."""

from datetime import timedelta

import pytest
from django.utils import timezone

from llmjobs import queue
from llmjobs.errors import NotAllowed
from llmjobs.models import Attempt, Job, JobEvent, Worker
from llmjobs.queue import Claimed
from llmjobs.states import REQUEUEABLE, TERMINAL, TRANSITIONS, State
from tests.hands import claimed_job, settlement, submit

pytestmark = pytest.mark.django_db(transaction=True)

SETTLED = sorted(TRANSITIONS["settle"][State.RUNNING])


@pytest.fixture(autouse=True)
def short_lease(settings):
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    settings.LLMJOBS_BACKOFF_BASE_S = 0.01


@pytest.fixture
def arrive(hand, client, pool):
    """Bring a job into a state by the verbs alone. Returns the last lease that `hand` had on it, if it had one."""

    def to(state: State) -> tuple[int, Claimed | None]:
        if state == State.SCHEDULED:
            [job] = submit(client, pool, delay_s=3600)
            return job.id, None
        if state in (State.QUEUED, State.EXPIRED):
            [job] = submit(client, pool, expires_in_s=1_000)
            if state == State.EXPIRED:
                Job.objects.filter(id=job.id).update(expires_at=timezone.now())
                hand.expire()
            return job.id, None
        claimed = claimed_job(hand, client, pool)
        if state == State.CANCELLED:
            queue.cancel([claimed.id])
        if state != State.RUNNING:
            hand.settle(claimed, state=state)
        return claimed.id, claimed

    return to


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_arrived_at(arrive, state):
    job_id, _ = arrive(state)
    assert Job.objects.get(id=job_id).state == state


def _left(job_id: int, before: Job, allowed: frozenset[State]) -> None:
    """What a verb left is allowed; where nothing is, nothing changed."""
    after = Job.objects.get(id=job_id)
    if allowed:
        assert after.state in allowed, f"{before.state} became {after.state}, allowed: {sorted(allowed)}"
        assert (after.epoch > before.epoch) == (after.state != before.state), (
            "the epoch rises with each change of state"
        )
    else:
        changed = [f.name for f in Job._meta.concrete_fields if getattr(before, f.attname) != getattr(after, f.attname)]
        assert changed == [], f"{before.state} allows nothing, and these changed"


def _carry_out(verb, hand, pool, job_id, lease):
    match verb:
        case "claim":
            hand.claim(pool)
        case "stage":
            Job.objects.filter(id=job_id).update(available_at=timezone.now())
            hand.stage()
        case "expire":
            Job.objects.filter(id=job_id).update(expires_at=timezone.now())
            hand.expire()
        case "cancel":
            queue.cancel([job_id])
        case "requeue":
            queue.requeue([job_id])
        case "reclaim":
            Worker.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
            hand.reclaim()
        case "release":
            hand.settle_all([settlement(lease, State.QUEUED)])


@pytest.mark.parametrize("verb", ["claim", "stage", "expire", "cancel", "requeue", "reclaim"])
@pytest.mark.parametrize("state", list(State))
def test_a_verb_takes_a_job_where_the_table_says_and_nowhere_else(arrive, hand, pool, verb, state):
    job_id, lease = arrive(state)
    before = Job.objects.get(id=job_id)
    if verb == "stage":
        before.available_at = None  # the test sets it
    allowed = TRANSITIONS[verb].get(state, frozenset())
    if verb in ("stage", "expire"):
        _carry_out(verb, hand, pool, job_id, lease)
        assert Job.objects.get(id=job_id).state in (allowed or {state})
        return
    _carry_out(verb, hand, pool, job_id, lease)
    _left(job_id, before, allowed)


@pytest.mark.parametrize("end", [*SETTLED, State.QUEUED])
@pytest.mark.parametrize("state", list(State))
def test_a_settle_ends_a_running_job_and_no_other(arrive, hand, state, end):
    """With the lease that it had when it ran, which is stale in every other state."""
    job_id, lease = arrive(state)
    before = Job.objects.get(id=job_id)
    if lease is None:  # it never ran: a lease on it can only be made up
        lease = _made_up(before)
    hand.settle_all([settlement(lease, end)])
    verb = "release" if end == State.QUEUED else "settle"
    allowed = TRANSITIONS[verb].get(state, frozenset())
    _left(job_id, before, frozenset({end}) & allowed)


@pytest.mark.parametrize("end", [*SETTLED, State.QUEUED])
@pytest.mark.parametrize("what", ["attempt", "worker"])
def test_with_a_stale_lease_a_running_job_is_left_alone(arrive, hand, other, what, end):
    job_id, lease = arrive(State.RUNNING)
    before = Job.objects.get(id=job_id)
    if what == "attempt":
        lease.attempt -= 1
    (other if what == "worker" else hand).settle_all([settlement(lease, end)])
    _left(job_id, before, frozenset())
    assert Attempt.objects.get(job_id=job_id).outcome is None


@pytest.mark.parametrize("state", list(State))
def test_only_a_finished_job_can_be_erased(arrive, state):
    job_id, _ = arrive(state)
    if state in TERMINAL:
        queue.erase(job_id)
        assert not JobEvent.objects.filter(job_id=job_id).exists()
        assert Job.objects.get(id=job_id).state == state
    else:
        with pytest.raises(NotAllowed, match=f"one that is {state}"):
            queue.erase(job_id)


def test_the_table_names_every_way_out_of_every_state():
    for state in State:
        leaves = {verb for verb, ways in TRANSITIONS.items() if state in ways}
        if state == State.COMPLETED:
            assert leaves == set(), "an answer stands"
        elif state in REQUEUEABLE:
            assert leaves == {"requeue"}
        else:
            assert "cancel" in leaves


def test_no_verb_ends_a_job_without_saying_so_in_the_log(arrive):
    for state in TERMINAL:
        job_id, _ = arrive(state)
        last = JobEvent.objects.filter(job_id=job_id).latest("seq")
        job = Job.objects.get(id=job_id)
        assert (last.type, last.data["status"], last.seq) == ("done", state, job.epoch << 20)


def _made_up(job: Job) -> Claimed:
    lease = Claimed(**dict.fromkeys(Claimed.__dataclass_fields__))  # type: ignore[arg-type]
    lease.id, lease.attempt = job.id, job.attempt
    return lease

"""Handlers of a Django project: asked for at a submit, called with a cancel, and by a duty until they succeed."""

import asyncio
import threading
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction
from django.utils import timezone
from psycopg import AsyncConnection

from llmjobs import handlers, host_calls, queue, submissions
from llmjobs.database import dsn
from llmjobs.errors import IdempotencyKeyReused, InvalidRequest
from llmjobs.host_threads import CallFailed, HostThreads
from llmjobs.models import HandlerCall, Job
from llmjobs.models.jobs import JOB_RELATED
from tests import host_handlers
from tests.hands import claimed_job
from tests.host_handlers import HERE, saved

pytestmark = pytest.mark.django_db(transaction=True)

SAID = [{"role": "user", "content": "Say hello."}]


def ask(client, pool, handler="save", **asked):
    return queue.submit(client=client, model=pool.name, messages=SAID, on_settled=f"{HERE}.{handler}", **asked)


def expired(client, pool, hand, handler="save"):
    """A job that a duty has ended: its call is left to the workers."""
    job = ask(client, pool, handler, expires_in_s=60)
    Job.objects.filter(id=job.id).update(expires_at=timezone.now())
    hand.expire()
    return job


@asynccontextmanager
async def connect():
    async with await AsyncConnection.connect(**dsn()) as conn:
        yield conn


async def _call_due(count):
    calls, tasks = host_calls.PendingCalls(connect), set()
    taken = await calls.call_due(count, tasks)
    await asyncio.gather(*tasks)
    calls._threads.close()
    return taken


def call_due(workers=1, count=4):
    """What each of so many workers calls at once; returns how many rows it took."""

    async def run():
        return await asyncio.gather(*(_call_due(count) for _ in range(workers)))

    return asyncio.run(run())


def call_of(job):
    return HandlerCall.objects.get(job_id=job.id)


def make_due():
    HandlerCall.objects.filter(state="pending").update(next_at=timezone.now() - timedelta(seconds=1))


# Asked for.


NO_HANDLERS = [
    ("nowhere.at.all", "ModuleNotFoundError"),
    (f"{HERE}.nothing", "ImportError"),
    ("save", "ImportError"),
    (f"{HERE}.NOT_CALLABLE", "which is a int"),
    (f"{HERE}.is_async", "which is async"),
    (f"{HERE}.is_generator", "or a generator"),
    (f"{HERE}.is_async_generator", "or a generator"),
    ("", "0 characters"),
    ("x" * 256, "256 characters"),
    (host_handlers.save, "a function"),
]


def test_a_handler_that_can_not_be_called_is_refused_at_the_submit(client, pool):
    for path, came in NO_HANDLERS:
        with pytest.raises(InvalidRequest, match="dotted path of a function") as refused:
            queue.submit(client=client, model=pool.name, messages=SAID, on_settled=path)
        assert refused.value.param == "on_settled" and came in refused.value.message
    assert Job.objects.count() == 0


def test_a_handler_of_one_among_many_is_checked_and_kept(client, pool):
    plain = submissions.parse({"model": pool.name, "messages": SAID})
    with pytest.raises(InvalidRequest, match="nothing"):
        queue.submit_submissions(client, [plain, handlers.attached(plain, f"{HERE}.nothing")])
    jobs = queue.submit_submissions(client, [plain, handlers.attached(plain, f"{HERE}.save")])
    assert [job.has_handler for job in jobs] == [False, True]
    assert Job.objects.select_related("request").get(has_handler=True).request.on_settled == f"{HERE}.save"


def test_who_comes_by_http_names_no_function(client, pool):
    with pytest.raises(InvalidRequest, match="no such field") as refused:
        submissions.parse({"model": pool.name, "messages": SAID, "on_settled": f"{HERE}.save"})
    assert refused.value.param == "on_settled"


def test_the_same_idempotency_key_with_another_handler_is_another_submission(client, pool):
    first = ask(client, pool, idempotency_key="k")
    assert ask(client, pool, idempotency_key="k") == first
    with pytest.raises(IdempotencyKeyReused):
        ask(client, pool, "raises", idempotency_key="k")


async def test_an_async_submit_takes_a_handler_too(client, pool):
    job = await queue.asubmit(client=client, model=pool.name, messages=SAID, on_settled=f"{HERE}.save")
    assert job.has_handler and job.request.on_settled == f"{HERE}.save"
    await sync_to_async(connections.close_all)()  # the thread's, which nobody else would close


def test_a_handler_s_job_is_loaded_as_the_api_shows_one():
    assert handlers.JOB_RELATED == JOB_RELATED


# Cancel: in the transaction of who cancels.


def test_a_cancel_tells_the_handler_before_it_returns(client, pool):
    jobs = [ask(client, pool), ask(client, pool)]
    queue.cancel([job.id for job in jobs])
    assert [saved(job) for job in jobs] == [["cancelled "], ["cancelled "]]
    call = call_of(jobs[0])
    assert (call.state, call.tries, call.error) == ("done", 1, None) and call.ended_at is not None


def test_a_cancel_tells_of_its_own_end_alone(client, pool, hand):
    """An earlier one may be in a worker's hands, whose lock nobody here shall wait for."""
    job = expired(client, pool, hand)
    queue.requeue([job.id])
    queue.cancel([job.id])
    assert list(HandlerCall.objects.order_by("id").values_list("state", "tries")) == [("pending", 0), ("done", 1)]


def test_a_cancel_that_is_rolled_back_was_told_to_nobody(client, pool):
    job = ask(client, pool)
    with pytest.raises(RuntimeError), transaction.atomic():
        queue.cancel([job.id])
        assert saved(job)
        raise RuntimeError
    assert (saved(job), HandlerCall.objects.count(), Job.objects.get().state) == ([], 0, "queued")


def test_a_submit_that_is_rolled_back_is_told_to_nobody(client, pool):
    with pytest.raises(RuntimeError), transaction.atomic():
        job = ask(client, pool)
        queue.cancel([job.id])
        raise RuntimeError
    assert call_due() == [0]
    assert Group.objects.count() == HandlerCall.objects.count() == 0


BROKEN = {
    "raises": "RuntimeError: not today",
    "fails_in_sql": "DataError: division by zero",
    "hides_a_failure_in_sql": "InternalError: current transaction is aborted",
    "asks_for_a_rollback": "Misused: expected a handler to raise for a rollback",
    "leaves_a_block_open": "Misused: expected every transaction.atomic() of the handler's to be left",
    "breaks_a_constraint_of_the_commit": "IntegrityError: ",
    "returns_a_coroutine": "Misused: expected a function that does its work when it is called",
}


@pytest.mark.parametrize("is_inside", [False, True])
def test_a_handler_that_fails_costs_its_own_writes_alone(client, pool, is_inside):
    broken, fine = {handler: ask(client, pool, handler) for handler in BROKEN}, ask(client, pool)
    ids = [job.id for job in (*broken.values(), fine)]
    if is_inside:
        with transaction.atomic():
            Group.objects.create(name="of the host")
            queue.cancel(ids)
            Group.objects.create(name="of the host, later")
    else:
        queue.cancel(ids)
    assert set(Job.objects.values_list("state", flat=True)) == {"cancelled"}
    assert saved(fine) == ["cancelled "]
    assert Group.objects.count() == 1 + 2 * is_inside
    for handler, job in broken.items():
        call = call_of(job)
        assert (call.state, call.tries, call.ended_at) == ("pending", 1, None), handler
        assert call.error.startswith(BROKEN[handler])
    assert connection.get_autocommit() and not connection.in_atomic_block


ENDING = ["closes_the_connection", "connects_again", "rolls_back_in_sql", "has_its_session_ended"]


def test_a_handler_that_ends_the_transaction_does_not_keep_its_job_from_being_cancelled(client, pool):
    jobs = [ask(client, pool, handler) for handler in ENDING]
    for handler, job in zip(ENDING, jobs, strict=True):
        assert queue.cancel([job.id]) == [job.id], handler
        assert (call_of(job).state, call_of(job).tries) == ("pending", 0), handler
    assert set(Job.objects.values_list("state", flat=True)) == {"cancelled"} and Group.objects.count() == 0


def test_a_handler_that_ends_the_host_s_own_transaction_fails_loudly(client, pool):
    job = ask(client, pool, "closes_the_connection")
    with pytest.raises(handlers.TransactionEnded, match="closed the connection"), transaction.atomic():
        Group.objects.create(name="of the host")
        queue.cancel([job.id])
    assert (Job.objects.get().state, Group.objects.count()) == ("queued", 0)


def test_a_server_s_own_exit_is_not_taken_for_the_handler_s(client, pool):
    ask(client, pool, "exits")
    with pytest.raises(SystemExit):
        queue.cancel([Job.objects.get().id])
    assert Job.objects.get().state == "queued"


def test_of_a_large_cancel_the_rest_is_called_by_the_workers(client, pool, monkeypatch):
    monkeypatch.setattr(handlers, "CALLED_AT_ONCE_MAX", 2)
    jobs = [ask(client, pool) for _ in range(5)]
    queue.cancel([job.id for job in jobs])
    assert Group.objects.count() == 2
    call_due()
    assert Group.objects.count() == HandlerCall.objects.filter(state="done").count() == 5


def test_a_cancel_of_what_runs_is_told_when_its_worker_settles_it(client, pool, hand):
    claimed = claimed_job(hand, client, pool)
    Job.objects.update(has_handler=True)
    queue.cancel([claimed.id])
    assert HandlerCall.objects.count() == 0


# Called again, by a duty.


def test_a_job_that_a_duty_ended_is_told_by_a_worker(client, pool, hand):
    job = expired(client, pool, hand)
    assert saved(job) == []
    assert call_due() == [1]
    assert (saved(job), call_of(job).state) == (["expired "], "done")
    assert call_due() == [0]


def test_a_handler_that_raises_is_called_again_after_a_backoff_and_then_left_dead(client, pool, hand, settings, caplog):
    settings.LLMJOBS_HANDLER_TRIES_MAX = 3
    settings.LLMJOBS_BACKOFF_BASE_S = settings.LLMJOBS_BACKOFF_CAP_S = 1_000
    job = expired(client, pool, hand, "raises")
    for number in (1, 2):
        assert call_due() == [1]
        call = call_of(job)
        assert (call.state, call.tries, call.error) == ("pending", number, "RuntimeError: not today")
        assert call.next_at > timezone.now() and call_due() == [0]
        make_due()
    call_due()
    call = call_of(job)
    assert (call.state, call.tries) == ("dead", 3) and call.ended_at is not None
    make_due()
    assert call_due() == [0]
    assert (saved(job), Job.objects.get().state) == ([], "expired")
    raised = [record for record in caplog.records if "event=handler_raised" in record.getMessage()]
    assert len(raised) == 3 and f"handler={HERE}.raises" in raised[0].getMessage()


def test_a_call_that_breaks_its_transaction_counts_as_one_that_raised(client, pool, hand, settings):
    settings.LLMJOBS_HANDLER_TRIES_MAX = 2
    settings.LLMJOBS_BACKOFF_BASE_S = settings.LLMJOBS_BACKOFF_CAP_S = 100_000
    breaking = [*ENDING, "exits"]
    jobs = [expired(client, pool, hand, handler) for handler in breaking]
    for state in ("pending", "dead"):
        assert sum(call_due(count=4) + call_due(count=4)) == 5
        calls = [call_of(job) for job in jobs]
        assert [(call.handler, call.state) for call in calls] == [(f"{HERE}.{handler}", state) for handler in breaking]
        assert all(call.error for call in calls)
        make_due()
    assert Group.objects.count() == 0


def test_a_call_that_does_not_return_is_ended_and_what_it_wrote_is_gone(client, pool, hand, monkeypatch):
    monkeypatch.setattr(host_calls, "CALL_S_MAX", 0.3)
    host_handlers.open_door.clear()
    job = expired(client, pool, hand, "waits_at_the_door")
    assert call_due() == [1]
    call = call_of(job)
    assert (call.state, call.tries, call.error) == ("pending", 1, "the handler did not return in time")
    host_handlers.open_door.set()
    make_due()
    call_due()
    assert (saved(job), call_of(job).state) == (["expired "], "done")


def test_many_workers_call_each_end_once(client, pool, hand):
    jobs = [expired(client, pool, hand) for _ in range(8)]
    assert sum(call_due(workers=4)) == 8
    assert [saved(job) for job in jobs] == [["expired "]] * 8
    assert set(HandlerCall.objects.values_list("state", "tries")) == {("done", 1)}


def test_who_took_a_call_too_long_ago_does_not_make_it(client, pool, hand):
    job = expired(client, pool, hand)
    HandlerCall.objects.update(tries=2)  # another worker took it since
    with transaction.atomic():
        assert not handlers.call_again(call_of(job).id, 1)
    assert saved(job) == []
    with transaction.atomic():
        assert handlers.call_again(call_of(job).id, 2)
    assert saved(job) == ["expired "]


def test_a_handler_that_kills_its_workers_ends_dead(client, pool, hand, settings):
    """Each took the call, and none came back."""
    settings.LLMJOBS_HANDLER_TRIES_MAX = 2
    job = expired(client, pool, hand)
    HandlerCall.objects.update(tries=2)
    assert call_due() == [1]
    call = call_of(job)
    assert (call.state, call.tries, call.error) == ("dead", 2, "Its worker ended while the handler ran.")
    assert saved(job) == []


def test_a_job_that_was_requeued_meanwhile_is_told_as_it_is(client, pool, hand):
    job = expired(client, pool, hand)
    queue.requeue([job.id])
    call_due()
    assert saved(job) == ["queued "]
    queue.cancel([job.id])
    assert sorted(saved(job)) == ["cancelled ", "queued "], "its next end is told by itself"


def test_a_job_that_is_gone_is_told_to_nobody(client, pool, hand):
    job = expired(client, pool, hand)
    Job.objects.filter(id=job.id)._raw_delete("default")
    call_due()
    call = call_of(job)
    assert (call.state, call.error) == ("dead", "The job was removed before.")


def test_dead_calls_are_made_again_from_the_first_try_on(client, pool, hand):
    job, other = expired(client, pool, hand), expired(client, pool, hand)
    call_due(count=1)
    HandlerCall.objects.filter(state="pending").update(state="dead", tries=10, ended_at=timezone.now(), error="x")
    assert handlers.revive(list(HandlerCall.objects.values_list("id", flat=True))) == 1
    call_due()
    assert [call_of(one).tries for one in (job, other)] == [1, 1]
    assert Group.objects.count() == 2


def test_what_is_due_is_found_by_its_index(client, pool, hand):
    expired(client, pool, hand)
    with connection.cursor() as cursor:
        cursor.execute("set enable_seqscan = off")
        params = {"again_s": 60, "tries_max": 10, "kills_max": 3}
        cursor.execute("explain " + handlers_sql(), params)
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("reset enable_seqscan")
    assert "handlercall_due" in plan and "Sort" not in plan, plan


def handlers_sql():
    return host_calls.load("take_handler_calls", rows=4)


def test_a_handler_that_kills_its_workers_is_called_three_times(client, pool, hand):
    """Each kill costs all that the worker ran its lease. A handler that raises may be called for longer."""
    expired(client, pool, hand)
    params = {"again_s": 0, "tries_max": 20, "kills_max": 3}
    taken = []
    for _ in range(5):
        with connection.cursor() as cursor:
            cursor.execute(handlers_sql(), params)
            taken += [(tries, state) for _, tries, state in cursor.fetchall()]
    assert taken == [(1, "pending"), (2, "pending"), (3, "pending"), (3, "dead")]
    call = HandlerCall.objects.get()
    assert call.state == "dead" and "worker ended" in call.error


def test_a_transaction_in_which_nothing_is_asked_ends_by_itself(transactional_db):
    """That of a worker which froze: it holds the row of a job that others shall take back."""
    begun, door = threading.Event(), threading.Event()
    idle = "select 1 from pg_stat_activity where state = 'idle in transaction' and datname = current_database()"

    def work():
        begun.set()
        door.wait(20)

    async def run():
        threads = HostThreads(connect)
        running = asyncio.create_task(threads.run(work, wait_s=1, within_s=20, idle_s=0.1))
        await asyncio.to_thread(begun.wait, 20)
        async with asyncio.timeout(20), connect() as conn:
            while await (await conn.execute(idle)).fetchone():
                pass
        door.set()
        with pytest.raises(CallFailed):
            await running
        threads.close()

    asyncio.run(run())

"""Operations: what operators do to many jobs. Each job once, whatever happens to who carries it out."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from llmjobs import operation_history, operation_steps, operation_verbs, operations, queue
from llmjobs.errors import InvalidRequest, NotAllowed
from llmjobs.models import DeadLetter, Job, JobEvent, Model, Operation, OperationItem
from llmjobs.operation_duty import OperationDuty
from llmjobs.operation_steps import step
from llmjobs.states import State
from tests.concurrency.threads import together
from tests.factories import make_job, make_model, make_user
from tests.hands import claimed_job, submit
from tests.properties.ground import check_counts

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def user(transactional_db: None) -> User:
    return make_user(username="ada")


@pytest.fixture
def many(monkeypatch: Any) -> None:
    """Three jobs are many, and two a batch."""
    monkeypatch.setattr(operations, "IN_REQUEST_MAX", 2)
    monkeypatch.setattr(operation_steps, "BATCH", 2)
    monkeypatch.setattr(operation_history, "LOG_EACH_MAX", 2)


def dead(client: Any, pool: Model, count: int = 5) -> list[Job]:
    return [make_job("dead", client=client, model=pool) for _ in range(count)]


def states(jobs: list[Job]) -> list[str]:
    return list(Job.objects.filter(pk__in=[job.pk for job in jobs]).order_by("pk").values_list("state", flat=True))


def begun(verb: str, jobs: Any, user: User, **more: Any) -> Operation:
    """Started, and not carried out. Two jobs a batch."""
    operation = operations.start(verb, [job.pk for job in jobs], user=user, **more)
    Operation.objects.filter(pk=operation.pk).update(batch=2)
    return operation


def due(operation: Operation) -> None:
    Operation.objects.filter(pk=operation.pk).update(next_at=Now())


def carried_out(operation: Operation) -> Operation:
    for _ in range(100):
        due(operation)
        if not step(operation.pk):
            break
    operation.refresh_from_db()
    return operation


def test_a_small_operation_is_carried_out_where_it_is_asked_for(client, pool, user):
    jobs = [*dead(client, pool, 2), make_job("completed", client=client, model=pool)]
    operation = operations.start("requeue", Job.objects.all(), user=user, reason="provider is back")
    assert (operation.state, operation.total, operation.changed) == ("done", 3, 2)
    assert operation.skipped == {"completed (an answer stands)": 1}
    assert states(jobs) == ["queued", "queued", "completed"]
    each = LogEntry.objects.exclude(object_id=str(operation.pk), content_type__model="operation").order_by("object_id")
    assert [(entry.object_id, entry.change_message) for entry in each] == [
        (str(job.pk), "Requeued: provider is back") for job in jobs[:2]
    ]
    assert operation.username == "ada"


def test_a_large_one_goes_on_in_batches_in_the_order_of_ids(client, pool, user, many):
    jobs = dead(client, pool)
    operation = begun("requeue", jobs, user)
    assert states(jobs) == ["dead"] * 5
    assert step(operation.pk)
    assert states(jobs) == ["queued"] * 2 + ["dead"] * 3
    operation = carried_out(operation)
    assert (operation.state, operation.changed, operation.left) == ("done", 5, 0)
    assert states(jobs) == ["queued"] * 5
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == [
        "Requeue 5 jobs.", "Requeued 5 of 5 jobs.",
    ]  # fmt: skip


def test_what_comes_to_match_later_stays_out(client, pool, user, many):
    for nothing in (Job.objects.none(), Job.objects.filter(state="dead")):
        operation = operations.start("requeue", nothing, user=user)
        assert operation.total == 0 and operation.state == "done"
    asked = dead(client, pool, 3)
    operation = operations.start("requeue", Job.objects.filter(state="dead").order_by("-pk"), user=user)
    [late] = dead(client, pool, 1)
    carried_out(operation)
    assert states([*asked, late]) == ["queued"] * 3 + ["dead"]


def test_one_token_starts_one_operation(client, pool, user, many):
    """A double click, or two tabs of one question."""
    jobs = dead(client, pool, 3)
    token = Operation._meta.get_field("token").get_default()

    def click() -> int:
        return operations.start("requeue", [job.pk for job in jobs], user=user, token=token).pk

    [first, second] = together([click, click])
    assert first == second == click()
    assert Operation.objects.count() == 1
    assert OperationItem.objects.count() == 3


def test_two_steppers_do_each_job_once(client, pool, user, many):
    jobs = dead(client, pool, 40)
    operation = begun("requeue", jobs, user)

    def work() -> None:
        for _ in range(200):
            due(operation)
            step(operation.pk)

    together([work, work, work])
    operation.refresh_from_db()
    assert (operation.state, operation.changed) == ("done", 40)
    assert set(Job.objects.values_list("epoch", flat=True)) == {jobs[0].epoch + 1}, "each was requeued once"
    assert JobEvent.objects.filter(data__status="queued", seq__gt=1 << 21).count() == 40


def test_a_crash_in_the_middle_repeats_nothing_and_loses_nothing(client, pool, user, many, monkeypatch):
    jobs = dead(client, pool, 5)
    operation = begun("requeue", jobs, user)
    assert step(operation.pk)
    real = queue.requeue

    def killed(*args: Any, **options: Any) -> Any:
        changed = real(*args, **options)
        with connection.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(pg_backend_pid())")
        return changed

    due(operation)
    monkeypatch.setattr(queue, "requeue", killed)
    with pytest.raises(OperationalError):
        step(operation.pk)
    connection.close()
    assert states(jobs) == ["queued"] * 2 + ["dead"] * 3, "nothing of that batch stands"
    monkeypatch.setattr(queue, "requeue", real)
    operation = carried_out(operation)
    assert (operation.state, operation.changed) == ("done", 5)
    assert set(Job.objects.values_list("epoch", flat=True)) == {jobs[0].epoch + 1}


def test_a_stop_holds_between_two_batches_and_it_can_go_on(client, pool, user, many):
    jobs = dead(client, pool, 5)
    operation = begun("requeue", jobs, user)
    step(operation.pk)
    assert operations.stop(operation.pk, user=user)
    assert not operations.stop(operation.pk, user=user), "once"
    due(operation)
    assert not step(operation.pk)
    assert states(jobs) == ["queued"] * 2 + ["dead"] * 3
    assert operations.resume(operation.pk, user=user)
    assert not operations.resume(operation.pk, user=user)
    assert carried_out(operation).changed == 5
    said = [entry.change_message for entry in LogEntry.objects.order_by("pk")]
    assert said[1:3] == ["Stopped after 2 of 5 jobs.", "Resumed after 2 of 5 jobs."]


def test_what_somebody_else_holds_is_passed_by_and_tried_again(client, pool, user, many):
    jobs = dead(client, pool, 4)
    operation = begun("requeue", jobs, user)
    with transaction.atomic():
        Job.objects.select_for_update().get(pk=jobs[0].pk)

        def others() -> None:
            for _ in range(3):
                due(operation)
                step(operation.pk)

        together([others])
        operation.refresh_from_db()
        assert (operation.state, operation.changed, operation.round) == ("running", 3, 2)
    operation = carried_out(operation)
    assert (operation.state, operation.changed) == ("done", 4)


def test_what_is_held_for_ever_is_left_alone_with_a_word(client, pool, user, many, monkeypatch):
    monkeypatch.setattr(operation_steps, "ROUNDS_MAX", 2)
    jobs = dead(client, pool, 3)
    operation = begun("requeue", jobs, user)
    with transaction.atomic():
        Job.objects.select_for_update().get(pk=jobs[0].pk)
        together([lambda: carried_out(operation)])
    operation.refresh_from_db()
    assert (operation.state, operation.changed) == ("done", 2)
    assert operation.skipped == {"held by another transaction": 1}


def test_a_gradual_one_keeps_its_pace_by_the_databases_clock(client, pool, user):
    jobs = dead(client, pool, 8)
    operation = operations.start("requeue", [job.pk for job in jobs], user=user, rate_per_s=2)
    assert states(jobs) == ["dead"] * 8, "not in the request"
    assert step(operation.pk)
    operation.refresh_from_db()
    assert operation.changed == 2, "a second's worth"
    ahead = Operation.objects.annotate(ahead=F("next_at") - Now()).get(pk=operation.pk).ahead
    assert timedelta(seconds=0.3) < ahead <= timedelta(seconds=1)
    assert not step(operation.pk) and not step(operation.pk, is_hasty=True)
    Operation.objects.update(next_at=F("next_at") - timedelta(hours=1))
    assert [step(operation.pk) for _ in range(3)] == [True, True, False], "a second of that hour is made up for"


def test_a_job_that_its_verb_fails_for_is_left_alone_and_the_others_go_on(client, pool, user, many, monkeypatch):
    jobs = dead(client, pool, 4)
    real = queue.requeue

    def failing(ids: list[int], **options: Any) -> list[int]:
        if jobs[1].pk in ids:
            raise NotAllowed("expected something else")
        return real(ids, **options)

    monkeypatch.setattr(queue, "requeue", failing)
    operation = carried_out(begun("requeue", jobs, user))
    assert (operation.state, operation.changed) == ("done", 3)
    assert operation.skipped == {"failed (NotAllowed)": 1}
    assert states(jobs) == ["queued", "dead", "queued", "queued"]


def test_one_that_fails_again_and_again_ends_and_says_why(client, pool, user, many, monkeypatch):
    monkeypatch.setattr(operation_steps, "FAILURES_MAX", 3)

    def failing(ids: list[int], **options: Any) -> list[int]:
        raise NotAllowed("expected something else")

    monkeypatch.setattr(queue, "requeue", failing)
    operation = carried_out(begun("requeue", dead(client, pool, 5), user))
    assert operation.state == "failed"
    assert "expected something else" in operation.error


# Undo.


def test_a_requeue_is_undone_for_those_that_have_not_started(client, pool, user, hand):
    jobs = dead(client, pool, 3)
    operation = operations.start("requeue", [job.pk for job in jobs], user=user)
    [claimed] = hand.claim(pool)
    undone = operations.undo(operation.pk, user=user, reason="by mistake")
    assert (undone.state, undone.total, undone.changed) == ("done", 3, 2)
    assert undone.skipped == {"running (moved on since)": 1}
    assert sorted(states(jobs)) == ["cancelled", "cancelled", "running"]
    with pytest.raises(NotAllowed, match="undone before"):
        operations.undo(operation.pk, user=user)
    with pytest.raises(NotAllowed, match="An undo is not undone"):
        operations.undo(undone.pk, user=user)
    hand.settle(claimed)


def test_a_cancel_is_undone_for_those_that_waited(client, pool, user, hand):
    claimed = claimed_job(hand, client, pool)
    jobs = submit(client, pool, 2)
    operation = operations.start("cancel", Job.objects.all(), user=user)
    assert operation.changed == 3
    queue.requeue([jobs[0].pk])
    queue.cancel([jobs[0].pk])  # by its client: an undo must not bring it back
    undone = operations.undo(operation.pk, user=user)
    assert undone.changed == 1
    assert undone.skipped == {
        "running (was running: a cancel of those can't be undone)": 1, "cancelled (moved on since)": 1,
    }  # fmt: skip
    assert states(jobs) == ["cancelled", "queued"]
    hand.settle(claimed, state=State.CANCELLED)


def test_no_job_runs_before_its_time_for_an_undo(client, pool, user, hand):
    [later, now] = [*submit(client, pool, delay_s=3600), *submit(client, pool)]
    operation = operations.start("cancel", Job.objects.all(), user=user)
    assert operations.undo(operation.pk, user=user).changed == 2
    assert states([later, now]) == ["scheduled", "queued"]
    assert Job.objects.get(pk=later.pk).available_at == later.available_at
    assert JobEvent.objects.filter(job_id=later.pk).latest("seq").data.keys() == {"status", "attempt", "available_at"}
    assert [claimed.id for claimed in hand.claim(pool, 2)] == [now.pk]
    check_counts()


def test_a_change_of_priority_is_undone_exactly(client, pool, user):
    jobs = submit(client, pool, 1, priority="high") + submit(client, pool, 2, priority="low")
    operation = operations.start("reprioritize", Job.objects.all(), user=user, params={"priority": "normal"})
    assert set(Job.objects.values_list("priority", flat=True)) == {5}
    queue.reprioritize([jobs[2].pk], 10)
    undone = operations.undo(operation.pk, user=user)
    assert list(Job.objects.order_by("pk").values_list("priority", flat=True)) == [1, 8, 10]
    assert undone.skipped == {"queued (moved on since)": 1}


def test_a_move_is_undone_where_it_still_waits(client, pool, user, hand):
    other = make_model("other")
    jobs = submit(client, pool, 2)
    operation = operations.start("move", Job.objects.all(), user=user, params={"model": "other"})
    assert operation.params == {"model": "other", "pool_id": other.pk}
    assert set(Job.objects.values_list("pool_id", flat=True)) == {other.pk}
    [claimed] = hand.claim(other)
    operations.undo(operation.pk, user=user)
    assert list(Job.objects.order_by("pk").values_list("pool_id", flat=True)) == [other.pk, pool.pk]
    assert len(jobs) == 2
    hand.settle(claimed)


def test_a_move_to_a_model_that_went_meanwhile_says_so(client, pool, user, many):
    other, jobs = make_model("other"), submit(client, pool, 3)
    operation = begun("move", jobs, user, params={"model": "other"})
    other.delete()
    operation = carried_out(operation)
    assert operation.state == "done"
    assert operation.skipped == {"queued (that model is gone, or its context too small)": 3}


def test_a_discard_is_undone_and_an_erasure_is_not(client, pool, user, hand):
    hand.settle(claimed_job(hand, client, pool), state=State.DEAD)
    assert DeadLetter.objects.count() == 1
    operation = operations.start("discard", Job.objects.all(), user=user)
    assert DeadLetter.objects.count() == 0
    operations.undo(operation.pk, user=user)
    assert DeadLetter.objects.count() == 1
    erased = operations.start("erase", Job.objects.all(), user=user)
    assert erased.changed == 1
    with pytest.raises(NotAllowed, match="can't be undone"):
        operations.undo(erased.pk, user=user)


def test_a_running_operation_is_stopped_before_it_is_undone(client, pool, user, many):
    operation = begun("requeue", dead(client, pool, 3), user)
    with pytest.raises(NotAllowed, match="Stop it first"):
        operations.undo(operation.pk, user=user)


def test_each_verb_says_how_it_is_undone_or_that_it_is_not():
    for verb in operation_verbs.VERBS.values():
        assert ("Can be undone" in verb.undo_note) == (verb.undo is not None), verb.name


# Refusals.


@pytest.mark.parametrize(
    ("verb", "params", "param"),
    [
        ("reprioritize", {}, "priority"), ("reprioritize", {"priority": 3}, "priority"), ("move", {}, "model"),
        ("move", {"model": "none"}, "model"), ("export", {"format": "xml"}, "format"),
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_start_nothing(user, verb, params, param):
    with pytest.raises(InvalidRequest) as refused:
        operations.start(verb, Job.objects.all(), user=user, params=params)
    assert refused.value.param == param
    assert not Operation.objects.exists()


def test_too_many_jobs_are_refused_with_a_word(client, pool, user, monkeypatch):
    monkeypatch.setattr(operations, "ITEMS_MAX", 2)
    dead(client, pool, 3)
    with pytest.raises(InvalidRequest, match="narrow them first"):
        operations.start("requeue", Job.objects.all(), user=user)
    assert not Operation.objects.exists() and not OperationItem.objects.exists()


def test_jobs_that_are_not_found_in_time_are_refused_with_a_word(client, pool, user, monkeypatch):
    monkeypatch.setattr(operations, "START_S", 0.001)
    dead(client, pool, 3)
    slow = Job.objects.extra(where=["pg_sleep(0.1) is not null"])
    with pytest.raises(InvalidRequest, match="narrow them by"):
        operations.start("requeue", slow, user=user)
    assert not Operation.objects.exists()


# The duty, and who helps where there is none.


def test_a_worker_carries_out_what_is_due_and_forgets_what_is_old(client, pool, user, many, hand):
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def connect():
        yield hand.connection

    jobs = dead(client, pool, 3)
    operation = begun("requeue", jobs, user)
    duty = OperationDuty(connect)

    async def turns() -> list[float]:
        waits = []
        for _ in range(4):
            waits.append(await duty.turn())
            await hand.connection.execute("update llmjobs_operation set next_at = statement_timestamp()")
        return waits

    assert hand.run(turns()) == [0.0, 0.0, 1.0, 1.0]
    operation.refresh_from_db()
    assert (operation.state, operation.changed) == ("done", 3)
    Operation.objects.update(finished_at=Now() - timedelta(days=8))
    duty._forgot_at -= 3600
    hand.run(duty.turn())
    hand.run(asyncio_closed(duty))
    operation.refresh_from_db()
    assert operation.is_forgotten and not OperationItem.objects.exists()
    assert "too long ago" in operations.undo_refused(operation)


async def asyncio_closed(duty: OperationDuty) -> None:
    duty._threads.close()


def test_without_a_worker_a_page_that_is_looked_at_carries_it_out(client, pool, user, many):
    jobs = dead(client, pool, 5)
    operation = begun("requeue", jobs, user)
    operations.help_along(operation.pk)
    assert states(jobs) == ["queued"] * 5


def test_with_a_worker_a_page_leaves_it_to_that(client, pool, user, many, hand):
    jobs = dead(client, pool, 3)
    operation = begun("requeue", jobs, user)
    operations.help_along(operation.pk)
    assert states(jobs) == ["dead"] * 3
    Operation.objects.update(next_at=Now() - timedelta(minutes=1))
    operations.help_along(operation.pk)
    assert states(jobs) == ["queued"] * 3, "nobody came, though it was due"


def test_the_handlers_of_many_are_left_to_the_workers(client, pool, user, monkeypatch):
    from llmjobs.models import HandlerCall

    monkeypatch.setattr(operation_steps, "CALLED_AT_ONCE_MAX", 1)
    submit(client, pool, 2, on_settled="tests.host_handlers.save")
    operation = operations.start("cancel", Job.objects.all(), user=user)
    assert operation.changed == 2
    assert set(HandlerCall.objects.values_list("state", "tries")) == {("pending", 0)}

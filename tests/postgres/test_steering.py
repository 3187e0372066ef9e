"""What operators do to jobs: priorities, models, giving up, discarding, erasing, another request."""

from datetime import timedelta
from decimal import Decimal
from importlib import import_module

import pytest
from django.db import connection
from django.utils import timezone

from llmjobs import handlers, queue
from llmjobs.errors import (
    IdempotencyKeyReused,
    InsufficientQuota,
    InvalidRequest,
    JobNotFound,
    ModelNotFound,
    NotAllowed,
)
from llmjobs.models import DeadLetter, HandlerCall, Inbox, Job, JobEvent, JobRequest, Tier, WebhookDelivery
from llmjobs.states import Priority, State
from llmjobs.submissions import parse
from tests.factories import make_client, make_model
from tests.hands import claimed_job, submit
from tests.properties.ground import check_counts, check_dead_letters, check_identity

pytestmark = pytest.mark.django_db(transaction=True)

WEBHOOK = "https://hooks.example/told"


def told_of(job: Job) -> None:
    """The handler of those that have one."""


def dead(hand, client, pool, **asked):
    """A dead job's id, with words of its error."""
    claimed = claimed_job(hand, client, pool, **asked)
    hand.settle(claimed, state=State.DEAD, error_code="server_error", error_class="unknown", error_message="It broke.")
    return claimed.id


def last_event(job_id):
    event = JobEvent.objects.filter(job_id=job_id).latest("seq")
    return event.type, event.data


# Reprioritize.


def test_a_job_takes_its_place_by_age_in_the_lane_of_its_new_priority(hand, client, pool):
    jobs = submit(client, pool, 2, priority="background")
    younger = submit(client, pool, 1)
    hand.claim(pool)  # the lanes' heads are known, and one is taken
    changed = queue.reprioritize([jobs[0].id, jobs[1].id, younger[0].id], Priority.NORMAL)
    assert changed == [job.id for job in jobs], "who has it already, or runs with it, is left alone"
    submit(client, pool, 1)
    order = [job.id for job in hand.claim(pool, 3)]
    assert order[:2] == [job.id for job in jobs]
    check_identity()
    hand.fold()
    check_counts()


def test_viewers_hear_of_a_new_priority_and_of_a_new_model(hand, client, pool):
    [job] = submit(client, pool)
    queue.reprioritize([job.id], Priority.HIGH)
    assert last_event(job.id) == ("status", {"status": "queued", "attempt": 0, "priority": "high"})
    elsewhere = make_model()
    queue.move([job.id], elsewhere.pk)
    assert last_event(job.id) == ("status", {"status": "queued", "attempt": 0, "model": elsewhere.name})


def test_a_tier_bounds_what_an_operator_may_give(client, pool):
    other = make_client(tier="another")
    Tier.objects.filter(pk=client.tier_id).update(max_priority=Priority.NORMAL)
    Tier.objects.filter(pk=other.tier_id).update(max_priority=Priority.CRITICAL)
    jobs = [*submit(client, pool), *submit(other, pool)]
    assert queue.reprioritize([job.id for job in jobs], Priority.HIGH) == [jobs[1].id]
    with pytest.raises(InvalidRequest, match="expected one of 0 "):
        queue.reprioritize([jobs[0].id], 3)


def test_a_running_job_goes_on_and_comes_back_at_its_new_priority(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.say(claimed, "Half")
    assert queue.reprioritize([claimed.id], Priority.LOW) == [claimed.id]
    hand.say(claimed, " of it", n=2)
    hand.release(claimed)
    hand.fold()
    check_counts()
    assert JobEvent.objects.filter(type="delta").count() == 2, "its log is its worker's"
    [again] = hand.claim(pool)
    assert (again.id, Job.objects.get().priority) == (claimed.id, Priority.LOW)


# Move.


def test_a_moved_job_is_estimated_by_the_prices_where_it_is_and_stays_there(hand, client, pool):
    elsewhere = make_model(input_usd_per_mtok=Decimal(2), output_usd_per_mtok=Decimal(8))
    [job, delayed] = [*submit(client, pool), *submit(client, pool, delay_s=3600)]
    assert sorted(queue.move([job.id, delayed.id], elsewhere.pk)) == [job.id, delayed.id]
    assert queue.move([job.id], elsewhere.pk) == [], "it is there"
    moved = Job.objects.get(id=job.id)
    assert moved.est_cost == moved.est_input_tokens + 4 * moved.est_output_tokens
    assert moved.est_usd == Decimal(moved.est_input_tokens * 2 + moved.est_output_tokens * 8) / 1_000_000
    assert hand.claim(pool) == []
    [claimed] = hand.claim(elsewhere)
    assert (claimed.id, claimed.upstream_name) == (job.id, elsewhere.name)
    hand.settle(claimed, state=State.DEAD)
    queue.requeue([job.id])
    assert Job.objects.get(id=job.id).pool == elsewhere
    hand.fold()
    check_counts()
    check_identity()


def test_a_model_that_is_too_small_for_a_job_does_not_get_it(hand, client, pool):
    small = make_model(context_window=4)
    [job] = submit(client, pool)
    assert queue.move([job.id], small.pk) == []
    job_id = dead(hand, client, pool)
    assert queue.requeue([job_id], pool_id=small.pk) == []


def test_a_job_that_a_fallback_took_is_at_home_where_an_operator_moves_it(client, pool):
    fallback = make_model()
    [job] = submit(client, pool)
    Job.objects.update(pool=fallback, home=pool)
    assert queue.move([job.id], fallback.pk) == [job.id]
    assert (Job.objects.get().pool, Job.objects.get().home) == (fallback, None)
    assert Inbox.objects.filter(pool=fallback).count() == 0, "it was there"


def test_what_is_over_is_moved_by_its_requeue(hand, client, pool):
    elsewhere = make_model(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(3))
    job_id = dead(hand, client, pool)
    assert queue.move([job_id], elsewhere.pk) == []
    assert queue.requeue([job_id], pool_id=elsewhere.pk) == [job_id]
    job = Job.objects.get()
    assert (job.pool, job.home, job.est_cost) == (elsewhere, None, job.est_input_tokens + 3 * job.est_output_tokens)
    assert [again.id for again in hand.claim(elsewhere)] == [job_id]


# Giving up, discarding, erasing.


def test_a_dead_job_that_is_given_up_is_told_of_once_more(hand, client, pool):
    asked = {"webhook_url": WEBHOOK, "on_settled": f"{__name__}.told_of"}
    job_id = dead(hand, client, pool, **asked)
    assert queue.cancel([job_id]) == [], "clients can't"
    assert queue.cancel([job_id], even_dead=True) == [job_id]
    assert queue.cancel([job_id], even_dead=True) == []
    assert list(WebhookDelivery.objects.order_by("id").values_list("type", flat=True)) == ["job.dead", "job.cancelled"]
    calls = HandlerCall.objects.order_by("id").values_list("epoch", "state")
    assert [state for _, state in calls] == ["pending", "done"], "the worker's is the worker's to call"
    assert last_event(job_id) == ("done", {"status": "cancelled"})
    assert not DeadLetter.objects.exists()
    assert queue.requeue([job_id]) == [job_id]


def test_a_discarded_letter_comes_back_by_a_restore_and_by_dying_again(hand, client, pool):
    job_id = dead(hand, client, pool)
    assert queue.discard([job_id]) == [job_id]
    assert queue.discard([job_id]) == []
    assert (Job.objects.get().state, DeadLetter.objects.count()) == (State.DEAD, 0)
    assert queue.restore([job_id]) == [job_id]
    assert queue.restore([job_id]) == []
    check_dead_letters()
    queue.discard([job_id])
    queue.requeue([job_id])
    [again] = hand.claim(pool)
    hand.settle(again, state=State.FAILED, error_code="context_length_exceeded", error_class="deterministic")
    check_dead_letters()
    letter = DeadLetter.objects.get()
    assert (letter.state, letter.error_code, letter.error_class) == (
        "failed",
        "context_length_exceeded",
        "deterministic",
    )


def test_letters_go_with_their_jobs_by_whatever_road(hand, client, pool):
    ids = [dead(hand, client, pool) for _ in range(3)]
    Job.objects.filter(id=ids[0]).update(finished_at=timezone.now() - timedelta(days=31))
    assert hand.prune() == 1
    assert set(DeadLetter.objects.values_list("job_id", flat=True)) == set(ids[1:])
    with connection.cursor() as cursor:
        cursor.execute("delete from llmjobs_job where id = %s", [ids[1]])
        cursor.execute("update llmjobs_job set state = 'completed' where id = %s", [ids[2]])
    assert not DeadLetter.objects.exists()


def test_what_was_dead_before_there_were_letters_has_one_after_the_migration(hand, client, pool):
    for _ in range(2):
        dead(hand, client, pool)
    DeadLetter.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(import_module("llmjobs.migrations.0017_dead_letters").BACKFILL)
    check_dead_letters()


def test_many_are_erased_but_for_those_that_are_not_over(hand, client, pool):
    ended = [dead(hand, client, pool) for _ in range(2)]
    [waits] = submit(client, pool)
    assert queue.erase_many([waits.id, *ended]) == ended
    assert list(JobRequest.objects.values_list("job_id", flat=True)) == [waits.id]
    assert queue.requeue(ended) == []
    assert DeadLetter.objects.count() == 2, "they still wait for an operator"


# Requeue with another request.


def test_a_job_requeued_as_another_is_what_a_submit_of_that_would_be(hand, client, pool):
    priced = make_model(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(2))
    handler = handlers.attached(parse({"model": pool.name, "input": "Old"}), f"{__name__}.told_of")
    [job] = queue.submit_submissions(client, [handler], keys=["key-1"])
    [claimed] = hand.claim(pool)
    hand.settle(claimed, state=State.DEAD)
    asked = {
        "model": priced.name, "messages": [{"role": "user", "content": "Mended"}], "priority": "low", "max_attempts": 2,
        "timeout_s": 7, "retry_for_s": 11, "metadata": {"a": "b"}, "webhook_url": WEBHOOK, "on_interrupt": "keep",
    }  # fmt: skip
    [twin] = queue.submit_submissions(client, [parse(asked)])
    assert queue.requeue_as(job.id, parse(asked)) == [job.id]
    again, twin = Job.objects.get(id=job.id), Job.objects.get(id=twin.id)
    alike = (
        "pool_id", "home_id", "endpoint", "priority", "size", "est_input_tokens", "est_output_tokens", "est_cost",
        "est_usd", "max_output_tokens", "max_attempts", "timeout_s", "retry_for_s", "has_webhook",
        "keeps_partial", "state",
    )  # fmt: skip
    assert [getattr(again, name) for name in alike] == [getattr(twin, name) for name in alike]
    assert (again.attempt, again.failures, again.has_handler, again.finished_at) == (1, 0, True, None)
    assert again.request.body == twin.request.body and again.request.prompt_hash == twin.request.prompt_hash
    assert again.request.on_settled == f"{__name__}.told_of"
    assert [found.id for found in hand.claim(priced, 2)] == [twin.id, job.id], "at the end of its lane"
    hand.fold()
    check_counts()
    check_identity()
    check_dead_letters()


def test_an_idempotency_key_finds_the_job_by_the_post_that_brought_it(hand, client, pool):
    fields = {"model": pool.name, "input": "Once"}
    job, _ = queue.submit_submission(client, parse(fields), "key-1")
    [claimed] = hand.claim(pool)
    hand.settle(claimed, state=State.FAILED)
    edited = {"model": pool.name, "input": "Once, but shorter"}
    queue.requeue_as(job.id, parse(edited))
    assert queue.submit_submission(client, parse(fields), "key-1")[0].id == job.id
    with pytest.raises(IdempotencyKeyReused):
        queue.submit_submission(client, parse(edited), "key-1")


def test_what_was_asked_is_asked_again_where_nobody_edits_it(hand, client, pool):
    asked = {"max_cost_usd": 2, "user": "u-1", "metadata": {"a": "b"}, "webhook_url": WEBHOOK, "priority": "low"}
    job_id = dead(hand, client, pool, on_interrupt="keep", **asked)
    before = JobRequest.objects.values().get()
    queue.requeue_as(job_id, parse(queue.asked_of(Job.objects.get())))
    after = JobRequest.objects.values().get()
    assert {name for name in before if before[name] != after[name]} <= {"fingerprint"}
    assert Job.objects.get().keeps_partial


def test_a_delay_is_kept_and_only_what_a_requeue_may_take_is_taken(hand, client, pool):
    later = parse({"model": pool.name, "input": "Later", "delay_s": 60})
    [job] = submit(client, pool)
    with pytest.raises(NotAllowed, match="one that is queued"):
        queue.requeue_as(job.id, later)
    with pytest.raises(JobNotFound):
        queue.requeue_as(0, later)
    queue.cancel([job.id])
    with pytest.raises(ModelNotFound):
        queue.requeue_as(job.id, parse({"model": "nobody's", "input": "x"}))
    assert queue.requeue_as(job.id, later) == [job.id]
    assert Job.objects.get().state == State.SCHEDULED
    assert last_event(job.id)[1].keys() == {"status", "attempt", "available_at"}
    hand.fold()
    check_counts()
    queue.cancel([job.id])
    queue.erase(job.id)
    with pytest.raises(NotAllowed, match="erased"):
        queue.requeue_as(job.id, later)


def test_an_edited_request_is_held_against_the_budget_and_a_requeue_is_not(hand, pool):
    client = make_client(monthly_budget_usd=Decimal("0.01"))
    dear = make_model(input_usd_per_mtok=Decimal(100), output_usd_per_mtok=Decimal(100))
    job_id = dead(hand, client, pool)
    with pytest.raises(InsufficientQuota):
        queue.requeue_as(job_id, parse({"model": dear.name, "body": {"input": "x", "max_output_tokens": 1_000}}))
    assert Job.objects.get().state == State.DEAD
    assert queue.requeue([job_id], pool_id=dear.pk) == [job_id]


def test_a_requeue_takes_no_notice_of_what_may_wait(hand, client, pool):
    job_id = dead(hand, client, pool)
    client.max_queued = 0
    client.save()
    assert queue.requeue([job_id]) == [job_id]

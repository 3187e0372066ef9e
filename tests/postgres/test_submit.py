"""Submit: a row in the caller's transaction, in order, and once where it was asked for once."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.utils import timezone

from llmjobs import queue
from llmjobs.errors import IdempotencyKeyReused, InvalidRequest, ModelNotFound
from llmjobs.models import Inbox, Job, JobEvent, JobRequest, Provider, Tier
from llmjobs.states import Priority, State
from llmjobs.submissions import parse
from tests.factories import make_client, make_model
from tests.hands import submit

pytestmark = pytest.mark.django_db(transaction=True)

HELLO = [{"role": "user", "content": "Hello."}]


def test_a_submitted_job_is_queued_with_what_was_asked(client, pool):
    job = queue.submit(client="acme", model=pool.name, messages=HELLO, priority="high", metadata={"k": "v"}, user="u")
    stored = Job.objects.select_related("request").get()
    assert stored.id == job.id and stored.public_id == job.public_id
    assert (stored.state, stored.priority, stored.attempt, stored.epoch) == (State.QUEUED, Priority.HIGH, 0, 1)
    assert json.loads(stored.request.body) == {"messages": HELLO}
    assert (stored.request.metadata, stored.request.user) == ({"k": "v"}, "u")
    event = JobEvent.objects.get()
    assert (event.seq, event.type, event.data) == (1 << 20, "status", {"status": "queued", "attempt": 0})


def test_what_submit_returns_is_what_is_stored(client, pool):
    made = queue.submit(client=client, model=pool.name, messages=HELLO, delay_s=5, expires_in_s=50, max_cost_usd=0.5)
    stored = Job.objects.select_related("request").get()
    for field in Job._meta.concrete_fields:
        assert getattr(made, field.attname) == getattr(stored, field.attname), field.attname
    for field in JobRequest._meta.concrete_fields:
        assert getattr(made.request, field.attname) == getattr(stored.request, field.attname), field.attname


def test_a_job_knows_its_own_output_limit_and_what_it_is_expected_to_cost(client):
    priced = make_model("priced", input_usd_per_mtok="0.4", output_usd_per_mtok="1.6")
    submit(client, priced, body={"messages": HELLO, "max_tokens": 100, "n": 2})
    job = Job.objects.get()
    assert (job.est_output_tokens, job.max_output_tokens) == (200, 200)
    assert job.est_usd == (job.est_input_tokens * Decimal("0.4") + 200 * Decimal("1.6")) / 1_000_000


def test_what_a_job_does_not_say_and_what_has_no_price_is_null(client, pool):
    submit(client, pool)
    assert Job.objects.values_list("max_output_tokens", "est_usd").get() == (None, None)


def test_a_job_whose_transaction_is_rolled_back_never_was(client, pool, hand):
    with pytest.raises(RuntimeError), transaction.atomic():
        queue.submit(client=client, model=pool.name, messages=HELLO)
        raise RuntimeError
    assert not Job.objects.exists() and not Inbox.objects.exists() and not JobEvent.objects.exists()
    assert hand.claim(pool) == []


def test_a_job_is_not_claimed_before_its_transaction_has_committed(client, pool, hand):
    with transaction.atomic():
        job = queue.submit(client=client, model=pool.name, messages=HELLO)
        assert hand.claim(pool) == []
    assert [claimed.id for claimed in hand.claim(pool)] == [job.id]


def test_many_are_submitted_in_order(client, pool):
    jobs = submit(client, pool, 300)
    assert [job.id for job in jobs] == sorted(job.id for job in jobs)
    assert [job.lane_order for job in jobs] == sorted(job.lane_order for job in jobs)
    assert list(Job.objects.order_by("lane_order").values_list("public_id", flat=True)) == [
        job.public_id for job in jobs
    ]
    assert Inbox.objects.get().queued == 300, "one row a lane, however many jobs"


def test_a_delayed_job_waits_for_its_time(client, pool):
    job = queue.submit(client=client, model=pool.name, messages=HELLO, delay_s=60, retry_for_s=100)
    assert job.state == State.SCHEDULED
    assert timedelta(seconds=59) < job.available_at - timezone.now() <= timedelta(seconds=60)
    assert job.retry_until - job.available_at == timedelta(seconds=100), "the delay takes nothing from the retries"
    assert not Inbox.objects.exists()


def test_a_priority_above_the_tier_s_is_refused(pool):
    client = make_client("c", tier="free")
    with pytest.raises(InvalidRequest, match="at most normal") as caught:
        queue.submit(client=client, model=pool.name, messages=HELLO, priority="high")
    assert (caught.value.param, caught.value.code) == ("priority", "priority_not_allowed")
    Tier.objects.filter(name="free").update(max_priority=Priority.HIGH)
    client.refresh_from_db()
    queue.submit(client="c", model=pool.name, messages=HELLO, priority="high")


def test_an_unknown_model_is_refused(client):
    with pytest.raises(ModelNotFound) as caught:
        queue.submit(client=client, model="nothing", messages=HELLO)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


def test_a_provider_that_takes_any_model_gets_pools_on_first_use(client, settings):
    settings.LLMJOBS_POOLS_PER_CLIENT_MAX = 2
    provider = Provider.objects.create(name="any", base_url="http://127.0.0.1:9/v1", any_model=True, default_rpm=7)
    job = queue.submit(client=client, model="brand-new", messages=HELLO)
    assert (job.pool.provider_id, job.pool.rpm, job.pool.tpm) == (provider.id, 7, 30_000)
    assert queue.submit(client=client, model="brand-new", messages=HELLO).pool_id == job.pool_id
    queue.submit(client=client, model="second", messages=HELLO)
    with pytest.raises(InvalidRequest) as caught:
        queue.submit(client=client, model="third", messages=HELLO)
    assert caught.value.code == "too_many_models"


def test_a_model_s_name_that_none_could_have_makes_no_pool(client):
    Provider.objects.create(name="any", base_url="http://127.0.0.1:9/v1", any_model=True)
    with pytest.raises(ModelNotFound):
        queue.submit(client=client, model="../etc passwd", messages=HELLO)


def test_the_same_key_and_body_find_the_first_job(client, pool):
    first, is_replay = _submit_with_key(client, pool, "k")
    again, is_replay_again = _submit_with_key(client, pool, "k")
    assert (is_replay, is_replay_again) == (False, True)
    assert again.id == first.id and Job.objects.count() == 1


def test_the_same_key_with_another_body_is_refused(client, pool):
    _submit_with_key(client, pool, "k")
    with pytest.raises(IdempotencyKeyReused) as caught:
        _submit_with_key(client, pool, "k", priority="low")
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")


def test_a_key_is_its_client_s_own(client, pool):
    one, _ = _submit_with_key(client, pool, "k")
    other, is_replay = _submit_with_key(make_client("other", tier="enterprise"), pool, "k")
    assert not is_replay and other.id != one.id


def test_a_replay_finds_the_job_in_whatever_state_it_is(client, pool, hand):
    first, _ = _submit_with_key(client, pool, "k")
    hand.settle(*hand.claim(pool))
    again, is_replay = _submit_with_key(client, pool, "k")
    assert is_replay and (again.id, again.state) == (first.id, State.COMPLETED)


@pytest.mark.parametrize("key", ["", "k" * 256, "a\0b", "\ud800", 5])
def test_a_key_that_can_not_be_kept_is_refused(client, pool, key):
    with pytest.raises(InvalidRequest) as caught:
        queue.submit(client=client, model=pool.name, messages=HELLO, idempotency_key=key)
    assert caught.value.param == "idempotency_key"


def test_a_submit_with_a_key_leaves_the_host_s_settings_and_transaction_alone(client, pool):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("set local lock_timeout = '7s'")
        _submit_with_key(client, pool, "k")
        _submit_with_key(client, pool, "k")
        with pytest.raises(IdempotencyKeyReused):
            _submit_with_key(client, pool, "k", priority="low")
        cursor.execute("show lock_timeout")
        assert cursor.fetchone() == ("7s",)
    assert Job.objects.count() == 1


def test_a_body_is_kept_to_the_character(client, pool):
    body = {"messages": [{"role": "user", "content": 'ü 🙂 "quoted" \\u0041 \u2028'}], "zeta": 1e-7, "alpha": None}
    queue.submit(client=client, model=pool.name, body=body)
    text = JobRequest.objects.get().body
    assert json.loads(text) == body and list(json.loads(text)) == ["messages", "zeta", "alpha"]


async def test_an_async_caller_submits_in_a_transaction_of_its_own(transactional_db):
    client = await sync_to_async(make_client)("acme", tier="enterprise")
    pool = await sync_to_async(make_model)("model")
    job = await queue.asubmit(client=client, model=pool.name, messages=HELLO)
    assert await Job.objects.filter(id=job.id).aexists()
    assert await queue.acancel([job.id]) == [job.id]
    assert await queue.arequeue([job.id]) == [job.id]
    await sync_to_async(connections.close_all)()  # the thread's, which nobody else would close


def _submit_with_key(client, pool, key, **fields):
    return queue.submit_submission(client, parse({"model": pool.name, "messages": HELLO, **fields}), key)

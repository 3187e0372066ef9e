"""Many at once: all of them or none, in order, once a key, and the error of one names which."""

import threading
from typing import get_type_hints

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from llmjobs import queue, submissions, submitting_many
from llmjobs.errors import IdempotencyKeyReused, InvalidRequest, ModelNotFound, QueueFull
from llmjobs.job_fields import JobFields
from llmjobs.models import HandlerCall, Job, JobRequest
from tests.factories import make_client, make_model

pytestmark = pytest.mark.django_db(transaction=True)

HELLO = [{"role": "user", "content": "Hello."}]
HANDLER = "tests.host_handlers.save"


def test_the_typed_fields_are_those_of_the_api():
    assert set(get_type_hints(JobFields)) == submissions.FIELDS


def test_many_become_jobs_in_order_each_as_it_was_asked_for(client, pool):
    jobs = queue.submit_many(
        client="acme",
        jobs=[{"model": pool.name, "messages": HELLO, "user": str(n), "priority": "low"} for n in range(50)],
    )
    assert [job.request.user for job in jobs] == [str(n) for n in range(50)]
    assert list(Job.objects.order_by("lane_order").values_list("id", flat=True)) == [job.id for job in jobs]
    assert queue.submit_many(client="acme", jobs=[]) == []


def test_one_that_is_wrong_refuses_all_and_is_named(client, pool, monkeypatch):
    good = {"model": pool.name, "messages": HELLO}
    free = make_client("free", tier="free")
    for jobs, owner, param, error in (
        ([good, good, good | {"priority": "urgent"}], client, "jobs[2].priority", InvalidRequest),
        ([good, {"messages": HELLO}], client, "jobs[1].model", InvalidRequest),
        ([good, good | {"model": "nothing"}], client, "jobs[1].model", ModelNotFound),
        ([good, good | {"priority": "critical"}], free, "jobs[1].priority", InvalidRequest),
        ([good, good | {"on_settled": "nowhere.at_all"}], client, "jobs[1].on_settled", InvalidRequest),
        ([good, good | {"idempotency_key": ""}], client, "jobs[1].idempotency_key", InvalidRequest),
        ([good, good | {"dedupe": "join"}], client, "jobs[1].dedupe", InvalidRequest),
        ([good, good | {"colour": "red"}], client, "jobs[1].colour", InvalidRequest),
        ([good, "good"], client, "jobs[1]", InvalidRequest),
    ):
        with pytest.raises(error) as caught:
            queue.submit_many(client=owner, jobs=jobs)
        assert caught.value.param == param
    monkeypatch.setattr("llmjobs.submitting_many.MANY_MAX", 2)
    with pytest.raises(InvalidRequest, match="at most 2") as caught:
        queue.submit_many(client=client, jobs=[good] * 3)
    assert caught.value.param == "jobs"
    assert not Job.objects.exists()


def test_what_refuses_all_together_names_none_of_them(client, pool):
    client.max_queued = 2
    client.save()
    for key in (None, "k"):
        asked = [{"model": pool.name, "messages": HELLO} for _ in range(3)]
        with pytest.raises(QueueFull) as caught:
            queue.submit_many(client=client, jobs=[asked[0] | {"idempotency_key": key}, *asked[1:]])
        assert caught.value.param is None and not Job.objects.exists()


def test_a_key_that_came_before_is_answered_with_its_job(client, pool):
    def jobs(*keys, priority="normal"):
        asked = {"model": pool.name, "messages": HELLO, "priority": priority, "on_settled": HANDLER}
        return [asked | {"idempotency_key": key} for key in keys]

    first = queue.submit_many(client=client, jobs=jobs("a", None, "b"))
    again = queue.submit_many(client=client, jobs=jobs("b", "c", "a", "c", None))
    assert [job.id for job in again] == [first[2].id, again[1].id, first[0].id, again[1].id, again[4].id]
    assert Job.objects.count() == 5 and JobRequest.objects.filter(on_settled=HANDLER).count() == 5
    for keys in (("d", "a"), ("d", "e", "d")):
        with pytest.raises(IdempotencyKeyReused) as caught:
            *most, last = jobs(*keys)
            queue.submit_many(client=client, jobs=[*most, last | {"priority": "low"}])
        assert caught.value.param == f"jobs[{len(keys) - 1}].idempotency_key"
    assert Job.objects.count() == 5


def test_somebody_else_who_makes_one_of_them_meanwhile_makes_it_once(client, pool, monkeypatch):
    asked = {"model": pool.name, "messages": HELLO, "idempotency_key": "k"}
    real, elsewhere = submitting_many.submit_submissions, []

    def late(*args):
        monkeypatch.setattr(submitting_many, "submit_submissions", real)
        elsewhere.append(_in_another_session(client, asked))
        return real(*args)

    monkeypatch.setattr(submitting_many, "submit_submissions", late)
    jobs = queue.submit_many(client=client, jobs=[asked, {"model": pool.name, "messages": HELLO}])
    assert jobs[0].id == elsewhere[0] and Job.objects.count() == 2


def test_many_are_part_of_the_caller_s_transaction(client, pool):
    with pytest.raises(RuntimeError), transaction.atomic():
        queue.submit_many(client=client, jobs=[{"model": pool.name, "messages": HELLO, "idempotency_key": "k"}])
        raise RuntimeError
    assert not Job.objects.exists() and not HandlerCall.objects.exists()


async def test_a_coroutine_has_all_verbs(transactional_db):
    client = await sync_to_async(make_client)("acme", tier="enterprise")
    pool = await sync_to_async(make_model)("model")
    [job] = await queue.asubmit_many(client="acme", jobs=[{"model": pool.name, "messages": HELLO}])
    await queue.asubmit(client=client, model=pool.name, messages=HELLO, on_settled=HANDLER)
    assert await queue.acancel([job.id]) == [job.id]
    assert (await queue.astats(client="acme"))["total"] == 2
    assert (await queue.astats())["by_status"]["cancelled"] == 1
    await sync_to_async(connections.close_all)()


def _in_another_session(client, asked):
    made = []

    def work():
        made.append(queue.submit_many(client=client, jobs=[asked])[0].id)
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]

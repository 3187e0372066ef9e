"""A worker whose way to Postgres is cut for longer than a lease, while its calls go on at the provider."""

import threading

import pytest

from llmjobs.models import Attempt, Job, JobEvent
from tests.chaos.database_proxy import database_proxy
from tests.chaos.test_worker_processes import (
    ask,
    assert_all_is_told,
    calls_of,
    reaches,
    streams,
    text_of,
)
from tests.helpers import eventually
from tests.simulated import KEY
from tests.worker_process import worker_process

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_outage_longer_than_a_lease_buys_no_call_again(client, pool, simulator):
    """Nobody listens where Postgres was: workers keep their calls, start none, and settle them afterwards.

    Who is back first finds the heartbeats of all the others old, and must not take that for their death.
    """
    running = ask(client, pool, "Slowly. [[tokens=80]] [[tokens_per_s=20]]", count=4)
    slow_beat = {"LLMJOBS_HEARTBEAT_S": "1", "LLMJOBS_LEASE_S": "2.5", "LLMJOBS_RECLAIM_EVERY_S": "0.1"}
    with database_proxy() as proxy:
        options = {"DATABASE_URL": proxy.url, **slow_beat, **KEY}
        with (
            worker_process("--concurrency", "2", **options) as one,
            worker_process("--concurrency", "2", **options) as two,
        ):
            for job in running:
                streams(job)
            proxy.refuse()
            waiting = ask(client, pool, "Later. [[tokens=3]]")[0]
            threading.Timer(4, proxy.restore).start()
            one.said("event=heartbeat_failed")
            for job in [*running, waiting]:
                reaches(job, "completed", within_s=30)
    assert {attempt.outcome for attempt in Attempt.objects.all()} == {"completed"}, one.output() + two.output()
    assert all(text_of(job) == Job.objects.get(pk=job.pk).result.output_text for job in running)
    for job in running:
        seqs = list(JobEvent.objects.filter(job=job).order_by("id").values_list("seq", flat=True))
        assert seqs == sorted(set(seqs))
    assert_all_is_told(simulator)


def test_a_worker_that_nobody_hears_aborts_its_calls_before_its_leases_end(client, pool, simulator):
    """A network that swallows packets: others will take its jobs back, so it must not go on paying for them."""
    job = ask(client, pool, "Slowly. [[tokens=200]] [[tokens_per_s=20]]")[0]
    with database_proxy() as proxy, worker_process(DATABASE_URL=proxy.url, **KEY) as unheard:
        streams(job)
        proxy.freeze()

        def was_aborted() -> None:
            [call] = calls_of(simulator, job)
            assert call["outcome"] == "client_disconnected"

        eventually(was_aborted)
        assert Attempt.objects.get().outcome is None, "nobody had taken it back yet"
        with worker_process(**KEY):
            reaches(job, "completed", within_s=60)
        unheard.kill()
    assert list(Attempt.objects.order_by("number").values_list("outcome", flat=True)) == ["lost", "completed"]
    assert len(calls_of(simulator, job)) == 2

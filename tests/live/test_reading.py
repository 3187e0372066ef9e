"""The statements that viewers cost: each is a short range of an index, however long the log."""

import uuid

import pytest
from django.db import connection

from llmjobs.live.reading import PAGE_BYTES, PAGE_ROWS, RESUME_JOBS
from llmjobs.models import Client, JobEvent
from llmjobs.sql import load
from llmjobs.states import SEQ_EPOCH
from tests.live.speaker import running_jobs

pytestmark = pytest.mark.django_db(transaction=True)

JOBS, EVENTS_A_JOB = 60, 500


@pytest.fixture(autouse=True)
def hub():
    """These tests need none."""


@pytest.fixture
def job_ids(acme) -> list[int]:
    """A log of 30,000 events."""
    jobs = running_jobs(acme, JOBS)
    JobEvent.objects.bulk_create(
        JobEvent(job=job, seq=2 * SEQ_EPOCH + number, type="delta", data={"text": uuid.uuid4().hex})
        for number in range(1, EVENTS_A_JOB + 1)
        for job in jobs
    )
    with connection.cursor() as cursor:
        cursor.execute("analyze")
    return [job.pk for job in jobs]


def plan_of(query: str, parameters: dict) -> str:
    with connection.cursor() as cursor:
        cursor.execute("explain (analyze, costs off, timing off, summary off) " + query, parameters)
        return "\n".join(line for (line,) in cursor.fetchall())


def test_what_is_new_in_many_jobs_is_read_through_the_index(job_ids):
    near_the_end = [2 * SEQ_EPOCH + EVENTS_A_JOB - 2] * JOBS
    query = load("read_events", rows=PAGE_ROWS, bytes=PAGE_BYTES)
    plan = plan_of(query, {"job_ids": job_ids, "positions": near_the_end})
    assert "event_of_job" in plan, plan
    assert "Seq Scan on llmjobs_jobevent" not in plan, plan


def test_a_sweep_reads_the_end_of_the_log(job_ids, acme):
    last = JobEvent.objects.latest("id").pk
    parameters = {"low": last - 100, "high": last, "client_ids": [acme.pk], "begun_at": [0]}
    plan = plan_of(load("sweep_events"), parameters)
    assert "llmjobs_jobevent_pkey on llmjobs_jobevent" in plan, plan


def test_a_feed_that_resumes_reads_its_own_clients_jobs(job_ids, acme):
    for _ in range(3):
        running_jobs(Client.objects.create(name=uuid.uuid4().hex, tier=acme.tier), 20)
    plan = plan_of(load("resume_feed", jobs=RESUME_JOBS), {"client_ids": [acme.pk], "since_ms": 0})
    assert "Seq Scan on llmjobs_jobevent" not in plan, plan
    assert "event_of_job" in plan, plan

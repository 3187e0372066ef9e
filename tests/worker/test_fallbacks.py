"""A worker whose model is blocked: the duty hands its jobs to the fallback, and the worker serves them there."""

import pytest

from llmjobs.models import Attempt, Job
from llmjobs.models.buckets import BlockedBy
from llmjobs.representation import job_json
from tests.factories import make_model, make_provider
from tests.hands import submit
from tests.postgres.test_fallback import block
from tests.worker.running import reaches, working

pytestmark = pytest.mark.django_db(transaction=True)


def test_jobs_of_a_blocked_model_are_served_by_its_fallback(client, pool):
    """`pool` is at the simulator, with prices; the model that was asked for is at a provider where nobody answers."""
    asked = make_model("asked", provider=make_provider("away"), fallback=pool)
    block(asked.provider, BlockedBy.DOWN, for_s=600)
    with working():
        jobs = submit(client, asked, 5)
        for job in jobs:
            reaches(job, "completed")
    assert not Attempt.objects.exclude(pool=pool).exists(), "nothing was tried where it is blocked"
    assert Attempt.objects.filter(outcome="completed", cost_usd__gt=0).count() == 5
    assert {job_json(job)["model"] for job in Job.objects.all()} == {"asked"}

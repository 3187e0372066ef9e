"""A worker prunes beside its jobs."""

from datetime import timedelta

import pytest
from django.utils import timezone

from llmjobs.models import Job
from llmjobs.states import State
from tests.factories import make_client, make_job
from tests.helpers import eventually
from tests.worker.running import working

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_worker_removes_what_is_past_its_age_again_and_again(settings):
    settings.LLMJOBS_PRUNE_EVERY_S = 0.1
    client, past = make_client(), timezone.now() - timedelta(days=31)

    def is_gone():
        assert not Job.objects.exists()

    with working():
        for _ in range(2):
            make_job(State.COMPLETED, client=client)
            Job.objects.update(created_at=past, finished_at=past)
            eventually(is_gone)

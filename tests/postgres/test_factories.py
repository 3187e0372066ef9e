"""The factories: every state can be made, and what is made is what the tables allow."""

import pytest

from llmjobs.models import Job
from llmjobs.states import TERMINAL, State
from tests.factories import make_job

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", list(State))
def test_a_job_can_be_made_in_every_state(state):
    job = make_job(state)

    assert Job.objects.get(pk=job.pk).state == state
    assert (job.finished_at is not None) == (state in TERMINAL)
    assert job.request.body
    assert job.events.order_by("seq").last().seq >> 20 == job.epoch

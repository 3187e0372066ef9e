"""Workers carry out what operators asked of many jobs, beside their own."""

import pytest

from llmjobs import operation_steps, operations
from llmjobs.models import Job, Operation
from tests.factories import make_client, make_model, make_user
from tests.hands import submit
from tests.helpers import eventually
from tests.worker.running import working

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_workers_cancel_what_was_chosen_each_job_once(monkeypatch):
    monkeypatch.setattr(operations, "IN_REQUEST_MAX", 0)
    monkeypatch.setattr(operation_steps, "BATCH", 8)
    client, pool = make_client(tier="enterprise"), make_model(is_paused=True)
    submit(client, pool, 40)
    operation = operations.start("cancel", Job.objects.all(), user=make_user())
    Operation.objects.filter(pk=operation.pk).update(batch=8)
    [late] = submit(client, pool)

    def is_done():
        operation.refresh_from_db()
        assert (operation.state, operation.changed) == ("done", 40)

    with working(), working():
        eventually(is_done)
    assert set(Job.objects.exclude(pk=late.pk).values_list("state", "epoch")) == {("cancelled", 2)}
    assert Job.objects.get(pk=late.pk).state == "queued"

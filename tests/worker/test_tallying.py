"""A worker tallies what happened, and notes how the tiers stand, beside its jobs."""

import pytest

from llmjobs import tallies, tallying
from llmjobs.models import TierSample
from tests.hands import submit
from tests.helpers import eventually
from tests.worker.running import working

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_a_worker_ran_is_tallied_with_its_times_and_tokens(client, pool, quick, monkeypatch):
    monkeypatch.setattr(tallying, "TALLY_EVERY_S", 0.1)

    def is_tallied():
        hour = tallies.summary("hour")
        assert (hour.submitted, hour.started, hour.completed, hour.attempts) == (3, 3, 3, 3)
        assert hour.output_tokens > 0 and hour.run_p50_s is not None and hour.wait_p50_s is not None
        assert {time.measure for time in tallies.totals().times} == {"wait", "run", "first_token"}
        assert TierSample.objects.filter(tier=client.tier).exists()

    with working():
        submit(client, pool, 3)
        eventually(is_tallied)

"""Real workers while all claims are paused: what runs ends, nothing starts, and all goes on at once afterwards."""

from typing import Any

import pytest

from llmjobs import queue
from llmjobs.models import Attempt, Client, Job, Worker
from llmjobs.pauses import open_pause
from llmjobs.testing import SimulatorProcess
from tests.factories import make_client, make_model, make_provider
from tests.hands import submit
from tests.helpers import eventually
from tests.worker.running import reaches, working

pytestmark = pytest.mark.django_db(transaction=True)


def states(client: Client) -> dict[str, int]:
    found = list(Job.objects.filter(client=client).values_list("state", flat=True))
    return {state: found.count(state) for state in set(found)}


def test_workers_start_nothing_while_claims_are_paused_and_go_on_at_once(
    simulator: SimulatorProcess, settings: Any
) -> None:
    settings.LLMJOBS_POLL_S = 30  # nobody looks by himself: the end of the pause wakes them
    client = make_client(tier="enterprise")
    pool = make_model(provider=make_provider(base_url=simulator.url))
    submit(client, pool, 3)
    with working(concurrency=4), working(concurrency=4):
        eventually(lambda: _is(states(client), {"completed": 3}), within_s=20)
        queue.pause_claims(by="ada", reason="the provider moves")
        jobs = submit(client, pool, 20)
        seen = eventually(lambda: _beats(2))
        assert Attempt.objects.count() == 3, f"after beats of {seen} workers"
        queue.resume_claims(by="ada")
        for job in jobs:
            reaches(job, "completed", within_s=20)
    assert Attempt.objects.count() == 23


def _is(found: dict[str, int], expected: dict[str, int]) -> None:
    assert found == expected


def _beats(number: int) -> int:
    """A heartbeat or more of each since the pause: they had the time to claim."""
    pause = open_pause()
    assert pause is not None
    beaten = Worker.objects.filter(stopped_at=None, heartbeat_at__gt=pause.since).count()
    assert beaten == number
    return beaten

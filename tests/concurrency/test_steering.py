"""Operators and workers at once: what is given another priority or model while claims run is counted where it is."""

from itertools import cycle, islice

import pytest

from llmjobs import queue
from llmjobs.states import Priority, State
from tests.concurrency.threads import together
from tests.factories import make_model
from tests.hands import hands, settlement, submit
from tests.properties.ground import check_counts, check_identity

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS, JOBS = 60, 16


def test_a_claim_starts_no_job_in_a_lane_that_it_has_left(client, pool):
    """A claim that saw it there finds, once it has the lock, that it is elsewhere: else its lane would be counted down
    twice, and might sleep with a job in it.
    """
    elsewhere = make_model()
    ids = [job.id for job in submit(client, pool, JOBS)]
    with hands(2) as [first, second]:

        def steer() -> None:
            for priority in islice(cycle([Priority.LOW, Priority.NORMAL, Priority.BACKGROUND]), 2 * ROUNDS):
                queue.reprioritize(ids, priority)
                queue.move(ids[::3], elsewhere.pk if priority == Priority.LOW else pool.pk)

        def work(hand, model) -> None:
            for _ in range(ROUNDS):
                hand.settle_at_last([settlement(job, State.QUEUED, cost=0.0) for job in hand.claim(model, 4)])

        together([steer, lambda: work(first, pool), lambda: work(second, elsewhere)])
        first.fold()
        check_counts()
        check_identity()
        queue.move(ids, pool.pk)
        assert len(first.claim(pool, JOBS)) == JOBS, "none of them is lost"

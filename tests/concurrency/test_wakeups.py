"""Lanes that fall asleep at the moment that somebody submits into them: no job stays behind."""

import threading

import pytest

from llmjobs import queue
from llmjobs.folding import fold
from llmjobs.models import Attempt, Job
from llmjobs.states import State
from tests.concurrency.threads import together
from tests.factories import make_client, make_model
from tests.hands import Hand, hands, settlement, submit
from tests.properties.ground import check_counts

pytestmark = pytest.mark.django_db(transaction=True)


SUBMITTERS, EACH = 20, 45


def test_no_wake_up_is_lost_however_often_lanes_fall_asleep():
    """Twenty submit one job at a time, two claim everything at once: nearly every claim empties some lane.

    `make bench` runs it with processes, 100,000 times.
    """
    pools = [make_model(), make_model()]
    clients = [make_client(f"c{n}", tier="enterprise") for n in range(3)]
    submitting = threading.Barrier(SUBMITTERS + 1)
    done = threading.Event()

    def submitter(number: int) -> None:
        for turn in range(EACH):
            client, pool = clients[(number + turn) % 3], pools[turn % 2]
            [job] = submit(client, pool, priority=("critical", "normal")[turn // 3 % 2])
            if turn % 7 == 0:
                queue.cancel([job.id])
        submitting.wait(60)

    def finish() -> None:
        submitting.wait(60)
        done.set()

    def claimer(hand: Hand) -> int:
        slept = 0
        while True:
            was_done = done.is_set()
            ready = hand.ready_pools()
            for pool in pools:
                if pool.id in ready:
                    hand.settle_at_last([settlement(job) for job in hand.claim(pool, 16)])
            slept += not ready
            if was_done and not ready:
                return slept

    with hands(2) as some:
        calls = (
            [lambda n=n: submitter(n) for n in range(SUBMITTERS)]
            + [lambda hand=hand: claimer(hand) for hand in some]
            + [finish]
        )
        together(calls)
        assert some[0].ready_pools() == []
        some[0].fold()
        check_counts()
    assert not Job.objects.filter(state=State.QUEUED).exists(), "nobody would ever look for it"
    completed = Job.objects.filter(state=State.COMPLETED).count()
    assert completed > 700
    assert Attempt.objects.count() == completed, "a job was claimed twice"


def test_a_job_submitted_between_the_fold_and_the_claim_is_found_by_the_next():
    """The claim sees a job whose inbox row it has not folded, and takes it; the late row wakes no empty lane."""
    pool, client = make_model(), make_client("c", tier="enterprise")
    with hands(1) as [hand]:

        async def claim_after(submitted: list[Job]) -> None:
            async with hand.connection.transaction():
                await fold(hand.connection, is_sweep=False)
                submitted += together([lambda: submit(client, pool, 2)])[0]

        submit(client, pool)
        submitted: list[Job] = []
        hand.run(claim_after(submitted))
        claimed = hand.claim(pool, 4)
        assert len(claimed) == 3
        hand.settle(*claimed)
        assert hand.claim(pool) == []
        hand.fold()
        check_counts()
        assert hand.ready_pools() == []

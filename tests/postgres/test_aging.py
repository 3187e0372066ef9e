"""Aging: a lane whose head waits long rises by a priority each `aging_s` of its tier, so that nothing starves."""

from datetime import timedelta

import pytest
from django.utils import timezone

from llmjobs.models import Inbox, Job, LaneTurn, ShardTurn, Tier
from tests.factories import make_client
from tests.hands import submit
from tests.helpers import eventually
from tests.properties.ground import check_floors, check_identity

pytestmark = pytest.mark.django_db(transaction=True)


def waited(jobs, seconds):
    """As if these jobs had been submitted so long ago; before the fold has seen them."""
    then = timezone.now() - timedelta(seconds=seconds)
    Job.objects.filter(id__in=[job.id for job in jobs]).update(available_at=then, created_at=then)
    Inbox.objects.filter(client=jobs[0].client, priority=jobs[0].priority).update(head_at=then)


def levels():
    return dict(LaneTurn.objects.filter(is_ready=True).values_list("lane__priority", "level"))


def test_a_fresh_lane_has_the_level_of_its_priority(hand, client, pool):
    for priority in ("critical", "high", "normal", "low", "background"):
        submit(client, pool, priority=priority)
    hand.fold()
    assert levels() == {0: 0, 1: 2, 5: 4, 8: 6, 10: 8}


@pytest.mark.parametrize(("seconds", "level"), [(299, 8), (301, 6), (601, 4), (901, 2), (1_201, 0), (99_999, 0)])
def test_each_aging_s_raises_a_lane_by_one_priority(hand, client, pool, seconds, level):
    waited(submit(client, pool, priority="background"), seconds)
    hand.fold()
    assert levels() == {10: level}


def test_size_is_kept_while_priority_rises(hand, client, pool):
    waited(submit(client, pool, priority="low", long=True), 301)
    hand.fold()
    assert levels() == {8: 5}


def test_zero_means_never(hand, client, pool):
    Tier.objects.update(aging_s=0)
    waited(submit(client, pool, priority="background"), 99_999)
    hand.fold()
    assert levels() == {10: 8}


def test_an_old_job_of_low_priority_goes_before_a_new_one_of_normal_priority(hand, client, pool):
    other = make_client(tier="enterprise")
    waited(old := submit(client, pool, priority="low"), 700)
    submit(other, pool, 5, priority="normal")
    assert [job.id for job in hand.claim(pool)] == [old[0].id]


def test_a_lane_that_was_served_falls_back_however_old_its_jobs_are(hand, client, pool):
    other = make_client(tier="enterprise")
    waited(submit(client, pool, 5, priority="low"), 700)
    submit(other, pool, 10)
    taken = [hand.claim(pool)[0] for _ in range(6)]
    assert [job.client == client.name for job in taken] == [True, False, False, False, False, False]
    check_floors()
    check_identity()


def test_the_age_of_a_long_queue_does_not_hold_up_who_comes_now(hand, client, pool):
    """Each job of a long queue is old; its client is served all the same, so it has nothing to catch up on."""
    waited(submit(client, pool, 40), 5_000)
    hand.claim(pool)
    submit(make_client(tier="enterprise"), pool, 10)
    taken = [hand.claim(pool)[0] for _ in range(10)]
    assert sum(job.client == client.name for job in taken) == pytest.approx(5, abs=1)


def test_a_sweep_raises_lanes_that_nobody_touches(hand, client, pool):
    Tier.objects.update(aging_s=0.5)
    submit(client, pool, priority="high")
    hand.fold()

    def risen():
        hand.sweep()
        assert levels() == {1: 0}

    eventually(risen)
    check_floors()


def test_each_step_is_taken_in_its_time_and_then_no_more(hand, client, pool):
    Tier.objects.update(aging_s=0.2)
    submit(client, pool, priority="background")
    hand.fold()
    seen = {8}

    def at_the_top():
        hand.sweep()
        seen.add(levels()[10])
        assert levels() == {10: 0}

    eventually(at_the_top)
    assert seen == {8, 6, 4, 2, 0}
    assert LaneTurn.objects.get(is_ready=True).ages_at is None


def test_a_lane_that_is_not_due_is_not_looked_at(hand, client, pool):
    submit(client, pool, priority="low")
    hand.fold()
    before = LaneTurn.objects.get(is_ready=True)
    ShardTurn.objects.update(aged_to=timezone.now() - timedelta(hours=1))
    hand.sweep()
    assert LaneTurn.objects.get(is_ready=True).turn == before.turn
    assert ShardTurn.objects.get().aged_to > timezone.now() - timedelta(minutes=1)


def test_many_lanes_due_at_once_are_raised_in_batches_and_none_is_forgotten(hand, pool, settings):
    settings.LLMJOBS_FOLD_ROWS_MAX = 100
    clients = [make_client(tier="pro") for _ in range(130)]
    for client in clients:
        submit(client, pool, priority="low")
    for _ in range(3):
        hand.fold()
    due_at = timezone.now() - timedelta(seconds=1)
    LaneTurn.objects.update(head_at=due_at - timedelta(seconds=300), ages_at=due_at)
    ShardTurn.objects.update(aged_to=due_at - timedelta(seconds=1))
    for _ in range(3):
        hand.sweep()
    assert set(LaneTurn.objects.values_list("level", flat=True)) == {4}


def test_a_change_of_aging_acts_on_what_waits(hand, client, pool):
    waited(submit(client, pool, priority="low"), 100)
    hand.fold()
    assert levels() == {8: 6}
    Tier.objects.update(aging_s=30)
    hand.fold()
    assert levels() == {8: 0}


def test_a_retry_ages_from_when_it_might_have_started_again(hand, client, pool):
    waited(submit(client, pool, priority="low"), 700)
    [job] = hand.claim(pool)
    hand.settle(job, state="scheduled")
    hand.stage()
    hand.fold()
    assert levels() == {8: 6}


def test_a_released_job_keeps_its_age(hand, client, pool):
    waited(submit(client, pool, priority="low"), 700)
    hand.release(*hand.claim(pool))
    hand.fold()
    assert levels() == {8: 2}


def test_a_job_that_waits_behind_its_own_client_s_urgent_ones_ages_past_them(hand, client, pool):
    """Without aging the critical jobs would go first for ever."""
    waited(old := submit(client, pool, priority="background"), 1_300)
    submit(client, pool, 10, priority="critical")
    assert hand.claim(pool)[0].id == old[0].id

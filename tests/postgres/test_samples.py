"""Samples of the pools' buckets: taken where something happens, by one worker at a time, and not kept for ever."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from llmjobs import samples
from llmjobs.models import BucketKind, BucketTurn, Model, PoolSample
from tests.factories import make_model

pytestmark = pytest.mark.django_db(transaction=True)


def bucket(pool: Model, **fields: Any) -> None:
    """A new turn; the one before goes, as the claim has it."""
    before = BucketTurn.objects.filter(kind=BucketKind.POOL, of_id=pool.pk).order_by("-turn").first()
    BucketTurn.objects.filter(kind=BucketKind.POOL, of_id=pool.pk).delete()
    BucketTurn.objects.create(kind=BucketKind.POOL, of_id=pool.pk, turn=before.turn + 1 if before else 1, **fields)


def time_goes_by(seconds: float = samples.SAMPLE_EVERY_S) -> None:
    PoolSample.objects.update(at=F("at") - timedelta(seconds=seconds))


def sample(hand: Any) -> int:
    return int(hand.run(samples.sample(hand.connection)))


def newest() -> PoolSample:
    return PoolSample.objects.order_by("-at")[0]


def test_a_sample_is_the_bucket_as_it_was(hand):
    pool = make_model(rpm=600, tpm=40_000)
    bucket(pool, requests=7, tokens=123.5, refusals=2, queued=5, running=3)
    assert sample(hand) == 1
    row = newest()
    assert (row.pool_id, row.requests, row.tokens, row.refusals, row.queued, row.running) == (
        pool.pk,
        7,
        123.5,
        2,
        5,
        3,
    )
    assert (row.rpm, row.tpm, row.blocked_by) == (600, 40_000, None)


def test_a_sample_is_not_taken_before_its_time(hand):
    bucket(make_model(), running=1)
    assert [sample(hand), sample(hand)] == [1, 0]
    time_goes_by()
    assert sample(hand) == 1


def test_a_pool_that_nobody_uses_is_left_alone(hand):
    pool = make_model()
    bucket(pool, running=1)
    for expected in (1, 1):
        assert sample(hand) == expected, "something runs"
        time_goes_by()
    bucket(pool, requests=1)
    assert sample(hand) == 1, "how it was left"
    time_goes_by()
    assert sample(hand) == 0
    bucket(pool, requests=2)
    assert sample(hand) == 1, "something was sent"


@pytest.mark.parametrize(
    "change",
    [
        {"refusals": 1}, {"tokens": 5.0}, {"blocked_by": "provider_down", "blocked_until": 1.0},
    ],
)  # fmt: skip
def test_whatever_changed_is_worth_a_sample(hand, change):
    pool = make_model()
    bucket(pool)
    sample(hand)
    time_goes_by()
    bucket(pool, **change)
    assert sample(hand) == 1


def test_an_edited_limit_is_worth_a_sample(hand):
    pool = make_model(rpm=600)
    bucket(pool)
    sample(hand)
    time_goes_by()
    Model.objects.update(rpm=500)
    assert sample(hand) == 1
    assert newest().rpm == 500


def test_what_the_provider_told_cuts_the_limit_for_ten_minutes(hand):
    pool = make_model(rpm=600, tpm=40_000)
    with connection.cursor() as cursor:
        cursor.execute("select extract(epoch from statement_timestamp())::float8")
        [now] = cursor.fetchone()
    for told, expected in [
        ({"requests_limit": 60.0, "tokens_limit": 90_000.0, "told_at": now}, (60, 40_000)),
        ({"requests_limit": 60.0, "tokens_limit": 100.0, "told_at": now - 601}, (600, 40_000)),
    ]:
        bucket(pool, running=1, **told)
        sample(hand)
        assert (newest().rpm, newest().tpm) == expected
        time_goes_by()


def test_a_model_without_limits_is_allowed_the_default(hand, settings):
    settings.LLMJOBS_DEFAULT_RPM, settings.LLMJOBS_DEFAULT_TPM = 77, 7_700
    bucket(make_model(rpm=None, tpm=None))
    sample(hand)
    assert (newest().rpm, newest().tpm) == (77, 7_700)


def test_one_worker_at_a_time_takes_samples(hand):
    bucket(make_model(), running=1)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtext('llmjobs.sample'), 0)")
        assert sample(hand) == 0
    assert sample(hand) == 1


def test_samples_are_kept_for_two_hours_and_deleted_in_bounded_batches(hand, monkeypatch):
    monkeypatch.setattr(samples, "DELETED_ROWS", 2)
    for pool in (make_model(), make_model()):
        PoolSample.objects.bulk_create(
            PoolSample(
                pool=pool, at=Now() - timedelta(seconds=samples.KEEP_S + (60 if number < 3 else -60) + number),
                requests=0, tokens=0, refusals=0, queued=0, running=0, rpm=1, tpm=1,
            )
            for number in range(5)
        )  # fmt: skip
    BucketTurn.objects.all().delete()
    left = []
    for _ in range(3):
        sample(hand)
        left.append(PoolSample.objects.count())
    assert left == [6, 4, 4]

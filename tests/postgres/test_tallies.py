"""What happened is tallied exactly and once, whoever did it; totals never fall; and reading costs two statements."""

import importlib
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models import F, Sum
from django.utils import timezone

from llmjobs import counts, samples, tallies, tallying
from llmjobs.database import dsn
from llmjobs.models import Attempt, ClientDay, Job, Tally, TallyChange, TallyMark, TallyTime, Tier, TierSample
from tests.concurrency.threads import together
from tests.factories import make_client, make_job, make_model
from tests.hands import Hand, submit
from tests.helpers import eventually
from tests.postgres.tallying import NOTED, NOTED_REVERSE, STANDING, differences, fold_all, pass_time, rows
from tests.postgres.test_counts import Doings

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def noted(transactional_db):
    rows(NOTED)
    yield
    rows(NOTED_REVERSE)


def fold_by(hand: Hand) -> int:
    return hand.run(tallying.tally(hand.connection))


def settle(hand: Hand, pool: Any, count: int = 1, **said: Any) -> None:
    used = {"input_tokens": 10, "output_tokens": 20, "cost": 30.0, "cost_usd": "0.25"}
    hand.settle(*hand.claim(pool, count), **used | said)


class Deeds(Doings):
    """What may be done to jobs, and to a ledger that nobody corrects."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.deeds.remove(self.corrects_a_cost)
        self.deeds.remove(self.settles)
        self.deeds += [self.claims, self.folds, self.loses_and_reclaims, self.rewrites_the_ledger] + 3 * [
            self.settles_what_was_sent,
            self.tries_again,
        ]

    def folds(self) -> None:
        pass_time(self.random.choice([0, 1, 3, 11]))
        if self.random.random() < 0.5:
            tallying.help_tally()
        else:
            fold_by(self.hand)

    def settles_what_was_sent(self) -> None:
        while self.claimed and self.random.random() < 0.7:
            said = self.random.choice(
                [
                    {"state": "completed", "sent_ago_s": self.random.random() * 900, "first_token_ago_s": 0.1},
                    {"state": "scheduled", "outcome": "rejected", "provider_status": 429, "sent_ago_s": 0.1},
                    {"state": "scheduled", "outcome": "rejected", "provider_status": 503},
                ]
            )
            used = {"input_tokens": self.random.randint(0, 50), "output_tokens": 7, "cost_usd": "0.00000001"}
            self.hand.settle(self.claimed.pop(), **used | said)

    def tries_again(self) -> None:
        Job.objects.filter(state="scheduled").update(available_at=F("created_at"))
        self.hand.stage()
        self.claims()

    def rewrites_the_ledger(self) -> None:
        """As an erasure does: nothing ended."""
        Attempt.objects.filter(ended_at__isnull=False).update(error_message="")

    def loses_and_reclaims(self) -> None:
        rows("update llmjobs_worker set heartbeat_at = heartbeat_at - interval '1 hour'")
        self.hand.reclaim()
        rows("update llmjobs_worker set heartbeat_at = statement_timestamp()")


@pytest.mark.parametrize("seed", range(2))
def test_tallies_are_what_rows_that_were_noted_say_after_any_deeds(hand, noted, seed):
    """Nor do totals fall on the way; and how the tiers stand is what a GROUP BY over the jobs says."""
    deed = Deeds(seed, hand, make_model("priced", input_usd_per_mtok="0.4", output_usd_per_mtok="1.6"))
    before: dict[Any, int] = {}
    for n in range(70):
        deed()
        after = {total[:4]: total.number for total in tallies.totals().counts}
        assert all(after[key] >= number for key, number in before.items()), n
        before = after
        assert standing() == {name: jobs for name, *jobs in rows(STANDING)}, n
    fold_all()
    assert TallyChange.objects.count() == 0 and differences() == []
    attempts = Attempt.objects.filter(outcome__isnull=False).aggregate(n=Sum("input_tokens"), usd=Sum("cost_usd"))
    assert tallies.summary("hour").input_tokens == attempts["n"]
    assert sum(day.usd for one in deed.clients for day in tallies.client_days(one.pk)) == attempts["usd"]
    words = {(total.of, total.word) for total in tallies.totals().counts}
    assert {("job", "submitted"), ("job", "retried"), ("job", "cancelled"), ("attempt", "rate_limited")} <= words


def standing() -> dict[str, list[Any]]:
    return {
        tier.name: [
            tier.queued, tier.running, tier.scheduled,
            tier.oldest_s if tier.oldest_s is None else pytest.approx(tier.oldest_s, abs=0.5),
        ]
        for tier in tallies.tiers_now()
    }  # fmt: skip


def test_retention_does_not_lower_what_was_tallied(hand, client, pool):
    submit(client, pool, 3)
    settle(hand, pool, 3)
    fold_all()
    before = (tallies.totals(), tallies.summary("day"), tallies.client_days(client.pk), tallies.model_days(pool.pk))
    assert hand.prune(0) == 3 and not Job.objects.exists()
    fold_all()
    assert before == (
        tallies.totals(),
        tallies.summary("day"),
        tallies.client_days(client.pk),
        tallies.model_days(pool.pk),
    )
    assert before[0].counts


def test_what_was_taken_back_did_not_happen(hand, client, pool):
    with transaction.atomic():
        submit(client, pool, 2)
        transaction.set_rollback(True)
    fold_all()
    assert tallies.totals().counts == []


def test_what_is_put_in_as_over_was_only_submitted(client, pool):
    make_job("dead", model=pool)
    fold_all()
    assert [total.word for total in tallies.totals().counts] == ["submitted"]


def test_who_comes_while_another_folds_skips_its_turn(hand, client, pool):
    submit(client, pool, 2)
    with transaction.atomic():
        assert tallying.help_tally() == 1
        assert fold_by(hand) == 0
    assert tallies.summary("hour").submitted == 2


def test_many_who_fold_at_once_count_nothing_twice(hand, client, pool, noted):
    for _ in range(20):
        submit(client, pool, 3)
    settle(hand, pool, 5)
    together([fold_all] * 4)
    fold_all()
    assert differences() == [] and tallies.summary("hour").submitted == 60


def test_workers_together_fold_once_in_five_seconds(hand, other, client, pool):
    submit(client, pool)
    assert fold_by(hand) == 1
    submit(client, pool)
    assert fold_by(other) == 0
    pass_time(5)
    assert fold_by(other) == 1


def test_what_committed_late_is_tallied_where_it_happened(hand, client, pool, noted):
    """A cancel, in a transaction that stays open while the bound passes it. Once it is over, nobody looks there."""
    jobs = submit(client, pool, 2)
    with psycopg.connect(**dsn() | {"autocommit": False}) as late:
        late.execute("update llmjobs_job set state = 'cancelled', finished_at = now() where id = %s", [jobs[0].id])
        for _ in range(3):
            submit(client, pool)
            pass_time(11)
            fold_all()
        late.commit()
    mark = TallyMark.objects.get()
    assert mark.sweep_from <= TallyChange.objects.get().id < mark.bound_id
    submit(client, pool)
    assert tallying.help_tally() == 1, "no sweep is due"
    pass_time(11)
    fold_all()
    assert TallyChange.objects.count() == 0 and differences() == []

    def goes_on() -> None:
        submit(client, pool)
        pass_time(11)
        fold_all()
        assert TallyMark.objects.get().sweep_from > mark.bound_id

    # Not past what is open anywhere on this server, as a test beside this one may have it.
    eventually(goes_on, within_s=60)


def test_without_workers_changes_do_not_pile_up(client, pool, monkeypatch):
    monkeypatch.setattr(counts, "HELP_EVERY_JOBS", 10)
    monkeypatch.setattr(counts, "HELP_CHANGES", 5)
    for _ in range(40):
        submit(client, pool)
        assert TallyChange.objects.count() <= 20
    assert Tally.objects.exists()


def test_a_large_backlog_of_changes_is_folded_in_bounded_batches(hand, client, pool, monkeypatch):
    monkeypatch.setattr(tallying, "TALLY_ROWS", 2)
    for _ in range(5):
        submit(client, pool)
    assert tallying.help_tally() == 2
    pass_time(5)
    assert fold_by(hand) == 3


def test_minutes_and_days_are_forgotten_and_totals_are_not(hand, client, pool):
    submit(client, pool)
    settle(hand, pool, sent_ago_s=1.0)
    fold_all()
    for model in (Tally, TallyTime):
        model.objects.filter(period_s=60).update(at=F("at") - timedelta(hours=27))
        model.objects.filter(period_s=600).update(at=F("at") - timedelta(days=9))
        model.objects.filter(period_s=86_400).update(at=F("at") - timedelta(days=401))
    ClientDay.objects.update(day=F("day") - timedelta(days=401))
    pass_time(11)
    fold_by(hand)
    assert set(Tally.objects.values_list("period_s", flat=True)) == {0} and not ClientDay.objects.exists()
    assert set(TallyTime.objects.values_list("period_s", flat=True)) == {0}


def test_moments_have_no_gaps_and_say_what_happened_in_them(hand, client, pool, django_assert_num_queries):
    submit(client, pool, 4)
    settle(hand, pool, 2, sent_ago_s=4.0)
    settle(hand, pool, state="scheduled", outcome="rejected", provider_status=429, cost_usd=None)
    fold_all()
    for model in (Tally, TallyTime):
        model.objects.filter(period_s=60).update(at=F("at") - timedelta(minutes=5))
    with django_assert_num_queries(2):
        hour = tallies.moments("hour")
    day = tallies.moments("day")
    assert [(len(of), of[1].at - of[0].at) for of in (hour, day)] == [
        (60, timedelta(minutes=1)), (144, timedelta(minutes=10)),
    ]  # fmt: skip
    assert all(later.at > earlier.at for earlier, later in pairwise(hour))
    assert hour[-1].at <= timezone.now() < hour[-1].at + timedelta(minutes=2)
    happened = [moment for moment in hour if moment.submitted]
    assert [hour.index(moment) for moment in happened] in ([54], [53], [53, 54])
    total = tallies.summary("hour")
    assert (total.submitted, total.started, total.completed, total.attempts, total.refusals) == (4, 3, 2, 3, 1)
    assert (total.input_tokens, total.output_tokens, total.usd) == (30, 60, Decimal("0.5"))
    assert total.tokens_by_tier == {"enterprise": 90} and total.at == hour[0].at
    assert 3 <= total.run_p50_s <= total.run_p95_s <= 5 and total.wait_p95_s is not None
    assert hour[0].run_p50_s is None and hour[0].usd == 0


def test_a_sample_of_a_tier_holds_until_the_next(hand, client, pool):
    submit(client, pool, 3)
    submit(client, pool, delay_s=60)
    hand.claim(pool)
    Job.objects.filter(state="queued").update(available_at=F("available_at") - timedelta(seconds=90))
    hand.run(samples.sample(hand.connection))
    row = TierSample.objects.get(tier=client.tier)
    assert (row.queued, row.running, row.scheduled) == (2, 1, 1) and 90 <= row.oldest_s < 120
    TierSample.objects.filter(tier=client.tier).update(at=F("at") - timedelta(minutes=5))
    earlier = (row.at - timedelta(minutes=5)).replace(second=0, microsecond=0)
    TierSample.objects.create(tier=client.tier, at=earlier, queued=99, running=0, scheduled=0)
    hour = tallies.moments("hour")
    assert hour[-1].queued["enterprise"] == 2 and hour[-1].oldest_s["enterprise"] == row.oldest_s
    assert "enterprise" not in hour[50].queued
    assert tallies.summary("hour").queued["enterprise"] == 2
    TierSample.objects.filter(tier=client.tier).update(at=F("at") - timedelta(hours=2))
    assert tallies.moments("hour")[0].queued["enterprise"] == 2, "from before the hour"


def test_a_tier_that_nobody_uses_is_left_alone(hand, client, pool):
    def sampled() -> int:
        TierSample.objects.update(at=F("at") - timedelta(seconds=samples.SAMPLE_EVERY_S))
        before = TierSample.objects.count()
        hand.run(samples.sample(hand.connection))
        return TierSample.objects.count() - before

    assert [sampled(), sampled()] == [Tier.objects.count(), 0]
    submit(client, pool)
    assert [sampled(), sampled()] == [1, 1], "as long as something waits"


def test_of_older_samples_the_last_of_each_minute_stays_and_then_none(hand, client):
    now = datetime.now().astimezone().replace(second=0, microsecond=0)

    def make(back: timedelta, seconds: tuple[int, ...]) -> list[datetime]:
        ats = [now - back + timedelta(seconds=second) for second in seconds]
        for at in ats:
            TierSample.objects.create(tier=client.tier, at=at, queued=0, running=0, scheduled=0)
        return ats

    young = make(timedelta(minutes=110), (0, 15))
    *_, last = make(timedelta(minutes=123), (0, 15, 30))
    make(timedelta(hours=27), (0,))
    hand.run(samples.sample(hand.connection))
    left = TierSample.objects.filter(tier=client.tier, at__lt=now).order_by("at")
    assert [row.at for row in left] == [last, *young]


def test_shares_are_of_tokens_and_of_the_weights_of_those_that_use_some(hand, pool):
    for tier, jobs in (("enterprise", 1), ("pro", 3)):
        submit(make_client(tier=tier), pool, jobs)
    settle(hand, pool, 4)
    fold_all()
    found = {tier.name: (tier.tokens_last_hour, tier.share, tier.due_share) for tier in tallies.tiers_now()}
    weights = dict(Tier.objects.values_list("name", "weight"))
    both = weights["enterprise"] + weights["pro"]
    assert found == {
        "enterprise": (30, 0.25, weights["enterprise"] / both),
        "pro": (90, 0.75, weights["pro"] / both),
        "free": (0, 0, 0),
    }


def test_days_of_clients_and_models_have_no_gaps(hand, client, pool, django_assert_num_queries):
    submit(client, pool, 2)
    settle(hand, pool)
    fold_all()
    ClientDay.objects.update(day=F("day") - timedelta(days=2))
    with django_assert_num_queries(1):
        days = tallies.client_days(client.pk, 5)
    assert [day.day for day in days] == [days[-1].day - timedelta(days=back) for back in (4, 3, 2, 1, 0)]
    assert days[2][1:] == (2, 1, 10, 20, Decimal("0.25")) and days[4][1:] == (0, 0, 0, 0, 0)
    models = tallies.model_days(pool.pk, 3)
    assert len(models) == 3 and models[2][1:] == days[2][1:]


def test_the_migration_tallies_what_is_there(hand, client, pool):
    submit(client, pool, 4)
    settle(hand, pool, 2)
    settle(hand, pool, state="dead", outcome="rejected", provider_status=429)
    fold_all()
    found, days = tallies.totals().counts, tallies.client_days(client.pk)
    migration = importlib.import_module("llmjobs.migrations.0016_tallies")
    rows("delete from llmjobs_tally; delete from llmjobs_clientday")
    with connection.cursor() as cursor:
        cursor.execute(migration.BACKFILL)
    assert (tallies.totals().counts, tallies.client_days(client.pk)) == (found, days)
    assert tallies.model_days(pool.pk)[-1].jobs == 4


def test_a_turn_of_an_older_worker_does_not_hide_the_oldest(client, pool):
    """It says only since when the oldest of all tiers waits."""
    submit(client, pool)
    Job.objects.update(available_at=F("available_at") - timedelta(minutes=9))
    counts.help_count(least=0)
    rows("update llmjobs_jobcountturn set tier_oldest = null")
    assert standing()["enterprise"] == [1, 0, 0, pytest.approx(540, abs=60)]
    submit(make_client(tier="pro"), pool)
    counts.help_count(least=0)
    assert standing()["enterprise"] == [1, 0, 0, pytest.approx(540, abs=60)] and standing()["pro"][0] == 1

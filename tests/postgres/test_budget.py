"""A month's budget refuses what would go over it, by what was spent and what is promised; and refuses nothing else."""

import importlib
from datetime import date
from decimal import Decimal

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F

from llmjobs import counts, limits, queue
from llmjobs.database import dsn
from llmjobs.errors import InsufficientQuota
from llmjobs.models import Attempt, Client, Job, JobCount, JobCountChange, JobCountTurn, Model, Spending
from llmjobs.states import State
from llmjobs.submissions import parse
from tests.factories import make_client, make_job, make_model
from tests.hands import submit
from tests.postgres.counting import differences, pass_time, spending_differences

pytestmark = pytest.mark.django_db(transaction=True)

ONE = {"body": {"input": [1] * 1_000}, "endpoint": "/v1/embeddings"}  # costs a dollar at the model's price
MOVE = """
update llmjobs_attempt
set claimed_at = claimed_at - interval '40 days',
    ended_at = date_trunc('month', statement_timestamp(), 'UTC') + make_interval(secs => %s)
where job_id = %s
returning date_trunc('month', statement_timestamp() at time zone 'UTC')::date
"""


@pytest.fixture
def priced(transactional_db: None) -> Model:
    return make_model("priced", input_usd_per_mtok=1_000)


def budget(client: Client, usd: float | None) -> None:
    Client.objects.filter(id=client.id).update(monthly_budget_usd=usd)


def refused(client: Client, pool: Model, count: int = 1) -> InsufficientQuota:
    with pytest.raises(InsufficientQuota) as caught:
        submit(client, pool, count, **ONE)
    return caught.value


def money(client: Client) -> tuple[Decimal, Decimal]:
    now = limits.money(client)
    return now.spent_usd, now.reserved_usd


def test_what_waits_is_taken_up_to_the_budget_and_not_a_cent_more(client, priced):
    budget(client, 3)
    submit(client, priced, 2, **ONE)
    submit(client, priced, delay_s=60, **ONE)
    error = refused(client, priced)
    assert (error.status, error.code, error.type) == (429, "insufficient_quota", "insufficient_quota")
    assert "$3.00 a month for acme" in str(error) and "$4.00" in str(error)
    assert not hasattr(error, "retry_after_s"), "coming again soon does not help"
    assert Job.objects.count() == 3 and money(client) == (0, 3)


def test_many_at_once_are_taken_in_all_or_none(client, priced):
    budget(client, 3)
    refused(client, priced, 4)
    assert not Job.objects.exists() and differences() == []
    submit(client, priced, 3, **ONE)


def test_what_runs_is_promised_and_what_is_over_has_cost_what_it_cost(hand, client, priced):
    budget(client, 3)
    submit(client, priced, 3, **ONE)
    claimed = hand.claim(priced, 3)
    assert money(client) == (0, 3)
    refused(client, priced)
    hand.settle(claimed[0], cost_usd="0.25")
    hand.settle(claimed[1], state=State.FAILED, cost_usd="0.5")
    hand.settle(claimed[2], state=State.DEAD)
    assert money(client) == (Decimal("0.75"), 0)
    submit(client, priced, 2, **ONE)
    refused(client, priced)


def test_an_attempt_that_cost_and_is_made_again_counts_beside_what_is_expected(hand, client, priced):
    submit(client, priced, **ONE)
    hand.settle(*hand.claim(priced), state=State.QUEUED, cost_usd="0.5")
    assert money(client) == (Decimal("0.5"), 1)


def test_cancelling_gives_back_what_was_promised(client, priced):
    budget(client, 1)
    [job] = submit(client, priced, **ONE)
    refused(client, priced)
    queue.cancel([job.id])
    submit(client, priced, **ONE)


def test_a_requeue_promises_again_and_is_never_refused(hand, client, priced):
    submit(client, priced, **ONE)
    [claimed] = hand.claim(priced)
    hand.settle(claimed, state=State.DEAD, cost_usd="1")
    budget(client, 1)
    assert queue.requeue([claimed.id]) == [claimed.id]
    assert money(client) == (1, 1)


def test_a_budget_of_nothing_refuses_what_costs_and_nothing_else(client, pool, priced):
    budget(client, 0)
    refused(client, priced)
    submit(client, pool, 2)


def test_what_has_no_price_is_taken_when_the_budget_is_gone(hand, client, pool, priced):
    submit(client, priced, **ONE)
    hand.settle(*hand.claim(priced), cost_usd="5")
    budget(client, 1)
    refused(client, priced)
    submit(client, pool)
    with pytest.raises(InsufficientQuota):
        queue.submit_submissions(
            client, [parse({"model": pool.name, "input": "hi"}), parse({"model": "priced", **ONE})]
        )


def test_a_last_submit_that_costs_nothing_does_not_hide_one_before_it_that_does(client, pool, priced):
    """Each is asked for what it is: the budget at the last that costs, the queue at the last of all."""
    with pytest.raises(DatabaseError) as caught, transaction.atomic():
        submit(client, priced, **ONE)
        submit(client, pool)
        budget(client, 0.5)
    assert caught.value.__cause__.sqlstate == limits.SQLSTATE
    assert not Job.objects.exists()


def test_an_edit_of_the_budget_acts_at_once(client, priced):
    budget(client, 1)
    submit(client, priced, **ONE)
    refused(client, priced)
    budget(client, 2)
    submit(client, priced, **ONE)
    budget(client, None)
    submit(client, priced, 5, **ONE)


def test_another_client_s_money_is_its_own(client, priced):
    budget(client, 1)
    submit(make_client("other", tier="enterprise"), priced, 5, **ONE)
    submit(client, priced, **ONE)


def test_another_price_of_a_job_that_waits_counts_from_then_on(client, priced):
    """As a move to a fallback changes it."""
    budget(client, 2)
    [job] = submit(client, priced, **ONE)
    Job.objects.filter(id=job.id).update(est_usd=2)
    refused(client, priced)
    Job.objects.filter(id=job.id).update(est_usd=F("est_usd") / 2)
    submit(client, priced, **ONE)
    assert differences() == []


def test_last_month_s_spending_takes_no_room_in_this_one(hand, client, priced):
    """By when an attempt ended, UTC, whenever it began."""
    submit(client, priced, 2, **ONE)
    last, this = hand.claim(priced, 2)
    hand.settle(last, this, cost_usd="1")
    with connection.cursor() as cursor:
        cursor.execute(MOVE, [-0.001, last.id])
        cursor.execute(MOVE, [0, this.id])
        [month] = cursor.fetchone()
    assert limits.money(client) == limits.Money(month, Decimal(1), Decimal(0))
    assert spending_differences() == []
    counts.help_count(least=0)
    assert money(client) == (1, 0) and spending_differences() == []
    assert Spending.objects.count() == 2 and Spending.objects.latest("month").month == month


def test_a_month_is_utc_s_in_a_session_of_any_time_zone(client):
    make_job("completed", client=client)
    with connection.cursor() as cursor:
        cursor.execute("set time zone 'Pacific/Kiritimati'")
        cursor.execute("update llmjobs_attempt set ended_at = '2026-11-30T23:59:59Z', cost_usd = 7")
        cursor.execute("set time zone 'UTC'")
    counts.help_count(least=0)
    assert Spending.objects.get(usd=7).month == date(2026, 11, 1)


def test_what_was_spent_stays_spent_when_its_jobs_and_attempts_are_removed(hand, client, priced):
    submit(client, priced, **ONE)
    hand.settle(*hand.claim(priced), cost_usd="0.75")
    Job.objects.all().delete()
    assert not Attempt.objects.exists()
    assert money(client) == (Decimal("0.75"), 0)
    pass_time(11)
    counts.help_count(least=0)
    assert money(client) == (Decimal("0.75"), 0)


def test_money_is_the_same_before_and_after_it_is_counted(hand, client, priced):
    submit(client, priced, 3, **ONE)
    hand.settle(*hand.claim(priced), cost_usd="0.3")
    hand.claim(priced)
    before = money(client)
    while counts.help_count(least=0):
        assert money(client) == before
    assert not JobCountChange.objects.exists() and money(client) == before == (Decimal("0.3"), 2)


def test_of_a_settle_that_commits_late_and_is_cut_by_the_bound_too_much_counts(client, priced, hand):
    """What takes dollars away has lower ids than what brings them."""
    submit(client, priced, **ONE)
    hand.claim(priced)
    with psycopg.connect(**dsn() | {"autocommit": False}) as late:
        late.execute("update llmjobs_job set state = 'completed', worker_id = null, finished_at = now()")
        late.execute("update llmjobs_attempt set ended_at = now(), outcome = 'completed', cost_usd = 0.9")
        late.commit()
    by_id = JobCountChange.objects.filter(is_submit=False).order_by("id").values_list("state", "usd")
    assert [row for row in by_id if row[1]][-3:] == [("running", -1), ("completed", 1), ("spent", Decimal("0.9"))]
    with connection.cursor() as cursor:  # and back: it is no matter of names
        cursor.execute("update llmjobs_job set state = 'queued', finished_at = null")
        cursor.execute("update llmjobs_job set state = 'completed', finished_at = now()")
    assert [row for row in by_id.all() if row[1]][-4:] == [
        ("completed", -1), ("queued", 1), ("queued", -1), ("completed", 1),
    ]  # fmt: skip


def test_a_settle_of_what_costs_nothing_says_nothing_of_money(hand, client, pool):
    submit(client, pool, 3)
    hand.settle(*hand.claim(pool, 3))
    assert not JobCountChange.objects.filter(state="spent").exists()


# Inside a caller's transaction.


def test_inside_a_transaction_it_is_told_at_once_and_the_transaction_goes_on(client, priced):
    budget(client, 1)
    with transaction.atomic():
        submit(client, priced, **ONE)
        refused(client, priced)
    assert Job.objects.count() == 1


def test_what_is_promised_meanwhile_refuses_the_commit(client, priced):
    with pytest.raises(DatabaseError) as caught, transaction.atomic():
        submit(client, priced, 2, **ONE)
        budget(client, 1)
    assert caught.value.__cause__.sqlstate == limits.SQLSTATE
    assert not Job.objects.exists() and differences() == []


def test_what_a_savepoint_took_back_is_not_promised(client, priced):
    budget(client, 2)
    with transaction.atomic():
        submit(client, priced, **ONE)
        with transaction.atomic():
            submit(client, priced, **ONE)
            transaction.set_rollback(True)
        submit(client, priced, **ONE)
    assert money(client) == (0, 2)


def test_a_replay_is_answered_over_budget_too(client, priced):
    budget(client, 1)
    asked = parse({"model": "priced", **ONE})
    first, _ = queue.submit_submission(client, asked, "key")
    again, is_replay = queue.submit_submission(client, asked, "key")
    assert is_replay and again.id == first.id
    with pytest.raises(InsufficientQuota):
        queue.submit_submission(client, asked, "another key")


def test_over_budget_is_told_before_a_full_queue(client, priced):
    """Of the two it is the one that does not pass by itself."""
    Client.objects.filter(id=client.id).update(max_queued=0, monthly_budget_usd=0)
    refused(client, priced)
    with transaction.atomic():
        refused(client, priced)


# The migration.


def test_the_migration_counts_the_money_that_is_there(hand, client, priced):
    submit(client, priced, 4, **ONE)
    hand.settle(*hand.claim(priced, 2), cost_usd="0.5")
    counts.help_count(least=0)
    before = list(JobCount.objects.order_by("id").values_list("client", "state", "usd"))
    migration = importlib.import_module("llmjobs.migrations.0008_budgets")
    with connection.cursor() as cursor:
        cursor.execute(migration.BACKFILL_REVERSE)
        assert money(client) == (0, 0)
        cursor.execute(migration.BACKFILL)
    assert money(client) == (1, 2) and differences() == spending_differences() == []
    assert list(JobCount.objects.order_by("id").values_list("client", "state", "usd")) == before
    assert JobCountTurn.objects.exists()

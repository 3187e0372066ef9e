"""Statistics from counts: what they say at any moment, and that asking costs the same at any backlog."""

import json
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from llmjobs import counts, queue, stats
from llmjobs.models import Attempt, Client, Job, JobCountChange, JobCountTurn, Tier
from llmjobs.pinning import pinned
from llmjobs.sql import load
from llmjobs.states import State
from llmjobs.stats import queue_stats
from tests.concurrency.threads import together
from tests.factories import make_client, make_job, make_model
from tests.hands import claimed_job, submit
from tests.postgres.counting import oldest_available_at, pass_time

pytestmark = pytest.mark.django_db(transaction=True)

HOT = {"llmjobs_job", "llmjobs_attempt", "llmjobs_jobcount", "llmjobs_jobcountchange", "llmjobs_laneturn"}
JOBS, CLIENTS = 20_000, 2_000
FILL = """
insert into llmjobs_client (name, tier_id, weight, is_paused, webhook_secret, created_at)
select 'client-' || n, %s, 1, false, '', now() from generate_series(1, %s) as n;
insert into llmjobs_job (public_id, pool_id, client_id, tier_id, endpoint, priority, size, state, est_input_tokens,
    est_output_tokens, est_cost, max_attempts, timeout_s, retry_for_s, retry_until,
    available_at)
select gen_random_uuid(), %s, c.id, c.tier_id, '/v1/chat/completions', 5, 0, 'queued', 8, 32, 40, 5, 120, 3600,
    now() + interval '1 h', clock_timestamp()
from generate_series(1, %s) as n
cross join llmjobs_client as c;
"""


def count() -> None:
    pass_time(11)
    while counts.help_count(least=0):
        pass


def seconds(text: str) -> timedelta:
    return timedelta(seconds=float(text))


@pytest.mark.parametrize("when", ["before", "half", "after"])
def test_statistics_are_the_same_before_and_after_counting(hand, client, pool, when):
    other = make_client("other", tier="free")
    submit(client, pool, 3, priority="high")
    hand.settle(*hand.claim(pool, 2))
    if when == "half":
        count()
    submit(other, pool, 2)
    if when == "after":
        count()
    for client_ids, share in ((None, (5, 2)), ([client.id, other.id], (5, 2)), ([other.id], (2, 0)), ([], (0, 0))):
        found = queue_stats(client_ids)
        total, completed = share
        assert (found["total"], found["enqueued_total"]) == (total, total)
        assert (found["by_status"]["completed"], found["dequeued_total"]) == (completed, completed)
    assert queue_stats()["by_client"] == {"acme": 3, "other": 2}
    assert queue_stats([other.id])["by_client"] == {"other": 2}
    assert queue_stats([other.id])["by_tier"] == {"free": 2}


def test_totals_ever_outlive_the_jobs(hand, client, pool):
    submit(client, pool, 3)
    hand.settle(*hand.claim(pool, 2))
    count()
    Job.objects.filter(state="completed").delete()
    for client_ids in (None, [client.id]):
        found = queue_stats(client_ids)
        assert (found["total"], found["enqueued_total"], found["dequeued_total"]) == (1, 3, 2)
        assert found["by_client"] == {"acme": 1}


def test_of_many_clients_the_largest_are_named(pool, monkeypatch):
    monkeypatch.setattr(stats, "CLIENTS_MAX", 2)
    clients = [make_client(f"client-{n}") for n in range(4)]
    for n, client in enumerate(clients):
        submit(client, pool, n + 1)
    assert queue_stats()["by_client"] == {"client-3": 4, "client-2": 3}
    count()
    submit(clients[0], pool, 5)
    found = queue_stats()
    assert found["by_client"] == {"client-0": 6, "client-3": 4} and found["total"] == 15


def test_a_client_that_was_deleted_is_not_named(hand, pool):
    client = make_client("gone")
    submit(client, pool)
    queue.cancel(Job.objects.values_list("id", flat=True))
    Job.objects.all().delete()
    count()
    Client.objects.filter(id=client.id).delete()
    assert (queue_stats()["by_client"], queue_stats()["enqueued_total"]) == ({}, 1)


# Since when the oldest waits.


def test_the_oldest_is_the_one_that_waits_longest_whatever_happens(hand, client, pool):
    """Counted or not, after releases and retries that keep their times, and after it has left."""

    def check() -> None:
        oldest = oldest_available_at()
        for client_ids in (None, [client.id]):
            said = queue_stats(client_ids)["oldest_queued_s"]
            now = timezone.now()
            expected = None if oldest is None else (now - oldest).total_seconds()
            assert said == (None if expected is None else pytest.approx(expected, abs=1)), client_ids

    def steps():
        submit(client, pool, 3)
        yield
        count()
        yield
        Job.objects.filter(id=Job.objects.earliest("id").id).update(
            available_at=F("available_at") - timedelta(seconds=90)
        )
        yield
        [held] = hand.claim(pool)
        yield
        count()
        yield
        hand.release(held)  # it waits since when it did
        hand.fold()
        yield
        count()
        yield
        hand.settle(*hand.claim(pool, 3))
        yield
        count()
        yield
        submit(client, pool, delay_s=3600)
        yield
        Job.objects.filter(state="scheduled").update(available_at=F("created_at") - timedelta(seconds=50))
        hand.stage()  # hours late, where no worker was
        yield
        count()
        yield
        queue.cancel(Job.objects.filter(state="queued").values_list("id", flat=True))
        yield
        count()

    for _ in steps():
        check()


def test_a_client_s_oldest_is_found_behind_retries_that_kept_their_place(hand, client, pool):
    submit(client, pool, 3)
    retried, *_ = hand.claim(pool, 1)
    hand.settle(retried, state=State.SCHEDULED)
    Job.objects.filter(state="queued").update(available_at=F("available_at") - timedelta(seconds=60))
    Job.objects.filter(state="scheduled").update(available_at=timezone.now())
    hand.stage()
    assert queue_stats([client.id])["oldest_queued_s"] == pytest.approx(60, abs=2)


# Waits.


def test_waits_are_those_of_the_latest_thousand_attempts(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    other = make_client("other")
    attempt = Attempt.objects.get(job_id=claimed.id)
    attempts = [(client, 100.0)] * 500 + [(other, 1.0)] * 999 + [(client, 7.0)]
    Attempt.objects.bulk_create(
        Attempt(
            job_id=claimed.id, number=n + 2, pool_id=attempt.pool_id, client=owner, tier_id=attempt.tier_id,
            worker_id=attempt.worker_id, waited_s=waited_s, charged=1, flow_weight=1, tier_weight=1,
        )
        for n, (owner, waited_s) in enumerate(attempts)
    )  # fmt: skip
    assert queue_stats()["wait_s"] == {"p50": 1.0, "p95": 1.0}
    assert queue_stats([client.id])["wait_s"]["p50"] == 100.0
    assert queue_stats([other.id])["wait_s"] == {"p50": 1.0, "p95": 1.0}


# What it costs.


CHANGES = """
insert into llmjobs_jobcountchange (client_id, tier_id, priority, state, jobs, tokens, is_submit)
select %s, %s, 5, 'queued', 1 - 2 * (n %% 2), 0, false from generate_series(1, 20000) as n
"""


@pytest.fixture
def backlog():
    """20,000 jobs of 2,000 clients, counted, with the statistics of an empty database."""
    pool = make_model("model")
    with connection.cursor() as cursor:
        cursor.execute("analyze llmjobs_job, llmjobs_jobcount, llmjobs_jobcountchange, llmjobs_attempt")
        cursor.execute(FILL, [Tier.objects.get(name="pro").id, CLIENTS, pool.id, JOBS // CLIENTS])
    count()
    return pool


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_statistics_walk_indexes_and_look_at_little(backlog, statistics):
    client = Client.objects.latest("id")
    if statistics == "fresh":
        with connection.cursor() as cursor:
            cursor.execute("analyze")
    submit(client, backlog, 3)
    for name, literals in (
        ("stats", {"clients": 1_000}),
        ("waits", {}),
        ("tiers_now", {}),
        ("stats_of_clients", {}),
        ("waits_of_clients", {"heads": 100}),
    ):
        with pinned():
            nodes = _plan(load(name, **literals), {"client_ids": [client.id]})
        assert [node for node in nodes if node["Node Type"] == "Seq Scan" and node["Relation Name"] in HOT] == [], name
        # Where ANALYZE saw empty tables, all counts of clients may be read and sorted; never their jobs.
        assert _rows_looked_at(nodes) < CLIENTS + 1_500, (name, _rows_looked_at(nodes))


@pytest.mark.parametrize(("statement", "index"), [("waits", "job_queued_since"), ("tiers_now", "job_queued_of_tier")])
def test_the_oldest_is_found_without_walking_what_left_before_it(backlog, statement, index):
    """Under a snapshot that is held open, as a backup holds one, all that was claimed since is still in the index."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("set transaction isolation level repeatable read")
            cursor.execute("select count(*) from llmjobs_job")

        def expire_most() -> tuple[int, int]:
            kept = Job.objects.order_by("-id")[10].id
            Job.objects.filter(id__lt=kept).update(state="expired", finished_at=timezone.now())
            before = _index_reads(load(statement), index)
            count()
            return before, _index_reads(load(statement), index)

        [(before, after)] = together([expire_most])
    assert before > 300, "it did not walk what is dead"
    assert after < before / 4, (before, after)


def test_changes_that_were_counted_are_not_walked_again(client, pool):
    """Under a snapshot that is held open they are still there, dead."""

    def change_much() -> tuple[int, int]:
        with connection.cursor() as cursor:
            cursor.execute(CHANGES, [client.id, client.tier_id])
        before = _pages_of_changes()
        for _ in range(4):
            submit(client, pool)
            count()
        return before, _pages_of_changes()

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("set transaction isolation level repeatable read")
            cursor.execute("select count(*) from llmjobs_job")
        [(before, after)] = together([change_much])
    assert before > 200 and after < 20, (before, after)


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_a_commit_s_check_walks_indexes_and_looks_at_little(backlog, statistics):
    client = Client.objects.earliest("id")
    if statistics == "fresh":
        with connection.cursor() as cursor:
            cursor.execute("analyze")
    with transaction.atomic():
        submit(client, backlog)
        before = _touched()
        with connection.cursor() as cursor:
            cursor.execute("set constraints all immediate")
        after = _touched()
    for table in HOT | {"llmjobs_client", "llmjobs_jobcountturn"}:
        assert after[table][0] == before[table][0], f"scans {table}"
        assert after[table][1] - before[table][1] < 100, f"reads {table}"
    assert after["llmjobs_jobcount"][1] > before["llmjobs_jobcount"][1]


def test_a_count_walks_indexes(backlog):
    make_job(model=backlog, client=Client.objects.earliest("id"))
    with transaction.atomic():
        before = _touched()
        assert counts.help_count(least=0) == 1
        after = _touched()
    for table in HOT:
        assert after[table][0] == before[table][0], f"scans {table}"
    assert JobCountChange.objects.count() == 0 and JobCountTurn.objects.count() == 1


def _touched() -> dict[str, tuple[int, int]]:
    """Of each table, in this transaction: sequential scans, rows read through indexes."""
    with connection.cursor() as cursor:
        cursor.execute("select relname, seq_scan, coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables")
        return {name: (scans, reads) for name, scans, reads in cursor.fetchall()}


def _plan(statement: str, params: dict) -> list[dict]:
    with connection.cursor() as cursor:
        cursor.execute(f"explain (analyze, buffers, format json) {statement}", params)
        found = cursor.fetchone()[0]
    [tree] = json.loads(found) if isinstance(found, str) else found
    todo, nodes = [tree["Plan"]], []
    while todo:
        node = todo.pop()
        nodes.append(node)
        todo += node.get("Plans", [])
    return nodes


def _rows_looked_at(nodes: list[dict]) -> float:
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
        if node.get("Relation Name") in HOT
    )


def _pages_of_changes() -> int:
    with pinned():
        nodes = _plan(load("stats", clients=1_000), {})
    return sum(
        node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        for node in nodes
        if node.get("Relation Name") == "llmjobs_jobcountchange"
    )


def _index_reads(statement: str, index: str) -> int:
    """Pages that the search for the oldest looked at."""
    with pinned():
        nodes = _plan(statement, {})
    return sum(
        node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in nodes if node.get("Index Name") == index
    )

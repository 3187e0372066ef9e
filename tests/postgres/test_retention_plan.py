"""What the planner makes of retention: a batch walks what it removes, whatever the statistics say, and once."""

import pytest
from django.db import connection

from llmjobs import retention
from llmjobs.models import Job, Retention
from llmjobs.retention import Ages
from llmjobs.sql import load
from tests.factories import make_client, make_model
from tests.hands import Hand, hands
from tests.postgres.test_claim_plan import plans

pytestmark = pytest.mark.django_db(transaction=True)

JOBS, BATCH = 10_000, 100
TABLES = ("job", "jobrequest", "jobresult", "jobevent", "attempt", "webhookdelivery", "handlercall")
FILL = """
with jobs as (
    insert into llmjobs_job (public_id, pool_id, client_id, tier_id, endpoint, priority, size, state, est_input_tokens,
        est_output_tokens, est_cost, max_attempts, timeout_s, retry_for_s, retry_until, created_at, finished_at,
        has_webhook, has_handler)
    select gen_random_uuid(), %(pool)s, %(client)s, %(tier)s, '/v1/chat/completions', 5, 0, 'cancelled', 8, 32, 40, 5,
        120, 3600, now(), now() - interval '60 d', now() - n * interval '5 min', n %% 10 = 0, n %% 10 = 1
    from generate_series(1, %(jobs)s) as n
    returning id, client_id
), requests as (
    insert into llmjobs_jobrequest (job_id, client_id, body, prompt_hash) select id, client_id, '{}', '' from jobs
), results as (
    insert into llmjobs_jobresult (job_id) select id from jobs
), deliveries as (
    insert into llmjobs_webhookdelivery (job_id, client_id, epoch, type, url, state, ended_at)
    select id, client_id, 1, 'job.cancelled', '', 'delivered', now() from jobs
)
insert into llmjobs_jobevent (job_id, seq, type, data)
select id, n, 'delta', '{}' from jobs cross join generate_series(1, 3) as n
"""


@pytest.fixture
def hand():
    """10,000 jobs that finished in the last 35 days, with the statistics of an empty database."""
    client, pool = make_client(), make_model()
    with connection.cursor() as cursor:
        cursor.execute("analyze " + ", ".join(f"llmjobs_{table}" for table in TABLES))
        cursor.execute(FILL, {"pool": pool.id, "client": client.id, "tier": client.tier_id, "jobs": JOBS})
    with hands(1) as [one]:
        yield one


PIN = load("prune_is_due").replace("%(every_s)s", "0")
PICK = {"since": "null", "after_id": "0", "age_s": f"{3 * 86_400}", "key_kept_s": "86400"}


def looked_at(nodes: list[dict]) -> dict[str, float]:
    rows: dict[str, float] = {}
    for node in nodes:
        if (table := node.get("Relation Name")) is not None and node.get("Operation") is None:
            seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            rows[table] = rows.get(table, 0) + seen * node["Actual Loops"]
    return rows


def scans(nodes: list[dict]) -> list[str]:
    """Sequential scans, and bitmaps, which walk whatever is dead."""
    return [
        f"{node['Node Type']} {node.get('Relation Name') or node.get('Index Name')}"
        for node in nodes
        if node["Node Type"] in ("Seq Scan", "Bitmap Index Scan")
    ]


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_a_batch_looks_at_what_it_removes_and_at_nothing_else(hand: Hand, statistics):
    if statistics == "fresh":
        with connection.cursor() as cursor:
            cursor.execute("analyze " + ", ".join(f"llmjobs_{table}" for table in TABLES))
    for bodies in (0, 1):
        nodes = plans(hand, load("prune_pick", rows=BATCH, events=20_000, bodies=bodies), PICK, pin=PIN)
        assert scans(nodes) == []
        rows = looked_at(nodes)
        assert rows["llmjobs_job"] == 2 * BATCH, "once to find them, once to lock them"
        assert rows.get("llmjobs_jobrequest", 0) <= 2 * BATCH and rows["llmjobs_jobevent"] == 3 * BATCH, rows
    ids = list(Job.objects.order_by("finished_at").values_list("id", flat=True)[:BATCH])
    params = {"ids": f"'{{{','.join(map(str, ids))}}}'", "key_kept_s": "86400"}
    for statement in ("prune_jobs", "erase"):
        nodes = plans(hand, load(statement), params, pin=PIN)
        assert scans(nodes) == [], statement
        for table, seen in looked_at(nodes).items():
            assert seen <= (3 if table == "llmjobs_jobevent" else 2) * BATCH, (statement, table)


def test_what_was_removed_is_not_walked_again(hand: Hand, settings):
    """While a snapshot from before keeps its dead entries in the index."""
    settings.LLMJOBS_PRUNE_ROWS = 10_000

    def pages_of_a_walk(since):
        nodes = plans(hand, load("prune_pick", rows=BATCH, events=20_000, bodies=0), PICK | {"since": since}, pin=PIN)
        return max(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in nodes)

    with hands(1) as [reader]:
        reader.run(reader.connection.execute("begin isolation level repeatable read"))
        reader.run(reader.connection.execute("select count(*) from llmjobs_tier"))
        [walk] = retention.walks(Ages(3 * 86_400.0, None))
        while not walk.is_over:
            hand.run(walk.step(hand.connection))
        assert 8_000 < walk.removed < JOBS
        gone_to = Retention.objects.get().jobs_gone_to
        assert pages_of_a_walk(f"'{gone_to.isoformat()}'") < 20
        assert pages_of_a_walk("null") > 200, "the test has teeth"

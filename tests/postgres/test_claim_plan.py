"""What the planner makes of a claim on hostile shapes: the pinned plans walk indexes, whatever the statistics say."""

import json
import re

import pytest
from django.db import connection

from llmjobs.models import Job, Tier
from llmjobs.sql import load
from tests.factories import make_model
from tests.hands import Hand, hands, settlement

pytestmark = pytest.mark.django_db(transaction=True)

JOBS, LANES = 20_000, 2_000
CLIENTS = """
insert into llmjobs_client (name, tier_id, weight, is_paused, webhook_secret, created_at)
select 'client-' || n, %s, 1, false, '', now() from generate_series(1, %s) as n
"""
SUBMIT = """
with jobs as (
    insert into llmjobs_job (public_id, pool_id, client_id, tier_id, endpoint, priority, size, state, est_input_tokens,
        est_output_tokens, est_cost, max_attempts, timeout_s, retry_for_s, retry_until)
    select gen_random_uuid(), %s, c.id, c.tier_id, '/v1/chat/completions', 5, 0, 'queued', 8, 32, 40, 5, 120, 3600,
        now() + interval '1 h'
    from generate_series(1, %s) as n
    cross join llmjobs_client as c
    returning id, client_id, pool_id, lane_order
), requests as (
    insert into llmjobs_jobrequest (job_id, client_id, body, prompt_hash) select id, client_id, '{}', '' from jobs
)
insert into llmjobs_inbox (pool_id, client_id, priority, size, queued, head_order)
select pool_id, client_id, 5, 0, count(*), min(lane_order) from jobs group by pool_id, client_id
"""
HOT = {"llmjobs_job", "llmjobs_laneturn", "llmjobs_flowturn", "llmjobs_tierturn", "llmjobs_inbox", "llmjobs_jobrequest"}


@pytest.fixture
def backlog(settings):
    """(hand, pool): 20,000 jobs in 2,000 lanes, folded, with the statistics of an empty database."""
    settings.LLMJOBS_FOLD_ROWS_MAX = 10_000
    pool = make_model()
    with connection.cursor() as cursor:
        cursor.execute("analyze llmjobs_job, llmjobs_laneturn, llmjobs_flowturn, llmjobs_inbox, llmjobs_jobrequest")
        cursor.execute(CLIENTS, [Tier.objects.get(name="pro").id, LANES])
        cursor.execute(SUBMIT, [pool.id, JOBS // LANES])
    with hands(1) as [hand]:
        hand.fold()
        yield hand, pool


PINNED = load("lock").replace("%(shard)s", "1")


def plans(hand: Hand, statement: str, params: dict, *, pin: str | None = PINNED) -> list[dict]:
    """The nodes of the generic plan, as prepared statements get it; `pin`: what comes first in its transaction."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    text = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement).replace("%%", "%")

    async def explained() -> str:
        async with hand.connection.transaction(force_rollback=True):
            await hand.connection.execute("set local plan_cache_mode = force_generic_plan")
            if pin is not None:
                await hand.connection.execute(pin)
            await hand.connection.execute(f"prepare explained as {text}")
            values = ", ".join(params[name] for name in names)
            cursor = await hand.connection.execute(f"explain (analyze, format json) execute explained ({values})")
            found = (await cursor.fetchone())[0]
            await hand.connection.execute("deallocate explained")
            return found

    found = hand.run(explained())
    [tree] = json.loads(found) if isinstance(found, str) else found
    todo, nodes = [tree["Plan"]], []
    while todo:
        node = todo.pop()
        nodes.append(node)
        todo += node.get("Plans", [])
    return nodes


def looked_at(nodes: list[dict]) -> dict[str, float]:
    """Rows that each hot table gave or threw away, summed over all loops."""
    rows: dict[str, float] = {}
    for node in nodes:
        if (table := node.get("Relation Name")) in HOT:
            seen = (
                node["Actual Rows"]
                + node.get("Rows Removed by Filter", 0)
                + node.get("Rows Removed by Index Recheck", 0)
            )
            rows[table] = rows.get(table, 0) + seen * node["Actual Loops"]
    return rows


CLAIM = {
    "pool": "{pool}",
    "worker": "gen_random_uuid()",
    "tiers": "null",
    "short_only": "false",
    "exclude": "'{{}}'",
    "is_look": "false",
    "default_rpm": "500",
    "default_tpm": "30000",
    "jitter_s": "0",
    "ahead_s": "1",
    "portfolio_z": "2",
    "slow_down_ramp_s": "60",
}


BREAKER = {
    "breaker_strikes": "3", "down_strikes": "10", "probe_s": "30", "probe_max_s": "600", "slow_down_ramp_s": "60",
}  # fmt: skip


def claim_params(pool, count):
    return {name: value.format(pool=pool.id) for name, value in CLAIM.items()} | {"count": str(count)}


@pytest.mark.parametrize("statistics", ["stale", "fresh", "fresh after nearly all died"])
def test_a_claim_walks_indexes_and_its_cost_grows_with_nothing(backlog, statistics):
    hand, pool = backlog
    if statistics == "fresh after nearly all died":  # few live rows, many dead: what misleads the planner most
        kept = Job.objects.order_by("id")[500].id
        Job.objects.filter(id__gt=kept).update(state="expired", finished_at="2026-01-01T00:00Z")
    if statistics != "stale":
        _analyze()
    for count in (1, 16):
        nodes = plans(hand, load("claim", n=count), claim_params(pool, count))
        assert _scans(nodes) == []
        rows = looked_at(nodes)
        assert rows["llmjobs_job"] <= 200 * count, rows
        assert rows["llmjobs_laneturn"] <= 50 * count, rows


def test_a_fold_of_little_news_and_a_look_for_work_see_little(backlog):
    hand, pool = backlog
    hand.settle(*hand.claim(pool, 4))
    params = {"shard": "1", "is_sweep": "false", "is_full": "false", "is_grown": "true", "lag_tokens": "0"} | BREAKER
    for name in ("grow", "fold", "ready_pools"):
        nodes = plans(hand, load(name, rows=5_000), params)
        assert _scans(nodes) == [], name
        assert sum(looked_at(nodes).values()) < 500, (name, looked_at(nodes))


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_what_a_worker_writes_is_found_by_its_keys(backlog, statistics):
    hand, pool = backlog
    claimed = hand.claim(pool, 16)
    if statistics == "fresh":
        _analyze()
    events = [{"job_id": job.id, "attempt": 1, "seq": (2 << 20) + 9, "type": "delta", "data": {}} for job in claimed]
    params = {
        "worker": f"'{hand.worker}'",
        "lease_lost": "0",
        "client_id": "null",
        "even_dead": "true",
        "keeps_time": "false",
        "priority": "8",
        "word": "'low'",
        "pool": str(make_model().pk),
        "ids": f"'{{{','.join(str(job.id) for job in claimed)}}}'",
        "events": f"'{json.dumps(events)}'::json",
        "settlements": f"'{json.dumps([_row(settlement(job)) for job in claimed])}'::json",
    }
    operators = ("cancel", "requeue", "reprioritize", "move", "discard", "restore")
    for verb in ("settle", "append_events", "heartbeat", *operators):
        nodes = plans(hand, load(verb), params, pin=load("pin_writes") if verb == "settle" else None)
        assert looked_at(nodes)["llmjobs_job"] <= 16 * 10, (verb, looked_at(nodes))


def _scans(nodes):
    """Sequential scans of hot tables, and bitmaps, which walk whatever is dead."""
    return [
        node.get("Relation Name") or node.get("Index Name")
        for node in nodes
        if (node["Node Type"] == "Seq Scan" and node["Relation Name"] in HOT)
        or node["Node Type"] == "Bitmap Index Scan"
    ]


def _row(ended):
    return {name: getattr(ended, name) for name in ("job_id", "attempt", "state", "outcome", "is_failure")}


def _analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute("analyze llmjobs_job, llmjobs_laneturn, llmjobs_flowturn, llmjobs_inbox, llmjobs_jobrequest")

"""The worker of `noop_worker.py` with a plain claim: FIFO, SKIP LOCKED, no limits, no shares, nothing in the inbox.

python -m tests.bench.plain_worker SLOTS --count COUNT

Everything else is the same: slots, leases, ledger, results, events. `PREPARE` puts an index of plain order in the place
of that of lanes. `without_inbox` leaves out what settle and submit tell the claims, so that nothing is folded either.
"""

import argparse
import asyncio
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID

import django
from psycopg import AsyncConnection
from psycopg.rows import dict_row

PREPARE = """
do $$
begin
    execute (
        select 'drop index ' || indexrelid::regclass from pg_index
        where indrelid = 'llmjobs_job'::regclass and pg_get_indexdef(indexrelid) like '%lane_order%'
    );
end
$$;
create index plain_ready on llmjobs_job (pool_id, lane_order) where state = 'queued';
"""
CLAIM = """
with chosen as materialized (
    select id
    from llmjobs_job
    where pool_id = %(pool)s and state = 'queued'
    order by lane_order
    limit {n}
    for update skip locked
), started as (
    update llmjobs_job as j
    set state = 'running', attempt = j.attempt + 1, epoch = j.epoch + 1, worker_id = %(worker)s::uuid,
        started_at = statement_timestamp()
    from chosen as c
    where j.id = c.id
    returning j.*
), attempts as (
    insert into llmjobs_attempt (
        job_id, number, pool_id, client_id, tier_id, worker_id, waited_s, charged, flow_weight, tier_weight)
    select id, attempt, pool_id, client_id, tier_id, worker_id,
        extract(epoch from statement_timestamp() - greatest(created_at, available_at)), est_cost, 1, 1
    from started
)
select s.id, s.public_id, s.attempt, s.epoch, s.failures, s.endpoint, s.client_id, s.size, s.max_attempts,
    s.has_handler, s.keeps_partial,
    s.timeout_s, s.est_cost as charged, s.est_input_tokens, s.est_output_tokens,
    extract(epoch from s.retry_until - statement_timestamp())::float8 as retry_left_s,
    extract(epoch from statement_timestamp() - greatest(s.created_at, s.available_at))::float8 as waited_s,
    extract(epoch from statement_timestamp())::float8 as claimed_at,
    0::float8 as send_in_s, 60::float8 as late_max_s, 60::float8 as slack_s, 1e9::float8 as rpm, 1e9::float8 as tpm,
    r.body, r.max_cost_usd, coalesce(o.cost_usd, 0) as spent_usd, m.id as pool_id, m.name as model,
    coalesce(nullif(m.upstream_name, ''), m.name) as upstream_name, m.input_usd_per_mtok, m.output_usd_per_mtok,
    p.name as provider, p.base_url, p.api_key_env, p.has_background, null::text as resume_id,
    c.name as client, t.name as tier
from started as s
left join lateral (select body, max_cost_usd from llmjobs_jobrequest where job_id = s.id limit 1) as r on true
left join lateral (select cost_usd from llmjobs_jobresult where job_id = s.id limit 1) as o on true
left join llmjobs_model as m on m.id = s.pool_id
left join llmjobs_provider as p on p.id = m.provider_id
left join lateral (select name from llmjobs_client where id = s.client_id limit 1) as c on true
left join llmjobs_tier as t on t.id = s.tier_id
order by s.lane_order
"""
READY = (
    "select id from llmjobs_model as m where exists (select from llmjobs_job where pool_id = m.id and state = 'queued')"
)


async def claim(conn: AsyncConnection[Any], *, worker: UUID, pool_id: int, count: int, **_: Any) -> Any:
    """In the place of queue.claim."""
    from llmjobs import queue
    from llmjobs.leases import Claim, Claimed

    size = next((size for size in queue.CLAIM_SIZES if size >= count), queue.CLAIM_SIZES[-1])
    cursor = conn.cursor(row_factory=dict_row)
    async with conn.pipeline(), conn.transaction():
        await cursor.execute(CLAIM.replace("{n}", str(min(count, size))), {"pool": pool_id, "worker": worker})
    jobs = [Claimed(**row) for row in await cursor.fetchall()]
    return Claim(jobs, clock=jobs[0].claimed_at if jobs else 0.0)


async def ready_pools(conn: AsyncConnection[Any]) -> list[int]:
    return [row[0] for row in await (await conn.execute(READY)).fetchall()]


@contextmanager
def without_inbox() -> Iterator[None]:
    """What submits and settles tell the claims is not written."""
    from llmjobs import queue, submitting

    load = queue.load

    def less(name: str, **literals: int) -> str:
        statement = load(name, **literals)
        if name not in ("submit", "settle"):
            return statement
        shorter, cuts = re.subn(r", inbox as \(\n.*?\n\)", "", statement, flags=re.DOTALL)
        if cuts != 1:
            raise RuntimeError(f"expected {name}.sql to have one `inbox as (…)`, got {cuts}")
        return shorter

    with patch.object(queue, "load", less), patch.object(submitting, "load", less):
        yield


def main(run: Callable[[argparse.Namespace], Any], given: Sequence[str] | None = None) -> None:
    from llmjobs import queue

    parser = argparse.ArgumentParser(prog="python -m tests.bench.plain_worker", description=__doc__)
    parser.add_argument("slots", type=int)
    parser.add_argument("--count", type=int)
    with without_inbox(), patch.object(queue, "claim", claim), patch.object(queue, "ready_pools", ready_pools):
        asyncio.run(run(parser.parse_args(given)))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    from tests.bench import noop_worker

    main(noop_worker.main)

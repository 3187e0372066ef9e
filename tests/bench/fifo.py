"""The fair claim beside a plain FIFO one: `for update skip locked`, on plain copies of the same tables.

The copies have the columns, checks and indexes of ours, but for the index of lanes, which one of plain order replaces,
and no triggers. Both claims set jobs running, write the attempt's row and hand out the job with its body; both go in a
pipeline, in a transaction of their own, prepared. What they claimed is ended in between, which is not timed. In turns.
"""

import asyncio
import time
import uuid
from typing import Any

from psycopg import AsyncConnection

from tests.bench.backlog import Backlog, clients_of_all_tiers
from tests.bench.claims import Claimer, claimer
from tests.bench.ground import Ground
from tests.bench.report import Table, median, percentile, progress

LANES, JOBS = 10, 20_000
MOST = {10: 3.5, 100: 4.0}
COPIES = """
create table fifo_job (like llmjobs_job including all);
create table fifo_attempt (like llmjobs_attempt including all);
insert into fifo_job select * from llmjobs_job;
do $$
begin
    execute (
        select 'drop index ' || indexrelid::regclass from pg_index
        where indrelid = 'fifo_job'::regclass and pg_get_indexdef(indexrelid) like '%lane_order%'
    );
end
$$;
create index fifo_ready on fifo_job (pool_id, lane_order) where state = 'queued';
"""
CLAIM = """
with chosen as materialized (
    select id
    from fifo_job
    where pool_id = %(pool)s and state = 'queued'
    order by lane_order
    limit {n}
    for update skip locked
), started as (
    update fifo_job as j
    set state = 'running', attempt = j.attempt + 1, epoch = j.epoch + 1, worker_id = %(worker)s,
        started_at = statement_timestamp()
    from chosen as c
    where j.id = c.id
    returning j.*
), attempts as (
    insert into fifo_attempt (
        job_id, number, pool_id, client_id, tier_id, worker_id, charged, flow_weight, tier_weight, waited_s)
    select id, attempt, pool_id, client_id, tier_id, worker_id, est_cost, 1, 1,
        extract(epoch from statement_timestamp() - available_at)
    from started
)
select s.*, r.body
from started as s
join llmjobs_jobrequest as r on r.job_id = s.id
"""
END = """
with ended as (
    update fifo_job
    set state = 'completed', worker_id = null, epoch = epoch + 1, finished_at = statement_timestamp()
    where id = any (%(ids)s)
    returning id, attempt
)
update fifo_attempt as a
set ended_at = statement_timestamp(), outcome = 'completed', cost = charged
from ended as e
where a.job_id = e.id and a.number = e.attempt
"""


def measure(ground: Ground, *, is_quick: bool) -> Table:
    backlog, jobs = Backlog.new(), JOBS // 5 if is_quick else JOBS
    table = Table(f"A fair claim beside a plain FIFO SKIP LOCKED claim, {jobs:,} jobs in {LANES} lanes")
    try:
        backlog.add_clients(clients_of_all_tiers(LANES))
        backlog.fill(jobs // LANES)
        with backlog.connect() as conn:
            conn.execute(COPIES)
            conn.execute("vacuum analyze")
        asyncio.run(_compare(table, backlog, is_quick=is_quick))
    finally:
        backlog.drop()
    return table


async def _compare(table: Table, backlog: Backlog, *, is_quick: bool) -> None:
    async with (
        claimer(backlog.pool_id, backlog.database) as fair,
        claimer(backlog.pool_id, backlog.database) as plain,
    ):
        for count, most in MOST.items():
            turns = (1_000 if is_quick else 4_000) // count
            progress(f"fifo: {turns} claims of {count}")
            fair_ms, plain_ms = [], []
            for number in range(turns + 5):
                ours, theirs = await _fair(fair, count), await _plain(plain, count)
                if number >= 5:  # the first ones prepare their statements
                    fair_ms.append(ours)
                    plain_ms.append(theirs)
            table.at_most(f"claim of {count}: fair / FIFO", median(fair_ms) / median(plain_ms), most, "times", digits=2)
            for name, values in (("fair", fair_ms), ("FIFO", plain_ms)):
                shown = f"p50 {median(values):.2f}, p95 {percentile(values, 95):.2f} ms"
                table.add(f"    {name}, {len(values)} claims", shown)


async def _fair(one: Claimer, count: int) -> float:
    jobs, took_ms = await one.claim_all(count)
    await one.settle(jobs)
    return took_ms


async def _plain(one: Claimer, count: int) -> float:
    began_at = time.perf_counter()
    rows = await _claim_plain(one.conn, one.pool_id, count, one.worker)
    took_ms = (time.perf_counter() - began_at) * 1000
    if len(rows) != count:
        raise RuntimeError(f"expected {count} jobs of a full backlog, got {len(rows)}")
    await one.conn.execute(END, {"ids": [row[0] for row in rows]})
    return took_ms


async def _claim_plain(conn: AsyncConnection[Any], pool_id: int, count: int, worker: uuid.UUID) -> list[Any]:
    async with conn.pipeline(), conn.transaction():
        cursor = await conn.execute(CLAIM.replace("{n}", str(count)), {"pool": pool_id, "worker": worker})
    return await cursor.fetchall()

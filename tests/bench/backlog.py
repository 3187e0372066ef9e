"""Backlogs by set-based SQL: a million jobs in a minute, with the rows that submit would have written for each lane.

What submit writes besides, an event a job, is left out: no claim reads it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg

from llmjobs.models import Client, Model, Provider, Tier
from tests.bench import databases
from tests.bench.claims import claimer

# Round by round, as clients that submit side by side fill their lanes. Costs: %(costs)s in turn.
JOBS = """
insert into llmjobs_job (
    public_id, pool_id, client_id, tier_id, endpoint, priority, size, state, est_input_tokens, est_output_tokens,
    est_cost, max_attempts, timeout_s, retry_for_s, retry_until)
select gen_random_uuid(), %(pool)s, c.id, c.tier_id, '/v1/chat/completions', %(priority)s, 0, 'queued', 8,
    greatest(1, cost - 8), cost, 5, 120, 3600, now() + interval '1 day'
from generate_series(1, %(each)s) as n
cross join llmjobs_client as c
cross join lateral (
    select costs[1 + mod(hashint8(c.id * 1000003 + n)::bigint + 2147483648, cardinality(costs))] as cost
    from (select %(costs)s::float8[] as costs) as y
) as x
where %(names)s::text[] is null or c.name = any (%(names)s::text[])
order by n, c.id
"""
REST = """
with fresh as materialized (
    select id, client_id, priority, lane_order
    from llmjobs_job
    where lane_order > %(after)s
), requests as (
    insert into llmjobs_jobrequest (job_id, client_id, body, prompt_hash)
    select id, client_id, '{"messages": [{"role": "user", "content": "Say hello."}]}', '' from fresh
)
insert into llmjobs_inbox (pool_id, client_id, priority, size, queued, head_order)
select %(pool)s, client_id, priority, 0, count(*), min(lane_order)
from fresh
group by client_id, priority
"""
NORMAL = 5
AMPLE = {"max_queued": 10_000_000, "max_queued_tokens": 2_000_000_000}
TIERS = ("free", "pro", "enterprise")
COSTS = (20.0, 40.0, 60.0, 80.0)


@dataclass(frozen=True, slots=True)
class Backlog:
    """A database with one pool; its jobs are added and folded by `fill`."""

    database: str
    pool_id: int

    @classmethod
    def new(cls) -> "Backlog":
        database = databases.fresh()
        with databases.using(database):
            provider = Provider.objects.create(name="none", base_url="http://127.0.0.1:9/v1")
            return cls(
                database, Model.objects.create(name="bench", provider=provider, rpm=100_000_000, tpm=2_000_000_000).pk
            )

    def drop(self) -> None:
        databases.drop(self.database)

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(**databases.parameters(self.database))

    def add_clients(self, clients: Iterable[tuple[str, str, float]]) -> None:
        """(name, tier, weight) each."""
        with databases.using(self.database):
            tiers = {tier.name: tier for tier in Tier.objects.all()}
            rows = [Client(name=name, tier=tiers[tier], weight=weight, **AMPLE) for name, tier, weight in clients]
            Client.objects.bulk_create(rows, batch_size=5_000)

    def fill(
        self,
        each: int,
        *,
        names: Sequence[str] | None = None,
        costs: Sequence[float] = COSTS,
        priority: int = NORMAL,
    ) -> None:
        """So many jobs for each client, or for each of `names`; folded and counted. Statistics stay as they were."""
        chosen = None if names is None else list(names)
        with self.connect() as conn, conn.transaction():
            [after] = conn.execute("select nextval('llmjobs_lane_order')").fetchone()
            params = {"pool": self.pool_id, "each": each, "names": chosen, "costs": list(costs), "priority": priority}
            conn.execute(JOBS, params)
            conn.execute(REST, {"pool": self.pool_id, "after": after})
        asyncio.run(self._fold())

    async def _fold(self) -> None:
        async with claimer(self.pool_id, self.database) as one:
            await one.fold()
            await one.count()

    def analyze(self) -> None:
        with self.connect() as conn:
            conn.execute("analyze")


def clients_of_all_tiers(count: int) -> list[tuple[str, str, float]]:
    """client-1, client-2, …: of the three tiers in turn, of equal weight."""
    return [(f"client-{number}", TIERS[number % 3], 1.0) for number in range(1, count + 1)]

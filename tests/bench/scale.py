"""What a claim of 10 costs at 1,000,000 queued in 100,000 lanes, against 1,000 in 10 lanes.

Two databases of one server, so that neither's tables are the other's size; they are asked in turns, and what is claimed
is settled in between, which is not timed. The large one goes from bad to worse: statistics from when its tables were
empty, fresh ones, its largest client paused at 100,000 jobs, then 20,000 claims under one snapshot that is held open,
while some clients are paused or full and some heads are locked by another transaction. Lanes of all three tiers.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.bench.backlog import Backlog, clients_of_all_tiers
from tests.bench.claims import Claimer, claimer
from tests.bench.ground import Ground
from tests.bench.report import Table, median, percentile, progress

PER_CLAIM = 10
MOST, MOST_ADVERSE = 1.3, 1.5
LOCKED_LANES, LOCKED_EVERY = 3, 100  # each so many-th claim meets locked heads
KEPT_STALE = ("llmjobs_job", "llmjobs_jobrequest", "llmjobs_laneturn", "llmjobs_flowturn")
HEADS = """
select j.id
from (select * from llmjobs_laneturn where is_ready order by vt, lane_id limit %s) as l
join llmjobs_job as j on j.state = 'queued' and j.lane_order = l.head_order
for no key update of j
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    clients: int = 100_000
    each: int = 9
    largest: int = 100_000  # jobs of the largest client
    pairs: int = 400  # claims of each side, in turns
    snapshot_claims: int = 20_000
    baseline_every: int = 10
    aside: int = 1_000  # clients that are paused, and as many that are full, while the snapshot is open


QUICK = Sizes(2_000, 9, 2_000, 60, 300, 3, 20)


def measure(ground: Ground, *, is_quick: bool) -> Table:
    sizes = QUICK if is_quick else Sizes()
    small, large = Backlog.new(), Backlog.new()
    small.add_clients(clients_of_all_tiers(10))
    small.fill(100)
    small.analyze()
    queued = _fill(large, sizes)
    table = Table(f"A claim of {PER_CLAIM} at {queued:,} queued in {sizes.clients:,} lanes, against 1,000 in 10 lanes")
    try:
        asyncio.run(Scale(table, sizes, small, large).run())
    finally:
        small.drop()
        large.drop()
    return table


def _fill(large: Backlog, sizes: Sizes) -> int:
    large.analyze()  # while it is empty: the statistics that it goes on with
    with large.connect() as conn:
        for table in KEPT_STALE:
            conn.execute(f"alter table {table} set (autovacuum_enabled = off)")
    large.add_clients(clients_of_all_tiers(sizes.clients))
    progress(f"scale: filling up to {sizes.clients * sizes.each + sizes.largest:,} jobs")
    large.fill(sizes.each)
    large.fill(sizes.largest, names=["client-1"])
    return sizes.clients * sizes.each + sizes.largest


class Scale:
    def __init__(self, table: Table, sizes: Sizes, small: Backlog, large: Backlog) -> None:
        self.table, self.sizes, self.small, self.large = table, sizes, small, large
        self._small_left = 1_000
        self._settles_ms: defaultdict[object, list[float]] = defaultdict(list)  # by connection

    async def run(self) -> None:
        self.table.add("    every ratio is of two medians, the claims of both sides in turns", "")
        async with (
            claimer(self.small.pool_id, self.small.database) as small,
            claimer(self.large.pool_id, self.large.database) as large,
        ):
            await self._compare("statistics of empty tables", small, large, MOST)
            with self.large.connect() as conn:
                conn.execute("vacuum analyze")
                for table in KEPT_STALE:
                    conn.execute(f"alter table {table} reset (autovacuum_enabled)")
            await self._compare("fresh statistics", small, large, MOST)
            with self.large.connect() as conn:
                conn.execute("update llmjobs_client set is_paused = true where name = 'client-1'")
            await large.fold()
            await self._compare("its largest client paused", small, large, MOST_ADVERSE)
            await self._adverse(small, large)

    async def _compare(self, name: str, small: Claimer, large: Claimer, most: float) -> None:
        progress(f"scale: {name}")
        mine, base = [], []
        for number in range(self.sizes.pairs + 10):
            took_ms = await self._small_claim(small)
            large_ms = await self._claim(large)
            if number >= 10:  # the first ones prepare their statements, and warm the caches
                base.append(took_ms)
                mine.append(large_ms)
        self._add(name, mine, base, most)

    def _add(self, name: str, mine: list[float], base: list[float], most: float) -> None:
        self.table.at_most(name, median(mine) / median(base), most, "times", digits=2)
        shown = f"p50 {median(mine):.2f}, p95 {percentile(mine, 95):.2f} ms, against {median(base):.2f} ms"
        self.table.add(f"    of {len(mine):,} claims", shown)

    async def _claim(self, one: Claimer) -> float:
        jobs, took_ms = await one.claim_all(PER_CLAIM)
        self._settles_ms[one.conn].append(await one.settle(jobs))
        return took_ms

    async def _small_claim(self, small: Claimer) -> float:
        """It stays between 900 and 1,100 jobs."""
        took_ms = await self._claim(small)
        self._small_left -= PER_CLAIM
        if self._small_left <= 900:
            await asyncio.to_thread(self.small.fill, 20)
            self._small_left += 200
        return took_ms

    async def _adverse(self, small: Claimer, large: Claimer) -> None:
        """Under one open snapshot; the last tenth is what counts, which has all the dead rows behind it."""
        sizes = self.sizes
        await self._set_aside(large)
        mine, base, met_ms = [], [], []
        with self.large.connect() as holder, self.large.connect() as locker:
            holder.execute("begin isolation level repeatable read")
            holder.execute("select count(*) from llmjobs_tier")
            for number in range(sizes.snapshot_claims):
                if number % 1_000 == 0:
                    progress(f"scale: claim {number:,} of {sizes.snapshot_claims:,} under one snapshot")
                is_locked = number % LOCKED_EVERY == LOCKED_EVERY - 1
                with _heads_locked(locker) if is_locked else nullcontext():
                    mine.append(await self._claim(large))
                if is_locked:
                    met_ms.append(mine[-1])
                if number % sizes.baseline_every == 0:
                    base.append(await self._small_claim(small))
        last, last_base = sizes.snapshot_claims // 10, max(10, len(base) // 10)
        name = f"one snapshot open for {sizes.snapshot_claims:,} claims, clients paused and full, heads locked"
        self._add(name, mine[-last:], base[-last_base:], MOST_ADVERSE)
        settles_ms = self._settles_ms[large.conn][-last:], self._settles_ms[small.conn][-last_base:]
        shown = f"p50 {median(settles_ms[0]):.2f} ms, against {median(settles_ms[1]):.2f} ms"
        self.table.add("    their settles, for information", shown)
        self._add("    the same, all of them", mine, base, MOST_ADVERSE)
        if met_ms:
            self.table.add("    claims that met locked heads, and asked again without them", f"{median(met_ms):.2f} ms")

    async def _set_aside(self, large: Claimer) -> None:
        """Some clients are paused, as many others at their limit of running jobs."""
        low, high = 10, 10 + self.sizes.aside
        with self.large.connect() as conn:
            conn.execute("update llmjobs_client set is_paused = true where id between %s and %s", [low, high])
            conn.execute("update llmjobs_client set max_running = 0 where id between %s and %s", [high + 1, 2 * high])
        await large.fold()


@contextmanager
def _heads_locked(conn: "psycopg.Connection[Any]") -> Iterator[None]:
    """The heads that a claim would take next, locked by somebody else."""
    with conn.transaction():
        conn.execute(HEADS, [LOCKED_LANES])
        yield

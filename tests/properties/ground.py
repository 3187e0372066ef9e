"""What the turns must say, whatever the verbs did: checked against the jobs and the ledger themselves."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection

from llmjobs.models import Client, Model

NEWEST_LANES = """
select l.*, i.priority, i.size, f.client_id
from llmjobs_laneturn l
join llmjobs_lane i on i.id = l.lane_id
join llmjobs_flow f on f.id = l.flow_id
order by l.lane_id
"""
NEWEST_FLOWS = "select * from llmjobs_flowturn order by flow_id"
NEWEST_TIERS = (
    "select t.*, k.weight from llmjobs_tierturn t join llmjobs_tier k on k.id = t.tier_id order by pool_id, tier_id"
)


def rows(query: str, *params: Any) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def empty() -> None:
    """Takes out all jobs and what claims know of them; clients, pools and workers stay."""
    tables = (
        "inbox", "laneturn", "flowturn", "tierturn", "lane", "flow", "jobevent", "attempt", "jobresult",
        "jobrequest", "job",
    )  # fmt: skip
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"delete from llmjobs_{table}")  # noqa: S608 our own names


def check_identity() -> None:
    """vt - lifted + what the inbox still has = what was used, or is charged, by weight. For flows and for tiers."""
    for flow in rows(NEWEST_FLOWS):
        [used] = rows(
            """
            select coalesce(sum(coalesce(a.cost, a.charged) / a.flow_weight), 0) as cost,
                (select coalesce(sum(flow_vt), 0) from llmjobs_inbox where pool_id = %s and client_id = %s) as unfolded
            from llmjobs_attempt a
            join llmjobs_job j on j.id = a.job_id
            where a.pool_id = %s and j.client_id = %s
            """,
            *([flow["pool_id"], flow["client_id"]] * 2),
        )
        assert flow["vt"] - flow["lifted"] + used["unfolded"] == pytest.approx(used["cost"], abs=1e-6), flow
    for tier in rows(NEWEST_TIERS):
        [used] = rows(
            """
            select coalesce(sum(coalesce(cost, charged) / tier_weight), 0) as cost,
                (select coalesce(sum(tier_vt), 0) from llmjobs_inbox where pool_id = %s and tier_id = %s) as unfolded
            from llmjobs_attempt
            where pool_id = %s and tier_id = %s
            """,
            *([tier["pool_id"], tier["tier_id"]] * 2),
        )
        assert tier["vt"] - tier["lifted"] + used["unfolded"] == pytest.approx(used["cost"], abs=1e-6), tier


def check_floors() -> None:
    """No ready lane stands under the floor of its level, or no claim would ever see it."""
    floors = {(tier["pool_id"], tier["tier_id"]): tier["floors"] for tier in rows(NEWEST_TIERS)}
    for lane in rows(NEWEST_LANES):
        if lane["is_ready"]:
            assert lane["vt"] >= floors[lane["pool_id"], lane["tier_id"]][lane["level"]], lane


def check_turns() -> None:
    """One turn a key: the one before was deleted."""
    for table, key in (("laneturn", "lane_id"), ("flowturn", "flow_id"), ("tierturn", "pool_id, tier_id")):
        assert rows(f"select {key} from llmjobs_{table} group by {key} having count(*) > 1") == []  # noqa: S608


def check_counts() -> None:
    """With an empty inbox: running and queued are counted exactly, cursors stand before every queued job."""
    assert rows("select 1 from llmjobs_inbox") == [], "fold first"
    jobs = rows("select pool_id, client_id, tier_id, priority, size, state, lane_order from llmjobs_job")
    queued, running = defaultdict(list), defaultdict(int)
    for job in jobs:
        if job["state"] == "queued":
            queued[job["pool_id"], job["client_id"], job["priority"], job["size"]].append(job["lane_order"])
        if job["state"] == "running":
            running[job["pool_id"], job["client_id"]] += 1
            running["tier", job["pool_id"], job["tier_id"]] += 1
    limits = {
        row["id"]: row
        for row in rows(
            "select c.*, coalesce(c.max_running, t.max_running) as most "
            "from llmjobs_client c join llmjobs_tier t on t.id = c.tier_id"
        )
    }
    is_open = {}
    for flow in rows(NEWEST_FLOWS):
        client, now = limits[flow["client_id"]], running[flow["pool_id"], flow["client_id"]]
        assert flow["running"] == now, flow
        assert flow["tier_id"] == client["tier_id"], flow
        is_open[flow["flow_id"]] = not client["is_paused"] and (client["most"] is None or now < client["most"])
        assert flow["is_open"] == is_open[flow["flow_id"]], flow
    for tier in rows(NEWEST_TIERS):
        assert tier["running"] == running["tier", tier["pool_id"], tier["tier_id"]], tier
    lanes = rows(NEWEST_LANES)
    for lane in lanes:
        mine = queued.pop((lane["pool_id"], lane["client_id"], lane["priority"], lane["size"]), [])
        assert lane["queued"] == len(mine), lane
        assert lane["is_ready"] == (lane["has_heads"] and is_open[lane["flow_id"]]), lane
        if mine:
            assert lane["has_heads"], f"asleep, with {len(mine)} queued: {lane}"
            assert lane["head_order"] <= min(mine), lane
    assert not queued, "queued jobs without a lane"


@dataclass(slots=True)
class FairOrder:
    """The rule of claims, from the turns as they stand: the least tier, its most urgent priority, the least flow, FIFO.

    `follow` takes one claimed job after the other and fails at the first that the rule would not have taken.
    """

    pool: Model
    tier_vt: dict[int, float]
    tier_weight: dict[int, float]
    flow_vt: dict[int, float]
    flow_room: dict[int, float]
    flow_weight: dict[int, float]
    flow_tier: dict[int, int]
    jobs: dict[int, dict[str, Any]]

    @classmethod
    def now(cls, pool: Model, *, short_only: bool = False) -> "FairOrder":
        tiers = [tier for tier in rows(NEWEST_TIERS) if tier["pool_id"] == pool.pk]
        flows = [flow for flow in rows(NEWEST_FLOWS) if flow["pool_id"] == pool.pk]
        clients = {client.pk: client for client in Client.objects.select_related("tier")}

        def room(flow: dict[str, Any]) -> float:
            client = clients[flow["client_id"]]
            most = client.max_running if client.max_running is not None else client.tier.max_running
            return 0 if client.is_paused else float("inf") if most is None else most - flow["running"]

        jobs = rows("select * from llmjobs_job where pool_id = %s and state = 'queued'", pool.pk)
        return cls(
            pool,
            {tier["tier_id"]: tier["vt"] for tier in tiers},
            {tier["tier_id"]: tier["weight"] for tier in tiers},
            {flow["client_id"]: flow["vt"] for flow in flows},
            {flow["client_id"]: room(flow) for flow in flows},
            {pk: client.weight for pk, client in clients.items()},
            {pk: client.tier_id for pk, client in clients.items()},
            {job["id"]: job for job in jobs if not (short_only and job["size"])},
        )

    def admissible(self) -> list[dict[str, Any]]:
        return [job for job in self.jobs.values() if self.flow_room[job["client_id"]] > 0]

    def follow(self, job_ids: Iterable[int]) -> None:
        for job_id in job_ids:
            job = self.jobs[job_id]
            client = job["client_id"]
            tier = self.flow_tier[client]
            candidates = self.admissible()
            least = min(self.tier_vt[self.flow_tier[other["client_id"]]] for other in candidates)
            assert self.tier_vt[tier] <= least + 1e-6, f"tier {tier} at {self.tier_vt[tier]}, another at {least}"
            candidates = [other for other in candidates if self.flow_tier[other["client_id"]] == tier]
            urgent = min(other["priority"] for other in candidates)
            assert job["priority"] == urgent, f"priority {job['priority']} before {urgent}"
            candidates = [other for other in candidates if other["priority"] == urgent]
            least = min(self.flow_vt[other["client_id"]] for other in candidates)
            assert self.flow_vt[client] <= least + 1e-6, (
                f"client {client} at {self.flow_vt[client]}, another at {least}"
            )
            first = min(other["lane_order"] for other in candidates if other["client_id"] == client)
            assert job["lane_order"] == first, "an older job of the same client and priority waits"
            del self.jobs[job_id]
            self.flow_room[client] -= 1
            self.flow_vt[client] += job["est_cost"] / self.flow_weight[client]
            self.tier_vt[tier] += job["est_cost"] / self.tier_weight[tier]

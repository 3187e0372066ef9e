"""What the turns must say, whatever the verbs did: checked against the jobs and the ledger themselves."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import pytest
from django.db import connection

from llmjobs.conf import conf
from llmjobs.fairness import RANKS, Charge, FairPool, Lessons
from llmjobs.fairness import Flow as FairFlow
from llmjobs.fairness import Job as FairJob
from llmjobs.fairness import Lane as FairLane
from llmjobs.fairness import Tier as FairTier
from llmjobs.leases import Claimed
from llmjobs.models import Client, Model, Tier
from llmjobs.states import Priority, Size

TIE = 1e-6  # the last digits of a sum depend on the order of its parts

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
        "webhookdelivery", "handlercall", "jobrequest", "job",
    )  # fmt: skip
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"delete from llmjobs_{table}")  # noqa: S608 our own names
        cursor.execute("update llmjobs_bucketturn set queued = 0, running = 0")


def used_by_attempts() -> list[dict[str, Any]]:
    """What each attempt used or is charged, by weight: what check_identity is to be told of those that are removed."""
    return rows(
        """
        select a.job_id, a.pool_id, j.client_id, a.tier_id, coalesce(a.cost, a.charged) / a.flow_weight as flow_cost,
            coalesce(a.cost, a.charged) / a.tier_weight as tier_cost
        from llmjobs_attempt a
        join llmjobs_job j on j.id = a.job_id
        """
    )


def check_identity(gone: Sequence[dict[str, Any]] = ()) -> None:
    """vt - lifted + what the inbox still has = what was used, or is charged, by weight. For flows and for tiers.

    `gone`: of used_by_attempts, those that were removed with their jobs.
    """
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
        key = flow["pool_id"], flow["client_id"]
        cost = used["cost"] + sum(a["flow_cost"] for a in gone if (a["pool_id"], a["client_id"]) == key)
        assert flow["vt"] - flow["lifted"] + used["unfolded"] == pytest.approx(cost, abs=1e-6), flow
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
        key = tier["pool_id"], tier["tier_id"]
        cost = used["cost"] + sum(a["tier_cost"] for a in gone if (a["pool_id"], a["tier_id"]) == key)
        assert tier["vt"] - tier["lifted"] + used["unfolded"] == pytest.approx(cost, abs=1e-6), tier


def check_floors() -> None:
    """No ready lane stands under the floor of its level, or no claim would ever see it."""
    floors = {
        (tier["pool_id"], tier["tier_id"]): list(zip(tier["floors"], tier["floor_flows"] or [0] * 10, strict=True))
        for tier in rows(NEWEST_TIERS)
    }
    for lane in rows(NEWEST_LANES):
        if lane["is_ready"]:
            floor = floors[lane["pool_id"], lane["tier_id"]][lane["level"]]
            assert (lane["vt"], lane["flow_id"]) >= floor, (lane, floor)


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


def check_dead_letters(discarded: Iterable[int] = ()) -> None:
    """A dead letter for each dead or failed job but those, and it says what the job's end was."""
    letters = rows("select * from llmjobs_deadletter order by job_id")
    ended = rows(
        """
        select j.id as job_id, j.state, coalesce(r.error_code, '') as error_code,
            coalesce(r.error_class, '') as error_class, j.pool_id, j.client_id, j.tier_id
        from llmjobs_job j
        left join llmjobs_jobresult r on r.job_id = j.id
        where j.state in ('dead', 'failed')
        order by j.id
        """
    )
    left_out = set(discarded)
    expected = [letter for letter in ended if letter["job_id"] not in left_out]
    assert [{name: letter[name] for name in letter if name != "since"} for letter in letters] == expected


def check_levels() -> None:
    """After a sweep: a ready lane's level is its priority, raised by what its head has waited, and its size."""
    lanes = rows(
        """
        select l.level, i.priority, i.size, extract(epoch from statement_timestamp() - l.head_at)::float8 as waited_s,
            t.aging_s
        from llmjobs_laneturn l
        join llmjobs_lane i on i.id = l.lane_id
        join llmjobs_tier t on t.id = l.tier_id
        where l.is_ready
        """
    )
    for lane in lanes:
        raised = max(0, int(lane["waited_s"] // lane["aging_s"])) if lane["aging_s"] else 0
        assert lane["level"] == max(0, RANKS[lane["priority"]] - raised) * 2 + lane["size"], lane


def let_pass(seconds: float) -> None:
    """As if so much time had gone by for all that is queued."""
    with connection.cursor() as cursor:
        for table, column, which in (
            ("job", "available_at", "state = 'queued'"),
            ("laneturn", "head_at", "true"),
            ("laneturn", "ages_at", "true"),
            ("inbox", "head_at", "true"),
            ("shardturn", "aged_to", "true"),
        ):
            cursor.execute(
                f"update llmjobs_{table} set {column} = {column} - make_interval(secs => %s) where {which}",  # noqa: S608
                [seconds],
            )
        for table, columns in (
            (
                "bucketturn",
                "requests_at tokens_at moved_at opens_at told_at left_at factor_at blocked_until struck_at "
                "held_until waits_since",
            ),
            ("flowturn", "opens_at"),
            ("shardturn", "opened_to"),
        ):
            earlier = ", ".join(f"{column} = {column} - %(s)s" for column in columns.split())
            cursor.execute(f"update llmjobs_{table} set {earlier}", {"s": seconds})  # noqa: S608 our own names


def fair_pool(pool: Model) -> FairPool:
    """The model, in the state that turns, clients and queued jobs are in. Fold first."""
    weights = {tier.pk: tier for tier in Tier.objects.all()}
    tiers = {
        turn["tier_id"]: FairTier(
            turn["tier_id"],
            turn["weight"],
            weights[turn["tier_id"]].aging_s,
            **{name: turn[name] for name in ("vt", "lifted", "served_vt", "flows_vt")},
        )
        for turn in rows(NEWEST_TIERS)
        if turn["pool_id"] == pool.pk
    }
    model = FairPool(
        tiers.values(), lag_tokens=conf.lag_tokens, max_running=inf if pool.max_running is None else pool.max_running
    )
    clients = {client.pk: client for client in Client.objects.select_related("tier")}
    for turn in rows(NEWEST_FLOWS):
        if turn["pool_id"] == pool.pk:
            client = clients[turn["client_id"]]
            model.add(
                FairFlow(
                    client.pk,
                    tiers[turn["tier_id"]],
                    client.weight,
                    max_running(client),
                    client.is_paused,
                    lessons=Lessons(turn["learned"], turn["cost_ratio"]),
                    **{name: turn[name] for name in ("vt", "lifted", "running")},
                )
            )
    for turn in rows(NEWEST_LANES):
        if turn["pool_id"] == pool.pk:
            lane = FairLane(turn["level"] // 2)
            model.flows[turn["client_id"]].lanes[Priority(turn["priority"]), Size(turn["size"])] = lane
    queued = rows("select * from llmjobs_job where pool_id = %s and state = 'queued' order by lane_order", pool.pk)
    for row in queued:
        job = fair_job(row)
        model.flows[job.client].lane(job).jobs.append(job)
    return model


def fair_job(row: dict[str, Any]) -> FairJob:
    return FairJob(
        row["id"], row["client_id"], row["est_cost"], row["lane_order"], Priority(row["priority"]), Size(row["size"])
    )


def max_running(client: Client) -> float:
    most = client.max_running if client.max_running is not None else client.tier.max_running
    return inf if most is None else most


@dataclass(slots=True)
class FairOrder:
    """Holds a claim against the model, job by job, and then what it wrote."""

    pool: Model
    model: FairPool
    short_only: bool

    @classmethod
    def now(cls, pool: Model, *, short_only: bool = False) -> "FairOrder":
        return cls(pool, fair_pool(pool), short_only)

    def next(self, **options: Any) -> FairJob | None:
        return self.model.next(short_only=self.short_only, **options)

    def follow(self, claimed: Iterable[Claimed]) -> list[Charge]:
        """Starts them in the model. Fails at the first that it would not have started, or charged otherwise."""
        charges = []
        for got in claimed:
            best = self.next()
            assert best is not None, f"job {got.id} was claimed, and nobody may be"
            job = best if best.id == got.id else self._as_good(got.id, best)
            charges.append(self.model.start(job))
            assert charges[-1].cost == pytest.approx(got.charged)
        return charges

    def check(self) -> None:
        """The turns are now what the model has become."""
        after = fair_pool(self.pool)
        for client, flow in self.model.flows.items():
            assert after.flows[client].vt == pytest.approx(flow.vt, abs=TIE), f"flow of client {client}"
            assert after.flows[client].running == flow.running
        for pk, tier in self.model.tiers.items():
            assert after.tiers[pk].vt == pytest.approx(tier.vt, abs=TIE), f"tier {pk}"
            assert after.tiers[pk].served_vt == pytest.approx(tier.served_vt, abs=TIE), f"tier {pk}"
            assert after.tiers[pk].flows_vt == pytest.approx(tier.flows_vt, abs=TIE), f"tier {pk}"

    def _as_good(self, job_id: int, best: FairJob) -> FairJob:
        """The job of that id, where sums that are equal but for their last digits let either be first."""
        heads = [
            (flow, lane) for flow in self.model.flows.values() for lane in flow.lanes.values() if lane.jobs
        ]  # fmt: skip
        found = [(flow, lane) for flow, lane in heads if lane.jobs[0].id == job_id]
        assert found, f"job {job_id} was claimed: it is not the oldest of its lane"
        [(flow, lane)] = found
        first = self.model.flows[best.client]
        if flow.tier is not first.tier:
            assert flow.tier.vt == pytest.approx(first.tier.vt, abs=TIE), f"tier {flow.tier} before {first.tier}"
            best = self.next(tiers={flow.tier.id}) or best
            first = self.model.flows[best.client]
        assert lane.rank == first.lane(best).rank, f"rank {lane.rank} before {first.lane(best).rank}"
        assert flow.vt == pytest.approx(first.vt, abs=TIE), f"client {flow.client} before {first.client}"
        assert flow is not first or best.id == job_id, "an older job of the same client and rank waits"
        return lane.jobs[0]

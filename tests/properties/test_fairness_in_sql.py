"""The SQL against the model: claims of any size from any state, and what each verb makes of virtual times.

Side by side it is one verb at a time, since a fold of many takes them as having happened at once; and aging is off,
since the model has no clock of its own. Failures are not shrunk: that would take minutes of a database.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from llmjobs import queue
from llmjobs.conf import conf
from llmjobs.fairness import Charge, FairPool, Flow
from llmjobs.fairness import Tier as FairTier
from llmjobs.leases import Claimed
from llmjobs.models import Client, Job, Model, Tier
from llmjobs.states import Priority, State
from tests.factories import make_client, make_model
from tests.hands import Hand, hands, submit
from tests.properties.ground import TIE, FairOrder, empty, fair_job, fair_pool, let_pass, rows

pytestmark = pytest.mark.django_db(transaction=True)

PRIORITIES = ["critical", "normal", "background"]
TIERS = ["free", "pro", "enterprise"]
VERBS = ["submit"] * 6 + ["claim"] * 5 + ["settle"] * 4 + ["pause"] * 2 + ["limit", "weigh", "move", "cancel"]
STEPS = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 3), st.integers(0, 11)), min_size=40, max_size=60)
# The third tier, while the other two wait, each with a time of its own.
A_TIER_WAKES = [("submit", who, 0) for who in (1, 1, 2, 2, 2)] + [("claim", 0, 0)] * 2 + [("submit", 0, 0)]
EFFORT = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@dataclass
class Standing:
    """Where a client stands before a claim."""

    tier: str
    weight: float
    vt: float
    cost_ratio: float
    max_running: int | None
    is_paused: bool


STANDINGS = st.builds(
    Standing,
    tier=st.sampled_from(TIERS),
    weight=st.sampled_from([0.5, 1, 3]),
    vt=st.floats(0, 2_000),
    cost_ratio=st.sampled_from([0.25, 1, 4]),
    max_running=st.sampled_from([None, None, None, 1, 3]),
    is_paused=st.sampled_from([False, False, False, True]),
)
# Whose, at which priority, how long, how many, and how much time passes then.
QUEUED = st.tuples(
    st.integers(0, 3),
    st.sampled_from([priority.word for priority in Priority]),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.0, 331.0]),
)


def stand(clients: list[Client], standings: list[Standing], tier_vts: list[float]) -> None:
    """What the last fold left, with these virtual times in its place."""
    for client, standing in zip(clients, standings, strict=True):
        values = [standing.vt, standing.cost_ratio, client.pk]
        execute("update llmjobs_flowturn set vt = %s, cost_ratio = %s where client_id = %s", *values)
    execute("update llmjobs_laneturn l set vt = f.vt from llmjobs_flowturn f where f.flow_id = l.flow_id")
    for name, vt in zip(TIERS, tier_vts, strict=True):
        execute(
            "update llmjobs_tierturn set vt = %s, floors = array_fill(0::float8, array[10]), floor_flows = '{}' "
            "where tier_id = %s",
            vt,
            Tier.objects.get(name=name).pk,
        )


def execute(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def test_a_claim_of_any_size_takes_what_the_model_takes() -> None:
    clients, pool = [make_client(f"c{n}", tier="pro") for n in range(4)], make_model()

    @EFFORT
    @given(
        standings=st.lists(STANDINGS, min_size=4, max_size=4),
        tier_vts=st.lists(st.floats(0, 500), min_size=3, max_size=3),
        queued=st.lists(QUEUED, min_size=4, max_size=12),
        counts=st.lists(st.integers(1, 12), min_size=3, max_size=3),
        short_only=st.booleans(),
    )
    def from_any_state(
        standings: list[Standing], tier_vts: list[float], queued: list[Any], counts: list[int], short_only: bool
    ) -> None:
        empty()
        Tier.objects.update(aging_s=300, max_priority=0)
        for client, standing in zip(clients, standings, strict=True):
            fields = {name: getattr(standing, name) for name in ("weight", "max_running", "is_paused")}
            Client.objects.filter(pk=client.pk).update(tier=Tier.objects.get(name=standing.tier), **fields)
        for who, priority, is_long, count, passes_s in queued:
            submit(Client.objects.get(pk=clients[who].pk), pool, count, priority=priority, long=is_long)
            hand.fold()
            let_pass(passes_s)
        hand.fold()
        stand(clients, standings, tier_vts)
        for count in counts:
            order = FairOrder.now(pool, short_only=short_only)
            claim = hand.claim_once(pool, count, short_only=short_only)
            order.follow(claim.jobs)
            order.check()
            assert claim.again or len(claim.jobs) == count or order.next() is None

    with hands(1) as [hand]:
        from_any_state()


class Both:
    def __init__(self, hand: Hand, pool: Model, clients: list[Client]) -> None:
        self.hand, self.pool, self.clients = hand, pool, clients
        empty()
        Tier.objects.update(aging_s=0, max_priority=0)
        self.tiers = {tier.name: FairTier(tier.pk, tier.weight, aging_s=0) for tier in Tier.objects.all()}
        self.model = FairPool(self.tiers.values(), lag_tokens=conf.lag_tokens)
        self.running: list[tuple[Claimed, Charge]] = []
        for client, name in zip(clients, [*TIERS, "pro"], strict=True):
            self.edit(client, tier=Tier.objects.get(name=name), weight=1, is_paused=False, max_running=None)
            self.model.add(Flow(client.pk, self.tiers[name]))

    def edit(self, client: Client, **fields: Any) -> None:
        Client.objects.filter(pk=client.pk).update(**fields)

    def do(self, verb: str, who: int, number: int) -> None:
        client, pk = self.clients[who], self.clients[who].pk
        match verb:
            case "submit":
                [job] = submit(Client.objects.get(pk=pk), self.pool, priority=PRIORITIES[number % 3], long=number > 5)
                [row] = rows("select * from llmjobs_job where id = %s", job.id)
                self.model.submit(fair_job(row))
            case "claim":
                self.claim()
            case "settle" if self.running:
                self.settle(number)
            case "pause":
                is_paused = not self.model.flows[pk].is_paused
                self.edit(client, is_paused=is_paused)
                self.model.pause(pk, is_paused=is_paused)
            case "limit":
                most = [None, 1, 2][number % 3]
                self.edit(client, max_running=most)
                self.model.limit(pk, inf if most is None else most)
            case "weigh":
                self.edit(client, weight=[0.5, 1, 3][number % 3])
                self.model.weigh(pk, [0.5, 1, 3][number % 3])
            case "move":
                name = TIERS[number % 3]
                self.edit(client, tier=Tier.objects.get(name=name))
                self.model.move(pk, self.tiers[name])
            case "cancel":
                self.cancel(number)

    def claim(self) -> None:
        claimed = self.hand.claim(self.pool)
        charges = FairOrder(self.pool, self.model, short_only=False).follow(claimed)
        assert claimed or self.model.next() is None
        self.running += zip(claimed, charges, strict=True)

    def settle(self, number: int) -> None:
        claimed, charge = self.running.pop(number % len(self.running))
        state = State.COMPLETED if number % 4 else State.FAILED
        cost = charge.job.est_cost * [0, 0.5, 1, 3][number % 4]
        self.hand.settle(claimed, state=state, cost=cost, output_tokens=10 * number)
        self.model.settle(charge, cost, is_lesson=state == State.COMPLETED)

    def cancel(self, number: int) -> None:
        queued = list(Job.objects.filter(state=State.QUEUED).order_by("id").values_list("id", flat=True))
        if queued:
            [job_id] = queue.cancel([queued[number % len(queued)]])
            [row] = rows("select * from llmjobs_job where id = %s", job_id)
            self.model.cancel(fair_job(row))

    def check(self) -> None:
        self.hand.fold()
        found = fair_pool(self.pool)
        for client, flow in found.flows.items():
            expected = self.model.flows[client]
            for name in ("vt", "lifted", "running"):
                assert getattr(flow, name) == pytest.approx(getattr(expected, name), abs=TIE), (client, name)
            assert flow.lessons.cost_ratio == pytest.approx(expected.lessons.cost_ratio)
            assert flow.lessons.weight == expected.lessons.weight
            assert flow.is_ready == expected.is_ready
        for pk, tier in found.tiers.items():
            for name in ("vt", "lifted", "served_vt", "flows_vt"):
                expected_vt = getattr(self.model.tiers[pk], name)
                assert getattr(tier, name) == pytest.approx(expected_vt, abs=TIE), (pk, name)


def test_after_every_verb_the_turns_say_what_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_settings, "LLMJOBS_LAG_TOKENS", 100.0, raising=False)  # less than a job's worth
    clients, pool = [make_client(f"c{n}", tier="pro") for n in range(4)], make_model()

    @settings(EFFORT, max_examples=10)
    @given(STEPS)
    @example(A_TIER_WAKES)
    def side_by_side(steps: list[tuple[int, int, int]]) -> None:
        both = Both(hand, pool, clients)
        for step in steps:
            both.do(*step)
            both.check()

    with hands(1) as [hand]:
        side_by_side()

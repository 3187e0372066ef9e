"""All verbs in any order, on the real Postgres, with a dict as oracle.

After every step: states are those that the oracle expects, the identity of virtual time holds, no ready lane is under
its floor. At every audit: counts, cursors and openness are exact. Every claim follows the fair order, job by job.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmjobs import queue
from llmjobs.leases import Claimed
from llmjobs.models import Client, Job, Model, Tier, Worker
from llmjobs.states import REQUEUEABLE, WAITING, State
from tests.factories import make_client, make_model
from tests.hands import Hand, hands, submit
from tests.properties.ground import (
    FairOrder,
    check_counts,
    check_floors,
    check_identity,
    check_levels,
    check_turns,
    empty,
    let_pass,
)

pytestmark = pytest.mark.django_db(transaction=True)

PRIORITIES = st.sampled_from(["critical", "normal", "background"])
CLIENTS = st.integers(0, 3)
PICKS = st.lists(st.integers(0, 1_000), min_size=1, max_size=4)
ENDS = st.sampled_from([State.COMPLETED, State.FAILED, State.DEAD, State.SCHEDULED, State.QUEUED, State.CANCELLED])


class Verbs(RuleBasedStateMachine):
    hands: list[Hand]
    clients: list[Client]
    pool: Model

    @initialize()
    def begin(self) -> None:
        empty()
        Client.objects.update(is_paused=False, max_running=None, weight=1)
        Model.objects.update(max_running=None)
        Tier.objects.update(weight=1, aging_s=300)
        for client, name in zip(self.clients, ["enterprise", "enterprise", "pro", "free"], strict=True):
            Client.objects.filter(pk=client.pk).update(tier=Tier.objects.get(name=name))
        self.states: dict[int, State] = {}
        self.leases: dict[int, tuple[Hand, Claimed]] = {}
        self.cancels: set[int] = set()

    def client(self, number: int) -> Client:
        return Client.objects.select_related("tier").get(pk=self.clients[number].pk)

    def picked(self, picks: list[int], states: Any) -> list[int]:
        known = sorted(job_id for job_id, state in self.states.items() if state in states)
        return sorted({known[pick % len(known)] for pick in picks}) if known else []

    # What clients and operators do.

    @rule(number=CLIENTS, priority=PRIORITIES, long=st.booleans(), count=st.integers(1, 4), delay=st.booleans())
    def submit(self, number: int, priority: str, long: bool, count: int, delay: bool) -> None:
        client = self.client(number)
        Tier.objects.filter(pk=client.tier_id).update(max_priority=0)
        client.tier.max_priority = 0
        for job in submit(client, self.pool, count, priority=priority, long=long, delay_s=3600 if delay else 0):
            self.states[job.id] = State.SCHEDULED if delay else State.QUEUED

    @rule(picks=PICKS)
    def cancel(self, picks: list[int]) -> None:
        ids = self.picked(picks, set(State))
        changed = queue.cancel(ids)
        expected = []
        for job_id in ids:
            if self.states[job_id] in WAITING:
                self.states[job_id] = State.CANCELLED
                expected.append(job_id)
            elif self.states[job_id] == State.RUNNING and job_id not in self.cancels:
                self.cancels.add(job_id)
                expected.append(job_id)
        assert sorted(changed) == expected

    @rule(picks=PICKS)
    def requeue(self, picks: list[int]) -> None:
        ids = self.picked(picks, set(State))
        expected = [job_id for job_id in ids if self.states[job_id] in REQUEUEABLE]
        assert sorted(queue.requeue(ids)) == expected
        for job_id in expected:
            self.states[job_id] = State.QUEUED
            self.cancels.discard(job_id)

    @rule(number=CLIENTS, paused=st.booleans())
    def pause(self, number: int, paused: bool) -> None:
        Client.objects.filter(pk=self.clients[number].pk).update(is_paused=paused)

    @rule(number=CLIENTS, most=st.sampled_from([None, 1, 2]))
    def limit(self, number: int, most: int | None) -> None:
        Client.objects.filter(pk=self.clients[number].pk).update(max_running=most)

    @rule(number=CLIENTS, weight=st.sampled_from([0.5, 1, 3]))
    def weigh(self, number: int, weight: float) -> None:
        Client.objects.filter(pk=self.clients[number].pk).update(weight=weight)

    @rule(number=CLIENTS, name=st.sampled_from(["free", "pro", "enterprise"]))
    def change_tier(self, number: int, name: str) -> None:
        Client.objects.filter(pk=self.clients[number].pk).update(tier=Tier.objects.get(name=name))

    @rule(most=st.sampled_from([None, 3]))
    def limit_model(self, most: int | None) -> None:
        Model.objects.update(max_running=most)

    @rule(seconds=st.sampled_from([7.0, 331.0, 331.0, 1_000.0]))
    def wait(self, seconds: float) -> None:
        let_pass(seconds)

    @rule(number=st.integers(0, 2), weight=st.sampled_from([1, 5]), aging_s=st.sampled_from([0, 300]))
    def weigh_tier(self, number: int, weight: float, aging_s: float) -> None:
        Tier.objects.filter(name=["free", "pro", "enterprise"][number]).update(weight=weight, aging_s=aging_s)

    # What workers do.

    @rule(worker=st.integers(0, 1), count=st.integers(1, 6), short_only=st.booleans())
    def claim(self, worker: int, count: int, short_only: bool) -> None:
        """Folded first, so that the turns that the claim sees can be read before it."""
        hand, left, exclude, again = self.hands[worker], count, list[int](), True
        claimed: list[Claimed] = []
        hand.fold()
        while left and again:
            order = FairOrder.now(Model.objects.get(), short_only=short_only)
            claim = hand.claim_once(self.pool, left, exclude=exclude, short_only=short_only)
            order.follow(claim.jobs)
            order.check()
            claimed += claim.jobs
            left, again = left - len(claim.jobs), claim.again
        assert not left or order.next() is None, "a slot stays idle while an admissible job waits"
        for job in claimed:
            assert self.states[job.id] == State.QUEUED, "claimed twice"
            self.states[job.id] = State.RUNNING
            self.leases[job.id] = hand, job

    @rule(worker=st.integers(0, 1), count=st.integers(1, 3))
    def claim_as_it_comes(self, worker: int, count: int) -> None:
        for job in self.hands[worker].claim(self.pool, count):
            assert self.states[job.id] == State.QUEUED, "claimed twice"
            self.states[job.id] = State.RUNNING
            self.leases[job.id] = self.hands[worker], job

    @precondition(lambda self: State.RUNNING in self.states.values())
    @rule(picks=PICKS, end=ENDS, factor=st.sampled_from([0, 0.5, 1, 3]))
    def settle(self, picks: list[int], end: State, factor: float) -> None:
        for job_id in self.picked(picks, {State.RUNNING}):
            hand, job = self.leases[job_id]
            is_cancelled = job_id in self.cancels and end in WAITING
            now = State.CANCELLED if is_cancelled else end
            assert hand.settle(job, state=end, cost=job.charged * factor, delay_s=3600.0) == {job_id: now}
            self.states[job_id] = now

    @precondition(lambda self: self.leases)
    @rule(picks=PICKS, end=ENDS)
    def settle_again(self, picks: list[int], end: State) -> None:
        """With the lease of an attempt that is over."""
        over = sorted(job_id for job_id in self.leases if self.states[job_id] != State.RUNNING)
        for job_id in {over[pick % len(over)] for pick in picks} if over else ():
            hand, job = self.leases[job_id]
            assert hand.settle(job, state=end).get(job_id) in (None, "settled")

    @rule(picks=PICKS)
    def stage(self, picks: list[int]) -> None:
        ids = self.picked(picks, {State.SCHEDULED})
        Job.objects.filter(id__in=ids).update(available_at=timezone.now())
        assert sorted(wake.job_id for wake in self.hands[0].stage()) == ids
        self.states.update(dict.fromkeys(ids, State.QUEUED))

    @rule(picks=PICKS)
    def expire(self, picks: list[int]) -> None:
        ids = self.picked(picks, WAITING)
        Job.objects.filter(id__in=ids).update(expires_at=timezone.now())
        assert sorted(wake.job_id for wake in self.hands[0].expire()) == ids
        self.states.update(dict.fromkeys(ids, State.EXPIRED))

    @rule(worker=st.integers(0, 1))
    def reclaim(self, worker: int) -> None:
        dead = self.hands[worker]
        Worker.objects.update(heartbeat_at=timezone.now())
        Worker.objects.filter(id=dead.worker).update(heartbeat_at=timezone.now() - timedelta(hours=1))
        held = [
            job_id for job_id, state in self.states.items() if state == State.RUNNING and self.leases[job_id][0] is dead
        ]
        assert sorted(wake.job_id for wake in self.hands[1 - worker].reclaim()) == sorted(held)
        Worker.objects.update(heartbeat_at=timezone.now())
        for job in Job.objects.filter(id__in=held):
            allowed = {State.CANCELLED} if job.id in self.cancels else {State.SCHEDULED, State.DEAD}
            assert job.state in allowed
            self.states[job.id] = State(job.state)

    @rule()
    def audit(self) -> None:
        self.hands[0].fold()
        check_counts()
        check_turns()
        check_levels()

    @invariant()
    def states_are_those_expected(self) -> None:
        assert dict(Job.objects.values_list("id", "state")) == self.states

    @invariant()
    def virtual_time_is_what_was_used(self) -> None:
        check_identity()

    @invariant()
    def no_ready_lane_is_under_its_floor(self) -> None:
        check_floors()


def test_any_order_of_verbs_keeps_every_law(settings: Any) -> None:
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    settings.LLMJOBS_BACKOFF_BASE_S = 3_600  # what was reclaimed waits until it is staged
    settings.LLMJOBS_BACKOFF_CAP_S = 3_600
    Verbs.clients = [make_client(f"c{n}", tier="enterprise") for n in range(4)]
    Verbs.pool = make_model()
    with hands(2) as Verbs.hands:
        run_state_machine_as_test(Verbs, settings=EFFORT)


EFFORT = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
